"""The compiled part beside what it stands in for: the same to the byte."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import compiled
from bridge.delivery.entry import bytes_of, bytes_of_python
from bridge.delivery.layout import by_lane, by_lane_python
from bridge.encode.fast import fast_encoder
from bridge.encode.headers import CallbackHeaders
from bridge.encode.records import Encoded, RecordEncoder, record_bytes_bound
from bridge.encode.values import value_format
from bridge.kafka.batch import PythonWriter, Writer
from bridge.kafka.partition import murmur2_python
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.record import Record
from bridge.report.catalogue import shipped_catalogue
from bridge.report.fields import FIELDS
from bridge.report.lenient import strict_json_python
from bridge.report.report import Report, read_body, read_item
from bridge.report.scan import string_end, string_end_python, value_end, value_end_python
from bridge.spool.rows import encode_body, encode_body_python

RECEIVED = 1_764_000_000_007
FORMS = [("json", False), ("avro", False), ("avro", True)]
NAMES = [name for field in FIELDS for name in field.wire]
needs_it = pytest.mark.skipif(not compiled.COMPILED, reason="nothing was compiled here")

texts = (
    st.text(max_size=12)
    | st.text(st.sampled_from('"\\\n\t\b\f\r\0\x1f\x7f/ é\u3000\u2028😀'), max_size=8)
    | st.sampled_from(
        [
            "", " ", "Sent", "Delivered", "Read", "Failed", "Deleted", "sent", "READ", " Read", "played", "template", "In-App",
            "0", "ok", "131026", "131026:x", "(#131026) x", "131026\uff1ax", "200", "success",
            "1691132091000", "1691132091", "0691132091", "169113209100", "x" * 1100,
        ]
    )
)  # fmt: skip
times = st.sampled_from(
    [1691132091000, 1691132091, "1691132091000", "1691132091", "0691132091", "169113209100", "", None]
)
values = texts | st.none() | st.integers() | st.sampled_from([1691132091000, 1691132091, 1691132091.5, True, 2**70, -1])
TIMES = {name for field in FIELDS if field.is_time for name in field.wire}
documented = st.fixed_dictionaries(
    {
        "MessageId": texts,
        "Status": st.sampled_from(["Sent", "Delivered", "Read", "Failed", "Deleted", "read", "FAILED"]),
    },
    optional={
        name: times if name in TIMES else texts | st.none() for name in NAMES if name not in {"MessageId", "Status"}
    },
)
reports = documented | st.dictionaries(st.sampled_from([*NAMES, "messageid", "Unknown", "备注"]), values)
bodies = st.lists(reports | values, max_size=6)


def encoder_of(form: str, *, registry: bool, max_record_bytes: int = 2_000) -> RecordEncoder:
    """An encoder with a small limit, so that events are too large as well."""
    return RecordEncoder("events", "rest", "/é", max_record_bytes, value_format(form, registry=registry))  # type: ignore[arg-type]


def in_python(encoder: RecordEncoder, body: bytes, traceparent: bytes | None) -> Encoded:
    """What becomes of a body without the compiled part."""
    items = read_body(body, RECEIVED)
    records = encoder.encode(items, callback_id="c-1", received_at_ms=RECEIVED, traceparent=traceparent)
    statuses = [item.event.status.value if isinstance(item, Report) else None for item in items]
    return Encoded(records, statuses, encoder.quarantined(records), fast=0)


def check_alike(body: bytes, traceparent: bytes | None = None) -> None:
    """In every format."""
    for form, registry in FORMS:
        encoder = encoder_of(form, registry=registry)
        found = encoder.encode_body(body, callback_id="c-1", received_at_ms=RECEIVED, traceparent=traceparent)
        assert found._replace(fast=0) == in_python(encoder, body, traceparent)


@needs_it
@settings(max_examples=300, deadline=None)
@given(bodies, st.sampled_from([None, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]))
def test_reports_of_any_fields_become_the_same_records(body: list[Any], traceparent: bytes | None) -> None:
    """Plain ones, others, and what is no report at all, side by side."""
    check_alike(json.dumps(body).encode(), traceparent)
    check_alike(json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"), traceparent)


@needs_it
@settings(max_examples=100, deadline=None)
@given(bodies, st.binary(max_size=5))
def test_a_written_record_serves_as_one_of_python_s(body: list[Any], prefix: bytes) -> None:
    """For all that is done with one on its way: it is looked at, has a lane and a size, is spooled, put into a batch."""
    lanes = {"events": ["e0", "e1", "e2"], "rest": ["r0", "r1"]}
    raw = json.dumps(body).encode()
    for form, registry in FORMS:
        encoder = encoder_of(form, registry=registry)
        written = encoder.encode_body(raw, callback_id="c-1", received_at_ms=RECEIVED, traceparent=None).records
        others = in_python(encoder, raw, None).records
        for one, other in zip(written, others, strict=True):
            for name in (*Record.__struct_fields__, "self_describing_value"):
                assert getattr(one, name) == getattr(other, name)
        assert by_lane(written, lanes) == by_lane_python(others, lanes)
        assert bytes_of(written) == bytes_of_python(others)
        assert encode_body(written) == encode_body_python(others)
        assert batch_of(compiled.module.BatchWriter, written, prefix) == batch_of(PythonWriter, others, prefix)


@needs_it
@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_a_spooled_record_may_have_any_size(size: int) -> None:
    """Of key, value, a header's name and value, the list of headers, the list of records."""
    records = [
        Record("t" * size, b"k" * size, b"v" * size, [("n" * size, b"h" * size)], RECEIVED, b"s" * size),
        Record("t", None, b"v", [("n", b"h")] * size, RECEIVED),
        *[Record("t", None, b"", [], RECEIVED)] * size,
    ]
    assert encode_body(records) == encode_body_python(records)


def batch_of(writer: type[Writer], records: list[Record], prefix: bytes) -> tuple[int, int, int, bytes]:
    """What a writer makes of them."""
    batch = writer(1 << 20)  # type: ignore[call-arg]
    assert batch.extend(records, prefix) == len(records)
    return batch.count, batch.first_ms, batch.last_ms, batch.written()


@needs_it
@pytest.mark.parametrize("mix", [Mix(), Mix.plain()])
def test_a_campaign_becomes_the_same_records(mix: Mix) -> None:
    """As the provider would push it."""
    for push in Campaign(CampaignOptions(messages=None, max_reports=3_000, size=(1, 50), mix=mix)).pushes():
        check_alike(push.body)


@needs_it
@pytest.mark.parametrize("char", [*range(0x24), 0x5B, 0x5C, 0x5D, 0x7E, 0x7F, 0x80, 0xC3, 0xFF])
def test_a_byte_means_the_same_wherever_it_stands_in_a_text(char: int) -> None:
    """Texts are read eight bytes at a time: each place in such a word, and each length."""
    texts = [b"A" * before + bytes([char]) + b"A" * after for before in range(17) for after in (0, 1, 7, 20)]
    check_alike(b"[" + b",".join(b'{"MessageId":"m","Status":"Read","To":"%s"}' % text for text in texts) + b"]")


@needs_it
def test_what_is_remembered_of_one_text_is_not_taken_for_another() -> None:
    """Many words and statuses by one encoder, alike in length, in their first and in their last byte."""
    words = [f"{first}{middle:02}{last}" for first in "aA" for middle in range(60) for last in "xX "]
    reports = [
        {"MessageId": "m", "Status": status, "Type": word, "MsgFrameType": word[::-1]}
        for word in words
        for status in ("Read", "Sent", "Reat", "Delivered", "Deletered")
    ]
    check_alike(json.dumps(reports * 2).encode())


@needs_it
def test_plain_reports_are_made_by_the_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a plain campaign, its failures too; else the tests here would compare one way with itself."""
    monkeypatch.setattr("bridge.encode.records.read_item", None)
    monkeypatch.setattr("bridge.encode.records.read_body", None)
    encoder = encoder_of("json", registry=False)
    reports = 0
    for push in Campaign(CampaignOptions(messages=None, max_reports=2_000, size=(10, 10), mix=Mix.plain())).pushes():
        records = encoder.encode_body(push.body, callback_id="c", received_at_ms=RECEIVED, traceparent=None).records
        reports += len(records)
    assert reports == 2_000


@needs_it
@pytest.mark.parametrize(
    "item",
    [
        b'{"MessageId":"m","Status":"Read"',
        b'{"MessageId":"m","Status":"Read',
        b'{"MessageId":"m","Status":',
        b'{"MessageId":"m","Status":"Read","Timestamp":1691132091',
        b'{"MessageId":"m","Status":"Read","To":nul',
        b"{",
        b"",
        b"{}",
    ],
)
def test_nothing_is_read_beyond_the_end_of_an_item(item: bytes) -> None:
    """Cut off within a larger buffer that would go on: not plain."""
    whole = memoryview(item + b'l,"Status":"Read"}123}')
    assert encode_alone(whole[: len(item)]) == ([None], [None])


@needs_it
def test_folded_words_are_each_their_own() -> None:
    """More of them in one callback than are remembered, long ones among them."""
    words = [f"Word-{number}" * (1 + number % 9) for number in range(3_000)]
    known = {"MessageId": "m", "Status": "Read"}
    body = json.dumps(
        [known | {"Type": word, "ConversationType": word + "A", "MsgFrameType": word + "B"} for word in words]
    )
    check_alike(body.encode())


@needs_it
@pytest.mark.parametrize(("form", "registry"), FORMS)
def test_both_find_the_same_record_too_large(form: str, registry: bool) -> None:
    """To the byte."""
    raw = json.dumps([{"MessageId": "m-1", "Status": "Failed", "ErrorCode": "131026", "To": "861"}]).encode()
    [record] = in_python(encoder_of(form, registry=registry), raw, None).records
    bound = record_bytes_bound(record)
    for limit, faults in ((bound, []), (bound - 1, [("too_large", "$[0]")])):
        encoder = encoder_of(form, registry=registry, max_record_bytes=limit)
        found = encoder.encode_body(raw, callback_id="c-1", received_at_ms=RECEIVED, traceparent=None)
        assert found._replace(fast=0) == in_python(encoder, raw, None)
        assert found.faults == faults


@needs_it
@pytest.mark.parametrize("word", ['quo"te', "back\\slash", "line\n", "é", "\x7f"])
def test_a_word_may_need_an_escape_once_it_is_normalized(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever folds it: the value is JSON all the same."""
    monkeypatch.setattr("bridge.encode.fast.word", lambda _text: word)
    (record,), _ = encode_alone(b'{"MessageId":"m","Status":"Read","Type":"x"}')
    assert record is not None
    assert json.loads(record.value)["content_type"] == word


@needs_it
@pytest.mark.parametrize(
    "members",
    [
        '"UserName":"中文 é 😀\u2028"',
        '"UserName":"\\u4e2d\\ud83d\\ude00 \\"quoted\\" \\\\ \\/ \\b\\f\\n\\r\\t"',
        '"ErrorCode":131026,"TaskId":-12345678901234567890123',
        '"New":{"a":[1,-2.5e+10,true,false,null,"\\u00e9é"],"b":{}},"备注":[]',
        '"FromUserId":"u","UserName":"n"',
        '"UserId":"u","FromUserId":"u"',
        '"UserId":null,"FromUserId":"u"',
        '"Error":"OUT_OF_SERVICE"',
        '"To":"1","To":"2"',
        '"To":"\\u3000"',
        '"ConversionExpirationTime":1691132091',
    ],
)
def test_such_reports_take_the_fast_path(members: str) -> None:
    """One letter or an unknown field is no reason for the slow one; and they become the same there."""
    raw = f'{{"MessageId":"m","Status":"Failed",{members}}}'.encode()
    (record,), statuses = encode_alone(raw)
    assert record is not None
    assert statuses == ["FAILED"]
    check_alike(b"[" + raw + b"]")


@needs_it
@pytest.mark.parametrize(
    "members",
    [
        '"to":"1"',
        '"UserId":"u","FromUserId":"v"',
        '"UserId":"u","FromUserId":"u","UserId":"v"',
        '"UserName":"\\u0000"',
        '"UserName":"\\ud83d"',
        '"New":"\\ud83dx"',
        '"To":1.5',
        '"To":{}',
        '"Timestamp":-1',
        '"New":1,"New":2',
        '"New":' + "[" * 40 + "]" * 40,
    ],
)
def test_what_needs_a_decision_takes_the_slow_path(members: str) -> None:
    """And becomes what it becomes there."""
    raw = f'{{"MessageId":"m","Status":"Failed",{members}}}'.encode()
    assert encode_alone(raw) == ([None], [None])
    check_alike(b"[" + raw + b"]")


@needs_it
@pytest.mark.parametrize(
    "value", ["01", "1.", "-", "1e", ".5", "tru", "NaN", '"\\x"', '"\\u12g4"', '"a\tb"', "[1,]", "[,]", "{1:2}", "{}x"]
)
def test_what_is_no_json_does_not_take_the_fast_path(value: str) -> None:
    """Items that no strict parser has seen are read there as well."""
    assert encode_alone(f'{{"MessageId":"m","Status":"Read","New":{value}}}'.encode()) == ([None], [None])


def encode_alone(item: Any) -> tuple[list[Record | None], list[str | None]]:
    """One item on the fast path."""
    headers = CallbackHeaders(
        source=b"/", content_type=b"x", callback_id="c", received_at_ms=RECEIVED, total=1, traceparent=None
    )
    encode = fast_encoder(
        "t",
        value_format("json", registry=False),
        shipped_catalogue(),
        overhead_bytes=0,
        header_bytes=0,
        max_record_bytes=1 << 20,
    )
    assert encode is not None
    return encode([item], headers)


pieces = st.sampled_from(
    [
        *'[]{},:"\\ \n\rx',
        "\\n",
        '"a\nb"',
        '{"a":1,}',
        ",]",
        ",}",
        '"MessageId":"m"',
        '"Status":"Read"',
        '{"MessageId":"m","Status":"Read"}',
        '"\\ud83d"',
        "1",
    ]
)


@needs_it
@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=20).map("".join))
def test_json_that_is_not_quite_is_mended_alike(text: str) -> None:
    """Whatever it is; and what comes of it as a body."""
    raw = text.encode()
    assert compiled.module.strict_json(raw) == strict_json_python(raw)
    for start in (at for at, byte in enumerate(raw) if byte in b'[{"'):
        ends = (string_end, string_end_python) if raw[start] == ord('"') else (value_end, value_end_python)
        assert ends[0](raw, start) == ends[1](raw, start)
    check_alike(b"[" + raw + b"]")
    check_alike(b'[{"MessageId":"m","Status":"Read",' + raw + b"},]")


@needs_it
@settings(max_examples=300, deadline=None)
@given(bodies, st.data())
def test_bodies_with_trailing_commas_and_raw_line_breaks_become_the_same(body: list[Any], data: st.DataObject) -> None:
    """Put anywhere into bodies of any reports."""
    raw = json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")
    raw = raw.replace(b"\\n", b"\n").replace(b"\\r", b"\r")
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw = raw[:at] + data.draw(st.sampled_from([b",", b"\n", b" ", b"\r"])) + raw[at:]
    check_alike(raw)
    check_alike(raw.replace(b"}", b",}"))


@needs_it
@given(st.binary(max_size=70))
def test_keys_have_the_same_hash(key: bytes) -> None:
    """Of any length."""
    assert compiled.module.murmur2(key) == murmur2_python(key)


def test_without_it_the_bridge_encodes_as_well() -> None:
    """As on a machine without a C compiler."""
    code = (
        "from bridge import compiled; from bridge.encode.records import RecordEncoder as E\n"
        "e = E('s', 'q', '/x', 10**6).encode_body(b'[{\"MessageId\":\"m\",\"Status\":\"Read\"}]', callback_id='c',"
        " received_at_ms=1764000000007, traceparent=None)\n"
        "print(compiled.COMPILED, len(e.records), e.statuses)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"BRIDGE_COMPILED": "0"},
    )
    assert ran.stdout == "False 1 ['READ']\n"


def test_it_was_compiled_where_it_could_be() -> None:
    """A compiler and Python's headers are there: then so is the compiled part."""
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    if shutil.which("cc") is None or not headers.exists() or os.environ.get("BRIDGE_COMPILED") == "0":
        pytest.skip("no C compiler here, or no headers of Python")
    assert compiled.module is not None, "make setup compiles it; see what it printed"


def test_an_item_is_read_alone_as_in_its_body() -> None:
    """The way back into Python, item by item."""
    body = b'[{"MessageId":"m"},{"MessageId":"m","Status":"Read"},7]'
    raws = [b'{"MessageId":"m"}', b'{"MessageId":"m","Status":"Read"}', b"7"]
    assert read_body(body, RECEIVED) == [
        read_item(raw, index, RECEIVED, shipped_catalogue()) for index, raw in enumerate(raws)
    ]
