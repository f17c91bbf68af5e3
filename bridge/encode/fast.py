"""The fast path: the compiled encoder (``bridge/_compiled.pyx``) of reports that need no decision.

Others take the slow path: a status that is not documented, a name in another spelling, a value of another type.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from bridge.compiled import COMPILED, module
from bridge.encode.headers import CE_TYPES, CallbackHeaders
from bridge.encode.values import ValueFormat
from bridge.record import Record
from bridge.report.catalogue import NO_ERROR, UNKNOWN_ERROR, Catalogue
from bridge.report.fields import FIELDS, Field
from bridge.report.report import Items, unknown_name
from bridge.report.symbols import ENUMERATIONS, STATUSES, MessageTimeSource, Status, status_rank
from bridge.report.values import error_of, word

FastEncoder: TypeAlias = Callable[[Items, CallbackHeaders], tuple[list[Record | None], list[str | None]]]
"""The record of each item and its status, both None where it needs the slow path."""


def fast_encoder(
    topic: str,
    values: ValueFormat,
    catalogue: Catalogue,
    *,
    overhead_bytes: int,
    header_bytes: int,
    max_record_bytes: int,
) -> FastEncoder | None:
    """An encoder of reports on the fast path; None where none was compiled.

    Args:
        topic: where events go.
        values: how an event becomes a value.
        catalogue: of error codes.
        overhead_bytes: of a record, beside its key, value and headers.
        header_bytes: of a header, beside its name and value.
        max_record_bytes: a report whose record could be larger is left to others.

    Raises:
        ValueError: the event has more fields, or longer names, than there is room for.
    """
    if not COMPILED:
        return None

    def meaning_of(wire_code: str | None, description: str | None, failed: bool) -> tuple[str | None, str, str]:
        status = Status.FAILED if failed else Status.SENT  # any of those that did not fail
        code, meaning = error_of(wire_code, description, status, catalogue)
        return code, meaning.category.value, meaning.retry.value

    encoder = module.FastEncoder(
        [_layout(field) for field in FIELDS],
        [(name, field.name, _reading(field)) for field in FIELDS for name in field.wire],
        avro=values.avro,
        head=values.head,
        statuses={
            spelled: (status_rank(status), status.value, CE_TYPES[status], wire.encode())
            for wire, status in STATUSES.items()
            for spelled in (wire, wire.capitalize(), wire.upper())
        },
        failed=Status.FAILED.value,
        no_error=(NO_ERROR.category.value, NO_ERROR.retry.value),
        unknown_error=(UNKNOWN_ERROR.category.value, UNKNOWN_ERROR.retry.value),
        error_of=meaning_of,
        word=word,
        unknown_name=unknown_name,
        sources=(MessageTimeSource.PROVIDER.value, MessageTimeSource.RECEIVED.value),
        topic=topic,
        schema=values.schema,
        overhead_bytes=overhead_bytes,
        header_bytes=header_bytes,
        max_record_bytes=max_record_bytes,
    )

    def encode(items: Items, headers: CallbackHeaders) -> tuple[list[Record | None], list[str | None]]:
        return encoder.records(items, headers.common)

    return encode


def _reading(field: Field) -> str:
    return "time" if field.is_time else "word" if field.is_word else "text"


_KINDS: Final = {"string": "text", "boolean": "boolean", "int": "number", "timestamp": "number"}


def _layout(field: Field) -> tuple[str, str, bool, list[str]]:
    """Name, kind, nullable and symbols of a field."""
    symbols = [symbol.value for symbol in ENUMERATIONS.get(field.base_type, ())]
    return field.name, _KINDS.get(field.base_type, "symbol"), field.is_nullable, symbols
