"""The teams of the demo come to the same tables whatever the order, however often, and with stages left out."""

import itertools
import json
import random
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

from bridge.consume import Event
from bridge.encode.json import encode_event
from bridge.lab.demo.consumers import Alerting, Audit, Billing, Consumer, Crm
from bridge.report.report import Report, read_body

C = TypeVar("C", bound=Consumer)
RANKS = {"SENT": 1, "DELIVERED": 2, "READ": 3}


def _event(message_id: str, status: str, recipient: str | None = "12005550101", **fields: Any) -> dict[str, Any]:
    """What is published for one report, as far as the teams look at it; the rest is empty."""
    empty = dict.fromkeys(Event.__struct_fields__)
    return {
        **empty,
        "event_id": f"{message_id}-{recipient}-{status}-{fields.get('error_category', '')}",
        "message_id": message_id,
        "task_id": message_id,
        "task_id_defaulted": True,
        "recipient": recipient,
        "status": status,
        "provider_status": status.title(),
        "status_rank": RANKS.get(status, 0),
        "message_time": 0,
        "message_time_source": "PROVIDER",
        "received_at": 0,
        "error_category": "NONE",
        "error_retry": "NONE",
        **fields,
    }


def _fed(consumer: C, events: Iterable[dict[str, Any]]) -> C:
    for event in events:
        consumer.receive(event["event_id"], json.dumps(event).encode())
    return consumer


LIFE = [_event("m", status) for status in RANKS]


@pytest.mark.parametrize("order", list(itertools.permutations(LIFE)))
def test_crm_ends_at_the_highest_rank_in_any_order(order: tuple[dict[str, Any], ...]) -> None:
    """The last to arrive is not the latest."""
    assert _fed(Crm(), order).states() == {"READ": 1}


@pytest.mark.parametrize("order", list(itertools.permutations(LIFE)))
def test_a_message_is_charged_once_in_any_order(order: tuple[dict[str, Any], ...]) -> None:
    """DELIVERED and READ of one message are one charge."""
    billing = _fed(Billing(), order)
    assert billing.total == 1
    assert billing.amount_cents == Billing.price_cents


def test_a_read_without_a_delivered_is_charged() -> None:
    """DELIVERED may never come."""
    assert _fed(Billing(), [_event("m", "SENT"), _event("m", "READ")]).total == 1


def test_what_was_only_sent_or_failed_is_not_charged() -> None:
    """Neither reached anyone."""
    events = [_event("m", "SENT"), _event("n", "FAILED", error_category="UNDELIVERABLE")]
    assert _fed(Billing(), events).total == 0


def test_two_recipients_under_one_message_id_are_two_messages() -> None:
    """And a user id alone may be either of them: more in ``test_consumer_people.py``."""
    events = [
        _event("m", "DELIVERED", "12005550101"),
        _event("m", "SENT", "12005550102"),
        _event("m", "READ", None, user_id="US.1"),
    ]
    assert _fed(Billing(), events).total == 1
    assert _fed(Crm(), events).states() == {"READ": 1, "SENT": 1}
    assert _fed(Billing(), [*events, _event("m", "READ", "12005550102")]).total == 2


@pytest.mark.parametrize("order", list(itertools.permutations(["SENT", "DELIVERED", "FAILED"])))
def test_a_failure_reported_beside_a_delivery_does_not_undo_it(order: tuple[str, ...]) -> None:
    """FAILED has no rank; it shows only where nothing was delivered."""
    assert _fed(Crm(), [_event("m", status) for status in order]).states() == {"DELIVERED": 1}


@pytest.mark.parametrize(("statuses", "state"), [(["FAILED", "SENT"], "FAILED"), (["DELETED", "READ"], "DELETED")])
def test_a_state_off_the_ladder_shows_whenever_it_came(statuses: list[str], state: str) -> None:
    """Before or after those on the ladder."""
    for order in itertools.permutations(statuses):
        assert _fed(Crm(), [_event("m", status) for status in order]).states() == {state: 1}


def test_a_status_nobody_knows_yet_moves_nothing() -> None:
    """It is known that the message is there, no more."""
    events = [_event("m", "READ"), _event("m", "UNKNOWN", provider_status="played"), _event("n", "UNKNOWN")]
    assert _fed(Crm(), events).states() == {"READ": 1, "UNKNOWN": 1}


def test_alerting_counts_failures_by_category_and_template() -> None:
    """Rates are for each message, not for each event."""
    events = [
        _event("a", "SENT"),
        _event("a", "FAILED", error_category="UNDELIVERABLE", template_name="offer"),
        _event("b", "FAILED", error_category="OPT_OUT", template_name="offer"),
        _event("c", "SENT"),
        _event("d", "DELIVERED"),
    ]
    alerting = _fed(Alerting(), events)
    assert alerting.total == 2
    assert alerting.rate() == 0.5
    assert alerting.rate("OPT_OUT") == 0.25
    assert alerting.rate("PAYMENT") == 0
    assert alerting.templates.most_common() == [("offer", 2)]
    alerting = _fed(alerting, [_event("a", "FAILED", None, error_category="UNDELIVERABLE", user_id="US.1")])
    assert (alerting.total, alerting.rate()) == (2, 0.5)


def test_no_messages_have_no_failure_rate() -> None:
    """Nothing is divided by nothing."""
    assert Alerting().rate() == 0


@pytest.mark.parametrize("team", [Crm, Billing, Alerting, Audit])
def test_repeats_and_reordering_change_no_table(team: type[Consumer]) -> None:
    """Kafka may hold an event twice and messages in any order: the totals are those of each once, in order."""
    chance = random.Random(7)  # noqa: S311  has to be repeatable, guards nothing
    events = [_event(f"m{n}", status) for n in range(40) for status in RANKS]
    events += [_event(f"f{n}", "FAILED", error_category="PAYMENT", template_name="t") for n in range(10)]
    shuffled = events + chance.sample(events, 60)
    chance.shuffle(shuffled)
    plain, stirred = _fed(team(), events), _fed(team(), shuffled)
    assert stirred.total == plain.total
    assert (stirred.events, stirred.repeats) == (len(events), 60)


@pytest.mark.parametrize("team", [Crm, Billing, Alerting])
def test_checks_of_a_live_deployment_are_ignored(team: type[Consumer]) -> None:
    """The status BridgeTest is nobody's message."""
    event = _event("m", "UNKNOWN", provider_status="BridgeTest")
    consumer = _fed(team(), [event])
    assert (consumer.total, consumer.events) == (0, 0)


def test_what_the_bridge_publishes_is_what_the_teams_read() -> None:
    """The fields they name are those of a real event."""
    body = b'[{"MessageId":"m","Status":"Delivered","To":"12005550101","TemplateName":"t"}]'
    [item] = read_body(body, 1_700_000_000_000)
    assert isinstance(item, Report)
    billing = Billing()
    billing.receive(item.event.event_id, encode_event(item.event))
    assert billing.total == 1
