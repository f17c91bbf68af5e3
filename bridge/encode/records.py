"""From what a body held to the Kafka records that say so: one record an item, in the items' order."""

from collections.abc import Iterable
from typing import Final, NamedTuple, cast

from bridge.encode.fast import fast_encoder
from bridge.encode.headers import CallbackHeaders
from bridge.encode.values import JSON, ValueFormat
from bridge.record import Record
from bridge.report.catalogue import Catalogue, shipped_catalogue
from bridge.report.report import (
    Item,
    Quarantined,
    Reason,
    Report,
    read_body,
    read_item,
    split_for_fast_path,
    too_many_items,
)

MAX_QUARANTINE_KEY_BYTES: Final = 1024
"""A longer MessageId is no key in the quarantine: it is in the value anyhow, and would double the record."""

QUARANTINE_HEAD_BYTES: Final = 4096
"""No fewer bytes than a quarantined record takes beside its value: its key, its headers and the batch's head."""

# Of the format of a batch (v2): its head; then of a record, attributes, time and offset deltas and four
# lengths; of a header, two lengths. Every varint is counted at the most it can take.
_BATCH_BYTES: Final = 61
_RECORD_BYTES: Final = 1 + 10 + 5 + 4 * 5
_HEADER_BYTES: Final = 2 * 5
# What the id of a value's schema takes before it.
_SCHEMA_ID_BYTES: Final = 5


def record_bytes_bound(record: Record) -> int:
    """No fewer bytes than the record takes uncompressed, in a batch of its own."""
    headers = sum(_HEADER_BYTES + len(name) + len(value) for name, value in record.headers)
    schema_id = 0 if record.schema is None else _SCHEMA_ID_BYTES
    return _BATCH_BYTES + _RECORD_BYTES + len(record.key or b"") + schema_id + len(record.value) + headers


class Encoded(NamedTuple):
    """What became of a callback's body: a record an item, in their order."""

    records: list[Record]
    #: Of each item the event's status; None of one that was not understood.
    statuses: list[str | None]
    #: Reason and path of each record that is quarantined, in their order.
    faults: list[tuple[str, str]]
    #: How many took the fast path.
    fast: int


class RecordEncoder:
    """Makes the records of a callback.

    Args:
        status_topic: where events go.
        quarantine_topic: where what was not understood goes; its records may be a body and ``QUARANTINE_HEAD_BYTES`` large.
        source: the name of this account's callback, as ``ce_source``.
        max_record_bytes: an event whose record could be larger is quarantined as ``too_large`` instead.
        values: how an event becomes a value.
        catalogue: of error codes; None for the one that the bridge comes with.
        max_items: a body with more is quarantined whole; None: no limit.
    """

    def __init__(
        self,
        status_topic: str,
        quarantine_topic: str,
        source: str,
        max_record_bytes: int,
        values: ValueFormat = JSON,
        *,
        catalogue: Catalogue | None = None,
        max_items: int | None = None,
    ) -> None:
        self._max_items: Final = max_items
        self._status_topic: Final = status_topic
        self._quarantine_topic: Final = quarantine_topic
        self._source: Final = source.encode()
        self._max_record_bytes: Final = max_record_bytes
        self._values: Final = values
        self._catalogue: Final = catalogue or shipped_catalogue()
        self._fast: Final = fast_encoder(
            status_topic,
            values,
            self._catalogue,
            overhead_bytes=_BATCH_BYTES + _RECORD_BYTES + _SCHEMA_ID_BYTES * (values.schema is not None),
            header_bytes=_HEADER_BYTES,
            max_record_bytes=max_record_bytes,
        )

    def encode_body(self, body: bytes, *, callback_id: str, received_at_ms: int, traceparent: bytes | None) -> Encoded:
        """The records of a whole body, whatever it holds; see :func:`bridge.report.report.read_body`.

        Where there is a compiled encoder it makes those of reports on the fast path, the same to the byte.
        """
        oversized: Item | None = None if self._max_items is None else too_many_items(body, self._max_items)
        split = split_for_fast_path(body) if self._fast is not None and oversized is None else None
        if self._fast is None or split is None:
            items = [oversized] if oversized is not None else read_body(body, received_at_ms, self._catalogue)
            made = self.encode(items, callback_id=callback_id, received_at_ms=received_at_ms, traceparent=traceparent)
            return Encoded(made, [_status_in(item) for item in items], self.quarantined(made), fast=0)
        texts, exact_texts = split
        headers = self._headers(callback_id, received_at_ms, len(texts), traceparent)
        records, statuses = self._fast(texts, headers)
        if all(records):
            return Encoded(cast("list[Record]", records), statuses, [], len(records))
        others = [index for index, record in enumerate(records) if record is None]
        exact = texts if exact_texts is None else exact_texts()
        for index in others:
            item = read_item(bytes(exact[index]), index, received_at_ms, self._catalogue)
            records[index] = self._record(item, headers, index + 1, received_at_ms)
            statuses[index] = _status_in(item)
        whole = cast("list[Record]", records)
        return Encoded(whole, statuses, self.quarantined(whole), fast=len(records) - len(others))

    def encode(
        self,
        items: list[Item],
        *,
        callback_id: str,
        received_at_ms: int,
        traceparent: bytes | None,
    ) -> list[Record]:
        """One record an item, in their order; a record's topic tells an event from a quarantined item."""
        headers = self._headers(callback_id, received_at_ms, len(items), traceparent)
        return [self._record(item, headers, position, received_at_ms) for position, item in enumerate(items, 1)]

    def _headers(self, callback_id: str, received_at_ms: int, total: int, traceparent: bytes | None) -> CallbackHeaders:
        return CallbackHeaders(
            source=self._source,
            content_type=self._values.content_type,
            callback_id=callback_id,
            received_at_ms=received_at_ms,
            total=total,
            traceparent=traceparent,
        )

    def _record(self, item: Item, headers: CallbackHeaders, position: int, received_at_ms: int) -> Record:
        if isinstance(item, Report):
            return self._event(item, headers, position, received_at_ms)
        return self._quarantined(item, headers, position, received_at_ms)

    def quarantined(self, records: Iterable[Record]) -> list[tuple[str, str]]:
        """Reason and path of each record that is quarantined, in their order; all others are events."""
        return [
            (record.headers[0][1].decode(), record.headers[2][1].decode())
            for record in records
            if record.topic == self._quarantine_topic
        ]

    def _event(self, report: Report, headers: CallbackHeaders, position: int, received_at_ms: int) -> Record:
        event = report.event
        key = event.message_id.encode()
        record = Record(
            topic=self._status_topic,
            key=key,
            value=self._values.encode(event),
            headers=headers.of_event(event, key, position),
            timestamp_ms=received_at_ms,
            schema=self._values.schema,
        )
        if record_bytes_bound(record) <= self._max_record_bytes:
            return record
        detail = "The event is larger than a record may be."
        item = Quarantined(report.raw, Reason.TOO_LARGE, detail, report.path, event.message_id)
        return self._quarantined(item, headers, position, received_at_ms)

    def _quarantined(self, item: Quarantined, headers: CallbackHeaders, position: int, received_at_ms: int) -> Record:
        key = None if item.message_id is None else item.message_id.encode()
        return Record(
            topic=self._quarantine_topic,
            key=None if key is None or len(key) > MAX_QUARANTINE_KEY_BYTES else key,
            value=item.raw,
            headers=headers.of_quarantined(item, position),
            timestamp_ms=received_at_ms,
        )


def _status_in(item: Item) -> str | None:
    return item.event.status.value if isinstance(item, Report) else None
