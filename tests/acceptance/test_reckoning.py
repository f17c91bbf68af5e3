"""The demo's account is one that can fail: whatever is wrong with a count, it does not agree."""

import hashlib
import json
import math

import pytest
from aiokafka import ConsumerRecord

from bridge.consume import Event
from bridge.lab.demo.consumers import Alerting, Billing, Consumer, Crm
from bridge.lab.demo.reckoning import Expected, Reckoning, broken_promises, reckon
from bridge.lab.simulate.ledger import Attempt, Entry, Opened
from bridge.lab.simulate.push import Report

RAW = b"nonsense"
REPORTS = (
    Report("m", "1", "Sent", None, "sent"),
    Report("m", "1", " delivered ", None, "delivered"),
    Report("m", "1", "Sent", None, "sent"),
    Report("n", "2", "Failed", "131026", "failed"),
    Report("", "", "", None, None, hashlib.sha256(RAW).hexdigest()),
)
EVENTS = {"sent": ("m", "1", "SENT"), "delivered": ("m", "1", "DELIVERED"), "failed": ("n", "2", "FAILED")}
RANKS = {"SENT": 1, "DELIVERED": 2}


def _attempt(*, status: int | None = 200, error: str | None = None, took_seconds: float = 0.01) -> Attempt:
    return Attempt(0, 1, 10.0, 10.0, 10.0 + took_seconds, status, error)


def _entry(attempt: Attempt | None = None) -> Entry:
    attempt = attempt or _attempt()
    entry = Entry(Opened(0, 10.0, REPORTS))
    entry.attempts.append(attempt)
    entry.promise(attempt.status, attempt.ended_at)
    entry.acknowledged = attempt.error is None
    return entry


def _value(event_id: str) -> bytes:
    """An event as the teams need it; the rest is empty."""
    message_id, recipient, status = EVENTS[event_id]
    fields = {"event_id": event_id, "message_id": message_id, "recipient": recipient, "status": status}
    rest = {
        "provider_status": status,
        "status_rank": RANKS.get(status, 0),
        "error_category": "NONE",
        "error_retry": "NONE",
    }
    task = {"task_id": message_id, "task_id_defaulted": True}
    times = {"message_time": 0, "message_time_source": "PROVIDER", "received_at": 0}
    return json.dumps(dict.fromkeys(Event.__struct_fields__) | fields | rest | task | times).encode()


def _record(offset: int, event_id: str) -> ConsumerRecord:
    key, value = EVENTS[event_id][0].encode(), _value(event_id)
    return ConsumerRecord("t", 0, offset, 0, 0, key, value, None, 0, 0, [("ce_id", event_id.encode())])


def _quarantined(value: bytes = RAW) -> ConsumerRecord:
    return ConsumerRecord("q", 0, 0, 0, 0, None, value, None, 0, 0, [])


def _reckoned(
    on_kafka: tuple[str, ...] = ("sent", "delivered", "sent", "failed"),
    taken: tuple[str, ...] = ("sent", "delivered", "failed"),
    raw: bytes = RAW,
    entry: Entry | None = None,
) -> Reckoning:
    teams: list[Consumer] = [Crm(), Billing(), Alerting()]
    for team in teams:
        for event_id in taken:
            team.receive(event_id, _value(event_id))
    records = [_record(offset, event_id) for offset, event_id in enumerate(on_kafka)]
    return reckon([entry or _entry()], records, [_quarantined(raw)], teams)


def _differing(reckoning: Reckoning) -> list[str]:
    return [row.name for row in reckoning.rows if not row.agrees]


def test_all_agrees_where_nothing_is_wrong() -> None:
    """Repeats in one callback, and on Kafka, are no difference."""
    reckoning = _reckoned()
    assert _differing(reckoning) == []
    assert reckoning.agrees


@pytest.mark.parametrize(
    ("delivered", "charges"),
    [
        ([("", "US.1"), ("", "US.2")], 2),
        ([("12005550101", ""), ("", "US.1")], 1),
        ([("12005550101", "US.1"), ("", "US.1"), ("12005550102", "")], 2),
        ([("", "")], 1),
    ],
)
def test_people_are_told_apart_by_both_of_their_names(delivered: list[tuple[str, str]], charges: int) -> None:
    """Two without a number are two; one who comes by number first and by user id later is one."""
    reports = [Report("m", to or user_id, "Read", None, to + user_id, user_id=user_id) for to, user_id in delivered]
    expected = Expected.of([Entry(Opened(0, 10.0, tuple(reports)))])
    assert expected.of_team(Billing()) == ("charges", charges)
    assert expected.of_team(Crm()) == ("messages known", charges)
    assert expected.of_team(Alerting()) == ("messages failed", 0)


@pytest.mark.parametrize(
    ("found", "differing"),
    [
        (("delivered", "sent", "failed"), ["reports lost, invented, out of order"]),
        (("sent", "failed"), ["events on Kafka", "reports lost, invented, out of order"]),
    ],
)
def test_what_is_lost_or_out_of_order_on_kafka_differs(found: tuple[str, ...], differing: list[str]) -> None:
    """Whatever the teams have."""
    reckoning = _reckoned(on_kafka=found)
    assert _differing(reckoning) == differing
    assert not reckoning.agrees


@pytest.mark.parametrize(
    ("taken", "differing"),
    [
        (("sent", "failed"), ["billing: charges"]),
        (("sent", "delivered"), ["CRM: messages known", "alerting: messages failed"]),
    ],
)
def test_a_team_that_missed_an_event_differs(taken: tuple[str, ...], differing: list[str]) -> None:
    """Each has a count of its own."""
    assert _differing(_reckoned(taken=taken)) == differing


def test_a_quarantined_record_with_other_bytes_differs() -> None:
    """It has to hold what came."""
    assert not _reckoned(raw=b"nonsens").agrees


def test_a_callback_that_was_given_up_differs() -> None:
    """Even where its events are on Kafka."""
    reckoning = _reckoned(entry=_entry(_attempt(status=503, error="status")))
    assert _differing(reckoning) == [
        "callbacks answered 200",
        "reports answered 200",
        "answers late, or other than 200",
    ]


@pytest.mark.parametrize(
    "attempt",
    [
        _attempt(status=503, error="status"),
        _attempt(status=None, error="timeout", took_seconds=3.0),
        _attempt(status=200, took_seconds=3.1),
        _attempt(status=None, error="refused"),
    ],
)
def test_an_answer_late_or_other_than_200_breaks_the_promise(attempt: Attempt) -> None:
    """And so does a refused connection while the bridge was not killed."""
    assert broken_promises([_entry(attempt)], []) == [attempt]


def test_only_a_connection_to_a_dead_bridge_is_excused() -> None:
    """What it answered, or let time out, is not."""
    refused = _attempt(status=None, error="refused")
    assert broken_promises([_entry(refused)], [(9.0, 11.0)]) == []
    assert broken_promises([_entry(refused)], [(12.0, 13.0)]) == [refused]
    cut = _attempt(status=None, error="closed", took_seconds=0.5)
    assert broken_promises([_entry(cut)], [(cut.sent_at + 0.2, cut.sent_at + 2.0)]) == []
    assert broken_promises([_entry(cut)], [(cut.sent_at - 2.0, cut.sent_at - 0.1)]) == [cut]
    for attempt in (_attempt(status=503, error="status"), _attempt(status=None, error="timeout")):
        assert broken_promises([_entry(attempt)], [(0.0, math.inf)]) == [attempt]
