"""A model of Kafka behind the real produce path, on the stage of ``scripted.py``.

    stage = ModelStage()
    pushed = stage.push("a", "b")
    stage.serve()
    assert stage.answer(pushed) == 200

The ``Delivery``, its lanes and the ``Producer`` are real; the connections and what the cluster tells of itself are the
model's. It reads the bytes that the bridge wrote, and does with an idempotent producer's batch what Kafka does. What a broker
would do wrong with a batch because of what the bridge sent before (take other records for a repeat, say) is noted in ``wrong``.
"""

import asyncio
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple, cast

from aiokafka.record.default_records import DefaultRecordBatch
from msgspec import structs

from bridge.config import Kafka, Settings
from bridge.errors import ConnectionEnded
from bridge.kafka import messages
from bridge.kafka.cluster import NO_PRODUCER_ID, Cluster, ProducerId
from bridge.kafka.metadata import Broker, Metadata, Topic
from bridge.kafka.producer import Producer
from bridge.kafka.wire import Connection
from support.kafka_frames import Partition, PartitionAnswer, ProduceAnswer, Request, read_request
from support.scripted import LANES, QUARANTINE, STATUS, Found, Stage, in_loop, settings

_HEADER = struct.Struct(">qiibIhiqqqhii")
_SEQUENCES = 1 << 31
_REMEMBERED = 5
_STEP_SECONDS = 0.5
_OPEN_SECONDS, _LOOK_SECONDS = 10.0, 0.05
UNKNOWN_TOPIC, NOT_LEADER, OUT_OF_ORDER, OLD_EPOCH = 3, 6, 45, 47
NOT_APPENDED = (10, 18, 19, 29, 32, 43, 44, 76, 87)
"""Answers that say that a batch was not appended, and nothing of its numbers."""


class Produced(NamedTuple):
    """A batch as the bridge wrote it."""

    where: Partition
    producer_id: int
    epoch: int
    first: int
    records: tuple[tuple[bytes | None, bytes], ...]

    @classmethod
    def read(cls, where: Partition, data: bytes) -> "Produced":
        """Read its bytes as a broker does."""
        *_, producer_id, epoch, first, count = _HEADER.unpack_from(data)
        batch = DefaultRecordBatch(data)
        assert batch.validate_crc()
        records = tuple((each.key, each.value) for each in batch)
        assert len(records) == count
        return cls(where, producer_id, epoch, first, records)

    @property
    def end(self) -> int:
        """The sequence number of what follows."""
        return (self.first + len(self.records)) % _SEQUENCES

    @property
    def numbered(self) -> bool:
        """Whether it is an idempotent producer's."""
        return self.producer_id >= 0

    @property
    def numbers(self) -> list[int]:
        """What its records say."""
        return [int(value) for _, value in self.records]


@dataclass
class _Claim:
    """Records that were sent under some numbers, and may be in the log."""

    batch: Produced
    attempts: int = 1


@dataclass
class _Known:
    """What a partition knows of a producer."""

    epoch: int
    next: int = 0
    last: list[Produced] = field(default_factory=list)


class ModelKafka:
    """Brokers and partitions. A partition's log and what it knows of producers go with its leader.

    Attributes:
        log: All batches in all partitions, in the order in which they came.
        requests: On their way and not answered.
        connections: Those that are open.
        late: Of connections that are closed: bytes that may reach the broker still, by the broker.
        refusing: Brokers that take no connection.
        silent: Brokers on which connecting does not come to an end.
        reachable: Whether anything is learned of the cluster.
        gives_ids: Whether it answers who asks for a producer id.
        idempotent: Whether it has idempotent producers, and so ids to give.
        largest: ``max.message.bytes`` of every topic.
        newest: The newest version of Produce.
        wrong: What may never be.
    """

    def __init__(self, brokers: int = 2) -> None:
        self.brokers = list(range(1, brokers + 1))
        self.partitions = {STATUS: LANES, QUARANTINE: 1}
        self.leaders: dict[Partition, int | None] = {}
        self.log: list[Produced] = []
        self.requests: list[Arrived] = []
        self.late: list[tuple[int, Produced]] = []
        self.refusing: set[int] = set()
        self.silent: set[int] = set()
        self.reachable = self.gives_ids = self.idempotent = True
        self.largest: int | None = 1 << 20
        self.newest = 8
        self.wrong: list[str] = []
        self.producer_ids = 0
        self.opened = 0
        self.connections: list[ModelConnection] = []
        self._others_ids = 0
        self._created: Counter[str] = Counter()
        self._known: defaultdict[Partition, dict[int, _Known]] = defaultdict(dict)
        self._claims: defaultdict[tuple[Partition, int, int], list[_Claim]] = defaultdict(list)
        self._appended: dict[tuple[Partition, int, int, int], tuple[bytes | None, bytes]] = {}

    def begin(self) -> None:
        """A process of its own: the last one's requests are answered to nobody."""
        for request in self.requests:
            self.late += [(request.node, batch) for batch in request.batches]
        self.requests, self.connections = [], []

    def leader(self, where: Partition) -> int | None:
        """Of a partition; one after another has the next broker to begin with."""
        return self.leaders.setdefault(where, self.brokers[where[1] % len(self.brokers)])

    # --- what a broker does -------------------------------------------------------------------------------------------

    def append(self, node: int, batch: Produced) -> int:
        """Append the batch if it is to be; the code of the answer."""
        if batch.where[1] >= self.partitions[batch.where[0]]:
            return UNKNOWN_TOPIC
        return self._append(batch) if self.leader(batch.where) == node else NOT_LEADER

    def _append(self, batch: Produced) -> int:
        if not batch.numbered:
            self.log.append(batch)
            return 0
        known = self._known[batch.where].get(batch.producer_id)
        if known is None:
            known = _Known(batch.epoch)
        elif batch.epoch < known.epoch:
            return OLD_EPOCH
        elif batch.epoch > known.epoch:
            if batch.first:
                return OUT_OF_ORDER
            known = _Known(batch.epoch)
        else:
            for last in known.last:
                if (last.first, last.end) == (batch.first, batch.end):
                    if last.records != batch.records:
                        self.wrong.append(f"{batch} is taken for {last}")
                    return 0
            if batch.first != known.next:
                return OUT_OF_ORDER
        known.next = batch.end
        known.last = [*known.last, batch][-_REMEMBERED:]
        self._known[batch.where][batch.producer_id] = known
        self._note(batch)
        return 0

    def _note(self, batch: Produced) -> None:
        self.log.append(batch)
        for place, each in enumerate(batch.records):
            key = batch.where, batch.producer_id, batch.epoch, (batch.first + place) % _SEQUENCES
            if self._appended.setdefault(key, each) != each:
                self.wrong.append(f"{batch} has the numbers of {self._appended[key]}")

    def sent(self, batch: Produced) -> None:
        """The bridge wrote a batch: its numbers are its own, unless others were refused under them."""
        if not batch.numbered:
            return
        if batch.producer_id <= self._others_ids:
            self.wrong.append(f"{batch} is sent with a producer id that another bridge has")
        claims = self._claims[batch.where, batch.producer_id, batch.epoch]
        for claim in claims:
            if claim.batch == batch:
                claim.attempts += 1
                return
            if batch.first < claim.batch.end and claim.batch.first < batch.end:
                self.wrong.append(f"{batch} is sent, and {claim.batch} may be in the log")
        claims.append(_Claim(batch))

    def was_refused(self, batch: Produced) -> None:
        """The bridge is told that an attempt was not appended."""
        claims = self._claims[batch.where, batch.producer_id, batch.epoch]
        claims[:] = [claim for claim in claims if claim.batch != batch or claim.attempts > 1]

    def sent_once(self, batch: Produced) -> bool:
        """Whether this is the first attempt."""
        claims = self._claims[batch.where, batch.producer_id, batch.epoch]
        return any(claim.batch == batch and claim.attempts == 1 for claim in claims)

    # --- what the test does -------------------------------------------------------------------------------------------

    def make_anew(self, topic: str, partitions: int) -> None:
        """Delete the topic and make it with so many partitions; ``log`` keeps what was in it."""
        self.partitions[topic] = partitions
        self._created[topic] += 1
        for where in [each for each in self._known if each[0] == topic]:
            self.forget(where)

    def recreate(self, *, hang_up: bool = True) -> None:
        """Create the cluster again without its data; ``log`` keeps what was in it.

        Another bridge is there first: it gets all the producer ids that this one had, and writes to every partition.
        """
        self._known.clear()
        self._claims.clear()
        self._appended.clear()
        self.late.clear()
        self._others_ids = self.producer_ids
        for topic, count in self.partitions.items():
            self._created[topic] += 1
            for where in [(topic, number) for number in range(count)]:
                for producer_id in range(1, self._others_ids + 1):
                    first = Produced(where, producer_id, 0, 0, ((b"other", b"-1"),))
                    self._known[where][producer_id] = _Known(0, first.end, [first])
        for connection in list(self.connections) if hang_up else ():
            connection.hang_up()

    def metadata(self) -> Metadata:
        """What brokers answer. The cluster id is configured; topics have another id each time that they are created."""
        topics = [
            Topic(topic, 0, f"{topic}-{self._created[topic]}", self._leaders_of(topic, count))
            for topic, count in self.partitions.items()
        ]
        return Metadata("configured", {node: Broker("localhost", node) for node in self.brokers}, topics)

    def _leaders_of(self, topic: str, count: int) -> dict[int, int]:
        leaders = {number: self.leader((topic, number)) for number in range(count)}
        return {number: -1 if leader is None else leader for number, leader in leaders.items()}

    def leave(self, node: int) -> None:
        """A broker is not of the cluster any more, others lead what it led; unless it is the last one."""
        if self.brokers != [node]:
            self.brokers = [each for each in self.brokers if each != node]
            self.leaders = {w: self.brokers[0] if at == node else at for w, at in self.leaders.items()}

    def forget(self, where: Partition) -> None:
        """The partition knows no producer any more."""
        self._known[where].clear()

    def fence(self, where: Partition) -> None:
        """Somebody raised the epoch of all producers."""
        for known in self._known[where].values():
            known.epoch, known.next, known.last = known.epoch + 1, 0, []

    def deliver_late(self, number: int = 0) -> None:
        """Bytes of a connection that is closed reach their broker."""
        self.append(*self.late.pop(number))

    def numbers(self, topic: str = STATUS) -> list[int]:
        """What the topic's records say, as they came."""
        return [number for batch in self.log if batch.where[0] == topic for number in batch.numbers]


class Arrived:
    """A Produce request on its way."""

    def __init__(self, connection: "ModelConnection", request: Request, on_answer: Callable[[bytes], None]) -> None:
        self.connection, self.node, self.request = connection, connection.node, request
        self.batches = [Produced.read(where, data) for where, data in request.batches.items()]
        self.size = request.size
        self._on_answer = on_answer

    @property
    def numbers(self) -> list[list[int]]:
        """What the records of each batch say."""
        return [batch.numbers for batch in self.batches]

    def serve(self) -> dict[Partition, PartitionAnswer]:
        """Do what a broker does; what it answers."""
        return {each.where: PartitionAnswer(self.connection.kafka.append(self.node, each)) for each in self.batches}

    def answer(self, partitions: Mapping[Partition, PartitionAnswer], throttle_ms: int = 0) -> None:
        """Say this of the partitions."""
        for batch in self.batches:
            if batch.where in partitions and partitions[batch.where].code in NOT_APPENDED:
                self.connection.kafka.was_refused(batch)
        written = ProduceAnswer(dict(partitions), throttle_ms).write(0, self.request.api_version)
        self.answer_bytes(written[4:])

    def answer_bytes(self, body: bytes) -> None:
        """Say this, whatever it is."""
        self.connection.kafka.requests.remove(self)
        self.connection.answered_at = asyncio.get_running_loop().time()
        self._on_answer(body)

    def refuse(self, code: int, *, throttle_ms: int = 0, named: Sequence[tuple[int, str]] = ()) -> None:
        """Append nothing, and say this of every partition."""
        answer = PartitionAnswer(code, record_errors=named)
        self.answer({each.where: answer for each in self.batches}, throttle_ms)


class ModelConnection:
    """Stands for ``wire.Connection``."""

    def __init__(self, kafka: ModelKafka, node: int) -> None:
        self.kafka, self.node = kafka, node
        self.versions = {messages.PRODUCE: (3, kafka.newest)}
        self.opening_seconds = 0.01
        self.answered_at = 0.0
        self.on_end: Callable[[], None] = _nothing
        self.on_free: Callable[[], None] = _nothing
        self.end = ""
        self.expired = self.busy = False
        self.kept_alive = 0
        self._loop = asyncio.get_running_loop()
        kafka.connections.append(self)

    def expire(self) -> None:
        """See ``Connection``."""
        self.expired = True

    def keep_alive(self) -> None:
        """See ``Connection``."""
        self.kept_alive += 1

    def send(self, api_key: int, version: int, body: Sequence[bytes], on_answer: Callable[[bytes], None]) -> None:
        """See ``Connection``."""
        if self.end:
            raise ConnectionEnded(self.end)
        assert not any(each.connection is self for each in self.kafka.requests), "two requests on their way"
        head = messages.request_head(api_key, version, 1, messages.string("bridge"))
        request = read_request(b"".join((head, *body)))
        assert request.acks == -1
        arrived = Arrived(self, request, on_answer)
        self.kafka.requests.append(arrived)
        for batch in arrived.batches:
            self.kafka.sent(batch)

    def abort(self, why: str) -> None:
        """See ``Connection``: bytes that the kernel has may still reach the broker."""
        if not self.end:
            self.end = why
            self._leave(late=True)
            self._loop.call_soon(self._lost)

    def hang_up(self, *, late: bool = False) -> None:
        """The other end is gone; ``late``: what is on its way may be in a broker's hands still."""
        if not self.end:
            self.end = "the broker hung up"
            self._leave(late=late)
            self._lost()

    def _leave(self, *, late: bool) -> None:
        self.kafka.connections.remove(self)
        for request in [each for each in self.kafka.requests if each.connection is self]:
            self.kafka.requests.remove(request)
            if late:
                self.kafka.late += [(self.node, batch) for batch in request.batches]

    def _lost(self) -> None:
        self.on_end()


def _nothing() -> None:
    """Nobody waits."""


class ModelCluster(Cluster):
    """Learns what the model has, when told."""

    def __init__(
        self, kafka: ModelKafka, settings: Kafka, topics: Sequence[str], on_change: Callable[[], None]
    ) -> None:
        super().__init__(settings, topics, on_change)
        self._kafka = kafka
        self.wanted = True

    def start(self) -> None:
        """No task."""

    async def stop(self) -> None:
        """No task."""

    def refresh(self) -> None:
        """See ``Cluster``."""
        self.wanted = True

    def want_producer_id(self) -> None:
        """See ``Cluster``."""
        self._id_wanted = self.wanted = True

    def largest_message(self, topic: str) -> int | None:
        """See ``Cluster``."""
        del topic
        return self._kafka.largest

    async def confirm(self, connection: Connection) -> None:
        """See ``Cluster``."""
        del connection
        self._confirmed_by(self._kafka.metadata())

    def learn(self) -> None:
        """All that there is to know."""
        self.wanted = False
        kafka = self._kafka
        self._take(kafka.metadata())
        if (self._id_wanted or self.producer_id == NO_PRODUCER_ID) and kafka.gives_ids:
            self._take_id()
        self._on_change()

    def _take_id(self) -> None:
        kafka, self._id_wanted = self._kafka, False
        if not kafka.idempotent:
            self.producer_id = NO_PRODUCER_ID
        else:
            kafka.producer_ids += 1
            self.producer_ids += 1
            self.producer_id = ProducerId(kafka.producer_ids, 0)


class ModelProducer(Producer):
    """The real one, on the model's connections."""

    def __init__(
        self, kafka: ModelKafka, settings: Settings, on_change: Callable[[Producer], None], topics: Sequence[str]
    ) -> None:
        super().__init__(settings.kafka, topics, settings.delivery.producer_timeout_seconds, on_change)
        self.kafka = kafka
        self.cluster: ModelCluster = ModelCluster(kafka, settings.kafka, topics, self._cluster_changed)
        self.rounds._cluster = self.cluster

    async def connect(self, node: int) -> Connection:
        """See ``Producer``."""
        self.connections_opened += 1
        self.kafka.opened += 1
        async with asyncio.timeout(_OPEN_SECONDS):
            while node in self.kafka.silent:  # noqa: ASYNC110 - time is the test's
                await asyncio.sleep(_LOOK_SECONDS)
        if node in self.kafka.refusing or node not in self.kafka.brokers:
            raise OSError(f"broker {node} takes no connection")
        return cast("Connection", ModelConnection(self.kafka, node))


class ModelStage(Stage):
    """One process after another on the same model of Kafka and on the same disk.

    Args:
        window_bytes: A lane's window of memory.
        spool: Whether there is one.
        brokers: How many.
        max_batch_bytes: Of a batch before compression.
        max_request_bytes: Of the batches of a request.
        idempotent: Whether the cluster has idempotent producers to begin with.
    """

    cluster: ModelKafka

    def __init__(
        self,
        *,
        window_bytes: int = 1 << 20,
        spool: bool = True,
        brokers: int = 2,
        max_batch_bytes: int = 1 << 20,
        max_request_bytes: int = 1_000_000,
        idempotent: bool = True,
    ) -> None:
        self._brokers, self._idempotent = brokers, idempotent
        usual = _settings()
        kafka = structs.replace(usual.kafka, max_batch_bytes=max_batch_bytes, max_request_bytes=max_request_bytes)
        self._of_model = structs.replace(usual, kafka=kafka)
        super().__init__(window_bytes=window_bytes, spool=spool)

    def scripted(self) -> ModelKafka:
        """See ``Stage``."""
        kafka = ModelKafka(self._brokers)
        kafka.idempotent = self._idempotent
        return kafka

    def producer(self) -> Producer:
        """See ``Stage``."""
        producer = ModelProducer(self.cluster, self._of_model, self.delivery._on_cluster, (STATUS, QUARANTINE))
        producer.start()
        return producer

    def begin(self, found: Found = "whole") -> None:
        """See ``Stage``."""
        super().begin(found)
        self.learn()

    @property
    def kafka(self) -> ModelKafka:
        """The same as ``cluster``."""
        return self.cluster

    @property
    def produce(self) -> ModelProducer:
        """The process's producer."""
        return cast("ModelProducer", self.delivery.producer)

    # --- what happens -------------------------------------------------------------------------------------------------

    def do(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Call it where the loop runs, and let the bridge do what it does at once."""
        self.run(in_loop(partial(call, *arguments, **named)))
        self.settle()

    def learn(self) -> None:
        """The cluster tells of itself, if it can be reached."""
        if self.kafka.reachable:
            self.do(self.produce.cluster.learn)

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps; what is wanted of the cluster is learned."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + _STEP_SECONDS)
            self.settle()
            if self.produce.cluster.wanted:
                self.learn()

    def serve(self, request: Arrived | None = None) -> None:
        """Brokers do what is right with this request, or with all that are on their way."""
        for each in [request] if request is not None else list(self.kafka.requests):
            self.do(lambda each=each: each.answer(each.serve()))

    def refuse(self, code: int, request: Arrived | None = None) -> None:
        """Append nothing of this request, or of all that are on their way, and say so."""
        for each in [request] if request is not None else list(self.kafka.requests):
            self.do(each.refuse, code)

    def flying_to(self, node: int) -> list[Arrived]:
        """Requests on their way to a broker."""
        return [each for each in self.kafka.requests if each.node == node]

    @property
    def flying(self) -> list[list[int]]:
        """Numbers of the records in each batch on its way."""
        return [numbers for request in self.kafka.requests for numbers in request.numbers]

    @property
    def log(self) -> list[int]:
        """Numbers of the records of the status topic, as they came."""
        return self.kafka.numbers()

    def first_occurrences(self) -> dict[str, list[int]]:
        """The same by key, repeats left out."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for batch in self.kafka.log:
            for key, value in batch.records if batch.where[0] == STATUS else ():
                if int(value) not in found[(key or b"").decode()]:
                    found[(key or b"").decode()].append(int(value))
        return dict(found)

    # --- what is seen -------------------------------------------------------------------------------------------------

    @property
    def quarantined(self) -> list[int]:
        """See ``Stage``."""
        return self.kafka.numbers(QUARANTINE)

    def check(self) -> None:
        """See ``Stage``; and no broker was misled."""
        self.check_accounting()
        assert not self.kafka.wrong, self.kafka.wrong

    def finish(self) -> None:
        """Everything is well from now on, until nothing waits."""
        kafka = self.kafka
        kafka.reachable = kafka.gives_ids = True
        kafka.refusing.clear()
        kafka.silent.clear()
        kafka.leaders = {where: kafka.brokers[0] if at is None else at for where, at in kafka.leaders.items()}
        self.learn()
        self.salvage()
        self.disk.checked = True
        for _ in range(400):
            self.serve()
            self.commit()
            if self._is_done():
                break
            self.advance(0.5)
        self.check()
        assert self._is_done(), f"{self.delivery.waiting} wait"

    def _is_done(self) -> bool:
        well = all(lane.idle and not lane.degraded for lane in self.delivery.all_lanes())
        return well and not (self.delivery.waiting or self.kafka.requests or self.disk.queue)


@cache
def _settings() -> Settings:
    return settings()
