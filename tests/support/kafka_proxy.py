"""A proxy in front of each broker, with a script that decides for each request how its answer is delayed, changed or lost.

    def script(request: Request) -> Fault | None:
        if request.api_key == PRODUCE and request.number == 3:
            return Fault(cut_answer_at=0)  # the broker appends, the client gets no answer
        return Fault(delay_seconds=0.2)

    async with KafkaProxy([node.port for node in cluster.nodes], script) as proxy:
        ... proxy.bootstrap_servers ...
        proxy.script = None  # no more faults
    assert proxy.done["cut_answer_at"] == 1

The answers to Metadata and FindCoordinator name the proxies' addresses, so clients come back through them. The brokers need no
extra setting. Connections must be without TLS. A login passes as any request does, if it begins with SaslHandshake 1.
"""

import asyncio
import struct
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from support.kafka_frames import (
    Partition,
    PartitionAnswer,
    ProduceAnswer,
    Request,
    read_request,
    with_addresses_moved,
    with_correlation_id,
    without_partitions,
)
from support.proxy import Link, Proxy

_SLICE_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the proxy does to one request and its answer. By default it passes both on unchanged.

    Attributes:
        delay_seconds: How long the answer is held after it came. Later answers on the connection do not overtake it.
        lose_request: The connection is closed, and the broker never sees the request.
        cut_answer_at: The broker handles the request. The client gets this many bytes of the answer, its length included, then
            the connection is closed. 0 loses the whole answer.
        wrong_correlation_id: The answer has another one.
        answer: The broker never sees the request: the proxy answers with this, which follows the answer's header, or with
            what this makes of the request.
        rewrite_answer: Takes the request and what follows the header of the broker's answer, and gives what replaces it.
        ask_broker: If False, the broker never sees the request: the proxy answers with ``codes``, or with success.
        withhold: Partitions whose batches the broker never sees; the proxy answers for them with ``codes``, or with success.
        codes: The error code for all partitions, or for single ones. The broker has appended the batches all the same.
        throttle_time_ms: The answer's.
        without: Partitions that are left out of the answer.
        message: With the codes, from version 8 on.
        record_errors: With the codes, from version 8 on: a record's index in its batch and a text or None, for each.

    From ``ask_broker`` on they need a Produce request of version 3 to 8. Other requests are passed on unchanged and counted as
    ``not understood``.
    """

    delay_seconds: float = 0.0
    lose_request: bool = False
    cut_answer_at: int | None = None
    wrong_correlation_id: bool = False
    answer: bytes | Callable[[Request], bytes] | None = None
    rewrite_answer: Callable[[Request, bytes], bytes] | None = None
    ask_broker: bool = True
    withhold: Collection[Partition] = ()
    codes: int | Mapping[Partition, int] | None = None
    throttle_time_ms: int | None = None
    without: Sequence[Partition] = ()
    message: str | None = None
    record_errors: Sequence[tuple[int, str | None]] = ()

    @property
    def changed(self) -> list[str]:
        """The names of the attributes that differ from the default."""
        return [name for name, value in vars(self).items() if value != getattr(_NONE, name, None)]

    def own_answer(self, request: Request) -> bytes:
        """The frame of ``answer``."""
        assert self.answer is not None
        return request.answer_frame(self.answer(request) if callable(self.answer) else self.answer)

    @property
    def rewrites(self) -> bool:
        """Whether an answer to Produce must be read."""
        return (
            not self.ask_broker
            or bool(self.withhold)
            or self.codes is not None
            or self.throttle_time_ms is not None
            or bool(self.without)
        )

    def rewrite(self, answer: ProduceAnswer) -> None:
        """Make the answer what this says."""
        codes = self.codes if isinstance(self.codes, Mapping) else dict.fromkeys(answer.partitions, self.codes)
        for partition, code in codes.items():
            if code is not None and partition in answer.partitions:
                kept = answer.partitions[partition]
                refused = PartitionAnswer(code, record_errors=self.record_errors, message=self.message)
                answer.partitions[partition] = refused if code else kept._replace(code=0)
        for partition in self.without:
            answer.partitions.pop(partition, None)
        if self.throttle_time_ms is not None:
            answer.throttle_time_ms = self.throttle_time_ms


_NONE = Fault()

Script = Callable[[Request], Fault | None]
"""Called for each request just before it is passed on, in the order of its connection."""


class _Exchange:
    """A request, and its answer once that is known."""

    def __init__(self, request: Request, fault: Fault) -> None:
        self.request, self.fault = request, fault
        self.answer: bytes | None = None
        self.due = 0.0


class _CloseError(Exception):
    """The connection is to be closed by the script or the limit."""


class _ScriptedLink(Link):
    """A connection whose requests are read and matched with their answers."""

    def __init__(self, door: "_Door") -> None:
        super().__init__(door.requests)
        self._door, self._kafka = door, door.kafka
        self._number = self._kafka.next_connection()
        self._exchanges: deque[_Exchange] = deque()
        self._changed = asyncio.Event()
        self._ended = False

    async def run(self, client: asyncio.StreamReader, back: asyncio.StreamWriter, port: int) -> None:
        """Connect to the broker's port and carry both ways until the broker ends, or the script."""
        ends = await self._connect(back, port)
        if ends is None:
            return
        broker, there = ends
        carried = [self._pass_requests(client, there), self._take_answers(broker), self._pass_answers(back)]
        forth, answers, down = tasks = [asyncio.create_task(each) for each in carried]
        try:
            # The client may close long before its requests are passed on. The broker's end shows in the other direction.
            await asyncio.wait({forth, down}, return_when=asyncio.FIRST_COMPLETED)
            if not down.done() and forth.exception() is None:
                await asyncio.wait({answers, down}, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._kafka.failures += [
                end for end in results if isinstance(end, Exception) and not isinstance(end, _CloseError)
            ]
            for writer in self.writers:
                writer.close()

    # --- to the broker ------------------------------------------------------------------------------------------------

    async def _pass_requests(self, client: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        frames: asyncio.Queue[tuple[bytes, Request] | Exception | None] = asyncio.Queue()
        # Read at once, also while held: a client that closes must not take its requests with it.
        reading = asyncio.create_task(self._read_requests(client, frames))
        try:
            while (each := await frames.get()) is not None:
                if isinstance(each, Exception):
                    raise each
                await self.gate.wait()
                self.kept_bytes -= len(each[0]) + 4
                with suppress(OSError):
                    await self._pass_request(*each, there)
            await self.gate.wait()
            with suppress(OSError):
                there.write_eof()
        finally:
            reading.cancel()

    async def _read_requests(
        self, client: asyncio.StreamReader, frames: "asyncio.Queue[tuple[bytes, Request] | Exception | None]"
    ) -> None:
        end: Exception | None = None
        try:
            while True:
                (size,) = struct.unpack(">i", await client.readexactly(4))
                limit = self._kafka.max_request_bytes
                if limit is not None and size > limit:
                    self._kafka.done["max_request_bytes"] += 1
                    end = _CloseError()
                    return
                frame = await self._read_paced(client, size)
                self.kept_bytes += size + 4
                frames.put_nowait((frame, self._door.number_request(frame, self._number)))
        except (OSError, asyncio.IncompleteReadError):
            return  # the client's end
        except Exception as error:  # noqa: BLE001 - raised by the one that takes the frames
            end = error
        finally:
            frames.put_nowait(end)

    async def _pass_request(self, frame: bytes, request: Request, there: asyncio.StreamWriter) -> None:
        fault = (self._kafka.script and self._kafka.script(request)) or _NONE
        self._kafka.done.update(fault.changed)
        if fault.lose_request:
            raise _CloseError
        exchange = _Exchange(request, fault)
        answered = request.acks != 0
        if fault.rewrites and not request.understood:
            self._kafka.done["not understood"] += 1
        kept = bool(fault.withhold) and request.batches.keys() <= set(fault.withhold)
        if fault.answer is not None or (request.understood and (kept or not fault.ask_broker)):
            if answered:
                self._exchanges.append(exchange)
                self._answered(exchange, None)
            return
        if answered:
            self._exchanges.append(exchange)
        if request.understood and fault.withhold:
            frame = without_partitions(frame, fault.withhold)
        there.write(struct.pack(">i", len(frame)) + frame)
        await there.drain()

    # --- to the client ------------------------------------------------------------------------------------------------

    async def _take_answers(self, broker: asyncio.StreamReader) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await broker.readexactly(4))
                frame = await broker.readexactly(size)
                exchange = next(each for each in self._exchanges if each.answer is None)
                (correlation_id,) = struct.unpack_from(">i", frame)
                assert correlation_id == exchange.request.correlation_id, "the broker's answers are out of order"
                self._answered(exchange, frame)
        except (OSError, asyncio.IncompleteReadError):
            return  # the broker's end
        finally:
            self._ended = True
            self._changed.set()

    def _answered(self, exchange: _Exchange, frame: bytes | None) -> None:
        request, fault = exchange.request, exchange.fault
        if frame is not None:
            frame = with_addresses_moved(frame, request.api_key, request.api_version, self._kafka.moved)
        elif fault.answer is not None:
            frame = fault.own_answer(request)
        if frame is not None and fault.rewrite_answer is not None:
            frame = request.answer_frame(fault.rewrite_answer(request, request.answer_body(frame)))
        if fault.rewrites and request.understood:
            if frame is None:
                answer = ProduceAnswer(dict.fromkeys(request.batches, PartitionAnswer(0)))
            else:
                answer = ProduceAnswer.read(frame, request.api_version)
                for partition in request.batches.keys() & set(fault.withhold):
                    answer.partitions[partition] = PartitionAnswer(0)
            fault.rewrite(answer)
            frame = answer.write(request.correlation_id, request.api_version)
        assert frame is not None
        if fault.wrong_correlation_id:
            frame = with_correlation_id(frame, request.correlation_id + 1)
        exchange.due = asyncio.get_running_loop().time() + fault.delay_seconds
        exchange.answer = frame
        self._changed.set()

    async def _pass_answers(self, back: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if not self._exchanges or self._exchanges[0].answer is None:
                if self._ended:
                    return
                await self._changed.wait()
                continue
            exchange = self._exchanges[0]
            await asyncio.sleep(exchange.due - loop.time())
            assert exchange.answer is not None
            whole = struct.pack(">i", len(exchange.answer)) + exchange.answer
            with suppress(OSError):  # the client closed; its requests are passed on all the same
                await self._write_paced(back, whole[: exchange.fault.cut_answer_at])
            if exchange.fault.cut_answer_at is not None:
                return
            self._exchanges.popleft()

    # --- bandwidth ----------------------------------------------------------------------------------------------------

    async def _read_paced(self, reader: asyncio.StreamReader, size: int) -> bytes:
        parts = []
        while size > 0:
            part = await reader.readexactly(min(size, self._slice_bytes()))
            await self._pace(len(part))
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    async def _write_paced(self, writer: asyncio.StreamWriter, whole: bytes) -> None:
        while whole:
            part, whole = whole[: self._slice_bytes()], whole[self._slice_bytes() :]
            writer.write(part)
            await writer.drain()
            await self._pace(len(part))

    def _slice_bytes(self) -> int:
        rate = self._kafka.bytes_per_second
        return 1 << 30 if rate is None else max(1, int(rate * _SLICE_SECONDS))

    async def _pace(self, count: int) -> None:
        if self._kafka.bytes_per_second is not None:
            await asyncio.sleep(count / self._kafka.bytes_per_second)


class _Door(Proxy):
    """The proxy in front of one broker."""

    def __init__(self, kafka: "KafkaProxy", number: int, target: Callable[[], int]) -> None:
        super().__init__(target)
        self.kafka, self.number, self.target = kafka, number, target

    def _link(self) -> Link:
        return _ScriptedLink(self)

    def number_request(self, frame: bytes, connection: int) -> Request:
        """Read it and count it."""
        request = read_request(frame)
        self.requests[request.api_key] += 1
        number = self.kafka.requests[request.api_key]
        return replace(request, connection=connection, number=number, broker=self.number)


class KafkaProxy:
    """A proxy before each broker; ``async with`` listens, and raises at the end what the script or the proxy itself raised.

    Args:
        targets: For each broker what gives its port on 127.0.0.1, asked for each connection.
        script: Decides what is done to each request; None passes everything on.

    Attributes:
        script: The same; may be replaced at any time.
        max_request_bytes: A connection is closed when a larger request begins, as ``socket.request.max.bytes`` does.
        bytes_per_second: Of a connection, for each direction.
        done: How often each attribute of ``Fault`` was used, and ``max_request_bytes``; ``not understood`` counts the requests
            whose answers could not be changed.
        failures: What the script or the proxy raised.
    """

    def __init__(self, targets: Sequence[Callable[[], int]], script: Script | None = None) -> None:
        self.script = script
        self.max_request_bytes: int | None = None
        self.bytes_per_second: float | None = None
        self.done: Counter[str] = Counter()
        self.failures: list[Exception] = []
        self._connections = 0
        self._doors = [_Door(self, number, target) for number, target in enumerate(targets)]
        self._stack = AsyncExitStack()

    @property
    def bootstrap_servers(self) -> str:
        """What clients are configured with."""
        return ",".join(door.address for door in self._doors)

    @property
    def requests(self) -> Counter[int]:
        """How many came, by API key."""
        return sum((door.requests for door in self._doors), Counter[int]())

    @property
    def connections(self) -> int:
        """How many were opened."""
        return self._connections

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return sum(door.open_connections for door in self._doors)

    @property
    def held_bytes(self) -> int:
        """Of clients whose connections are held."""
        return sum(door.held_bytes for door in self._doors)

    async def __aenter__(self) -> Self:
        """Listen."""
        async with AsyncExitStack() as stack:
            for door in self._doors:
                await stack.enter_async_context(door)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut everything.

        Raises:
            ExceptionGroup: The script or the proxy failed, and nothing else did.
        """
        await self._stack.aclose()
        if self.failures and error is None:
            raise ExceptionGroup("the proxy failed", self.failures)

    def cut(self) -> None:
        """End all connections, with a reset."""
        for door in self._doors:
            door.cut()

    def hold(self) -> int:
        """Keep what the clients of today's connections send; how many those are."""
        return sum(door.hold() for door in self._doors)

    def release(self) -> None:
        """Pass on what was kept."""
        for door in self._doors:
            door.release()

    def next_connection(self) -> int:
        """The number of one that was just opened."""
        self._connections += 1
        return self._connections

    def moved(self, host: str, port: int) -> tuple[str, int]:
        """The address that replaces a broker's in an answer.

        Raises:
            AssertionError: No proxy is in front of that broker, so the client would bypass it.
        """
        addresses = {door.target(): door.address for door in self._doors}
        if f"{host}:{port}" in addresses.values():
            return host, port
        assert port in addresses, f"no proxy is in front of the broker at {host}:{port}"
        name, _, number = addresses[port].rpartition(":")
        return name, int(number)
