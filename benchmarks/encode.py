"""What a value costs: ``python benchmarks/encode.py``.

Encodes the events of the provider's own page and of a long failure, several ways, in turns in the same run, and prints
microseconds a record (the thread's processor time, the best of the rounds) beside their ratio to the writer that the bridge
has for Avro. Ratios are to be compared, not the figures.
"""

import argparse
import dataclasses
import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import fastavro

from bridge.encode.avro import compile_writer
from bridge.encode.json import encode_event
from bridge.report.event import StatusEvent
from bridge.report.report import Report, read_body
from bridge.schemas import written_schema

_FULL = {
    "MessageId": "cams-1-20230803062038-000000000001",
    "TaskId": "task-20230803-00000000000000001",
    "From": "15550000001",
    "To": "15550000002",
    "OriginPhoneNumber": "15550000001",
    "Timestamp": 1691043638000,
    "Status": "Read",
    "ConversationType": "utility",
    "ConversationId": "d4e3a4c34d6f4f2f9f8c81a9b7cfc2a1",
    "ConversationExpirationTime": 1691130038000,
    "MsgFrameType": "TEMPLATE",
    "Type": "IMAGE",
    "TemplateCode": "744c4b5c79c9432497a075bdfca36bf5",
    "TemplateName": "order_notice",
    "Language": "en",
}
_BODIES = {
    "a read receipt, every field": _FULL,
    "a sent receipt, few fields": {key: _FULL[key] for key in ("MessageId", "To", "Timestamp")} | {"Status": "Sent"},
    "a failure, with words": _FULL
    | {
        "Status": "Failed",
        "ErrorCode": 131026,
        "ErrorDescription": "Message undeliverable: " + "it was refused. " * 20,
    },
}
_RECEIVED_AT_MS = 1_764_000_000_123
_GENERATED = "generated writer"


@dataclasses.dataclass
class _Way:
    """One way to encode, and its times, in microseconds a record."""

    encode: Callable[[StatusEvent], bytes]
    times: list[float] = dataclasses.field(default_factory=list)


def _event_of(report: dict[str, Any]) -> StatusEvent:
    (item,) = read_body(json.dumps([report]).encode(), _RECEIVED_AT_MS)
    assert isinstance(item, Report)  # noqa: S101 - made above
    return item.event


def _by_fastavro(schema: Any) -> Callable[[StatusEvent], bytes]:
    names = StatusEvent.__struct_fields__

    def encode(event: StatusEvent) -> bytes:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, schema, {name: getattr(event, name) for name in names})
        return stream.getvalue()

    return encode


def _measure(encode: Callable[[StatusEvent], bytes], event: StatusEvent, count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        encode(event)
    return (time.thread_time() - began) / count * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=5000, help="records a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    schema = json.loads(written_schema().text)
    for name, body in _BODIES.items():
        event = _event_of(body)
        ways = {
            _GENERATED: _Way(compile_writer(schema)),
            "fastavro": _Way(_by_fastavro(fastavro.parse_schema(schema))),
            "JSON (msgspec)": _Way(encode_event),
        }
        for _ in range(options.rounds):
            for way in ways.values():
                way.times.append(_measure(way.encode, event, options.count))
        print(f"{name}:")
        for label, way in ways.items():
            ratio = statistics.median(
                mine / generated for mine, generated in zip(way.times, ways[_GENERATED].times, strict=True)
            )
            size = len(way.encode(event))
            print(f"  {label:<18} {min(way.times):6.2f} µs  {ratio:5.2f} times  {size:5} bytes")


if __name__ == "__main__":
    main()
