"""Records are CloudEvents 1.0 in Kafka's binary mode: by the CloudEvents SDK's own reader, whatever was reported."""

from datetime import UTC, datetime
from json import dumps, loads

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.v1.kafka import KafkaMessage as OldMessage
from cloudevents.v1.kafka import from_binary as old_from_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.consume import Decoder
from bridge.encode import avro, json
from bridge.encode.headers import CallbackHeaders
from bridge.report.event import StatusEvent
from bridge.report.report import Report, read_body
from bridge.schemas import written_schema

SOURCE = "/callbacks/chatapp/status/account-1"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SCHEMA = written_schema()
WRITERS = {
    "application/json": json.encode_event,
    "application/avro": avro.compile_writer(loads(SCHEMA.text), b"\xc3\x01" + SCHEMA.fingerprint),
}


def message_of(event: StatusEvent, content_type: str) -> KafkaMessage:
    """Headers, key and value as they are published."""
    headers = CallbackHeaders(
        source=SOURCE.encode(),
        content_type=content_type.encode(),
        callback_id="cb-1",
        received_at_ms=event.received_at,
        total=1,
        traceparent=TRACE,
    )
    key = event.message_id.encode()
    listed = headers.of_event(event, key, 1)
    assert len(dict(listed)) == len(listed)
    return KafkaMessage(dict(listed), key, WRITERS[content_type](event))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
reports = st.fixed_dictionaries(
    {"MessageId": texts, "Status": texts | st.sampled_from(["Sent", "Delivered", "Read", "Failed", "Deleted"])},
    optional={"To": texts, "ErrorCode": texts, "StatusDescription": texts, "Played": texts},
)


@pytest.mark.parametrize("content_type", WRITERS)
@settings(deadline=None, max_examples=60)
@given(reports, st.integers(0, 4_102_444_800_000))
def test_the_sdk_reads_every_record(content_type: str, report: dict[str, str], received_at: int) -> None:
    """Its present reader validates each attribute; what it hands on is what was reported."""
    [item] = read_body(dumps([report]).encode(), received_at)
    assert isinstance(item, Report)
    event, message = item.event, message_of(item.event, content_type)
    read = from_binary(message, JSONFormat())
    assert message.headers["ce_specversion"] == read.get_specversion().encode() == b"1.0"
    assert read.get_id() == event.event_id
    assert read.get_source() == SOURCE
    assert read.get_type() == f"chatapp.status.{event.status.lower()}"
    assert read.get_subject() == event.message_id
    assert read.get_time() == datetime.fromtimestamp(received_at // 1000, UTC).replace(
        microsecond=received_at % 1000 * 1000
    )
    assert read.get_datacontenttype() == content_type
    assert read.get_extension("partitionkey") == event.message_id
    assert Decoder().decode(message.value) == event


@pytest.mark.parametrize("content_type", WRITERS)
def test_the_sdk_s_older_reader_takes_it_too(content_type: str) -> None:
    """Many teams still have version 1 of it."""
    [item] = read_body(b'[{"MessageId":"m-1","Status":"Read"}]', 1_764_000_000_007)
    assert isinstance(item, Report)
    message = message_of(item.event, content_type)
    old = OldMessage(message.headers, message.key, message.value)
    read = old_from_binary(old, data_unmarshaller=lambda value: Decoder().decode(value))
    assert (read["id"], read["source"], read["time"]) == (item.event.event_id, SOURCE, "2025-11-24T16:00:00.007Z")
    assert read.get_data() == item.event


@pytest.mark.parametrize("name", ["ce_source", "ce_type"])
def test_the_sdk_refuses_a_record_that_lacks_an_attribute(name: str) -> None:
    """It does validate. An id and a version that are missing it makes up, so those are compared above."""
    [item] = read_body(b'[{"MessageId":"m-1","Status":"Read"}]', 1_764_000_000_007)
    assert isinstance(item, Report)
    message = message_of(item.event, "application/json")
    del message.headers[name]
    with pytest.raises(CloudEventValidationError):
        from_binary(message, JSONFormat())
