"""Brokers with small requests, slow or broken answers: every record is published once, in order, by few connections."""

import asyncio
import base64
import random
import re
from collections.abc import Callable
from functools import partial
from itertools import cycle

import pytest
from support.arena import LONG, admin, longer, make_quarantine, make_status
from support.bridge_process import BridgeProcess
from support.callbacks import eventually
from support.kafka_frames import Request
from support.kafka_proxy import Fault
from support.proxied import MOST_CONNECTIONS, RATE, MakeProxied, ProxiedArena, Resends, refused
from support.raw_http import get
from support.topics import consume_all, create_topic, unique_name, until

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.metadata import ask
from bridge.lab.simulate.identity import raw_sha256

pytest_plugins = ("support.proxied_fixture",)

NOT_LEADER = 6
LOST_DATA = "lost acknowledged data"
Mangle = Callable[[Request], Fault]


def no_json(size: int) -> bytes:
    """A body that compression makes no smaller."""
    return b"no JSON: " + base64.b64encode(random.Random(1).randbytes(size * 3 // 4))[: size - 9]  # noqa: S311 - no secret


# --- sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_a_record_that_the_broker_closes_on_becomes_a_dead_letter(make_proxied: MakeProxied) -> None:
    """No request may hold the record. Events go on meanwhile; it alone becomes a dead letter, and the log gives its size."""
    proxied = await make_proxied()
    arena, size = proxied.arena, 400_000
    arena.load(longer(100, 200), 100)
    await proxied.published(100)
    # With a backlog in every lane, so that every request could take the record along.
    proxied.on_produce = lambda request: refused(request, NOT_LEADER)
    arena.load(2, 1000)
    await arena.until(lambda scrape: scrape.waiting > 1500, 20)
    assert (await arena.bridge.post(no_json(size))).status == 200
    proxied.proxy.max_request_bytes = 300_000
    proxied.on_produce = None
    before = await arena.until(lambda _: proxied.proxy.done["max_request_bytes"] > 0, 30)
    # What is left is the record, and what came in the last moment.
    seen = await arena.until(lambda scrape: scrape.waiting < 50, 20)
    assert seen.total("reports_dead_lettered") == 0
    await proxied.published(before.total("reports_published") + 500, 10)
    await arena.until(lambda scrape: scrape.total("reports_dead_lettered") > 0, 60)
    arena.enough()

    await proxied.finish(dead_letters=1)
    assert proxied.proxy.done["max_request_bytes"] >= 3
    lines = "\n".join(proxied.lines_with("dead_lettered"))
    sizes = [int(number) for number in re.findall(r"\d{6,}", re.sub(r"(?<=\d)[,_](?=\d{3})", "", lines))]
    assert any(size <= each < size + 5000 for each in sizes), lines


async def test_a_record_larger_than_max_request_bytes_is_published(make_proxied: MakeProxied) -> None:
    """The bridge's limit is for requests of several batches: a single large record that the broker takes is published."""
    proxied = await make_proxied()
    arena, large = proxied.arena, no_json(2_000_000)
    arena.load(longer(3, 30), RATE)
    await proxied.published(200)
    assert (await arena.bridge.post(large)).status == 200

    await proxied.finish(extra={raw_sha256(large)})
    quarantined = await consume_all(arena.bootstrap, arena.topics[1])
    assert [large] == [record.value for record in quarantined if len(record.value) > 1_000_000]


async def test_a_backlog_drains_into_requests_of_the_brokers_size(
    cluster: EmbeddedKafka, make_proxied: MakeProxied
) -> None:
    """The broker takes an eighth of ``kafka.max_request_bytes``, which nobody told the bridge."""
    topics = unique_name("status"), unique_name("quarantine")
    proxied = await make_proxied({"kafka.metadata_max_age_ms": 1000, "kafka.compression_type": "none"}, topics=topics)
    arena, proxied.proxy.max_request_bytes = proxied.arena, 120_000
    arena.load(longer(2, 10), 2000, size=50)
    await arena.loaded()
    await arena.until(lambda scrape: scrape.waiting > 3500, 10)
    await make_quarantine(cluster.bootstrap_servers, topics[1])
    await make_status(cluster.bootstrap_servers, topics[0])

    await proxied.finish()
    assert proxied.proxy.done["max_request_bytes"] > 0


# --- times ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1.2, *([2.5] if LONG else [])])
async def test_slow_acknowledgements_are_waited_for(make_proxied: MakeProxied, seconds: float) -> None:
    """Only Produce is slow. Callbacks are answered in time, and no record is sent twice."""
    proxied = await make_proxied()
    proxied.on_produce = lambda _: Fault(delay_seconds=seconds)
    proxied.arena.load(longer(4, 60), RATE)
    await eventually(partial(is_said_to_be_slow, proxied.arena.bridge))

    await proxied.finish()
    assert len(proxied.produce_connections) <= MOST_CONNECTIONS
    assert proxied.cost.producer_ids <= 2


async def is_said_to_be_slow(bridge: BridgeProcess) -> bool:
    """Whether the page says why reports go to disk although Kafka answers."""
    status = (await get(bridge.admin_port, "/status.json")).json()
    slower = "Kafka is slower than delivery.spool_after_ms (0.5 s): it takes "
    return bool(status["verdict"] == "on_disk" and status["why"].startswith(slower))


async def test_acknowledgements_slower_than_the_timeout_are_waited_for(make_proxied: MakeProxied) -> None:
    """The broker answers another connection meanwhile, so it is slow and not dead. The log says that the bridge waits."""
    proxied = await make_proxied({"delivery.producer_timeout_seconds": 1.5})
    proxied.on_produce = lambda _: Fault(delay_seconds=3.5)
    proxied.arena.load(longer(4, 60), RATE)

    await proxied.finish()
    assert proxied.events("kafka_slow")
    assert len(proxied.produce_connections) <= MOST_CONNECTIONS


async def test_a_broker_that_answers_everything_slowly_is_waited_for(make_proxied: MakeProxied) -> None:
    """Metadata and producer ids take as long as Produce."""
    proxied = await make_proxied()
    proxied.on_produce = proxied.on_other = lambda _: Fault(delay_seconds=1.2)
    proxied.arena.load(longer(4, 60), RATE)

    await proxied.finish()
    assert len(proxied.produce_connections) <= MOST_CONNECTIONS


@pytest.mark.long
async def test_a_quota_is_heeded(make_proxied: MakeProxied) -> None:
    """After an answer with a throttle time the connection carries no request until that time is over."""
    proxied, loop = await make_proxied(), asyncio.get_running_loop()
    throttled: dict[int, float] = {}
    gaps: list[float] = []

    def throttle(request: Request) -> Fault | None:
        now = loop.time()
        if request.connection in throttled:
            gaps.append(now - throttled.pop(request.connection))
        if request.number % 10 != 0:
            return None
        throttled[request.connection] = now
        return Fault(throttle_time_ms=1500)

    proxied.on_produce = throttle
    proxied.arena.load(longer(6, 60), RATE)

    await proxied.finish()
    assert len(gaps) >= 2
    assert min(gaps) >= 1.49
    assert len(proxied.produce_connections) <= MOST_CONNECTIONS
    assert proxied.cost.producer_ids <= 2


# --- broken answers -------------------------------------------------------------------------------------------------------


def one_missing(request: Request) -> Fault:
    """The answer does not name one of the request's partitions."""
    return Fault(without=[min(request.batches)])


def another_id(_: Request) -> Fault:
    """The answer is to another request."""
    return Fault(wrong_correlation_id=True)


def lost(_: Request) -> Fault:
    """The broker never sees the request."""
    return Fault(lose_request=True)


def cut_somewhere() -> Mangle:
    """The connection is closed before, in and behind each field that the answer begins with."""
    places = cycle([0, 1, 3, 4, 5, 8, 9, 12, 13, 20, 27, 40])
    return lambda _: Fault(cut_answer_at=next(places))


@pytest.mark.parametrize(
    "mangle",
    [
        pytest.param(lost, id="lost"),
        pytest.param(cut_somewhere(), id="cut"),
        *([pytest.param(one_missing, id="missing"), pytest.param(another_id, id="id")] if LONG else []),
    ],
)
async def test_an_unusable_answer_is_asked_for_again(make_proxied: MakeProxied, mangle: Mangle) -> None:
    """The broker may have appended. The bridge sends the same records with the same numbers, so none is there twice."""
    proxied, resends, done = await make_proxied(), Resends(), 0

    def script(request: Request) -> Fault | None:
        nonlocal done
        if resends.seen(request) or request.number % 12 != 0:
            return None
        done += 1
        return mangle(request)

    proxied.on_produce = script
    proxied.arena.load(longer(4, 60), RATE)

    await proxied.finish()
    assert done >= 5
    assert proxied.cost.producer_ids <= 2


# --- numbers --------------------------------------------------------------------------------------------------------------


async def refused_once(proxied: ProxiedArena, code: int) -> None:
    """Refuse one request after others were acknowledged, with all of its batches."""
    refusals = 0

    def script(request: Request) -> Fault | None:
        nonlocal refusals
        refusals += 1
        return refused(request, code) if refusals == 1 else None

    proxied.arena.load(longer(4, 30), RATE)
    await proxied.published(300)
    proxied.on_produce = script
    await proxied.finish()
    assert refusals > 1
    proxied.assert_told(code)


async def test_a_gap_that_the_broker_sees_raises_the_epoch(make_proxied: MakeProxied) -> None:
    """OUT_OF_ORDER_SEQUENCE_NUMBER after acknowledged batches: the broker lost data, which the log says."""
    proxied = await make_proxied()
    await refused_once(proxied, 45)
    assert proxied.lines_with(LOST_DATA)
    assert proxied.cost.producer_ids <= 2


@pytest.mark.parametrize("code", [59, *([47] if LONG else [])])
async def test_a_producer_that_the_broker_no_longer_knows_takes_a_new_id(make_proxied: MakeProxied, code: int) -> None:
    """INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID: one new producer id, and no record is lost."""
    proxied = await make_proxied()
    await refused_once(proxied, code)
    assert 2 <= proxied.cost.producer_ids <= 4


async def test_a_duplicate_that_was_sent_once_is_not_acknowledged(make_proxied: MakeProxied) -> None:
    """DUPLICATE_SEQUENCE_NUMBER for a batch that the bridge did not send before: these records are not on Kafka."""
    await refused_once(await make_proxied(), 46)


async def test_a_duplicate_that_was_sent_again_is_acknowledged(make_proxied: MakeProxied) -> None:
    """DUPLICATE_SEQUENCE_NUMBER after an answer that was lost: the first attempt is on Kafka, and there is no second."""
    proxied, resends, answered = await make_proxied(), Resends(), 0

    def script(request: Request) -> Fault | None:
        nonlocal answered
        again = resends.seen(request)
        if again:
            answered += 1
            return refused(request, 46, lambda partition, _: partition in again)
        return Fault(cut_answer_at=0) if request.number % 20 == 0 else None

    proxied.on_produce = script
    proxied.arena.load(longer(4, 30), RATE)

    await proxied.finish()
    assert answered >= 2
    assert proxied.cost.producer_ids <= 2


# --- leaders and topics ---------------------------------------------------------------------------------------------------


async def test_a_broker_that_leads_no_longer_is_told_once(make_proxied: MakeProxied) -> None:
    """NOT_LEADER_OR_FOLLOWER for some seconds, while metadata names the same leader: the log names the code, sampled."""
    proxied = await make_proxied()
    proxied.arena.load(longer(7, 30), RATE)
    await proxied.published(200)
    before = proxied.cost
    proxied.on_produce = lambda request: refused(request, NOT_LEADER) if request.broker == 0 else None
    await asyncio.sleep(longer(4, 20))  # the fault's length
    proxied.on_produce = None
    spent = proxied.cost - before

    await proxied.finish()
    assert proxied.proxy.done["withhold"] > 0
    assert spent.producer_ids == 0
    proxied.assert_told(NOT_LEADER)
    assert len(proxied.lines_with(f"({NOT_LEADER})")) <= longer(4, 20)


async def test_a_topic_made_again_with_fewer_partitions_takes_what_waits(
    cluster: EmbeddedKafka, make_proxied: MakeProxied
) -> None:
    """The reports wait in the spool, in lanes of twelve partitions; the new topic has four."""
    proxied = await make_proxied({"kafka.metadata_max_age_ms": 1000})
    arena, bootstrap = proxied.arena, cluster.bootstrap_servers
    status = arena.topics[0]
    proxied.on_produce = lambda request: refused(request, NOT_LEADER)
    arena.load(longer(2, 20), RATE)
    await arena.loaded()
    await arena.until(lambda scrape: scrape.waiting > 500, 10)
    async with admin(bootstrap) as client:
        await client.delete_topics([status])
    async with asyncio.timeout(30):
        await until(lambda: asyncio.to_thread(unknown, bootstrap, status))
    await create_topic(bootstrap, status, partitions=4, config={"min.insync.replicas": "2"})
    proxied.on_produce = None

    await proxied.finish()
    records = await consume_all(bootstrap, status)
    assert {record.partition for record in records} == set(range(4))


def unknown(bootstrap: str, topic: str) -> bool:
    """Whether no broker knows it any more."""
    views = [ask(host, int(port), 2.0) for host, port in (each.split(":") for each in bootstrap.split(","))]
    return all(view and topic not in {each.topic for each in view.partitions} for view in views)
