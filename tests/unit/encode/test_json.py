"""The JSON value of a record."""

import json

import msgspec
import pytest

from bridge.encode.json import encode_event
from bridge.report.event import StatusEvent
from bridge.report.report import Report, read_body


def event_of(body: bytes) -> StatusEvent:
    """The event of a body of one report, received at 1,764,000,000,123 ms."""
    (item,) = read_body(body, 1_764_000_000_123)
    assert isinstance(item, Report)
    return item.event


def test_every_field_is_present_in_order() -> None:
    """Nulls included: a consumer never has to ask whether a field exists."""
    value = encode_event(event_of(b'{"MessageId":"m-1","Status":"Read"}'))
    assert list(StatusEvent.__struct_fields__) == list(json.loads(value))
    assert json.loads(value)["recipient"] is None


def test_a_whole_value_is_as_published() -> None:
    """Times are numbers, enums words, extras one text, all of it UTF-8 without escapes."""
    body = (
        '{"MessageId":"m-é","To":"15550000001","Status":"Failed","ErrorCode":131049,'
        '"Timestamp":1691043638,"New":{"a": 1}}'
    )
    expected = {
        "message_id": "m-é",
        "task_id": "m-é",
        "task_id_defaulted": True,
        "recipient": "15550000001",
        "status": "FAILED",
        "provider_status": "Failed",
        "status_rank": 0,
        "message_time": 1691043638000,
        "message_time_source": "PROVIDER",
        "received_at": 1764000000123,
        "error_code": "131049",
        "error_category": "ECOSYSTEM_LIMIT",
        "error_retry": "LATER",
        "extras": '{"New":{"a": 1}}',
    }
    event = event_of(body.encode())
    value = encode_event(event)
    assert expected | {"event_id": event.event_id} == {
        n: each for n, each in json.loads(value).items() if each is not None
    }
    assert value == json.dumps(json.loads(value), ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\u0001\\"\\\\"', '"a\\u2028"', "9" * 5000])
def test_what_is_encoded_is_decoded_again(text: str) -> None:
    """Odd characters and long numbers survive, in fields and in extras."""
    event = event_of(f'{{"MessageId":{text},"Status":"Read","New":{text}}}'.encode())
    assert event == msgspec.json.decode(encode_event(event), type=StatusEvent)
    assert event.message_id == json.loads(encode_event(event))["message_id"]
