"""The cases of ``tests/golden``: what a body becomes, written from the provider's page; its README says how to read them."""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path(__file__).parents[1] / "golden"
SINGLE_OBJECT_MARK = b"\xc3\x01"


class GoldenRecord(NamedTuple):
    """A record as it has to be; ``raw`` is the value of a quarantined one, ``value`` and ``avro`` are an event."""

    topic: str
    open: frozenset[str]
    key: str | None
    headers: dict[str, str]
    event_id_of: tuple[str, ...]
    value: dict[str, Any]
    avro: bytes
    avro_before_extras: bytes
    framed: dict[str, Any]
    raw: bytes


class GoldenCase(NamedTuple):
    """A body, how it is received, and the records that come of it."""

    name: str
    body: bytes
    received_at: int
    callback: str
    source: str
    max_record_bytes: int
    records: list[GoldenRecord]

    @property
    def events(self) -> list[GoldenRecord]:
        """The records that are events."""
        return [record for record in self.records if record.topic == "status"]


def golden_cases() -> list[GoldenCase]:
    """Every case, by name."""
    return [_case(path) for path in sorted(DIRECTORY.glob("*.json"))]


def _case(path: Path) -> GoldenCase:
    case = json.loads(path.read_text())
    return GoldenCase(
        name=path.stem,
        body=_bytes(case, "body"),
        received_at=case["received_at"],
        callback=case["callback"],
        source=case["source"],
        max_record_bytes=case.get("max_record_bytes", 1 << 20),
        records=[_record(record) for record in case["records"]],
    )


def _record(record: dict[str, Any]) -> GoldenRecord:
    lines = [_line(line) for line in record.get("avro", [])]
    return GoldenRecord(
        topic=record["topic"],
        open=frozenset(record.get("open", [])),
        key=record.get("key"),
        headers=record["headers"],
        event_id_of=tuple(record.get("event_id_of", [])),
        value=record.get("value", {}),
        avro=b"".join(lines),
        avro_before_extras=b"".join(lines[:-1]),
        framed=record.get("framed", {}),
        raw=_bytes(record, "raw") if record["topic"] == "quarantine" else b"",
    )


def _bytes(found: dict[str, str], name: str) -> bytes:
    """Text, or base64 where it is no text."""
    return found[name].encode() if name in found else base64.b64decode(found[f"{name}_base64"])


def _line(line: str) -> bytes:
    """Hex with blanks, and a comment."""
    return bytes.fromhex(line.partition("#")[0])
