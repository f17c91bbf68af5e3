"""The end of the service: what is in flight is answered, nothing answered 200 is lost, and it takes no longer than it may."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from support.bridge_process import BridgeProcess
from support.callbacks import SUCCESS, body, eventually, kept_of, make_topics, mark, report
from support.raw_http import connection, get, read_answer, request

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import HOST

NOWHERE = "127.0.0.1:1"
NO_SPOOL = {"spool.enabled": False}
SHUTDOWN = 3.0
CLIENTS = 20


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads, and never says a word."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def mute_kafka() -> AsyncIterator[str]:
    """Where a listener accepts and never answers."""
    server = await asyncio.start_server(mute, HOST, 0)
    yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
async def kafka() -> AsyncIterator[EmbeddedKafka]:
    """A broker of one's own, to be paused."""
    async with EmbeddedKafka() as kafka:
        yield kafka


class Client:
    """Pushes on one connection after another, until nobody listens any more."""

    def __init__(self, bridge: BridgeProcess) -> None:
        self.marked = mark()
        self.answered: list[str] = []
        self.unanswered = 0
        self._bridge = bridge

    async def run(self) -> None:
        """Until the connection is refused."""
        try:
            while True:
                async with connection(self._bridge.port) as (reader, writer):
                    while await self._push(reader, writer):
                        pass
        except ConnectionError:
            return

    async def _push(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        key = f"{self.marked}-{len(self.answered)}"
        writer.write(request("POST", self._bridge.path, body(report(key))))
        answer = await read_answer(reader)
        if answer is None:
            self.unanswered += 1
            return False
        assert answer.status in {200, 503}
        if answer.status == 200:
            self.answered.append(key)
        return answer.headers.get("connection") != "close"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_callbacks_in_flight_are_answered_and_none_is_lost(
    kafka_bootstrap: str, tmp_path: Path, number: signal.Signals
) -> None:
    """Told to end under load: each callback taken gets its answer, each 200 is on Kafka, the exit code is 0, and it is quick."""
    topics = await make_topics(kafka_bootstrap)
    async with BridgeProcess(kafka_bootstrap, tmp_path, NO_SPOOL, topics) as bridge:
        clients = [Client(bridge) for _ in range(CLIENTS)]

        async def warm() -> bool:
            return all(len(client.answered) >= 10 for client in clients)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
            await eventually(warm)
            began = time.monotonic()
            os.kill(bridge.pid, number)
            assert await bridge.ended() == 0
            assert time.monotonic() - began < SHUTDOWN

        said = [json.loads(line) for line in bridge.log().splitlines()]
        assert ("stopped", 0) == (said[-1]["event"], said[-1]["waiting"])
        # The broker is alone, and cannot give what is declared.
        assert [] == [line for line in said if line["level"] == "error" and line["event"] != "topic_drift_detected"]

    for client in clients:
        found = {each.key for each in await kept_of(kafka_bootstrap, topics[:1], client.marked)}
        assert set(client.answered) <= found
        # What is on the wire when a connection ends never reached the bridge: the last one, if any.
        assert client.unanswered <= 1


async def test_a_body_on_its_way_is_waited_for(kafka_bootstrap: str, tmp_path: Path) -> None:
    """A callback whose body is only half there when the end is told of: it is read, published and answered 200."""
    topics = await make_topics(kafka_bootstrap)
    marked = mark()
    whole = request("POST", "/callbacks/chatapp/status", body(report(marked)))
    async with BridgeProcess(kafka_bootstrap, tmp_path, NO_SPOOL, topics, secrets=()) as bridge:
        async with asyncio.timeout(20), connection(bridge.port) as (reader, writer):
            writer.write(whole[:-20])
            await eventually(partial(_active, bridge, 1))
            bridge.terminate()
            await eventually(partial(_said, bridge, "stopping"))
            writer.write(whole[-20:])
            answer = await read_answer(reader)
        assert answer is not None
        assert answer.body == SUCCESS
        assert await bridge.ended() == 0
    assert [marked] == [each.key for each in await kept_of(kafka_bootstrap, topics, marked)]


async def test_what_is_in_flight_is_flushed(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """Told to end while Kafka stands still: the callback waits, and is 200 when Kafka goes on in time. Then it ends."""
    topics = await make_topics(kafka.bootstrap_servers)
    marked = mark()
    async with BridgeProcess(kafka.bootstrap_servers, tmp_path, NO_SPOOL, topics) as bridge:
        assert (await bridge.post(body(report(f"{marked}-first")))).body == SUCCESS
        kafka.nodes[0].pause()
        waiting = asyncio.create_task(bridge.post(body(report(f"{marked}-second"))))
        await eventually(partial(_active, bridge, 1))
        bridge.terminate()
        await eventually(partial(_said, bridge, "stopping"))
        kafka.nodes[0].resume()

        assert (await waiting).body == SUCCESS
        assert await bridge.ended() == 0
    keys = {each.key for each in await kept_of(kafka.bootstrap_servers, topics, marked)}
    assert {f"{marked}-first", f"{marked}-second"} == keys


@pytest.mark.alone
async def test_the_end_is_in_time_with_kafka_away_and_connections_open(mute_kafka: str, tmp_path: Path) -> None:
    """Kafka says nothing, callbacks wait, idle and half-sent requests are open on both ports: answered, and ended in time.

    Within server.shutdown_seconds, with exit code 0; the waiting callback gets 503, the half-sent body 408 or nothing.
    """
    settings = {**NO_SPOOL, "server.shutdown_seconds": SHUTDOWN, "limits.header_read_seconds": 60}
    async with BridgeProcess(mute_kafka, tmp_path, settings, wait="live") as bridge, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connection(port)) for port in (bridge.port, bridge.admin_port) * 10]
        for number, (reader, writer) in enumerate(idle):
            writer.write(request("GET", "/livez" if number % 2 else "/"))
            assert await read_answer(reader) is not None
        half_head = [await stack.enter_async_context(connection(port)) for port in (bridge.port, bridge.admin_port)]
        for _, writer in half_head:
            writer.write(request("POST", bridge.path)[:40])
        half_body = await stack.enter_async_context(connection(bridge.port))
        half_body[1].write(request("POST", bridge.path, b"[", [("Content-Length", "10")]))
        waiting = [asyncio.create_task(bridge.post(body(report(mark())))) for _ in range(10)]
        await eventually(partial(_active, bridge, 11))

        stopped = await bridge.stop()

        assert stopped.code == 0
        assert stopped.seconds <= SHUTDOWN
        assert {503} == {(await each).status for each in waiting}
        cut = await read_answer(half_body[0])
        assert cut is None or cut.status == 408
        assert "Traceback" not in bridge.log()


async def test_it_is_not_ready_and_takes_no_more_while_it_ends(mute_kafka: str, tmp_path: Path) -> None:
    """Between SIGTERM and the end: alive, not ready, the public port closed; a second SIGTERM changes nothing."""
    settings = {"spool.directory": tmp_path / "spool", "delivery.spool_after_ms": 1500, "server.shutdown_seconds": 6}
    async with BridgeProcess(mute_kafka, tmp_path, settings) as bridge:
        waiting = asyncio.create_task(bridge.post(body(report(mark()))))
        await eventually(partial(_active, bridge, 1))
        bridge.terminate()

        await bridge.wait_for("/readyz", 503)
        assert (await get(bridge.admin_port, "/livez")).status == 200
        with pytest.raises(ConnectionRefusedError):
            await bridge.post(b"[]")
        bridge.terminate()
        assert (await waiting).body == SUCCESS, "the spool has it"
        assert await bridge.ended() == 0


@pytest.mark.parametrize("key", ["server.port", "server.admin_port"])
async def test_a_second_bridge_on_a_port_is_refused_by_the_key(kafka_bootstrap: str, tmp_path: Path, key: str) -> None:
    """It says which key, ends with 2, and takes nothing from the first, which serves on."""
    topics = await make_topics(kafka_bootstrap)
    async with BridgeProcess(kafka_bootstrap, tmp_path / "first", NO_SPOOL, topics) as first:
        taken = {**NO_SPOOL, key: first.settings[key]}
        async with BridgeProcess(kafka_bootstrap, tmp_path / "second", taken, topics, wait="no") as second:
            assert await second.ended() == 2
            assert f"chatapp-bridge: {key}: can't listen on {HOST}:{first.settings[key]}" in second.log()
            assert "Traceback" not in second.log()
        for _ in range(10):
            assert (await first.post(b"[]")).body == SUCCESS


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("server.host", "no-such-host.invalid", 2),
        ("server.admin_host", "192.0.2.1", 2),  # for documentation: nobody's
        ("spool.directory", "/dev/null", 1),
    ],
)
async def test_a_start_that_can_t_be_says_for_which_key(tmp_path: Path, key: str, value: str, code: int) -> None:
    """An address that is not this machine's, a spool that is no directory."""
    async with BridgeProcess(NOWHERE, tmp_path, {key: value}, wait="no") as bridge:
        assert await bridge.ended() == code
        assert f"chatapp-bridge: {key}: " in bridge.log()
        assert "Traceback" not in bridge.log()


async def test_a_host_may_be_given_by_its_name(tmp_path: Path) -> None:
    """``localhost``, whichever of its addresses comes first."""
    async with BridgeProcess(NOWHERE, tmp_path, {"server.host": "localhost"}) as bridge:
        reader, writer = await asyncio.open_connection("localhost", bridge.port)
        writer.write(request("POST", bridge.path, b"[]"))
        answer = await read_answer(reader)
        writer.transport.abort()
        assert answer is not None
        assert answer.body == SUCCESS


async def test_a_start_that_waits_for_kafka_ends_when_told(mute_kafka: str, tmp_path: Path) -> None:
    """With topics.check = refuse the topics are looked at first, for as long as Kafka takes: SIGTERM is heeded then, too."""
    settings = {**NO_SPOOL, "topics.check": "refuse", "server.shutdown_seconds": SHUTDOWN}
    async with BridgeProcess(mute_kafka, tmp_path, settings, wait="no") as bridge:
        await eventually(partial(_takes_signals, bridge))
        stopped = await bridge.stop()
        assert stopped.code == 0
        assert stopped.seconds <= SHUTDOWN


async def test_a_start_that_waits_for_a_disk_ends_when_told(tmp_path: Path) -> None:
    """A disk that does not answer holds the start, and not its end. A pipe that nobody writes to is such a disk."""
    (tmp_path / "spool").mkdir()
    os.mkfifo(tmp_path / "spool" / "format")
    settings = {"spool.directory": tmp_path / "spool", "server.shutdown_seconds": SHUTDOWN}
    async with BridgeProcess("127.0.0.1:1", tmp_path, settings, wait="no") as bridge:
        await eventually(partial(_takes_signals, bridge))
        stopped = await bridge.stop()
        assert stopped.code == 0
        assert stopped.seconds <= SHUTDOWN
        assert await _said(bridge, "stopped_before_the_start")


async def _active(bridge: BridgeProcess, count: int) -> bool:
    return (await bridge.metrics())["chatapp_bridge_callbacks_active"] == count


async def _said(bridge: BridgeProcess, event: str) -> bool:
    return f'"event": "{event}"' in bridge.log()


async def _takes_signals(bridge: BridgeProcess) -> bool:
    """Whether SIGTERM is caught by now, by the kernel's own account of the process."""
    status = await asyncio.to_thread(Path(f"/proc/{bridge.pid}/status").read_text)
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)
