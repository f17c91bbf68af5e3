"""Records as lines of JSON, whatever is in them."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.messages import Message
from support.replaying import event, single_object

from bridge import config
from bridge.consume import Decoder
from bridge.operate.ndjson import Lines, SpoolLines
from bridge.operate.reading.events import decoder_of
from bridge.record import Record

DECODER = Decoder()


def message(value: bytes | None, key: bytes | None = b"k", headers: Any = None) -> Message:
    """As a consumer has it."""
    return Message(
        topic="t", partition=1, offset=7, key=key, value=value, headers=headers, timestamp=(1, 1691043638000)
    )


def line_of(lines: Lines, one: Message) -> dict[str, Any]:
    """Its line, which must be one."""
    encoded = lines.encode([one])
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    assert b"\r" not in encoded
    found: dict[str, Any] = json.loads(encoded)
    return found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
)


@given(JSON, st.sampled_from([None, 1, "\t", "\r\n"]), st.booleans())
def test_json_comes_through_as_it_is(value: Any, indent: Any, ascii_only: bool) -> None:
    """However it is spread over lines."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    found = line_of(Lines("t", None), message(data))
    if "value_text" in found:  # half of a surrogate pair, escaped: no text can hold it
        assert found["value_text"] == text
    else:
        assert found["value"] == value


@given(st.binary(), st.none() | st.binary(), st.lists(st.tuples(st.text(min_size=1), st.none() | st.binary())))
def test_any_bytes_go_out_and_can_be_had_again(value: bytes, key: bytes | None, headers: list[tuple[str, Any]]) -> None:
    """Of value, key and headers, nothing is lost."""
    for lines in (Lines("t", DECODER), Lines("t", None)):
        found = line_of(lines, message(value, key, headers))
        if "value_base64" in found:
            assert base64.b64decode(found["value_base64"]) == value
            assert found["value"] is None
        elif "value_text" in found:
            assert found["value_text"].encode() == value
        else:
            assert found["value"] == json.loads(value)
        again: Any = base64.b64decode(found["key_base64"]) if "key_base64" in found else found["key"]
        assert again == key or again.encode() == key
        if "headers_exact" in found:
            exact = [(name, None if text is None else base64.b64decode(text)) for name, text in found["headers_exact"]]
            assert exact == headers
        else:
            assert [(name, text.encode()) for name, text in found["headers"].items()] == headers


@pytest.mark.parametrize(
    "value",
    [
        b'{"a":"\xff"}',
        b'{"a":1} 2',
        b"{'a':1}",
        b'{"a":"\n"}',
        b"NaN",
        b"",
        b"[" * 100_000 + b"]" * 100_000,
        b'"\\ud800"',
    ],
)
def test_what_is_no_json_never_gets_into_a_line_as_such(value: bytes) -> None:
    """It would make the line unreadable."""
    lines = Lines("t", DECODER)
    found = line_of(lines, message(value))
    assert found["value"] is None
    assert base64.b64decode(found["value_base64"]) == value
    assert found["value_error"]
    assert lines.undecodable == 1


def test_a_record_without_a_time_has_none() -> None:
    """Not the epoch."""
    old = Message(topic="t", partition=0, offset=0, value=b"1", timestamp=(0, -1))
    assert line_of(Lines("t", None), old) == {
        "topic": "t",
        "partition": 0,
        "offset": 0,
        "timestamp": None,
        "key": None,
        "headers": {},
        "value": 1,
    }


def test_a_schema_of_a_registry_that_is_not_set_names_the_key_to_set() -> None:
    """Who reads by a command sets no argument of Python."""
    lines = Lines("t", decoder_of(config.load(None).settings, "t"))
    said = line_of(lines, message(b"\x00\x00\x00\x00\x09abc"))["value_error"]
    assert said == "schema 9 of the registry can't be used: registry.url names none"


HEADERS = st.lists(st.tuples(st.text(min_size=1), st.binary()))


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.none() | st.binary(), HEADERS)
def test_a_record_of_the_spool_has_the_line_it_will_have_as_a_message(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    """But for its place, which is a row's and not yet a partition's."""
    as_message = line_of(Lines("t", DECODER), message(value, key, headers))
    encoded = SpoolLines().encode([Record("t", key, value, headers, 1691043638000)], 3, 12)
    as_record = json.loads(encoded)
    assert encoded.count(b"\n") == 1
    assert (as_message.pop("partition"), as_message.pop("offset")) == (1, 7)
    assert (as_record.pop("lane"), as_record.pop("seq")) == (3, 12)
    if "quarantine_reason" not in dict(headers):
        assert as_record == as_message


def test_an_event_of_the_spool_is_decoded_and_what_is_quarantined_is_text() -> None:
    """Bare Avro as well, whose schema is named by the record; a quarantined value is never taken for an event."""
    of = event("m-1")
    whole = single_object(of)
    bare = Record("t", b"m-1", whole[10:], [], 1, whole[2:10])
    quarantined = Record("q", None, b"not JSON", [("quarantine_reason", b"not_json")], 1)
    lines = SpoolLines()
    found = [json.loads(line) for line in lines.encode([bare, quarantined], 0, 1).splitlines()]
    assert found[0]["value"]["message_id"] == "m-1"
    assert found[1]["value_text"] == "not JSON"
    assert lines.undecodable == 0
