"""The generated writer beside fastavro, and the schema beside the code's own types."""

import io
import json
from collections.abc import Callable
from enum import EnumMeta
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import fastavro
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.config import data_directory
from bridge.encode.avro import compile_writer, varint
from bridge.encode.json import encode_event
from bridge.report.event import StatusEvent
from bridge.report.fields import FIELDS
from bridge.report.symbols import ErrorCategory, ErrorRetry, MessageTimeSource, Status
from bridge.schemas import known_schemas, written_schema

SCHEMA: dict[str, Any] = json.loads(written_schema().text)
PARSED = fastavro.parse_schema(json.loads(written_schema().text))
PLAIN = fastavro.parse_schema(json.loads(written_schema().text.replace('"logicalType"', '"was"')))
"""With which times are read as the numbers that they are."""
TIMES = {field.name for field in FIELDS if field.is_time}

# Texts around the lengths at which the length itself takes a byte more and the tables end; numbers around such.
LENGTHS = [0, 1, 63, 64, 1023, 1024, 8191, 8192]
TEXTS = st.one_of(
    st.text(max_size=9), st.builds("{}{}".format, st.text(max_size=1), st.sampled_from(LENGTHS).map("x".__mul__))
)
LONGS = st.builds(
    lambda bits, sign, off: sign * (1 << bits) + off, st.integers(0, 62), st.sampled_from([1, -1]), st.integers(-1, 1)
)
HINTS = get_type_hints(StatusEvent)


def strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of one of the event's types."""
    if isinstance(hint, UnionType):
        return st.none() | strategy_of(get_args(hint)[0])
    if hint in {str, int, bool}:
        return {str: TEXTS, int: LONGS, bool: st.booleans()}[hint]
    return st.sampled_from(list(hint))


EVENTS = st.builds(
    StatusEvent,
    **{name: strategy_of(hint) for name, hint in HINTS.items()}
    | {"status_rank": st.sampled_from([0, 3, -1, 63, 64, 1 << 30])},
)
EMPTY = StatusEvent(
    event_id="", message_id="", task_id="", task_id_defaulted=False, status=Status.UNKNOWN, provider_status="", status_rank=0,
    message_time=0, message_time_source=MessageTimeSource.PROVIDER, received_at=0, error_category=ErrorCategory.UNKNOWN,
    error_retry=ErrorRetry.UNKNOWN,
)  # fmt: skip


def by_fastavro(schema: Any, event: Any) -> bytes:
    """The generic way."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, event)
    return stream.getvalue()


@pytest.fixture(scope="module")
def write() -> Callable[[StatusEvent], bytes]:
    """The writer of the present schema."""
    return compile_writer(SCHEMA)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(event=EVENTS)
@example(event=EMPTY)
def test_the_bytes_are_those_of_fastavro_and_say_what_the_json_says(
    write: Callable[[StatusEvent], bytes], event: StatusEvent
) -> None:
    """Whatever an event holds: long texts, any character, any number. A consumer of either format sees the same."""
    fields = {name: getattr(event, name) for name in StatusEvent.__struct_fields__}
    assert by_fastavro(PARSED, fields) == write(event)
    assert fastavro.schemaless_reader(io.BytesIO(write(event)), PLAIN, None) == json.loads(encode_event(event))


@given(LONGS)
def test_a_number_is_written_as_avro_has_it(number: int) -> None:
    """Any of 64 bits, as fastavro writes it."""
    assert by_fastavro({"type": "long"}, number) == varint(number)


def test_a_value_begins_with_the_head_it_was_asked_for(write: Callable[[StatusEvent], bytes]) -> None:
    """The head, then what is written without one."""
    assert b"head" + write(EMPTY) == compile_writer(SCHEMA, b"head")(EMPTY)


def test_a_symbol_that_the_schema_lacks_is_not_written() -> None:
    """As code and schema are held together that can't be; were it, nothing wrong would be published."""
    with pytest.raises(KeyError):
        compile_writer({"fields": [{"name": "real", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}]})(3j)


def test_a_type_that_is_not_written_yet_is_refused_with_words() -> None:
    """Who adds such a field learns of it from any test."""
    with pytest.raises(NotImplementedError, match=r"bytes.*bridge/encode/avro.py"):
        compile_writer({"fields": [{"name": "f", "type": "bytes"}]})


# --- the schema and the code's types ----------------------------------------------------------------------------------


def avro_type(name: str, hint: Any) -> Any:
    """What the schema has for a field of the event, of its type in the code; documentation and defaults aside."""
    if get_origin(hint) is UnionType:
        assert get_args(hint)[1] is NoneType
        return ["null", avro_type(name, get_args(hint)[0])]
    if isinstance(hint, EnumMeta):
        return {"type": "enum", "name": hint.__name__, "symbols": list(hint.__members__)}
    if name in TIMES:
        return {"type": "long", "logicalType": "timestamp-millis"}
    return {str: "string", bool: "boolean", int: "int"}[hint]


def without_documentation(kind: Any) -> Any:
    """A field's type without what ``avro_type`` leaves aside."""
    if isinstance(kind, dict):
        return {name: part for name, part in kind.items() if name not in {"doc", "default"}}
    return kind


def test_schema_and_code_have_the_same_fields_in_the_same_order_with_the_same_types() -> None:
    """Neither has a field, a symbol or a null that the other lacks."""
    in_code = [(name, avro_type(name, hint)) for name, hint in HINTS.items()]
    in_schema = [(field["name"], without_documentation(field["type"])) for field in SCHEMA["fields"]]
    assert in_code == in_schema
    assert list(HINTS) == list(StatusEvent.__struct_fields__)


def test_everything_is_documented_and_can_be_added_to() -> None:
    """A field says what it is; one that may be null is null by default; an enum has a symbol for those that come later."""
    assert SCHEMA["doc"]
    for field in SCHEMA["fields"]:
        assert field["doc"].endswith("."), field["name"]
        if isinstance(field["type"], list):
            assert field["default"] is None
        else:
            assert "default" not in field
        if isinstance(field["type"], dict) and field["type"]["type"] == "enum":
            assert field["type"]["doc"]
            assert ("RECEIVED" if field["name"] == "message_time_source" else "UNKNOWN") == field["type"]["default"]


def test_the_schemas_name_is_that_of_the_topics_major_version() -> None:
    """What consumers generate classes from."""
    assert ("chatapp.status.v1", "StatusEvent") == (SCHEMA["namespace"], SCHEMA["name"])


def test_every_release_is_known_the_newest_first() -> None:
    """By its fingerprint, which is the one of Avro's specification: CRC-64-AVRO, little endian."""
    releases = {int(path.stem): path.read_text() for path in (data_directory("avro") / "releases").glob("*.avsc")}
    texts = [written_schema().text, *(releases[number] for number in sorted(releases, reverse=True))]
    assert list(dict.fromkeys(texts)) == [schema.text for schema in known_schemas()]
    form = fastavro.schema.to_parsing_canonical_form(PARSED)
    assert rabin(form.encode()).to_bytes(8, "little") == written_schema().fingerprint


def rabin(data: bytes) -> int:
    """The specification's algorithm, bit by bit."""
    empty = 0xC15D213AA4D7A795
    value = empty
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (empty if value & 1 else 0)
    return value


def test_the_algorithm_is_the_one_of_avros_own_test_vectors() -> None:
    """``"int"`` and ``"null"`` of share/test/data/schema-tests.txt."""
    assert (0x7275D51A3F395C8F, 0x63DD24E7CC258F8A) == (rabin(b'"int"'), rabin(b'"null"'))
