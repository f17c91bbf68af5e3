"""A scripted proxy applies each fault to the request that it is for, and leaves the others alone.

The broker is a small server in this module. It answers requests in order and records them.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Self

import pytest
from aiokafka.protocol import produce
from aiokafka.protocol.coordination import FindCoordinatorResponse_v0, FindCoordinatorResponse_v1
from aiokafka.protocol.metadata import (
    MetadataRequest,
    MetadataResponse_v0,
    MetadataResponse_v1,
    MetadataResponse_v2,
    MetadataResponse_v3,
    MetadataResponse_v5,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from support.kafka_frames import (
    FIND_COORDINATOR,
    INIT_PRODUCER_ID,
    METADATA,
    PRODUCE,
    BatchHead,
    ProduceAnswer,
    Request,
    read_request,
    with_addresses_moved,
)
from support.kafka_proxy import Fault, KafkaProxy

from bridge.lab.embedded.ports import HOST

SOON_SECONDS = 10.0
VERSIONS = range(3, 9)
NOT_LEADER, THROTTLED = 6, 44
FIRST, SECOND = ("status", 0), ("status", 1)
OFFSET = 41
ACKS_AT = 15
"""Where a Produce request says it, with a client's name of three letters and no transaction."""
CUT = asyncio.IncompleteReadError


class Broker:
    """Takes everything.

    Attributes:
        seen: The correlation id of each request.
        frames: The requests.
        answering: Answers wait until it is set.
        port: Its own.
        advertised_port: Its port in the answers to Metadata.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.frames: list[bytes] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.port = self.advertised_port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> "AsyncIterator[Broker]":
        """On a port of its own."""
        broker = cls()
        server = await asyncio.start_server(broker._serve, HOST, 0)
        broker.port = broker.advertised_port = server.sockets[0].getsockname()[1]
        yield broker
        server.close()

    async def has_seen(self, *sent: int) -> None:
        """Wait until these requests came, in this order."""
        async with asyncio.timeout(SOON_SECONDS):
            while list(sent) != self.seen:
                self._changed.clear()
                await self._changed.wait()

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                frame = await read_frame(reader)
                key, version, correlation_id = struct.unpack_from(">hhi", frame)
                self.seen.append(correlation_id)
                self.frames.append(frame)
                self._changed.set()
                await self.answering.wait()
                if key == PRODUCE and version in VERSIONS and struct.unpack_from(">h", frame, ACKS_AT)[0] == 0:
                    continue
                send_frame(writer, struct.pack(">i", correlation_id) + self._answer(key, version))
        except asyncio.IncompleteReadError:
            writer.close()

    def _answer(self, key: int, version: int) -> bytes:
        if key == METADATA:
            brokers = [(1, HOST, self.advertised_port, None)]
            return bytes(MetadataResponse_v1(brokers=brokers, controller_id=1, topics=[]).encode())
        if version not in VERSIONS:
            return b"an answer of another version"
        fields = 7 if version >= 8 else 5 if version >= 5 else 4
        every: list[tuple[Any, ...]] = [(number, 0, OFFSET, 1000, 5, [], None) for number in (0, 1)]
        parts = [each[:fields] for each in every]
        struct_ = getattr(produce, f"ProduceResponse_v{version}")
        return bytes(struct_(topics=[("status", parts)], throttle_time_ms=0).encode())


class Client:
    """A connection that sends Produce requests for two partitions."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._ids = count(100)

    def send(self, version: int = 7, *, key: int = PRODUCE, acks: int = -1, size: int = 5) -> int:
        """Its correlation id."""
        correlation_id = next(self._ids)
        head = struct.pack(">hhih", key, version, correlation_id, 3) + b"abc"
        body = MetadataRequest().prepare({METADATA: (version, version)}).encode() if key == METADATA else b""
        if key == PRODUCE and version in VERSIONS:
            parts = [(0, b"0" * size), (1, b"1" * size)]
            request = getattr(produce, f"ProduceRequest_v{version}")(
                transactional_id=None, required_acks=acks, timeout=1000, topics=[("status", parts)]
            )
            body = bytes(request.encode())
        send_frame(self.writer, head + body)
        return correlation_id

    async def answer(self, version: int = 7) -> tuple[int, ProduceAnswer]:
        """The next one: its correlation id, and what it says."""
        frame = await self.frame()
        return struct.unpack_from(">i", frame)[0], ProduceAnswer.read(frame, version)

    async def frame(self) -> bytes:
        """The next one."""
        async with asyncio.timeout(SOON_SECONDS):
            return await read_frame(self.reader)


class Place:
    """A broker, a proxy before it."""

    def __init__(self, broker: Broker, proxy: KafkaProxy) -> None:
        self.broker, self.proxy = broker, proxy

    async def connect(self) -> Client:
        """Through the proxy."""
        host, port = self.proxy.bootstrap_servers.split(":")
        return Client(*await asyncio.open_connection(host, int(port)))

    def apply(self, fault: Fault | None, number: int | None = None) -> Self:
        """Apply the fault to all requests, or to the one with that number."""
        self.proxy.script = lambda request: fault if number in {None, request.number} else None
        return self


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """The script says nothing yet."""
    async with Broker.listening() as broker, KafkaProxy([lambda: broker.port]) as proxy:
        yield Place(broker, proxy)


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Without its length."""
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def send_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    """With its length."""
    writer.write(struct.pack(">i", len(frame)) + frame)


def codes(answer: ProduceAnswer) -> dict[tuple[str, int], int]:
    """By partition."""
    return {partition: each.code for partition, each in answer.partitions.items()}


# --- answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_without_a_fault_answers_are_the_brokers(place: Place, version: int) -> None:
    """The script sees what is sent."""
    seen: list[Request] = []
    place.proxy.script = seen.append
    client = await place.connect()
    sent = client.send(version)

    answered, answer = await client.answer(version)

    assert (sent, {FIRST: 0, SECOND: 0}) == (answered, codes(answer))
    (request,) = seen
    assert (PRODUCE, version, sent, 1, 1, -1) == (
        request.api_key, request.api_version, request.correlation_id, request.connection, request.number, request.acks,
    )  # fmt: skip
    assert {FIRST: b"00000", SECOND: b"11111"} == dict(request.batches)
    assert {PRODUCE: 1} == dict(place.proxy.requests)
    assert not place.proxy.done


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_codes_of_all_partitions_are_rewritten(place: Place, version: int) -> None:
    """The broker has appended. Version 8 also has the message and the errors of single records."""
    place.apply(Fault(codes=THROTTLED, throttle_time_ms=700, message="later", record_errors=[(2, "this one")]))
    client = await place.connect()
    sent = client.send(version)

    answered, answer = await client.answer(version)

    assert sent == answered
    assert [sent] == place.broker.seen
    assert ({FIRST: THROTTLED, SECOND: THROTTLED}, 700) == (codes(answer), answer.throttle_time_ms)
    first = answer.partitions[FIRST]
    assert -1 == first.offset
    assert (("later", [(2, "this one")]) if version == 8 else (None, ())) == (first.message, first.record_errors)


async def test_the_code_of_one_partition_is_rewritten(place: Place) -> None:
    """The other keeps its offset, and a code of 0 hides a refusal without changing the offset."""
    place.apply(Fault(codes={FIRST: NOT_LEADER, SECOND: 0}))
    client = await place.connect()
    client.send()

    _, answer = await client.answer()

    assert {FIRST: NOT_LEADER, SECOND: 0} == codes(answer)
    assert OFFSET == answer.partitions[SECOND].offset


async def test_a_throttle_time_alone_is_no_refusal(place: Place) -> None:
    """As a quota does it."""
    client = await place.apply(Fault(throttle_time_ms=300)).connect()
    client.send()

    _, answer = await client.answer()

    assert ({FIRST: 0, SECOND: 0}, 300) == (codes(answer), answer.throttle_time_ms)


async def test_a_partition_is_left_out(place: Place) -> None:
    """Of one answer."""
    client = await place.apply(Fault(without=[FIRST]), number=2).connect()
    client.send()
    client.send()

    assert {FIRST, SECOND} == (await client.answer())[1].partitions.keys()
    assert {SECOND} == (await client.answer())[1].partitions.keys()
    assert {"without": 1} == dict(place.proxy.done)


async def test_an_answer_has_a_wrong_correlation_id(place: Place) -> None:
    """And the next one the right one."""
    client = await place.apply(Fault(wrong_correlation_id=True), number=1).connect()
    first, second = client.send(), client.send()

    assert first != (await client.answer())[0]
    assert second == (await client.answer())[0]


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_proxy_answers_without_asking_the_broker(place: Place, version: int) -> None:
    """Its answer comes after the answers to earlier requests."""
    place.apply(Fault(ask_broker=False, codes=THROTTLED), number=2)
    place.broker.answering.clear()
    client = await place.connect()
    sent = [client.send(version) for _ in range(3)]
    await place.broker.has_seen(sent[0])
    place.broker.answering.set()

    answers = [await client.answer(version) for _ in range(3)]

    assert sent == [answered for answered, _ in answers]
    assert [0, THROTTLED, 0] == [codes(answer)[FIRST] for _, answer in answers]
    assert [sent[0], sent[2]] == place.broker.seen


@pytest.mark.parametrize(("version", "header"), [(1, b""), (2, b"\0")])
async def test_any_request_is_answered_by_the_proxy(place: Place, version: int, header: bytes) -> None:
    """The broker never sees it; the answer has its turn, and the header of its version."""
    place.proxy.script = lambda request: (
        Fault(answer=lambda asked: b"answer to %d" % asked.api_key) if request.api_key == INIT_PRODUCER_ID else None
    )
    client = await place.connect()
    sent = [client.send(), client.send(version, key=INIT_PRODUCER_ID), client.send()]

    assert (await client.answer())[0] == sent[0]
    assert await client.frame() == struct.pack(">i", sent[1]) + header + b"answer to 22"
    assert (await client.answer())[0] == sent[2]
    assert place.broker.seen == [sent[0], sent[2]]
    assert {"answer": 1} == dict(place.proxy.done)


async def test_the_brokers_answer_to_any_request_is_rewritten(place: Place) -> None:
    """Behind its header; a constant answer may be given instead."""
    place.apply(Fault(rewrite_answer=lambda request, body: b"%d: " % request.api_version + body))
    client = await place.connect()
    sent = client.send(1, key=INIT_PRODUCER_ID)
    assert await client.frame() == struct.pack(">i", sent) + b"1: an answer of another version"

    place.apply(Fault(answer=b"mine"))
    sent = client.send(1, key=INIT_PRODUCER_ID)
    assert await client.frame() == struct.pack(">i", sent) + b"mine"


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_broker_never_sees_what_is_withheld(place: Place, version: int) -> None:
    """It gets the other partition's batch alone; the proxy answers for the one that it kept."""
    client = await place.apply(Fault(withhold=[FIRST], codes={FIRST: THROTTLED})).connect()
    sent = client.send(version)
    correlation_id, answer = await client.answer(version)

    assert sent == correlation_id
    assert {FIRST: THROTTLED, SECOND: 0} == codes(answer)
    assert [[SECOND]] == [list(read_request(frame).batches) for frame in place.broker.frames]


def test_the_head_of_a_batch_is_read() -> None:
    """As aiokafka writes it: codec, timestamps, the producer's numbers, how many records."""
    builder = DefaultRecordBatchBuilder(2, 1, True, 11, 3, 500, 1 << 20)
    for place, timestamp in enumerate([1000, 1007, 1004]):
        builder.append(place, timestamp, b"key", b"value" * 100, [])

    assert BatchHead(1, 1000, 1007, 11, 3, 500, 3) == BatchHead.read(bytes(builder.build()))


async def test_a_request_of_which_all_is_withheld_is_never_seen(place: Place) -> None:
    """The proxy answers it alone."""
    client = await place.apply(Fault(withhold=[FIRST, SECOND], codes=THROTTLED)).connect()
    client.send()
    _, answer = await client.answer()

    assert {FIRST: THROTTLED, SECOND: THROTTLED} == codes(answer)
    assert [] == place.broker.seen


async def test_an_unknown_version_passes_unchanged(place: Place) -> None:
    """It is counted, so that a test can see that its fault never happened."""
    client = await place.apply(Fault(codes=THROTTLED, ask_broker=False)).connect()
    client.send(version=11)

    assert b"an answer of another version" == (await client.frame())[4:]
    assert 1 == place.proxy.done["not understood"]


@pytest.mark.parametrize("version", range(6))
@pytest.mark.parametrize(
    ("topics", "may_create"), [(["status", "quarantine"], False), (["status"], True), (None, True)]
)
def test_the_topics_of_a_metadata_request_are_read(version: int, topics: list[str] | None, *, may_create: bool) -> None:
    """Also that it asks for all, which is another thing than none; brokers create what old versions ask for."""
    request = MetadataRequest(topics, allow_auto_topic_creation=may_create).prepare({METADATA: (version,) * 2})
    seen = read_request(struct.pack(">hhih", METADATA, version, 1, 3) + b"abc" + request.encode())

    assert (seen.topics, seen.may_create) == (topics, may_create or version < 4)


@pytest.mark.parametrize("version", [1, 4, 5])
def test_a_metadata_request_for_no_topic_is_not_one_for_all(version: int) -> None:
    """Clients ask so for the brokers alone."""
    request = MetadataRequest([]).prepare({METADATA: (version, version)})

    assert read_request(struct.pack(">hhih", METADATA, version, 1, 3) + b"abc" + request.encode()).topics == []


@pytest.mark.parametrize(("version", "topic_id"), [(9, b""), (12, bytes(16))])
def test_the_topics_of_a_compact_metadata_request_are_read(version: int, topic_id: bytes) -> None:
    """As librdkafka sends them: lengths are one more, and tags end each structure."""
    head = struct.pack(">hhih", METADATA, version, 1, 3) + b"abc" + b"\0"

    one = read_request(head + b"\2" + topic_id + b"\7status" + b"\0" + b"\0" + b"\0\0")
    every = read_request(head + b"\0" + b"\1" + b"\0\0")

    assert (one.topics, one.may_create) == (["status"], False)
    assert (every.topics, every.may_create) == (None, True)


async def test_a_request_that_wants_no_answer_is_passed_on(place: Place) -> None:
    """acks=0: the next answer is the next request's."""
    client = await place.connect()
    unanswered, sent = client.send(acks=0), client.send()

    assert sent == (await client.answer())[0]
    assert [unanswered, sent] == place.broker.seen


# --- connections ----------------------------------------------------------------------------------------------------------


async def test_a_lost_request_is_never_seen(place: Place) -> None:
    """The connection is closed; a new connection works."""
    client = await place.apply(Fault(lose_request=True), number=1).connect()
    client.send()

    with pytest.raises(CUT):
        await client.frame()
    assert [] == place.broker.seen

    other = await place.connect()
    sent = other.send()
    assert sent == (await other.answer())[0]


@pytest.mark.parametrize("passed", [0, 1, 9])
async def test_an_answer_is_cut_after_the_broker_appended(place: Place, passed: int) -> None:
    """Between any two bytes."""
    client = await place.apply(Fault(cut_answer_at=passed)).connect()
    sent = client.send()

    async with asyncio.timeout(SOON_SECONDS):
        came = await client.reader.read()

    assert passed == len(came)
    assert [sent] == place.broker.seen
    assert {"cut_answer_at"} == place.proxy.done.keys()


async def test_a_request_that_is_too_large_closes_the_connection(place: Place) -> None:
    """Nothing of it reaches the broker; what came before it does."""
    place.proxy.max_request_bytes = 1000
    client = await place.connect()
    sent = client.send()
    assert sent == (await client.answer())[0]
    client.send(size=2000)

    with pytest.raises((CUT, ConnectionResetError)):
        await client.frame()
    assert [sent] == place.broker.seen
    assert 1 == place.proxy.done["max_request_bytes"]


async def test_a_broker_that_ends_its_connection_ends_the_clients(place: Place) -> None:
    """Also while nothing is asked."""
    client = await place.connect()
    client.send()
    await client.answer()

    place.broker.cut()

    with pytest.raises(CUT):
        await client.frame()


async def test_all_connections_are_cut(place: Place) -> None:
    """With a reset."""
    client = await place.connect()
    client.send()
    await client.answer()

    place.proxy.cut()

    with pytest.raises((CUT, ConnectionResetError)):
        await client.frame()


async def test_what_a_client_that_is_gone_has_sent_is_passed_on_when_released(place: Place) -> None:
    """As bytes in a socket may."""
    client = await place.connect()
    sent = client.send()
    await client.answer()
    assert 1 == place.proxy.hold()
    late = client.send()
    client.writer.close()
    await client.writer.wait_closed()
    other = await place.connect()
    between = other.send()
    await other.answer()
    async with asyncio.timeout(SOON_SECONDS):
        while place.proxy.held_bytes == 0:  # noqa: ASYNC110 - the proxy reads
            await asyncio.sleep(0)
    place.proxy.release()

    await place.broker.has_seen(sent, between, late)


# --- time -----------------------------------------------------------------------------------------------------------------


async def test_answers_are_delayed_in_their_order(place: Place) -> None:
    """The broker is asked at once; an answer does not overtake one that is delayed, and another connection is not slowed."""
    place.proxy.script = lambda request: (
        Fault(delay_seconds=0.5) if (request.connection, request.number) == (1, 1) else None
    )
    client = await place.connect()
    began = asyncio.get_running_loop().time()
    sent = [client.send(), client.send()]
    other = await place.connect()
    assert sent[0] == other.send()
    await other.answer()
    between = asyncio.get_running_loop().time() - began
    answers = [(await client.answer())[0] for _ in sent]
    waited = asyncio.get_running_loop().time() - began

    assert sent == answers
    assert between < 0.5 <= waited
    assert 3 == len(place.broker.seen)


async def test_bandwidth_is_limited(place: Place) -> None:
    """Of what is sent: 2 x 10,000 bytes at 100,000 a second take 0.2 s."""
    place.proxy.bytes_per_second = 100_000
    client = await place.connect()
    began = asyncio.get_running_loop().time()
    client.send(size=10_000)
    await client.answer()

    assert 0.2 <= asyncio.get_running_loop().time() - began


# --- addresses ------------------------------------------------------------------------------------------------------------


async def test_metadata_sends_clients_back_through_the_proxy(place: Place) -> None:
    """The address of the broker is replaced by the address of the proxy."""
    client = await place.connect()
    client.send(version=1, key=METADATA)

    metadata = MetadataResponse_v1.decode((await client.frame())[4:])

    ((_, host, port, _),) = metadata.brokers
    assert place.proxy.bootstrap_servers == f"{host}:{port}"


async def test_a_broker_without_a_proxy_is_a_failure(place: Place) -> None:
    """The client would bypass the proxy, and the test would prove nothing."""
    place.broker.advertised_port = 9
    client = await place.connect()
    client.send(version=1, key=METADATA)

    with pytest.raises(CUT):
        await client.frame()
    assert ["no proxy is in front of the broker at 127.0.0.1:9"] == list(map(str, place.proxy.failures))
    place.proxy.failures.clear()


async def test_a_script_that_raises_is_a_failure(place: Place) -> None:
    """And closes the connection."""

    def script(_: Request) -> Fault | None:
        raise ValueError("the script")

    place.proxy.script = script
    client = await place.connect()
    client.send()

    with pytest.raises(CUT):
        await client.frame()
    assert ["the script"] == list(map(str, place.proxy.failures))
    place.proxy.failures.clear()


async def test_failures_are_raised_at_the_end_unless_something_else_is() -> None:
    """A test must not pass with them."""
    proxy = KafkaProxy([])
    proxy.failures.append(ValueError("the script"))
    with pytest.raises(ExceptionGroup):
        async with proxy:
            pass
    with pytest.raises(KeyError):
        async with proxy:
            raise KeyError


def compact(text: str | None) -> bytes:
    """A string of a flexible version."""
    return b"\x00" if text is None else bytes([len(text) + 1]) + text.encode()


def flexible_metadata(*brokers: tuple[int, str, int, str | None], tail: bytes = b"the rest") -> bytes:
    """Version 9 and later, up to the brokers; each has a tagged field."""
    written = [
        struct.pack(">i", node) + compact(host) + struct.pack(">i", port) + compact(rack) + b"\x01\x05\x02ab"
        for node, host, port, rack in brokers
    ]
    return struct.pack(">i", 77) + b"\x00" + struct.pack(">i", 0) + bytes([len(written) + 1]) + b"".join(written) + tail


def flexible_coordinators(version: int, host: str, port: int) -> bytes:
    """Version 3: one; version 4: an array."""
    node, error = struct.pack(">i", 5), struct.pack(">h", 0) + compact(None)
    address = compact(host) + struct.pack(">i", port)
    head = struct.pack(">i", 77) + b"\x00" + struct.pack(">i", 0)
    if version == 3:
        return head + error + node + address + b"\x00"
    return head + b"\x02" + compact("key") + node + address + error + b"\x00" + b"\x00"


def headed(answer: Any) -> bytes:
    """Of a version that is not flexible."""
    return struct.pack(">i", 77) + bytes(answer.encode())


def metadata(kind: type[Any], **more: Any) -> Callable[[str, int], bytes]:
    """As aiokafka writes it."""
    rack: tuple[Any, ...] = () if kind is MetadataResponse_v0 else ("rack",)
    return lambda host, port: headed(kind(brokers=[(1, host, port, *rack), (2, host, port, *rack)], topics=[], **more))


@pytest.mark.parametrize(
    ("key", "version", "written"),
    [
        (METADATA, 0, metadata(MetadataResponse_v0)),
        (METADATA, 1, metadata(MetadataResponse_v1, controller_id=1)),
        (METADATA, 2, metadata(MetadataResponse_v2, controller_id=1, cluster_id="c")),
        (METADATA, 3, metadata(MetadataResponse_v3, controller_id=1, cluster_id="c", throttle_time_ms=0)),
        (METADATA, 5, metadata(MetadataResponse_v5, controller_id=1, cluster_id="c", throttle_time_ms=0)),
        (METADATA, 12, lambda host, port: flexible_metadata((1, host, port, None), (2, host, port, "rack"))),
        (
            FIND_COORDINATOR,
            0,
            lambda host, port: headed(FindCoordinatorResponse_v0(error_code=0, coordinator_id=5, host=host, port=port)),
        ),
        (
            FIND_COORDINATOR,
            2,
            lambda host, port: headed(
                FindCoordinatorResponse_v1(
                    throttle_time_ms=0, error_code=0, error_message=None, coordinator_id=5, host=host, port=port
                )
            ),
        ),
        (FIND_COORDINATOR, 3, lambda host, port: flexible_coordinators(3, host, port)),
        (FIND_COORDINATOR, 4, lambda host, port: flexible_coordinators(4, host, port)),
    ],
)
def test_addresses_are_moved_in_every_version(key: int, version: int, written: Callable[[str, int], bytes]) -> None:
    """And nothing else is changed."""
    moved = with_addresses_moved(written("broker-1.example", 9092), key, version, lambda _, port: ("here", port + 1))

    assert written("here", 9093) == moved


def test_a_coordinator_that_was_not_found_is_left_alone() -> None:
    """It has no port."""
    answer = headed(FindCoordinatorResponse_v0(error_code=15, coordinator_id=-1, host="", port=-1))

    assert answer == with_addresses_moved(answer, FIND_COORDINATOR, 0, lambda _host, _port: ("here", 1))
