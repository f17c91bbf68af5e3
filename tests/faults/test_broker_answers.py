"""Brokers that answer late, otherwise or not at all, by a script; what came of it is read from their disks."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import OutOfOrderSequenceNumber
from confluent_kafka import Producer
from support.arena import MakeArena, longer
from support.kafka_frames import INIT_PRODUCER_ID, PRODUCE, BatchHead, Request
from support.kafka_proxy import Fault, KafkaProxy
from support.segments import judge
from support.simulate_server import push, report
from support.topics import create_topic

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.simulate.ledger import Attempt, Ledger
from bridge.lab.simulate.push import Report

pytest_plugins = ("support.arena_fixture",)


@pytest.fixture
async def proxy(cluster: EmbeddedKafka) -> AsyncIterator[KafkaProxy]:
    """Before the three nodes."""
    async with KafkaProxy([node.port for node in cluster.nodes]) as proxy:
        yield proxy


def log_dirs(cluster: EmbeddedKafka) -> list[Path]:
    """Of all nodes."""
    return [node.directory / "data" for node in cluster.nodes]


async def test_answers_that_are_late_or_lost_leave_sequences_without_a_gap(
    cluster: EmbeddedKafka, proxy: KafkaProxy, make_arena: MakeArena
) -> None:
    """Each answer to Produce takes its time, and some are lost after the broker appended: what was promised is there, in order.

    Nothing is repeated but what the provider repeats, and what an answer was lost for.
    """
    chance = random.Random(1)  # noqa: S311 - a scripted fault
    unanswered = 0
    arena = await make_arena(bridge_bootstrap=proxy.bootstrap_servers)

    def script(request: Request) -> Fault | None:
        nonlocal unanswered
        if request.api_key != PRODUCE:
            return None
        if request.number % 40 == 20:
            unanswered += sum(BatchHead.read(batch).records for batch in request.batches.values())
            return Fault(cut_answer_at=chance.choice([0, 3, 21]))
        return Fault(delay_seconds=chance.uniform(0.0, 0.03))

    proxy.script = script
    arena.load(longer(3, 120))
    await arena.until(lambda _: proxy.done["cut_answer_at"] >= longer(2, 30))
    consumed = await arena.verdict()

    entries = arena.ledger.entries.values()
    provided = Counter(report.event_id for entry in entries for report in entry.reports if report.event_id)
    own = provided.total() - len(provided)
    status, quarantine = arena.topics
    verdict = judge(log_dirs(cluster), status, entries=entries, quarantine=quarantine, max_repeats=own + unanswered)
    print(f"\n{verdict.describe()}\n{dict(proxy.done)}")  # noqa: T201 - the report
    assert verdict.ok, verdict.describe()
    assert consumed.checked == verdict.checked
    assert verdict.producers > 0
    assert verdict.unsequenced == 0
    assert proxy.done["delay_seconds"] > 10


async def test_a_success_that_no_broker_gave_is_found_out(cluster: EmbeddedKafka, proxy: KafkaProxy) -> None:
    """The proxy acknowledges the second batch itself: a real broker refuses the third, and the second is on no disk."""
    topic = await create_topic(cluster.bootstrap_servers)
    first, second, third = events = [report("m", status) for status in ("Sent", "Delivered", "Read")]
    proxy.script = lambda request: (
        Fault(ask_broker=False) if (request.api_key, request.number) == (PRODUCE, 2) else None
    )
    async with AIOKafkaProducer(bootstrap_servers=proxy.bootstrap_servers, enable_idempotence=True) as producer:
        await produced(producer, topic, first)
        await produced(producer, topic, second)
        with pytest.raises(OutOfOrderSequenceNumber):
            await produced(producer, topic, third)

    ledger = Ledger()
    ledger.opened(push(0, *events), 1.0)
    ledger.attempted(Attempt(0, 1, 1.0, 1.0, 2.0, 200, None))
    verdict = judge(log_dirs(cluster), topic, entries=ledger.entries.values())

    assert ["lost", "lost"] == [each.kind for each in verdict.findings], verdict.describe()
    assert (1, 1) == (verdict.batches, verdict.records)


async def test_a_start_that_a_broker_takes_is_found_out(cluster: EmbeddedKafka) -> None:
    """A broker takes any first sequence number of a producer that it does not know, so that a skipped batch goes unseen there."""
    topic = await create_topic(cluster.bootstrap_servers)
    async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=True) as producer:
        producer._txn_manager.increment_sequence_number(TopicPartition(topic, 0), 3)
        await produced(producer, topic, report("m", "Sent"))

    assert {"sequence start"} == judge(log_dirs(cluster), topic).kinds


async def produced(producer: AIOKafkaProducer, topic: str, event: Report) -> None:
    """As far as the producer knows."""
    assert event.event_id is not None
    headers = [("ce_id", event.event_id.encode())]
    await producer.send_and_wait(topic, b"value", key=event.message_id.encode(), partition=0, headers=headers)


async def test_a_client_of_newer_versions_comes_back_through_the_proxy(
    cluster: EmbeddedKafka, proxy: KafkaProxy
) -> None:
    """librdkafka: its Produce is of a version whose answers nobody here changes, but which are lost all the same."""
    topic = await create_topic(cluster.bootstrap_servers)
    seen: list[Request] = []

    def script(request: Request) -> Fault | None:
        if request.api_key != PRODUCE:
            return None
        seen.append(request)
        return Fault(cut_answer_at=0) if len(seen) == 1 else None

    proxy.script = script
    producer = Producer(
        {"bootstrap.servers": proxy.bootstrap_servers, "enable.idempotence": True, "log_level": 0, "linger.ms": 0}
    )
    for number in range(5):
        producer.produce(topic, f"{number}")
    assert await asyncio.to_thread(producer.flush, 60) == 0

    assert seen[0].api_version > 8
    assert proxy.done["cut_answer_at"] == 1
    assert proxy.requests[INIT_PRODUCER_ID] == 1
    verdict = judge(log_dirs(cluster), topic)
    assert verdict.ok, verdict.describe()
    assert 5 == verdict.records
