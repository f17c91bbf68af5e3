"""Kafka as services offer it: without idempotent producers, with gzip alone, with a limit for requests; judged from the topic."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from support.arena import LONG, Arena, Verdict
from support.kafka_frames import CREATE_TOPICS, DESCRIBE_CONFIGS, INIT_PRODUCER_ID, PRODUCE
from support.kafka_proxy import Fault, KafkaProxy, Script
from support.raw_http import get
from support.segments import judge
from support.services import PASSWORD, USER, ApsaraMQ, EventHubs, LoginKafka, Service
from support.topics import consume_all, create_topic, unique_name

from bridge.lab.simulate.campaign import Mix

RATE = 400.0
SOON_SECONDS = 20.0


class Stand:
    """A bridge that has a service for its Kafka, and a provider that pushes to it."""

    def __init__(self, kafka: LoginKafka, service: Service, proxy: KafkaProxy, arena: Arena) -> None:
        self.kafka, self.service, self.proxy, self.arena = kafka, service, proxy, arena

    @property
    def log_dirs(self) -> list[Path]:
        """Of the broker."""
        return [node.directory / "data" for node in self.kafka.kafka.nodes]

    def load(self, seconds: float, rate: float = RATE) -> None:
        """Begin to push."""
        self.arena.load(seconds, rate, mix=Mix.plain())

    def lose_answers(self, every: int) -> None:
        """Of each so many Produce requests one is appended and not answered."""
        self.service.then = produced(lambda request: Fault(cut_answer_at=0) if request.number % every == 0 else None)

    async def published(self, more: float) -> None:
        """Wait until Kafka acknowledged so many reports more."""
        scrapes = self.arena.watcher.scrapes
        before = scrapes[-1].total("reports_published") if scrapes else 0
        await self.arena.until(lambda scrape: scrape.total("reports_published") >= before + more, SOON_SECONDS)

    async def finish(self) -> Verdict:
        """All is well from now on; nothing is lost or late, and every callback was answered 200."""
        self.service.then = None
        verdict = await self.arena.verdict()
        assert verdict.summary.answers.keys() == {"200"}, verdict.summary.answers
        assert verdict.log is not None
        return verdict

    def lines(self, words: str) -> list[str]:
        """Of the bridge's log."""
        return [line for line in self.arena.bridge.log().splitlines() if words in line]


def produced(script: Script) -> Script:
    """The script for Produce alone."""
    return lambda request: script(request) if request.api_key == PRODUCE else None


@pytest.fixture
async def stand(login_kafka: LoginKafka, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Makes one for a service; keys of the bridge's configuration may follow."""
    async with AsyncExitStack() as stack:

        async def make(service: Service, settings: dict[str, Any] | None = None) -> Stand:
            bootstrap = login_kafka.kafka.bootstrap_servers
            topics = [
                await create_topic(bootstrap, unique_name(name), partitions=n) for name, n in (("s", 12), ("q", 1))
            ]
            proxy = await stack.enter_async_context(service.before(login_kafka.ports))
            arena = Arena(
                bootstrap,
                tmp_path,
                (topics[0], topics[1]),
                {**login_kafka.login(service), **(settings or {})},
                bridge_bootstrap=proxy.bootstrap_servers,
                log_dirs=[node.directory / "data" for node in login_kafka.kafka.nodes],
            )
            return Stand(login_kafka, service, proxy, await stack.enter_async_context(arena))

        yield make
    login_kafka.kafka.nodes[0].resume()


# --- ApsaraMQ: no producer ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", ["paused", *(["killed"] if LONG else [])])
async def test_without_producer_ids_lost_answers_and_an_outage_cost_copies_alone(
    stand: Callable[..., Any], outage: str
) -> None:
    """Nothing is lost, and no copy is behind a newer record of its key. The bridge says once that it goes without.

    A broker that goes on after a pause reads what an abandoned connection brought before, and then the same batch again.
    """
    here = await stand(ApsaraMQ(), {"delivery.producer_timeout_seconds": 1.0})
    await here.arena.until(lambda scrape: scrape.metrics["kafka_up"] == 1, SOON_SECONDS)
    here.load(3)
    await here.published(200)
    here.lose_answers(every=8)
    await here.published(200)
    here.service.then = None
    node = here.kafka.kafka.nodes[0]
    lost = len(here.lines("kafka_request_lost"))
    node.pause() if outage == "paused" else await node.kill()
    here.load(2)
    async with asyncio.timeout(SOON_SECONDS):
        while len(here.lines("kafka_request_lost")) == lost:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.05)
    node.resume() if outage == "paused" else await node.start()
    status = (await get(here.arena.bridge.admin_port, "/status.json")).json()

    verdict = await here.finish()
    assert verdict.log.unsequenced == verdict.log.batches
    assert verdict.checked.repeats > 0
    assert here.service.done[INIT_PRODUCER_ID] >= 3
    assert len(here.lines("idempotence_not_available")) == 1
    assert here.arena.watcher.scrapes[-1].metrics["kafka_idempotent"] == 0
    assert status["kafka"]["idempotent"] is False


async def test_a_drain_without_producer_ids_publishes_everything(stand: Callable[..., Any]) -> None:
    """It has a producer of its own, which finds out as the bridge does; of its batches, too, one is there twice."""
    here = await stand(ApsaraMQ())
    here.service.then = produced(lambda _: Fault(lose_request=True))
    here.load(1)
    await here.arena.loaded()
    await here.arena.until(lambda scrape: scrape.total("spool_rows") > 0 and scrape.waiting >= RATE, SOON_SECONDS)
    here.arena.bridge.kill()
    lost = iter([Fault(cut_answer_at=0)])
    here.service.then = produced(lambda _: next(lost, None))

    process = await asyncio.create_subprocess_exec(*here.arena.bridge.command("spool", "drain", "--timeout", "60"))
    assert await asyncio.wait_for(process.wait(), 70) == 0

    topics = here.arena.topics
    log = judge(here.log_dirs, topics[0], entries=here.arena.ledger.entries.values(), quarantine=topics[1])
    assert log.ok, log.describe()
    assert log.unsequenced == log.batches
    assert log.checked is not None
    assert log.checked.repeats > 0


# --- Event Hubs: gzip alone, small requests -------------------------------------------------------------------------------


async def test_on_event_hubs_a_backlog_goes_out_in_gzip_and_in_requests_that_it_takes(
    stand: Callable[..., Any],
) -> None:
    """With the first questions for a producer id refused. Nothing is there twice, though answers were lost."""
    here = await stand(EventHubs())
    here.load(3, 1000)
    await here.published(200)
    here.service.then = produced(lambda _: Fault(delay_seconds=2.0))
    await here.arena.until(lambda scrape: scrape.waiting > 1500, SOON_SECONDS)
    # A backlog that exceeds the true limit takes longer to make than a test should.
    here.proxy.max_request_bytes = 30_000
    here.lose_answers(every=10)
    await here.published(1200)

    verdict = await here.finish()
    assert verdict.checked.repeats == 0
    assert verdict.log.unsequenced == 0
    assert (here.service.refusals, here.service.done[INIT_PRODUCER_ID]) == ([], 2)
    assert here.service.done[PRODUCE] > 0
    assert len(here.lines("codec_not_supported")) == 1
    assert here.proxy.done["max_request_bytes"] > 0
    assert here.arena.watcher.scrapes[-1].metrics["kafka_idempotent"] == 1


# --- with what the doctor says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        (ApsaraMQ, {"kafka.idempotence": "false", "topics.manage": "external"}),
        (EventHubs, {"kafka.compression_type": "gzip"}),
    ],
)
async def test_with_what_the_doctor_says_an_outage_is_survived_and_replayed(
    kind: type[Service], needed: dict[str, str], stand: Callable[..., Any], login_kafka: LoginKafka
) -> None:
    """Its TOML, the bridge, an outage, a replay into another topic, and an audit that finds nothing wrong."""
    advice = await advised(login_kafka, kind())
    assert advice.items() >= needed.items()
    here = await stand(kind(), advice)
    here.load(2)
    await here.published(200)
    here.service.then = produced(lambda _: Fault(lose_request=True))
    await here.arena.until(lambda scrape: scrape.total("spool_rows") > 0, SOON_SECONDS)
    verdict = await here.finish()
    assert verdict.checked.repeats == 0
    assert here.lines("idempotence_not_available") == here.lines("codec_not_supported") == []

    target = await create_topic(login_kafka.kafka.bootstrap_servers, unique_name("t"), partitions=3)
    without = ["--at-least-once"] if kind is ApsaraMQ else []
    await ran(*here.arena.bridge.command("replay", "--to-topic", target, "--execute", *without))
    found = json.loads(await ran(*here.arena.bridge.command("audit", "--format", "json", "--settle-seconds", "0")))
    assert (found["not_whole"], found["out_of_order"], found["foreign"]) == (0, 0, 0), found
    events = await consume_all(login_kafka.kafka.bootstrap_servers, here.arena.topics[0])
    copies = await consume_all(login_kafka.kafka.bootstrap_servers, target, isolation_level="read_committed")
    assert len(events) > RATE
    assert {(copy.key, copy.value) for copy in copies} == {(event.key, event.value) for event in events}


async def advised(kafka: LoginKafka, service: Service) -> dict[str, Any]:
    """The keys that the doctor says to set for a service."""
    bootstrap = kafka.kafka.bootstrap_servers
    named = ["--topic", await create_topic(bootstrap, unique_name("d"))] if isinstance(service, ApsaraMQ) else []
    async with service.before(kafka.ports) as proxy:
        settings = {"kafka.bootstrap_servers": proxy.bootstrap_servers, **kafka.login(service)}
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        report = json.loads(
            await ran(sys.executable, "-m", "bridge", "doctor", "--format", "json", *named, *pairs, code=1)
        )
    assert report["set"], report
    return dict(report["set"])


async def ran(*command: str, code: int = 0) -> bytes:
    """What a command printed that ended with this exit code."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    printed, errors = await asyncio.wait_for(process.communicate(), 70)
    assert process.returncode == code, errors.decode()
    return printed


# --- other clients, whose encoding of requests is newer -------------------------------------------------------------------


async def test_the_player_of_apsaramq_answers_librdkafka(login_kafka: LoginKafka) -> None:
    """No topic is created, few settings are shown, no transaction begins; and the refusals are the service's own."""
    topic = await create_topic(login_kafka.kafka.bootstrap_servers, unique_name("t"))
    service = ApsaraMQ()
    async with service.before(login_kafka.ports) as proxy:
        settings = {
            "bootstrap.servers": proxy.bootstrap_servers,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": service.mechanism,
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "log_level": 0,
        }
        admin = AdminClient(settings)
        with pytest.raises(KafkaException, match="CLUSTER_AUTHORIZATION_FAILED"):
            await done(admin.create_topics([NewTopic(unique_name("t"), 1, 1)]))
        [shown] = await done(admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]))
        assert set(service.shown) == shown.keys()
        writer = Producer({**settings, "transactional.id": "t"})
        with pytest.raises(KafkaException, match="CLUSTER_AUTHORIZATION_FAILED"):
            await asyncio.to_thread(writer.init_transactions, SOON_SECONDS)
    assert {CREATE_TOPICS, DESCRIBE_CONFIGS, INIT_PRODUCER_ID} <= service.done.keys()


async def done(futures: dict[Any, Any]) -> list[Any]:
    """What each of an admin client's futures gives."""
    return [await asyncio.to_thread(future.result, SOON_SECONDS) for future in futures.values()]
