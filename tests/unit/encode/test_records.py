"""From what a body held to Kafka records."""

import json

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.encode.records import MAX_QUARANTINE_KEY_BYTES, Encoded, RecordEncoder, record_bytes_bound
from bridge.encode.values import JSON, ValueFormat, value_format
from bridge.record import Record
from bridge.report.report import Quarantined, Reason, Report, read_body
from bridge.schemas import written_schema

RECEIVED = 1_764_000_000_007
GOOD = b'{"MessageId":"m-1","Status":"Read"}'
BROKEN = b'{"MessageId":"m-2","x":"\xff"}'


def encoder_of(max_record_bytes: int = 1_000_000, values: ValueFormat = JSON) -> RecordEncoder:
    """An encoder to the topics "status" and "quarantine"."""
    return RecordEncoder("status", "quarantine", "urn:test", max_record_bytes, values)


def records_of(body: bytes, encoder: RecordEncoder | None = None, traceparent: bytes | None = None) -> list[Record]:
    """The records of a body."""
    items = read_body(body, RECEIVED)
    return (encoder or encoder_of()).encode(items, callback_id="cb-1", received_at_ms=RECEIVED, traceparent=traceparent)


def test_an_event_s_record_is_keyed_by_its_message() -> None:
    """Key, value, topic and create time; the subject is the key."""
    (record,) = records_of(b'{"MessageId":"m-\xc3\xa9\\ud83d\\ude00","Status":"Read"}')
    assert ("status", "m-é😀".encode(), RECEIVED) == (record.topic, record.key, record.timestamp_ms)
    assert json.loads(record.value)["message_id"] == "m-é😀"
    assert record.key == dict(record.headers)["ce_subject"]


def test_a_value_is_as_the_format_says() -> None:
    """Avro is bare where a registry numbers schemas, with its schema's fingerprint beside it; else it says it itself."""
    bare, single = (
        records_of(b"[" + GOOD + b"]", encoder_of(values=value_format("avro", registry=registry)))[0]
        for registry in (True, False)
    )
    fingerprint = written_schema().fingerprint
    assert (fingerprint, None) == (bare.schema, single.schema)
    assert (
        b"\xc3\x01" + fingerprint + bare.value
        == single.value
        == single.self_describing_value
        == bare.self_describing_value
    )
    for record, media in (
        (bare, b"application/avro"),
        (single, b"application/avro"),
        (records_of(GOOD)[0], b"application/json"),
    ):
        assert dict(record.headers)["content-type"] == media


def test_a_quarantined_record_is_what_came() -> None:
    """The raw bytes; keyed where a MessageId was readable, else without a key."""
    keyed, keyless = records_of(b"[" + BROKEN + b",{}]")
    assert (
        keyed.topic,
        keyed.key,
        keyed.value,
        keyed.timestamp_ms,
    ) == ("quarantine", b"m-2", BROKEN, RECEIVED)
    assert (keyless.topic, keyless.key, keyless.value) == ("quarantine", None, b"{}")


def test_a_body_that_is_not_json_is_one_record() -> None:
    """The whole body, byte order mark and all, at place 1 of 1."""
    (record,) = records_of(b"\xef\xbb\xbf[1")
    assert record.value == b"\xef\xbb\xbf[1"
    assert dict(record.headers)["bridge_position"] == b"1/1"


def test_nothing_becomes_no_record() -> None:
    """An empty array is a callback all the same, and publishes nothing."""
    assert records_of(b"[]") == []


def test_records_stand_in_the_order_of_the_items_and_count_them_all() -> None:
    """Events and quarantined items share one count, so that a callback can be shown to be whole."""
    records = records_of(b"[" + b",".join([GOOD, BROKEN, b"1", GOOD]) + b"]")
    assert [record.topic for record in records] == ["status", "quarantine", "quarantine", "status"]
    positions = [dict(record.headers)["bridge_position"] for record in records]
    assert positions == [b"1/4", b"2/4", b"3/4", b"4/4"]


def test_quarantined_records_are_told_by_reason_and_path() -> None:
    """What metrics and the page need, from the records alone."""
    records = records_of(b"[" + b",".join([GOOD, BROKEN, b"1", b"2", b"{}"]) + b"]")
    assert encoder_of().quarantined(records) == [
        ("invalid_utf8", "$[1]"),
        ("not_an_object", "$[2]"),
        ("not_an_object", "$[3]"),
        ("no_message_id", "$[4].MessageId"),
    ]


def test_an_event_too_large_for_a_record_is_quarantined_raw() -> None:
    """At the bound it goes, a byte under it it does not; its neighbours and all counts are unchanged."""
    large = b'{"MessageId":"m-3","Status":"Read","x":"' + b"a" * 5000 + b'"}'
    bound = record_bytes_bound(records_of(b"[" + GOOD + b"," + large + b"]")[1])
    assert records_of(b"[" + GOOD + b"," + large + b"]", encoder_of(bound))[1].topic == "status"
    first, second = records_of(b"[" + GOOD + b"," + large + b"]", encoder_of(bound - 1))
    assert ("status", "quarantine", b"m-3", large) == (first.topic, second.topic, second.key, second.value)
    headers = dict(second.headers)
    assert (
        headers["quarantine_reason"],
        headers["quarantine_path"],
        headers["bridge_position"],
    ) == (b"too_large", b"$[1]", b"2/2")


@pytest.mark.parametrize("length", [MAX_QUARANTINE_KEY_BYTES, MAX_QUARANTINE_KEY_BYTES + 1])
def test_a_huge_message_id_is_no_key_in_the_quarantine(length: int) -> None:
    """It would double a record that may already be as large as a body."""
    (record,) = records_of(b'[{"MessageId":"' + b"m" * length + b'"}]')
    assert (b"m" * length if length <= MAX_QUARANTINE_KEY_BYTES else None) == record.key


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([GOOD, BROKEN, b"1", b"{}"])
        | st.integers(0, 3000).map(lambda n: b'{"MessageId":"%s","Status":"Sent"}' % (b"m" * (n + 1)))
        | st.binary(max_size=20),
        max_size=5,
    ),
    st.none() | st.binary(max_size=80),
    st.sampled_from([JSON, value_format("avro", registry=False), value_format("avro", registry=True)]),
)
def test_no_record_is_larger_than_its_bound(items: list[bytes], traceparent: bytes | None, values: ValueFormat) -> None:
    """Against the size that the client's own batch builder gives a record in a batch of its own, its schema's id before it."""
    encoder = encoder_of(values=values)
    for record in records_of(b"[" + b",".join(items) + b"]", encoder, traceparent):
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=10_000_000,
        )
        prefix = b"" if record.schema is None else b"\0four"
        builder.append(0, record.timestamp_ms, record.key, prefix + record.value, record.headers)
        assert len(builder.build()) <= record_bytes_bound(record) <= len(builder.build()) + 250


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2000))
def test_any_bytes_become_records_and_none_is_lost(body: bytes, max_record_bytes: int) -> None:
    """As many records as items, whatever the bytes and the bound; what is quarantined is raw."""
    items = read_body(body, RECEIVED)
    records = records_of(body, encoder_of(max_record_bytes))
    assert len(items) == len(records)
    for item, record in zip(items, records, strict=True):
        assert isinstance(item, Report | Quarantined)
        assert record.topic == "status" or record.value == item.raw


# Every kind of item, with what is read leniently: trailing commas, a raw line break, brackets and quotes within strings.
MIXED = (
    b'\xef\xbb\xbf [{"MessageId":"a\n\\"]}","Status":"Sent","x":[1,{"y":"]"},],} , {"MessageId":"b\\\\","Status":"Read",}\r\n,'
    b'{"MessageId":"c","Status":"Failed","z":"\xff"},{"q":1 2},[ ],]'
)
LONE = b'{"MessageId":"a","Status":"Sent","UserName":"\\ud83d","x":{"y":[{"z":"}\\""}]}}'


@pytest.mark.parametrize(("whole", "records"), [(MIXED, 5), (LONE, 1)], ids=["array", "lone object"])
def test_nothing_is_published_from_a_truncated_body(whole: bytes, records: int) -> None:
    """Wherever it was cut: one quarantined record, which is what arrived, byte for byte."""
    encoder = encoder_of()
    for end in range(1, len(whole) + 1):
        encoded = encoder.encode_body(whole[:end], callback_id="cb-1", received_at_ms=RECEIVED, traceparent=None)
        if end == len(whole):
            assert len(encoded.records) == records
            assert encoded.statuses[0] == "SENT"
            continue
        (record,) = encoded.records
        assert encoded.faults == [("not_json", "$")]
        assert record.value == whole[:end]


ITEM = b'{"MessageId":"m","Status":"Sent"}'
LIMIT = 5
TOO_MANY = {
    "numbers": b"[" + b"1," * LIMIT + b"1]",
    "reports": b"[" + b",".join([ITEM] * (LIMIT + 1)) + b"]",
    "a byte order mark and white space": b"\xef\xbb\xbf [ " + b" , ".join([ITEM] * (LIMIT + 1)) + b" ] ",
    "a trailing comma": b"[" + (ITEM + b",") * (LIMIT + 1) + b"]",
    "a broken item among them": b"[" + b'{"MessageId":"\n"},' * LIMIT + ITEM + b"]",
    "no end": b"[" + b"1," * (LIMIT + 1),
}
FEW_ENOUGH = {
    "as many as allowed": b"[" + b",".join([ITEM] * LIMIT) + b"]",
    "commas within an item": b'[{"MessageId":"m","Status":"Sent","x":"%s","y":[%s1]}]' % (b"," * 99, b"1," * 99),
    "a trailing comma": b"[" + (ITEM + b",") * LIMIT + b"]",
    "a lone object": b'{"MessageId":"m","Status":"Sent","y":[%s1]}' % (b"1," * 99),
    "no JSON": b"," * 99,
}


def limited(body: bytes, max_items: int | None = LIMIT) -> Encoded:
    """A body's records, where it may hold so many items."""
    encoder = RecordEncoder("status", "quarantine", "/x", 1_000_000, max_items=max_items)
    return encoder.encode_body(body, callback_id="cb-1", received_at_ms=RECEIVED, traceparent=None)


@pytest.mark.parametrize("case", TOO_MANY)
def test_a_body_of_too_many_items_is_one_record_as_it_came(case: str) -> None:
    """Whatever the items are: none of them is decoded, and nothing is lost."""
    body = TOO_MANY[case]
    encoded = limited(body)
    (record,) = encoded.records
    assert (encoded.faults, encoded.statuses, encoded.fast) == ([("too_many_items", "$")], [None], 0)
    assert record.value == body
    assert dict(record.headers)["quarantine_detail"] == b"The body holds more than 5 items."


@pytest.mark.parametrize("case", FEW_ENOUGH)
def test_a_body_of_fewer_items_is_what_it_is_without_a_bound(case: str) -> None:
    """However many commas it holds."""
    assert limited(FEW_ENOUGH[case]) == limited(FEW_ENOUGH[case], None)


def test_reasons_are_the_documented_words() -> None:
    """Dashboards and redrives go by these words: they may be added to, never changed."""
    expected = (
        "not_json not_an_object invalid_utf8 too_deep undecodable no_message_id no_status too_large too_many_items"
    )
    assert expected.split() == [reason.value for reason in Reason]
