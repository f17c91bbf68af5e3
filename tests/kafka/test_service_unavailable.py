"""Without the spool and without Kafka: 503, in time, every time; and 200 again as soon as Kafka takes records.

A callback is pushed again after a 503. After a hang the provider has given up in the meantime, and after a 200 it never comes
again: so neither may happen, however Kafka is away.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.bridge_process import BridgeProcess, balance
from support.callbacks import SUCCESS, body, eventually, kept_of, make_topics, mark, report
from support.raw_http import connection, read_answer, request
from support.topics import consume_all, unique_name, until

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import HOST, Port

DEADLINE, GRACE = 2.0, 0.5
CONCURRENT = 200
NO_SPOOL = {"spool.enabled": False}


class Pushed(NamedTuple):
    """One callback: its mark, the answer, and the seconds it took; status 0 for none."""

    marked: str
    status: int
    body: bytes
    seconds: float


async def push(bridge: BridgeProcess, *, reports: int = 1) -> Pushed:
    """Push a callback with a mark of its own, on a connection of its own, opened before the clock starts."""
    marked = mark()
    pushed = body(*(report(f"{marked}-{number}") for number in range(reports)))
    async with connection(bridge.port) as (reader, writer):
        began = time.monotonic()
        writer.write(request("POST", bridge.path, pushed))
        async with asyncio.timeout(20):
            answer = await read_answer(reader)
        took = time.monotonic() - began
    return Pushed(marked, answer.status if answer else 0, answer.body if answer else b"", took)


async def push_many(bridge: BridgeProcess, count: int = CONCURRENT) -> list[Pushed]:
    """That many at once."""
    return await asyncio.gather(*(push(bridge, reports=1 + number % 3) for number in range(count)))


def assert_all_refused_in_time(answers: list[Pushed]) -> None:
    """503 in the shape of the success, each within the deadline and half a second."""
    assert {503: len(answers)} == Counter(each.status for each in answers)
    assert all(each.body.startswith(b'{"code":503,"msg":"') for each in answers)
    assert max(each.seconds for each in answers) <= DEADLINE + GRACE


@asynccontextmanager
async def mute() -> AsyncIterator[str]:
    """A listener that accepts, reads, and never says a word."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()

    server = await asyncio.start_server(say_nothing, HOST, 0)
    try:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def closed() -> AsyncIterator[str]:
    """An address where nothing listens."""
    port = Port()
    try:
        yield port.address
    finally:
        port.release()


@pytest.mark.parametrize("nowhere", [closed, mute])
async def test_an_unreachable_kafka_is_answered_503_in_time(nowhere: Callable[[], Any], tmp_path: Path) -> None:
    """200 callbacks at once, and again: each 503 within the deadline and half a second; not ready, but alive."""
    async with nowhere() as address, BridgeProcess(address, tmp_path, NO_SPOOL, wait="live") as bridge:
        for _ in range(2):
            assert_all_refused_in_time(await push_many(bridge))
        await bridge.wait_for("/readyz", 503, 1.0)
        await bridge.wait_for("/livez", 200, 1.0)

        metrics = await bridge.metrics()
        assert metrics['chatapp_bridge_callbacks_total{answer="503"}'] == 2 * CONCURRENT
        assert metrics["chatapp_bridge_reports_refused_total"] == metrics["chatapp_bridge_reports_received_total"]
        assert balance(metrics).taken == balance(metrics).accounted
        assert metrics["chatapp_bridge_reports_waiting"] == 0


async def test_what_needs_no_kafka_is_answered_without(tmp_path: Path) -> None:
    """``[]``, and every refusal of a request as such, don't wait for what they don't need."""
    async with closed() as address, BridgeProcess(address, tmp_path, NO_SPOOL, wait="live") as bridge:
        for pushed, status in ((b"[]", 200), (b"", 400)):
            began = time.monotonic()
            assert (await bridge.post(pushed)).status == status
            assert time.monotonic() - began < 0.5


@pytest.fixture
async def kafka() -> AsyncIterator[EmbeddedKafka]:
    """A broker of one's own, that makes a topic as soon as anybody asks for one."""
    async with EmbeddedKafka(auto_create_topics=True) as kafka:
        yield kafka


async def test_kafka_dying_under_load_costs_no_callback(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """While the broker stands still (SIGSTOP) each callback is 503 in time; then 200 again, and what was answered 200 is there.

    200 clients push without a pause through it all, and at every scrape the reconciliation balances.
    """
    topics = await make_topics(kafka.bootstrap_servers)
    answers: list[Pushed] = []
    stop = asyncio.Event()

    async def client(bridge: BridgeProcess) -> None:
        while not stop.is_set():
            answers.append(await push(bridge, reports=2))

    async def scrape(bridge: BridgeProcess) -> None:
        while not stop.is_set():
            metrics = await bridge.metrics()
            assert balance(metrics).taken == balance(metrics).accounted, metrics
            await asyncio.sleep(0.1)

    async with BridgeProcess(kafka.bootstrap_servers, tmp_path, NO_SPOOL, topics) as bridge:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(client(bridge))
            group.create_task(scrape(bridge))
            await until(lambda: _at_least(answers, 200, CONCURRENT))
            kafka.nodes[0].pause()
            await until(lambda: _at_least(answers, 503, 2 * CONCURRENT))
            kafka.nodes[0].resume()
            before = len([each for each in answers if each.status == 200])
            await until(lambda: _at_least(answers, 200, before + CONCURRENT))
            stop.set()

        metrics = await bridge.metrics()
        assert balance(metrics).taken == balance(metrics).accounted
        assert (await bridge.stop()).code == 0

    assert {200, 503} == {each.status for each in answers}
    assert max(each.seconds for each in answers) <= DEADLINE + GRACE
    assert {SUCCESS} == {each.body for each in answers if each.status == 200}
    on_kafka = {record.key.decode() for record in await consume_all(kafka.bootstrap_servers, topics[0])}
    promised = {f"{each.marked}-{number}" for each in answers if each.status == 200 for number in range(2)}
    assert promised <= on_kafka


async def _at_least(answers: list[Pushed], status: int, count: int) -> bool:
    return len([each for each in answers if each.status == status]) >= count


async def test_topics_are_never_made_by_looking_and_used_once_they_are_there(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """On a broker that makes topics by itself: none comes of the bridge; callbacks are 503, and 200 once the topics are made.

    There is no restart in between.
    """
    topics = unique_name("status"), unique_name("quarantine")
    marked = mark()
    async with BridgeProcess(kafka.bootstrap_servers, tmp_path, NO_SPOOL, topics, wait="live") as bridge:
        await eventually(_logged(bridge, "topics_missing"))
        assert_all_refused_in_time(await push_many(bridge, 20))
        assert_all_refused_in_time([await push(bridge), await push(bridge)])
        view = await kafka.nodes[0].view()
        assert view is not None
        assert not {partition.topic for partition in view.partitions} & set(topics)
        assert bridge.log().count("\n") < 200, "it says what is wrong, and not without end"

        await make_topics(kafka.bootstrap_servers, names=topics)

        # Without traffic: nobody sends any to what is not ready.
        await bridge.wait_for("/readyz", 200, 10.0)
        assert (await bridge.post(body(report(marked)))).body == SUCCESS
        assert (await bridge.post(b"no JSON: " + marked.encode())).body == SUCCESS
    found = await kept_of(kafka.bootstrap_servers, topics, marked)
    assert {(marked, ""), (None, "not_json")} == {(each.key, each.reason) for each in found}


def _logged(bridge: BridgeProcess, event: str) -> Callable[[], Awaitable[bool]]:
    """Whether the bridge has said so."""

    async def logged() -> bool:
        return f'"event": "{event}"' in bridge.log()

    return logged
