"""The headers of a record."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.encode.headers import CallbackHeaders, rfc3339
from bridge.report.report import Quarantined, Reason, Report, read_body

RECEIVED = 1_764_000_000_007
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def headers_of(total: int, traceparent: bytes | None = None) -> CallbackHeaders:
    """The headers of a callback of ``total`` items."""
    return CallbackHeaders(
        source=b"urn:test",
        content_type=b"application/json",
        callback_id="cb-1",
        received_at_ms=RECEIVED,
        total=total,
        traceparent=traceparent,
    )


def report(status: str, message_id: str = "m-1") -> Report:
    """A report of this status."""
    (item,) = read_body(f'{{"MessageId":"{message_id}","Status":"{status}"}}'.encode(), RECEIVED)
    assert isinstance(item, Report)
    return item


def test_an_event_has_exactly_the_listed_headers() -> None:
    """CloudEvents 1.0 in binary mode, then the callback and the place in it."""
    event = report("Read", "m-é").event
    assert [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_source", b"urn:test"),
        ("ce_type", b"chatapp.status.read"),
        ("ce_time", b"2025-11-24T16:00:00.007Z"),
        ("ce_subject", b"m-\xc3\xa9"),
        ("content-type", b"application/json"),
        ("bridge_callback", b"cb-1"),
        ("bridge_position", b"3/10"),
    ] == headers_of(10).of_event(event, b"m-\xc3\xa9", 3)


def test_the_request_s_trace_goes_on() -> None:
    """A traceparent is passed on as it came, and only where there was one."""
    event = report("Read").event
    with_trace = headers_of(1, TRACE).of_event(event, b"m-1", 1)
    without = headers_of(1).of_event(event, b"m-1", 1)
    assert ("traceparent", TRACE) in with_trace
    assert without == [header for header in with_trace if header[0] != "traceparent"]


@pytest.mark.parametrize(
    ("status", "ce_type"),
    [
        ("Sent", b"chatapp.status.sent"),
        ("Delivered", b"chatapp.status.delivered"),
        ("Read", b"chatapp.status.read"),
        ("Failed", b"chatapp.status.failed"),
        ("Deleted", b"chatapp.status.deleted"),
        ("Played", b"chatapp.status.unknown"),
    ],
)
def test_the_type_names_the_status(status: str, ce_type: bytes) -> None:
    """Consumers may filter by header alone."""
    assert ce_type == dict(headers_of(1).of_event(report(status).event, b"m-1", 1))["ce_type"]


def test_a_quarantined_item_has_exactly_the_listed_headers() -> None:
    """The reason first; no trace, no CloudEvents attributes: it is no event."""
    item = Quarantined(b"{}", Reason.NO_STATUS, "A sentence.", "$[2].Status", "m-1")
    assert headers_of(3, TRACE).of_quarantined(item, 3) == [
        ("quarantine_reason", b"no_status"),
        ("quarantine_detail", b"A sentence."),
        ("quarantine_path", b"$[2].Status"),
        ("bridge_callback", b"cb-1"),
        ("bridge_position", b"3/3"),
        ("received_at", b"1764000000007"),
    ]


@settings(deadline=None)
@given(st.integers(0, 253_402_300_799_999))
def test_a_time_has_milliseconds_and_is_utc(time_ms: int) -> None:
    """Whatever the time, it reads back as the same millisecond."""
    text = rfc3339(time_ms).decode()
    read_back = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert time_ms == int(read_back.timestamp()) * 1000 + read_back.microsecond // 1000
    assert len("2025-11-24T16:00:00.007Z") == len(text)
