"""``tests/golden``, which other languages test their decoders against: the cases agree with each other and with the bridge."""

import hashlib
import json
import re
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from support.golden import DIRECTORY, SINGLE_OBJECT_MARK, GoldenCase, GoldenRecord, golden_cases

from bridge.consume import Decoder
from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.record import Record

AVRO = Path(__file__).parents[2] / "avro"
# The cases are of the first release; what the bridge writes today may have more fields.
SCHEMA = (AVRO / "releases/1.avsc").read_text()
WRITTEN = (AVRO / "status-event.avsc").read_text()
FIELDS = [field["name"] for field in json.loads(SCHEMA)["fields"]]


def without_times(schema: str) -> Any:
    """With which times are read as the numbers that they are."""
    return fastavro.parse_schema(json.loads(schema.replace('"logicalType"', '"was"')))


def canonical(schema: str) -> str:
    """Of which data depend, and a fingerprint."""
    return fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(json.loads(schema)))


OF_THE_CASES, OF_TODAY = without_times(SCHEMA), without_times(WRITTEN)
SAME = canonical(SCHEMA) == canonical(WRITTEN)

CASES = golden_cases()
EVENTS = [
    pytest.param(record, id=f"{case.name}-{position}") for case in CASES for position, record in enumerate(case.events)
]
FRAMED = [record for case in CASES for record in case.events if record.framed]
SCHEMA_ID = 7


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "python"])
@pytest.mark.parametrize("name", ["json", "avro"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_bridge_makes_exactly_these_records(
    case: GoldenCase, name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the body, in both formats, with the compiled part and without."""
    if not compiled:
        monkeypatch.setattr("bridge.encode.fast.COMPILED", False)
    values = value_format("avro" if name == "avro" else "json", registry=True)
    encoder = RecordEncoder("status", "quarantine", case.source, case.max_record_bytes, values)
    made = encoder.encode_body(
        case.body, callback_id=case.callback, received_at_ms=case.received_at, traceparent=None
    ).records
    assert [record.topic for record in made] == [record.topic for record in case.records]
    for record, expected in zip(made, case.records, strict=True):
        assert record.timestamp_ms == case.received_at
        assert_made(record, expected, avro=name == "avro")


def assert_made(record: Record, expected: GoldenRecord, *, avro: bool) -> None:
    """Key, headers and value are those of the case, but for what it leaves open."""
    if "key" not in expected.open:
        assert record.key == (None if expected.key is None else expected.key.encode())
    headers = {name: value.decode() for name, value in record.headers}
    assert len(headers) == len(record.headers)
    if expected.topic == "quarantine":
        reason, path = headers["quarantine_reason"], headers["quarantine_path"]
        assert headers.pop("quarantine_detail")
        assert headers == {"quarantine_reason": reason, "quarantine_path": path, **expected.headers}
        assert record.value == expected.raw
        return
    assert headers == expected.headers | ({"content-type": "application/avro"} if avro else {})
    value = fields_of(record.value, OF_TODAY) if avro else in_the_first_release(json.loads(record.value))
    assert comparable(value, expected) == comparable(expected.value, expected)
    if avro and SAME and "extras" not in expected.open:
        assert record.value.startswith(expected.avro_before_extras)
        assert record.value == expected.avro or expected.value["extras"] is not None


def in_the_first_release(value: dict[str, Any]) -> dict[str, Any]:
    """An event without the fields that came later, which none of the cases has."""
    assert not any(value[name] for name in value.keys() - set(FIELDS))
    return {name: each for name, each in value.items() if name in FIELDS}


def fields_of(datum: bytes, schema: Any = OF_THE_CASES) -> Any:
    """What fastavro reads of a datum that was written with the schema, and that it reads all of it."""
    stream = BytesIO(datum)
    value = fastavro.schemaless_reader(stream, schema, OF_THE_CASES)
    assert stream.read() == b""
    return value


def comparable(value: dict[str, Any], expected: GoldenRecord) -> dict[str, Any]:
    """An event with its extras as parsed JSON, numbers by their digits; without what the case leaves open."""
    assert list(value) == FIELDS
    extras = value["extras"]
    parsed = extras and json.loads(extras, parse_int=_Number, parse_float=_Number)
    return {name: parsed if name == "extras" else value[name] for name in FIELDS if name not in expected.open}


class _Number(str):
    """The literal of a number, which is no text."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and str.__eq__(self, other)


@pytest.mark.parametrize("record", EVENTS)
def test_bridge_consume_reads_every_event(record: GoldenRecord) -> None:
    """JSON, Avro behind a schema's id, Avro behind a schema's fingerprint: the same event."""
    fingerprint = bytes.fromhex(FRAMED[0].framed["single_object"])[2:10]
    decoder = Decoder({SCHEMA_ID: SCHEMA}.__getitem__)
    for value in (
        json.dumps(record.value).encode(),
        b"\0" + SCHEMA_ID.to_bytes(4, "big") + record.avro,
        SINGLE_OBJECT_MARK + fingerprint + record.avro,
    ):
        assert in_the_first_release(msgspec.to_builtins(decoder.decode(value))) == record.value


@pytest.mark.parametrize("record", EVENTS)
def test_the_avro_of_a_case_is_its_value(record: GoldenRecord) -> None:
    """As fastavro reads it, to the last byte, each line by itself."""
    assert fields_of(record.avro) == record.value
    assert list(record.value) == FIELDS


def test_whole_values_are_frame_and_datum() -> None:
    """Of both kinds; the fingerprint is the schema's, least significant byte first."""
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical(SCHEMA), "CRC-64-AVRO"))
    assert FRAMED
    for record in FRAMED:
        schema_id = record.framed["confluent_schema_id"]
        assert bytes.fromhex(record.framed["confluent"]) == b"\0" + schema_id.to_bytes(4, "big") + record.avro
        assert bytes.fromhex(record.framed["single_object"]) == SINGLE_OBJECT_MARK + fingerprint + record.avro


@pytest.mark.parametrize("record", EVENTS)
def test_event_ids_follow_the_formula(record: GoldenRecord) -> None:
    """As CONTRACT.md words it, written down once more; and the texts are those of the event."""
    lengths_and_texts = [(len(text.encode()).to_bytes(4, "big"), text.encode()) for text in record.event_id_of]
    digest = hashlib.sha256(b"".join(length + text for length, text in lengths_and_texts)).digest()
    value = record.value
    assert value["event_id"] == digest[:16].hex()
    message_id, who, status, code = record.event_id_of
    assert message_id == value["message_id"]
    assert who == (value["recipient"] or value["user_id"] or "")
    assert status == value["provider_status"].casefold()
    assert code == code.strip()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_agrees_with_itself(case: GoldenCase) -> None:
    """Keys and headers say what the values and the callback do."""
    received = datetime.fromtimestamp(case.received_at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for position, record in enumerate(case.records, 1):
        shared = {"bridge_callback": case.callback, "bridge_position": f"{position}/{len(case.records)}"}
        if record.topic == "quarantine":
            assert record.raw in case.body
            settled = {"quarantine_reason", "quarantine_path"} - record.open
            rest = {name: value for name, value in record.headers.items() if name not in settled}
            assert len(rest) + len(settled) == len(record.headers)
            assert rest == {**shared, "received_at": str(case.received_at)}
            continue
        value = record.value
        assert record.key == value["message_id"]
        assert value["received_at"] == case.received_at
        assert record.headers == {
            "ce_specversion": "1.0",
            "ce_id": value["event_id"],
            "ce_source": case.source,
            "ce_type": f"chatapp.status.{value['status'].lower()}",
            "ce_time": f"{received}.{case.received_at % 1000:03}Z",
            "ce_subject": value["message_id"],
            "content-type": "application/json",
            **shared,
        }


def test_the_readme_explains_every_member() -> None:
    """Of a case and of a record."""
    tables = (DIRECTORY / "README.md").read_text().partition("## Frames")[0]
    explained = set(re.findall(r"^\| `(\w+)`", tables, re.MULTILINE))
    texts = [json.loads(path.read_text()) for path in DIRECTORY.glob("*.json")]
    used = {name for case in texts for name in case} | {
        name for case in texts for each in case["records"] for name in each
    }
    assert used == explained
