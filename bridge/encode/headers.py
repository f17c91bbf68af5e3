"""The headers of a record: CloudEvents 1.0 in Kafka's binary mode, and its place in the callback.

Every value is UTF-8. Each record of a callback names it (``bridge_callback``) and its place in it
(``bridge_position``, ``3/10``), quarantined items counted like the others, so that anyone can show that a
callback is whole.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from bridge.headers import (
    CALLBACK,
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    POSITION,
    QUARANTINE_DETAIL,
    QUARANTINE_PATH,
    QUARANTINE_REASON,
    RECEIVED_AT,
    TRACEPARENT,
)
from bridge.report.event import StatusEvent
from bridge.report.report import Quarantined
from bridge.report.symbols import Status

Header = tuple[str, bytes]

SPECVERSION: Final[Header] = (CE_SPECVERSION, b"1.0")
CE_TYPES: Final[dict[Status, Header]] = {
    status: (CE_TYPE, f"chatapp.status.{status.lower()}".encode()) for status in Status
}


class CallbackHeaders:
    """Makes the headers of one callback's records; what they share is made once.

    Args:
        source: the name of this account's callback, as ``ce_source``.
        content_type: of the events' values.
        callback_id: unique over replicas and restarts.
        received_at_ms: when the callback was received, milliseconds since the epoch.
        total: how many items the callback held, events and quarantined.
        traceparent: the request's, if it had one.
    """

    def __init__(
        self,
        *,
        source: bytes,
        content_type: bytes,
        callback_id: str,
        received_at_ms: int,
        total: int,
        traceparent: bytes | None,
    ) -> None:
        callback: Header = (CALLBACK, callback_id.encode())
        self._received_at_ms: Final = received_at_ms
        self._source: Final[Header] = (CE_SOURCE, source)
        self._time: Final[Header] = (CE_TIME, rfc3339(received_at_ms))
        self._content_type: Final[Header] = (CONTENT_TYPE, content_type)
        self._callback: Final = callback
        self._event_tail: Final = [callback] if traceparent is None else [(TRACEPARENT, traceparent), callback]
        self._received_at: Final[Header] = (RECEIVED_AT, b"%d" % received_at_ms)
        self._total: Final = total

    @property
    def common(self) -> tuple[Header, Header, Header, Header, list[Header], int, int]:
        """What events' headers share.

        Those before the last ones, by name: ``ce_specversion``, ``ce_source``, ``ce_time``, ``content-type``; those from there to
        the position; the number of items; when they were received, milliseconds since the epoch.
        """
        return (
            SPECVERSION, self._source, self._time, self._content_type, self._event_tail, self._total, self._received_at_ms
        )  # fmt: skip

    def of_event(self, event: StatusEvent, message_id: bytes, position: int) -> list[Header]:
        """An event's headers; ``message_id`` is its MessageId encoded, ``position`` counts from 1."""
        return [
            SPECVERSION,
            (CE_ID, event.event_id.encode()),
            self._source,
            CE_TYPES[event.status],
            self._time,
            (CE_SUBJECT, message_id),
            self._content_type,
            *self._event_tail,
            self._position(position),
        ]

    def of_quarantined(self, item: Quarantined, position: int) -> list[Header]:
        """A quarantined item's headers, the reason first; ``received_at`` is epoch milliseconds in digits."""
        return [
            (QUARANTINE_REASON, item.reason.encode()),
            (QUARANTINE_DETAIL, item.detail.encode()),
            (QUARANTINE_PATH, item.path.encode()),
            self._callback,
            self._position(position),
            self._received_at,
        ]

    def _position(self, position: int) -> Header:
        return (POSITION, b"%d/%d" % (position, self._total))


def rfc3339(time_ms: int) -> bytes:
    """A time in UTC with milliseconds, ``2023-08-03T06:20:38.000Z``."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return b"%s.%03dZ" % (_to_the_second(seconds), milliseconds)


# Callbacks of one second share it, and it costs as much as all the rest of their headers.
@lru_cache(maxsize=4)
def _to_the_second(time: int) -> bytes:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%S}".encode()
