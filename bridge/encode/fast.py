"""The fast path: the compiled encoder (``bridge/_compiled.pyx``) of reports that need no decision; others take the slow path."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from bridge.compiled import COMPILED, module
from bridge.encode.headers import CE_TYPES, CallbackHeaders
from bridge.encode.values import ValueFormat
from bridge.record import Record
from bridge.report.catalogue import NO_ERROR, UNKNOWN_ERROR
from bridge.report.event import MessageTimeSource, Status, status_rank
from bridge.report.report import error_of, normalized
from bridge.schemas import written_schema

FastEncoder: TypeAlias = Callable[[list[msgspec.Raw], CallbackHeaders], tuple[list[Record | None], list[str | None]]]
"""The record of each item and its status, both None where it needs the slow path."""


def fast_encoder(
    topic: str, values: ValueFormat, *, overhead_bytes: int, header_bytes: int, max_record_bytes: int
) -> FastEncoder | None:
    """An encoder of reports on the fast path; None where none was compiled.

    Args:
        topic: where events go.
        values: how an event becomes a value.
        overhead_bytes: of a record, beside its key, value and headers.
        header_bytes: of a header, beside its name and value.
        max_record_bytes: a report whose record could be larger is left to others.

    Raises:
        ValueError: it was compiled for another schema.
    """
    if not COMPILED:
        return None
    encoder = module.FastEncoder(
        _layout(),
        avro=values.avro,
        head=values.head,
        statuses={
            spelled: (status_rank(status), status.value, CE_TYPES[status], status.value.casefold().encode())
            for status in Status
            if status is not Status.UNKNOWN
            for spelled in (status.value.capitalize(), status.value.casefold(), status.value)
        },
        failed=Status.FAILED.value,
        no_error=(NO_ERROR.category.value, NO_ERROR.retry.value),
        unknown_error=(UNKNOWN_ERROR.category.value, UNKNOWN_ERROR.retry.value),
        error_of=_error_of,
        normalize=normalized,
        sources=(MessageTimeSource.PROVIDER.value, MessageTimeSource.RECEIVED.value),
        topic=topic,
        schema=values.schema,
        overhead_bytes=overhead_bytes,
        header_bytes=header_bytes,
        max_record_bytes=max_record_bytes,
    )

    def encode(items: list[msgspec.Raw], headers: CallbackHeaders) -> tuple[list[Record | None], list[str | None]]:
        return encoder.records(items, headers.common)

    return encode


def _error_of(error_code: str | None, description: str | None, failed: bool) -> tuple[str | None, str, str]:
    code, meaning = error_of(error_code, description, failed=failed)
    return code, meaning.category.value, meaning.retry.value


def _layout() -> list[tuple[str, str, bool, list[str]]]:
    """Name, kind, nullable and symbols of each field, by the Avro schema, whose order is the event's."""
    text, _ = written_schema()
    return [(field["name"], *_kind(field["type"])) for field in json.loads(text)["fields"]]


def _kind(of: Any) -> tuple[str, bool, list[str]]:
    match of:
        case ["null", inner]:
            kind, _, symbols = _kind(inner)
            return kind, True, symbols
        case {"type": "enum", "symbols": symbols}:
            return "symbol", False, symbols
        case {"type": inner}:
            return _kind(inner)
        case _:
            return {"string": "text", "boolean": "boolean", "int": "number", "long": "number"}[of], False, []
