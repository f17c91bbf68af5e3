"""Three teams follow the topic on a real Kafka, fed through the bridge, and end with the right tables whatever happens to them.

What the tables must be is worked out here, plainly, from the raw JSON of the topic, and for charges from the provider's own
ledger as well. Nothing of the programs is used for it.
"""

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from conftest import MakeTopic
from support.apart import run_apart
from support.bridge_process import BridgeProcess
from support.callbacks import make_topics
from support.consumers import MOMENTS, Team
from support.topics import consume_all, until

from bridge.lab.demo.campaign import Pushing
from bridge.lab.demo.consumers import Alerting, Billing, Crm
from bridge.lab.demo.reckoning import Expected

MESSAGES, RATE = 500, 2500.0
Key = tuple[str, str]
Charge = tuple[str, int]


class Tables(NamedTuple):
    """What the three teams' tables have to be."""

    states: dict[Key, str]
    charges: dict[Charge, str]
    rate_by_category: dict[str, Fraction]
    rate_by_template: dict[str, Fraction]

    @classmethod
    def of(cls, records: Sequence[ConsumerRecord]) -> "Tables":
        """From the raw JSON of a topic, in the order of each partition; charges are by the event that made them."""
        first: dict[str, Any] = {}
        for event in (json.loads(record.value) for record in records):
            first.setdefault(event["event_id"], event)
        events = Events(first.values())
        failed = events.where("status", "FAILED")
        templates = {message_id: max(e["template_name"] or "" for e in own) for message_id, own in events.by_id.items()}
        of_template: Counter[str] = Counter()
        failed_of_template: Counter[str] = Counter()
        for message_id, template in templates.items():
            if template:
                of_template[template] += events.messages[message_id]
                failed_of_template[template] += failed.messages.get(message_id, 0)
        by_category = {
            category: failed.where("error_category", category)
            for category in {event["error_category"] for event in failed.all}
        }
        return cls(
            {
                (message_id, person): _state(statuses)
                for message_id, own in events.by_id.items()
                for person, statuses in _statuses(own).items()
            },
            {
                (message_id, number): event["event_id"]
                for message_id, own in events.where("status", "DELIVERED", "READ").by_id.items()
                for number, event in _charged(own).items()
            },
            {category: Fraction(own.total, events.total) for category, own in by_category.items()},
            {template: Fraction(failed_of_template[template], used) for template, used in of_template.items()},
        )


class Events:
    """Some events, and the messages that they are about."""

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        self.all = list(events)
        self.by_id: dict[str, list[dict[str, Any]]] = {}
        for event in self.all:
            self.by_id.setdefault(event["message_id"], []).append(event)
        self.messages = {message_id: _people(own) for message_id, own in self.by_id.items()}
        self.total = sum(self.messages.values())

    def where(self, field: str, *values: str) -> "Events":
        """Those of them that have one of these values there."""
        return Events(event for event in self.all if event[field] in values)


def _people(events: Sequence[dict[str, Any]]) -> int:
    """How many people share a message_id, by its events."""
    return max(1, *(len({event[name] for event in events} - {None}) for name in ("recipient", "user_id")))


def _charged(delivered: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Which event of a message_id made which charge, in the order in which they came."""
    charged: dict[int, dict[str, Any]] = {}
    for position, event in enumerate(delivered):
        charged.setdefault(_people(delivered[: position + 1]), event)
    return charged


def _statuses(events: Sequence[dict[str, Any]]) -> dict[str, set[str]]:
    """What happened to each person who shares a message_id, of whom the campaign names no more by user id than by number."""
    names = [(event["recipient"], event["user_id"]) for event in events]
    number_of = {user_id: number for number, user_id in names if number and user_id}
    alone = {user_id for _, user_id in names} - number_of.keys() - {None}
    free = {number for number, _ in names} - set(number_of.values()) - {None}
    number_of |= dict(zip(sorted(alone), sorted(free), strict=False))
    statuses: dict[str, set[str]] = {}
    for (number, user_id), event in zip(names, events, strict=True):
        statuses.setdefault(number or number_of.get(user_id, user_id) or "", set()).add(event["status"])
    return statuses


def _state(statuses: set[str]) -> str:
    """The one to show, of all that a message had."""
    order = ("DELETED", "READ", "DELIVERED", "FAILED", "SENT", "UNKNOWN")
    return next(state for state in order if state in statuses)


class Pushed(NamedTuple):
    """A topic full of events, and what the provider knows of them."""

    topic: str
    records: list[ConsumerRecord]
    expected: Expected


@asynccontextmanager
async def a_bridge(bootstrap: str, directory: Path) -> AsyncIterator[tuple[BridgeProcess, str]]:
    """A bridge with topics of its own; the topic of its events."""
    topics = await make_topics(bootstrap, partitions=4)
    async with BridgeProcess(bootstrap, directory, {"log.level": "info"}, topics) as bridge:
        yield bridge, topics[0]


async def on_kafka(bridge: BridgeProcess) -> None:
    """Wait until all that it answered 200 is on Kafka; what its spool holds would stay there when it stops."""

    async def nothing_waits() -> bool:
        return (await bridge.metrics())["chatapp_bridge_reports_waiting"] == 0

    async with asyncio.timeout(30):
        await until(nothing_waits, 0.05)


@pytest.fixture(scope="module")
def pushed(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    """A campaign with repeats, reordering and odd reports, pushed through a bridge; it has come to its end."""

    async def push() -> Pushed:
        async with a_bridge(kafka_bootstrap, tmp_path_factory.mktemp("bridge")) as (bridge, topic):
            pushing = Pushing(bridge.url, MESSAGES, RATE, seed=5)
            await pushing.run()
            await on_kafka(bridge)
            await bridge.stop()
        expected = Expected.of(pushing.ledger.entries.values())
        return Pushed(topic, await consume_all(kafka_bootstrap, topic), expected)

    return run_apart(push())


@pytest.fixture
def teams(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Any]:
    """Makes teams, none of which outlives the test."""
    made: list[Team] = []

    def make(name: str, topic: str) -> Team:
        made.append(Team(name, kafka_bootstrap, topic, tmp_path))
        return made[-1]

    yield make
    for team in made:
        team.kill()


def charges(billing: Team) -> dict[Charge, str]:
    """Every charge, with the event that it was made for."""
    rows = billing.rows("SELECT message_id, number, event_id, cents FROM charges")
    assert {cents for *_, cents in rows} <= {4}
    return {(message_id, number): event_id for message_id, number, event_id, _ in rows}


def by_message_id(charged: Iterable[Charge]) -> dict[str, int]:
    """How many charges each message_id has."""
    return dict(Counter(message_id for message_id, _ in charged))


def rates(rows: list[tuple[str, float]]) -> dict[str, Fraction]:
    """Failure rates by what they are of."""
    return {name: Fraction(rate).limit_denominator(10_000) for name, rate in rows}


async def test_three_groups_come_to_their_tables_while_the_bridge_pushes(
    kafka_bootstrap: str, teams: Any, tmp_path: Path
) -> None:
    """Each at its own pace, from a topic that is being written; billing is killed in between and started again."""
    async with a_bridge(kafka_bootstrap, tmp_path) as (bridge, topic):
        crm, billing, alerting = (teams(name, topic) for name in ("crm", "billing", "alerting"))
        for team in (crm, billing, alerting):
            team.start()
        for seed in (1, 2):
            pushing = Pushing(bridge.url, MESSAGES // 2, RATE, seed)
            await pushing.run()
            billing.kill()
            billing.start()
        await on_kafka(bridge)
        for team in (crm, billing, alerting):
            await team.caught_up()
        tables = Tables.of(await consume_all(kafka_bootstrap, topic))

    assert {(m, r): state for m, r, state in crm.rows("SELECT * FROM states")} == tables.states
    assert charges(billing) == tables.charges
    assert rates(alerting.rows("SELECT category, rate FROM rate_by_category")) == tables.rate_by_category
    assert rates(alerting.rows("SELECT template, rate FROM rate_by_template")) == tables.rate_by_template
    assert len(tables.rate_by_category) > 3
    assert set(tables.states.values()) >= {"DELIVERED", "READ", "FAILED"}
    assert [await team.stop() for team in (crm, billing, alerting)] == [0, 0, 0]


def test_the_demo_s_teams_come_to_the_same_tables(pushed: Pushed) -> None:
    """They are these in memory, without Kafka."""
    crm, billing, alerting = Crm(), Billing(), Alerting()
    values = [record.value for record in pushed.records]
    for team in (crm, billing, alerting):
        for record in pushed.records:
            team.receive(dict(record.headers)["ce_id"].decode(), record.value)
    tables = Tables.of(pushed.records)
    names = {
        (event["message_id"], event[name]) for event in map(json.loads, values) for name in ("recipient", "user_id")
    }
    assert len({name for name in names if name[1]}) > len(tables.states), "nobody comes by number and by user id"
    assert {key: state.name for key, state in crm.messages.items()} == tables.states
    assert billing.total == len(tables.charges)
    assert {kind for kind in alerting.failures if alerting.failures[kind]} == tables.rate_by_category.keys()


def test_the_cloudevents_sdk_reads_every_record(pushed: Pushed) -> None:
    """As it lies on Kafka, in JSON: the attributes are valid, and those of the event."""
    for record in pushed.records:
        read = from_binary(KafkaMessage(dict(record.headers), record.key, record.value), JSONFormat())
        event: Any = read.get_data()
        assert (read.get_id(), read.get_subject()) == (event["event_id"], event["message_id"])
        assert read.get_type() == f"chatapp.status.{event['status'].lower()}"


async def test_billing_is_exact_when_it_is_killed_at_the_worst_moments(pushed: Pushed, teams: Any) -> None:
    """Three kill -9: rows written and not committed; committed, and Kafka not told; Kafka just told."""
    billing = teams("billing", pushed.topic)
    seen: dict[Charge, str] = {}
    for moment in MOMENTS:
        billing.start_dying(moment)
        assert await billing.ended() == -9
        now = charges(billing)
        assert now.items() >= seen.items(), "a charge that was made has changed"
        assert bool(now) == (moment != "in the transaction")
        seen = now
    billing.start()
    await billing.caught_up()
    assert charges(billing) == Tables.of(pushed.records).charges
    assert by_message_id(charges(billing)) == pushed.expected.delivered.counts()


async def test_billing_is_exact_under_repeats_reordering_and_a_replay(
    kafka_bootstrap: str, topic: MakeTopic, pushed: Pushed, teams: Any, tmp_path: Path
) -> None:
    """Every record twice and in any order; then all of that replayed into the same topic: not one charge more or other."""
    chance = random.Random(11)  # noqa: S311  has to be repeatable, guards nothing
    stirred = await topic(partitions=3)
    await produce(kafka_bootstrap, stirred, chance.sample(pushed.records * 2, 2 * len(pushed.records)))
    billing = teams("billing", stirred)
    billing.start()
    await billing.caught_up()
    charged = charges(billing)
    assert charged == Tables.of(await consume_all(kafka_bootstrap, stirred)).charges
    assert by_message_id(charged) == pushed.expected.delivered.counts()

    await replay(kafka_bootstrap, stirred, tmp_path)
    await billing.caught_up()
    replayed = await consume_all(kafka_bootstrap, stirred)
    assert Counter("bridge_replay" in dict(record.headers) for record in replayed) == dict.fromkeys(
        [False, True], len(replayed) / 2
    )
    assert charges(billing) == charged
    taken = billing.rows("SELECT count(*) FROM taken")
    assert taken == [(len({dict(record.headers)["ce_id"] for record in pushed.records}),)]


async def produce(bootstrap: str, topic: str, records: Iterable[ConsumerRecord]) -> None:
    """Write records as they were, in this order."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5) as producer:
        for each in [await producer.send(topic, rec.value, rec.key, headers=[*rec.headers]) for rec in records]:
            await each


async def replay(bootstrap: str, topic: str, directory: Path) -> None:
    """``chatapp-bridge replay``, from the topic's beginning to its present end, into itself."""
    settings = [f"kafka.bootstrap_servers={bootstrap}", f"topics.status={topic}", f"spool.directory={directory}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "bridge", "replay", *sets, "--to-topic", topic, "--allow-own-topic", "--execute"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
