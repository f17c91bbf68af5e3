"""The JSON value of a record: every field of the event, nulls included, times as epoch milliseconds."""

from typing import Final

import msgspec

from bridge.report.event import StatusEvent

CONTENT_TYPE: Final = b"application/json"

_encode: Final = msgspec.json.Encoder().encode


def encode_event(event: StatusEvent) -> bytes:
    """One JSON object, UTF-8, its fields in the order of :class:`StatusEvent`."""
    return _encode(event)
