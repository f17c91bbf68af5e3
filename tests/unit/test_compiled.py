"""The compiled part beside what it stands in for: the same to the byte."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import compiled
from bridge.delivery.lane import bytes_of, bytes_of_python
from bridge.delivery.layout import by_lane, by_lane_python
from bridge.encode.fast import fast_encoder
from bridge.encode.headers import CallbackHeaders
from bridge.encode.records import Encoded, RecordEncoder, record_bytes_bound
from bridge.encode.values import value_format
from bridge.kafka.batch import PythonWriter, Writer
from bridge.kafka.partition import murmur2_python
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.record import Record
from bridge.report import report
from bridge.report.report import Report, read_body, read_item
from bridge.spool.rows import encode_body, encode_body_python

RECEIVED = 1_764_000_000_007
FORMS = [("json", False), ("avro", False), ("avro", True)]
DOCUMENTED = {field.encode_name for field in msgspec.structs.fields(report._Fields)}
needs_it = pytest.mark.skipif(not compiled.COMPILED, reason="nothing was compiled here")

texts = (
    st.text(max_size=12)
    | st.text(st.sampled_from('"\\\n\t\b\f\r\0\x1f\x7f/ é\u3000\u2028😀'), max_size=8)
    | st.sampled_from(
        [
            "", " ", "Sent", "Delivered", "Read", "Failed", "Deleted", "sent", "READ", " Read", "played", "template", "In-App",
            "0", "ok", "131026", "131026:x", "1691132091000", "1691132091", "0691132091", "169113209100", "x" * 1100,
        ]
    )
)  # fmt: skip
times = st.sampled_from(
    [1691132091000, 1691132091, "1691132091000", "1691132091", "0691132091", "169113209100", "", None]
)
values = texts | st.none() | st.integers() | st.sampled_from([1691132091000, 1691132091, 1691132091.5, True, 2**70, -1])
TIMES = {"Timestamp", "ConversationExpirationTime"}
documented = st.fixed_dictionaries(
    {
        "MessageId": texts,
        "Status": st.sampled_from(["Sent", "Delivered", "Read", "Failed", "Deleted", "read", "FAILED"]),
    },
    optional={name: times if name in TIMES else texts | st.none() for name in DOCUMENTED - {"MessageId", "Status"}},
)
reports = documented | st.dictionaries(st.sampled_from([*DOCUMENTED, "Error", "messageid", "Unknown"]), values)
bodies = st.lists(reports | values, max_size=6)


def encoder_of(form: str, *, registry: bool, max_record_bytes: int = 2_000) -> RecordEncoder:
    """An encoder with a small limit, so that events are too large as well."""
    return RecordEncoder("events", "rest", "/é", max_record_bytes, value_format(form, registry=registry))  # type: ignore[arg-type]


def in_python(encoder: RecordEncoder, body: bytes, traceparent: bytes | None) -> Encoded:
    """What becomes of a body without the compiled part."""
    items = read_body(body, RECEIVED)
    records = encoder.encode(items, callback_id="c-1", received_at_ms=RECEIVED, traceparent=traceparent)
    statuses = [item.event.status.value if isinstance(item, Report) else None for item in items]
    return Encoded(records, statuses, encoder.quarantined(records))


def check_alike(body: bytes, traceparent: bytes | None = None) -> None:
    """In every format."""
    for form, registry in FORMS:
        encoder = encoder_of(form, registry=registry)
        found = encoder.encode_body(body, callback_id="c-1", received_at_ms=RECEIVED, traceparent=traceparent)
        assert found == in_python(encoder, body, traceparent)


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
def test_it_knows_the_names_that_a_report_has() -> None:
    """A new one would make every report that has it go the slow way."""
    assert set(compiled.module.WIRE_NAMES) == DOCUMENTED


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
    headers = CallbackHeaders(
        source=b"/", content_type=b"x", callback_id="c", received_at_ms=RECEIVED, total=1, traceparent=None
    )
    encode = fast_encoder(
        "t", value_format("json", registry=False), overhead_bytes=0, header_bytes=0, max_record_bytes=1 << 20
    )
    assert encode is not None
    assert encode([whole[: len(item)]], headers) == ([None], [None])  # type: ignore[list-item]


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
    ((record,), _, _) = in_python(encoder_of(form, registry=registry), raw, None)
    bound = record_bytes_bound(record)
    for limit, faults in ((bound, []), (bound - 1, [("too_large", "$[0]")])):
        encoder = encoder_of(form, registry=registry, max_record_bytes=limit)
        found = encoder.encode_body(raw, callback_id="c-1", received_at_ms=RECEIVED, traceparent=None)
        assert found == in_python(encoder, raw, None)
        assert found.faults == faults


@needs_it
@pytest.mark.parametrize("word", ['quo"te', "back\\slash", "line\n", "é"])
def test_a_word_that_needs_an_escape_once_normalized_is_left_to_python(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written as it is must not need an escape, whoever folds it."""
    monkeypatch.setattr("bridge.encode.fast.normalized", lambda _text: word)
    headers = CallbackHeaders(
        source=b"/", content_type=b"x", callback_id="c", received_at_ms=RECEIVED, total=1, traceparent=None
    )
    encode = fast_encoder(
        "t", value_format("json", registry=False), overhead_bytes=0, header_bytes=0, max_record_bytes=1 << 20
    )
    assert encode is not None
    item: Any = b'{"MessageId":"m","Status":"Read","Type":"x"}'
    assert encode([item], headers) == ([None], [None])


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
    assert read_body(body, RECEIVED) == [read_item(raw, index, RECEIVED) for index, raw in enumerate(raws)]
