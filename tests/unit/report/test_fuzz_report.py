"""The decoder under mutated callbacks, beside Python's own JSON parser: a moment here, an hour by ``make fuzz``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import DECODER_SHARE, few_or_many, while_budget_lasts

from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.report.event import StatusEvent
from bridge.report.report import Item, Quarantined, Reason, Report, read_body

FIXTURES = Path(__file__).parents[2] / "fixtures"
RECEIVED = 1_700_000_000_000
BETWEEN = b" \t\r\n,[]"
MARK = b"\xef\xbb\xbf"
WHOLE = "$"
SEEDS = [
    (FIXTURES / "page-template.json").read_bytes(),
    (FIXTURES / "page-message.json").read_bytes(),
    b'[{"MessageId":"m","Status":"Sent"}]',
    b'{"messageid":7,"STATUS":"Failed","Error":"131026:x","ErrorCode":131026,"Timestamp":"1691132091000.5","x":{"a":[1,null]}}',
    b'[{"MessageId":"m","Status":"Failed","UserId":"u","FromUserName":"\xc3\xa9 \\u4e2d\\"x\\\\","\xe5\xa4\x87":{"b":[1.5]}}]',
    b'[{"MessageId":"m","Status":"Read","StatusDescription":"a\nb\\n","x":[1,],},]',
    b'[{"MessageId":"\\ud83d\\ude00","Status":"Read","To":"\xf0\x9f\x98\x80"},1,null,"x",{"Status":"Sent"},{}]',
]
# Where parsers differ, and where the decoder decides.
TOKENS = [
    *(bytes([byte]) for byte in b'[]{},:"\\ \n0e-.\0\x1f\x7f'), MARK, b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\\u0000",
    b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 400, b"[" * 300, b'{"a":' * 300, b"null", b"true", b"//", b"/**/",
    b"\\x", b"'", b'"MessageId":', b'"messageid":""', b'"Status":', b'"Timestamp":', b'"Error":', b'"ErrorCode":',
    b'"":', b"\xe2\x80\xa8",
]  # fmt: skip


@st.composite
def callbacks(draw: st.DrawFn) -> bytes:
    """A callback's body with some bytes cut out, put in, doubled, or of another one."""
    found = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(found)))
        end = min(len(found), start + draw(st.sampled_from([0, 0, 1, 2, 7, 60])))
        other = draw(st.sampled_from(SEEDS))
        piece = draw(
            st.sampled_from([*TOKENS, found[start:end] * 2, other, other[: start + 1]]) | st.binary(max_size=4)
        )
        found = found[:start] + piece + found[end:]
    return found


def parsed(text: bytes) -> Any:
    """As Python reads strict JSON in UTF-8.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep for Python.
    """

    def refuse(name: str) -> None:
        raise ValueError(name)

    # Numbers stay text: Python makes no int of thousands of digits.
    return json.loads(text.decode(), parse_constant=refuse, parse_int=str, parse_float=str)


def is_json(text: bytes) -> bool:
    """Whether Python takes it."""
    try:
        parsed(text)
    except (ValueError, RecursionError):
        return False
    return True


def as_meant(raw: bytes) -> bytes:
    """What is read leniently of an item, done to its bytes as a person would: only where a strict parser refuses them."""
    if is_json(raw):
        return raw
    out, quoted, escaped = bytearray(), False, False
    for byte in raw:
        char = bytes([byte])
        if quoted:
            out += {b"\n": b"\\n", b"\r": b"\\r"}.get(char, char) if not escaped else char
            escaped = char == b"\\" and not escaped
            quoted = char != b'"' or (out[-2:] == b'\\"' and len(out[:-1]) - len(out[:-1].rstrip(b"\\")) & 1 == 1)
            continue
        if char in b"]}" and out.rstrip(b" \t\r\n")[-1:] == b",":
            del out[out.rindex(b",") :]
        out += char
        quoted, escaped = char == b'"', False
    return bytes(out)


def texts_of(event: StatusEvent) -> list[str]:
    """The texts of an event, and those in its extras."""
    found = [value for value in msgspec.structs.astuple(event) if isinstance(value, str)]
    return found + list(texts_in(json.loads(event.extras or "{}", parse_int=str, parse_float=str)))


def texts_in(value: Any) -> Iterator[str]:
    """Names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value:
            yield from texts_in(each)
        if isinstance(value, dict):
            yield from texts_in(list(value.values()))


def surrogates(text: str) -> bool:
    """Whether it has half of a pair."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def lost(body: bytes, items: list[Item]) -> bytes:
    """The bytes of a body that are in no item."""
    position, between = 0, b""
    for item in items:
        found = body.find(item.raw, position)
        assert found >= 0, "an item is no piece of the body, or not in order"
        between += body[position:found]
        position = found + len(item.raw)
    return between + body[position:]


def check_decoded(body: bytes) -> None:
    """Nothing is lost, nothing made up, and it is understood as another parser does."""
    items = read_body(body, RECEIVED)
    rest = lost(body, items).removeprefix(MARK)
    assert rest.strip(BETWEEN) == b"", "bytes that are in no item"
    for item in items:
        if isinstance(item, Report):
            fields = parsed(as_meant(item.raw))
            assert isinstance(fields, dict)
            assert item.event.message_id
            assert not any("\0" in text or surrogates(text) for text in texts_of(item.event))
            assert item.event.provider_status
        else:
            assert item.reason in Reason
            assert item.detail
    try:
        whole = parsed(body.removeprefix(MARK))
    except (ValueError, RecursionError):
        return
    if isinstance(whole, list):
        assert len(items) == len(whole), "an item more or less than the array has"
    else:
        assert [item.path.partition(".")[0] for item in items] == [WHOLE]


def check_encoded(body: bytes) -> None:
    """Whatever was decoded, a record comes of each item, of its bytes or of its event."""
    items = read_body(body, RECEIVED)
    for form in ("json", "avro"):
        encoder = RecordEncoder("events", "quarantine", "/fuzz", 1_000_000, value_format(form, registry=False))
        records = encoder.encode(items, callback_id="c-1", received_at_ms=RECEIVED, traceparent=None)
        assert len(records) == len(items)
        body_at_once = encoder.encode_body(body, callback_id="c-1", received_at_ms=RECEIVED, traceparent=None)
        assert body_at_once.records == records, "the compiled part does otherwise"
        for item, record in zip(items, records, strict=True):
            if isinstance(item, Quarantined):
                assert (record.topic, record.value) == ("quarantine", item.raw)
            elif form == "json" and record.topic == "events":
                assert is_json(record.value)


def test_a_mutated_callback_is_decoded_without_a_loss() -> None:
    """Both properties, for as long as the budget says."""

    @few_or_many(400)
    @given(callbacks())
    def fuzz(body: bytes) -> None:
        check_decoded(body)
        check_encoded(body)

    assert while_budget_lasts(fuzz, DECODER_SHARE) >= 1
