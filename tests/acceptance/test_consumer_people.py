"""The teams count messages alike, by number and by user id, whichever events have come and in whatever order.

The programs of ``tests/acceptance/consumers`` take the records here without Kafka; the teams of the demo are held to the same.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import NamedTuple

import alerting
import billing
import crm
import pytest
from following import TAKEN, take
from hypothesis import given, settings
from hypothesis import strategies as st
from support.messages import Message

from bridge.consume import Decoder, Event
from bridge.encode.json import encode_event
from bridge.lab.demo.consumers import Alerting, Billing, Consumer, Crm
from bridge.report.report import Report, read_body

A, B = "12005550101", "12005550102"
U, V = "US.1", "US.2"


class Fact(NamedTuple):
    """What a report says, as far as it matters here."""

    status: str
    to: str | None = None
    user_id: str | None = None
    message_id: str = "m"
    error_code: str | None = None
    template: str | None = None

    def event(self) -> Event:
        """What the bridge publishes for it."""
        report = {
            "MessageId": self.message_id, "Status": self.status, "To": self.to, "FromUserId": self.user_id,
            "ErrorCode": self.error_code, "TemplateName": self.template,
        }  # fmt: skip
        [item] = read_body(json.dumps([report]).encode(), 1_764_000_000_000)
        assert isinstance(item, Report)
        return item.event


FACTS = st.lists(
    st.builds(
        Fact,
        status=st.sampled_from(["Sent", "Delivered", "Read", "Failed", "Deleted", "BridgeTest"]),
        to=st.sampled_from([None, A, B]),
        user_id=st.sampled_from([None, U, V]),
        message_id=st.sampled_from(["m", "m", "m", "n"]),
        error_code=st.sampled_from([None, "131026", "131042"]),
        template=st.sampled_from([None, "t"]),
    ),
    max_size=9,
)
EVENTS = FACTS.map(lambda facts: [fact.event() for fact in facts])
DISTINCT = EVENTS.map(lambda events: list({event.event_id: event for event in events}.values()))
TWO_ORDERS = DISTINCT.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events)))


class Team:
    """A program's tables, in memory."""

    def __init__(self, program: ModuleType) -> None:
        self._program, self._decoder = program, Decoder()
        self._database = sqlite3.connect(":memory:")
        self._database.executescript(TAKEN + program.TABLES)

    def take(self, events: Iterable[Event]) -> "Team":
        """Take them as one batch of records."""
        records = [
            Message("t", 0, 0, b"k", encode_event(event), [("ce_id", event.event_id.encode())]) for event in events
        ]
        take(records, self._decoder, self._database, self._program.apply)
        return self

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What its database answers."""
        return self._database.execute(query).fetchall()


def fed(consumer: Consumer, events: Iterable[Event]) -> Consumer:
    """A team of the demo that has had these."""
    for event in events:
        consumer.receive(event.event_id, encode_event(event))
    return consumer


def messages(events: Iterable[Event]) -> dict[str, int]:
    """How many messages each message_id is, by these events: the rule, written down once more."""
    by_id: dict[str, list[Event]] = {}
    for event in events:
        if event.provider_status != "BridgeTest":
            by_id.setdefault(event.message_id, []).append(event)
    return {
        message_id: max(
            1,
            len({event.recipient for event in own if event.recipient}),
            len({event.user_id for event in own if event.user_id}),
        )
        for message_id, own in by_id.items()
    }


def delivered(events: Iterable[Event]) -> list[Event]:
    """Those that say that it arrived."""
    return [event for event in events if event.status in {"DELIVERED", "READ"}]


def states_of(team: Team) -> dict[tuple[object, ...], object]:
    """The CRM's view."""
    rows = team.rows("SELECT message_id, person, state FROM states")
    states = {row[:2]: row[2] for row in rows}
    assert len(states) == len(rows)
    return states


@given(EVENTS)
@settings(deadline=None, max_examples=300)
def test_charges_are_those_of_the_people_known_and_none_ever_goes(events: Sequence[Event]) -> None:
    """After each event, repeats among them; of a repeat, what came first counts."""
    team, demo = Team(billing), Billing()
    taken: dict[str, Event] = {}
    before: set[tuple[object, ...]] = set()
    for event in events:
        taken.setdefault(event.event_id, event)
        expected = messages(delivered(taken.values()))
        charges = set(team.take([event]).rows("SELECT * FROM charges"))
        assert charges >= before, "a charge that was made is gone, or another"
        assert Counter(message_id for message_id, *_ in charges) == expected
        assert fed(demo, [event]).total == sum(expected.values())
        before = charges


@pytest.mark.parametrize(
    ("facts", "charges"),
    [
        ([Fact("Delivered", None, U), Fact("Delivered", None, V)], 2),
        ([Fact("Delivered", A), Fact("Read", None, U)], 1),
        ([Fact("Delivered", A), Fact("Read", A), Fact("Read", None, U)], 1),
        ([Fact("Delivered", A), Fact("Delivered", B), Fact("Read", None, U), Fact("Read", None, V)], 2),
        ([Fact("Delivered", A, U), Fact("Delivered", None, V)], 2),
        ([Fact("Delivered", A), Fact("Read")], 1),
        ([Fact("Read")], 1),
        ([Fact("Sent", A), Fact("Sent", B), Fact("Delivered", None, U)], 1),
    ],
)
def test_billing_charges_people_once(facts: list[Fact], charges: int) -> None:
    """Two without a number; one with a number first and a user id later; and so on, in both orders."""
    events = [fact.event() for fact in facts]
    for order in (events, events[::-1]):
        assert Team(billing).take(order).rows("SELECT count(*) FROM charges") == [(charges,)]


@given(TWO_ORDERS)
@settings(deadline=None, max_examples=300)
def test_the_crm_has_a_state_for_each_person_known_in_any_order(orders: tuple[list[Event], list[Event]]) -> None:
    """After each event, and the same ones at the end of either order."""
    events, other = orders
    team = Team(crm)
    for count, event in enumerate(events, 1):
        states = states_of(team.take([event]))
        assert Counter(message_id for message_id, _ in states) == messages(events[:count])
    stirred = states_of(Team(crm).take(other))
    assert stirred == states_of(team)
    demo = Crm()
    assert fed(demo, other).total == len(stirred)
    assert {message: state.name for message, state in demo.messages.items()} == stirred


@pytest.mark.parametrize(
    ("facts", "states"),
    [
        # By number first, by user id alone later.
        ([Fact("Sent", A), Fact("Read", None, U)], {A: "READ"}),
        # Two people without a number.
        ([Fact("Sent", None, U), Fact("Read", None, V)], {U: "SENT", V: "READ"}),
        # Linked by the event that names both, so that the order of their text does not matter.
        ([Fact("Sent", A, V), Fact("Sent", B, U), Fact("Read", None, V)], {A: "READ", B: "SENT"}),
        # V is the other one's, as U is A's.
        ([Fact("Sent", A, U), Fact("Sent", B), Fact("Failed", None, V)], {A: "SENT", B: "FAILED"}),
        # Nothing says whose it is: the first one's.
        ([Fact("Sent", A), Fact("Sent", B), Fact("Read", None, V)], {A: "READ", B: "SENT"}),
        # Nobody is named.
        ([Fact("Sent"), Fact("Read")], {"": "READ"}),
        ([Fact("Sent", A), Fact("Read")], {A: "READ"}),
    ],
)
def test_an_event_moves_the_message_of_the_person_it_is_about(facts: list[Fact], states: dict[str, str]) -> None:
    """Whichever of its two names it has."""
    events = [fact.event() for fact in facts]
    for order in (events, events[::-1]):
        assert states_of(Team(crm).take(order)) == {("m", person): state for person, state in states.items()}


@given(TWO_ORDERS)
@settings(deadline=None, max_examples=300)
def test_failure_rates_are_of_messages(orders: tuple[list[Event], list[Event]]) -> None:
    """Those that are known, in any order; a message that failed twice failed once."""
    events, other = orders
    everybody = sum(messages(events).values())
    failed = [event for event in events if event.status == "FAILED"]
    expected = {
        category: sum(messages(event for event in failed if event.error_category == category).values())
        for category in {event.error_category.value for event in failed}
    }
    team = Team(alerting).take(other)
    rows = team.rows("SELECT category, failed, rate FROM rate_by_category")
    assert {category: count for category, count, _ in rows} == expected
    assert all(rate == pytest.approx(expected[str(category)] / everybody) for category, _, rate in rows)
    demo = Alerting()
    assert fed(demo, other).total == sum(messages(failed).values())
    assert demo.failures == expected
    assert demo.rate() == (demo.total / everybody if everybody else 0)
    assert 0 <= demo.rate() <= 1
    used = {event.message_id for event in events if event.template_name and not event.is_test}
    failed_of_template = sum(messages(event for event in failed if event.message_id in used).values())
    of_template = sum(count for message_id, count in messages(events).items() if message_id in used)
    rates = team.rows("SELECT template, failed, rate FROM rate_by_template")
    assert rates == ([("t", failed_of_template, failed_of_template / of_template)] if of_template else [])
