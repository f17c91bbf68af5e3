"""A quarantined record through today's decoder: the events that it should have been, and what still is none."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from confluent_kafka import Message

from bridge.config import Settings
from bridge.consume import Decoder, Undecodable
from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.errors import RegistryError
from bridge.headers import CALLBACK, POSITION, QUARANTINE_DETAIL, QUARANTINE_REASON, RECEIVED_AT, REDRIVE
from bridge.operate.reading.events import decoder_of
from bridge.operate.reading.select import header
from bridge.record import Record
from bridge.registry.client import RegistryClient
from bridge.report.catalogue import load_catalogue
from bridge.report.report import Item, Reason, Report, read_body
from bridge.schemas import known_schemas, written_schema

_KEPT: Final = (CALLBACK, POSITION)
# A time in milliseconds has no more digits until 2286.
_TIME_DIGITS: Final = 13


class Event(NamedTuple):
    """An item that is understood now: its place in the record's bytes, and its record on the status topic."""

    path: str
    record: Record


class Failing(NamedTuple):
    """An item that is still not understood."""

    path: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}: {self.detail}"


Redecoded: TypeAlias = Event | Failing


class Redecoder:
    """Today's decoder and encoder.

    Args:
        settings: the whole configuration.
        run: the id that marks what is published.
        max_record_bytes: of the status topic.

    Raises:
        ConfigurationError: the operator's own error codes can't be used.
        RegistryError: the registry does not give the schema's id.
    """

    def __init__(self, settings: Settings, run: str, max_record_bytes: int) -> None:
        registry = bool(settings.registry.url)
        self._catalogue = load_catalogue(settings.events.own_error_codes)
        self._encoder = RecordEncoder(
            settings.topics.status,
            settings.topics.quarantine,
            settings.events.source,
            max_record_bytes,
            value_format(settings.events.format, registry=registry),
            catalogue=self._catalogue,
        )
        # What the registry's id of the schema makes of bare Avro.
        self._frame = asyncio.run(_frame(settings)) if registry and settings.events.format == "avro" else b""
        self._status_topic = settings.topics.status
        self._run: Final = (REDRIVE, run.encode())
        self._decoder = decoder_of(settings, settings.topics.status) or Decoder()

    def items(self, message: Message) -> list[Redecoded]:
        """What a record of the quarantine holds today, at least one; each path is there once."""
        value = message.value()
        if not value:
            return [Failing("$", "empty", "The record has no value.")]
        received_at_ms = _received_at(message)
        items = self._read(message, value, received_at_ms)
        if not items:
            return [Failing("$", "empty", "There is no item in it.")]
        headers: Any = message.headers()
        records = self._encoder.encode(items, callback_id="", received_at_ms=received_at_ms, traceparent=None)
        kept = [(name, found) for name in _KEPT if (found := header(headers, name)) is not None]
        return list(self._redecoded(items, records, kept))

    def _read(self, message: Message, value: bytes, received_at_ms: int) -> list[Item]:
        items = read_body(value, received_at_ms, self._catalogue)
        headers: Any = message.headers()
        if header(headers, QUARANTINE_REASON) == Reason.TOO_LARGE.encode() and not any(
            isinstance(i, Report) for i in items
        ):
            # Where the broker found it too large, it is the event that is kept.
            try:
                return [Report(self._decoder.decode(value), value, "$")]
            except Undecodable:
                pass
        return items

    def _redecoded(
        self, items: list[Item], records: list[Record], kept: list[tuple[str, bytes]]
    ) -> Iterator[Redecoded]:
        for item, record in zip(items, records, strict=True):
            if record.topic != self._status_topic:
                named = dict(record.headers)
                yield Failing(item.path, named[QUARANTINE_REASON].decode(), named[QUARANTINE_DETAIL].decode())
                continue
            headers = [(name, value) for name, value in record.headers if name not in _KEPT]
            yield Event(
                item.path,
                Record(
                    record.topic,
                    record.key,
                    self._frame + record.value,
                    [*headers, *kept, self._run],
                    record.timestamp_ms,
                ),
            )


async def _frame(settings: Settings) -> bytes:
    """Confluent's frame for the present schema.

    Raises:
        RegistryError: the registry does not give the id.
    """
    topic, fingerprint = settings.topics.status, written_schema().fingerprint
    async with RegistryClient(settings.registry) as client:
        for schema in known_schemas():
            # Several releases may have the same, but for what is said about it.
            if schema.fingerprint == fingerprint:
                number = await client.lookup(f"{topic}-value", schema.text)
                if number is not None:
                    return b"\x00" + number.to_bytes(4, "big")
    raise RegistryError(
        f"the registry has no schema of this release for subject {topic}-value, so nobody could read what would be published; "
        "register it: chatapp-bridge schema register"
    )


def _received_at(message: Message) -> int:
    """When the callback was received: as its header says, else the record's time."""
    headers: Any = message.headers()
    digits = (header(headers, RECEIVED_AT) or b"").decode(errors="replace")
    if digits.isascii() and digits.isdecimal() and len(digits) <= _TIME_DIGITS:
        return int(digits)
    return max(0, message.timestamp()[1])  # type: ignore[no-any-return]
