"""aiokafka's producer, made safe to give up.

aiokafka retries a batch for ever, waits without limit in ``start()`` and ``stop()``, and may lose its sender without a word.
So nobody awaits it here: a ``Producer`` starts under a time limit, sends without waiting, and can be *abandoned*: every
task it began is ended and every connection closed before ``abandon`` returns, and its unresolved batches fail with
``Abandoned``. Bytes already in a socket may still reach a broker, as a late repeat.

Where this reaches below aiokafka's public face (0.14) it says why; the version is pinned in pyproject.toml.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.producer.sender import Sender, SendProduceReqHandler

from bridge.config import Kafka
from bridge.errors import BridgeError
from bridge.kafka.batch import Batch
from bridge.kafka.connection import Client, client_arguments
from bridge.observe.metrics import Histogram

log = structlog.get_logger(__name__)

# Rounds of cancelling the tasks of an abandoned producer; aiokafka's sender swallows the first to await its requests.
_CANCEL_ROUNDS = 10
_LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RECORDS_BOUNDS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
# For finding out why a start took too long.
_REASON_SECONDS = 2.0
# Turns of the loop from a batch's acknowledgement to its lane's next step: the future's, the lane's.
_ROUNDS_TO_GO_ON = 3


class Abandoned(BridgeError):
    """The producer was given up with this batch unresolved: it may or may not be on Kafka. Send it again elsewhere."""

    retriable = True


class _Sender(Sender):  # type: ignore[misc]  # aiokafka's sender is untyped
    """A sender that knows its own request tasks, so that they can be ended, and tells when a node may be sent more."""

    requests: set[asyncio.Task[Any]]
    turns: dict[int, list[asyncio.Future[None]]]

    async def _send_produce_req(self, node_id: int, batches: Any) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a coroutine runs in a task
        self.requests.add(task)
        try:
            await SendProduceReqHandler(self, batches).do(node_id)
            # Those whose batches are acknowledged go on first, so that the next request takes what else they have.
            for _ in range(_ROUNDS_TO_GO_ON):
                await asyncio.sleep(0)
            self._in_flight.remove(node_id)
            self._muted_partitions.difference_update(batches)
        finally:
            self.requests.discard(task)
            self.release(node_id)

    def turn(self, node_id: int) -> "asyncio.Future[None] | None":
        """Done when no request is on its way to the node any more; None if none is now."""
        if node_id not in self._in_flight:
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.turns[node_id].append(turn)
        return turn

    def release(self, node_id: int) -> None:
        """Whoever waits for the node's turn is to look again."""
        for turn in self.turns.pop(node_id, ()):
            if not turn.done():
                turn.set_result(None)


class Traffic:
    """What Kafka acknowledged, over all producers of a process: how long a batch took, how large it was."""

    def __init__(self) -> None:
        self.latency = Histogram(
            "kafka_batch_latency_seconds", "From a batch's sending to its acknowledgement.", _LATENCY_BOUNDS
        )
        self.records = Histogram("kafka_batch_records", "Records in an acknowledged batch.", _RECORDS_BOUNDS)

    def acknowledged(self, seconds: float, records: int) -> None:
        """A batch of so many records was, so long after it was sent."""
        self.latency.observe(seconds)
        self.records.observe(records)


class Producer:
    """One idempotent aiokafka producer with acks=all.

    Args:
        settings: ``[kafka]``.
        topics: all topics that will be written; nothing else is asked about.
        number: for the logs.
        traffic: where what is acknowledged is measured.
    """

    def __init__(self, settings: Kafka, topics: Sequence[str], number: int, traffic: Traffic | None = None) -> None:
        self.number = number
        self._traffic = traffic or Traffic()
        self._last_resolved = asyncio.get_running_loop().time()
        self._acknowledged_at = 0.0
        self._topics = topics
        self._unresolved: set[asyncio.Future[None]] = set()
        self._dead = False
        self._settings = settings
        self._kafka = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            max_request_size=2**31 - 1,
            request_timeout_ms=settings.request_timeout_ms,
            metadata_max_age_ms=settings.metadata_max_age_ms,
            **client_arguments(settings),
        )
        # The classes of parts that AIOKafkaProducer makes itself are not open to its callers.
        self._client: Any = Client.take(self._kafka.client)
        self._sender: Any = self._kafka._sender  # noqa: SLF001
        self._sender.__class__ = _Sender
        self._sender.requests = set()
        self._sender.turns = defaultdict(list)

    @property
    def dead(self) -> bool:
        """Abandoned, or its sender, or the task that keeps it told of the cluster, ended by itself: aiokafka does not say so."""
        if self._dead:
            return True
        sender, sync = self._sender.sender_task, self._client._sync_task  # noqa: SLF001
        return (sender is not None and sender.done()) or (sync is not None and sync.done())

    @property
    def unresolved(self) -> int:
        """Batches that are on their way."""
        return len(self._unresolved)

    def idle_seconds(self, now: float) -> float:
        """Seconds since its last batch was resolved, or it started; 0 while one is on its way."""
        return 0.0 if self._unresolved else now - self._last_resolved

    def silent_seconds(self, now: float) -> float:
        """Seconds since a broker last answered: acknowledged a batch, or told of the cluster."""
        told_at: float = self._client.answered_at
        return now - max(self._acknowledged_at, told_at)

    async def start(self, timeout_seconds: float) -> None:
        """Connect, learn of the topics, get a producer id.

        Raises:
            KafkaUnavailable, TimeoutError, aiokafka.errors.KafkaError, OSError: no broker gave it in time; this producer is
                then abandoned.
        """
        try:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._client.bootstrap()
                    await self._client.set_topics(self._topics)
                    await self._sender.start()
            except TimeoutError:
                # aiokafka tries again and again; if a connection can't be had, this says why.
                async with asyncio.timeout(_REASON_SECONDS):
                    await self._client.require_brokers()
                raise
        except BaseException:
            await self.abandon()
            raise

    def partitions(self, topic: str) -> int:
        """Number of partitions of ``topic``; 0 while it is unknown or missing."""
        return len(self._client.cluster.partitions_for_topic(topic) or ())

    def has_leader(self, topic: str, partition: int) -> bool:
        """Whether a broker is known that takes records for this partition."""
        leader = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        return leader is not None and leader != -1

    def refresh_metadata(self) -> None:
        """Ask the cluster anew, in the background."""
        self._client.force_metadata_update()

    def open_batch(self) -> Batch:
        """An empty batch, bound to no partition yet."""
        return Batch(self._settings.compression_type, self._settings.max_batch_bytes)

    def turn(self, topic: str, partition: int) -> "asyncio.Future[None] | None":
        """Done when the partition's leader has answered what is on its way to it, or is given up; None if nothing is.

        What is sent before would wait for that answer anyhow, as a batch that can't be added to any more.
        """
        leader = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        turn: asyncio.Future[None] | None = self._sender.turn(leader)
        return turn

    def release(self) -> None:
        """Let those who wait for a turn look again, as there may be another producer for them."""
        for node in list(self._sender.turns):
            self._sender.release(node)

    def send(self, topic: str, partition: int, batch: Batch) -> "asyncio.Future[None]":
        """Begin to send ``batch``; it can't be added to any more.

        Returns:
            A future, done when all in-sync replicas have the batch; fails with the broker's refusal or ``Abandoned``.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unresolved.add(future)
        future.add_done_callback(self._resolved)
        if self.dead:
            future.set_exception(Abandoned(f"producer {self.number} is dead"))
        else:
            self._enqueue(batch, TopicPartition(topic, partition), future)
        return future

    def _resolved(self, future: "asyncio.Future[None]") -> None:
        self._unresolved.discard(future)
        self._last_resolved = future.get_loop().time()

    def _enqueue(self, sent: Batch, partition: TopicPartition, future: "asyncio.Future[None]") -> None:
        # send_batch() would wait for metadata and for the partition's turn, both without need here: the caller has seen
        # the leader, and the accumulator keeps a partition's batches in order. So this takes the step behind those waits.
        accumulator = self._kafka._message_accumulator  # noqa: SLF001
        began = time.perf_counter()  # uvloop's time is of whole milliseconds
        batch = accumulator._append_batch(sent, partition)  # noqa: SLF001

        def resolve(done: "asyncio.Future[Any]") -> None:
            error = None if done.cancelled() else done.exception()
            if future.done():
                return
            if done.cancelled():
                future.set_exception(Abandoned(f"producer {self.number} is dead"))
            elif error is not None:
                future.set_exception(error)
            else:
                self._acknowledged_at = future.get_loop().time()
                self._traffic.acknowledged(time.perf_counter() - began, len(sent.records))
                future.set_result(None)

        batch.future.add_done_callback(resolve)

    async def abandon(self) -> None:
        """End every task, close every connection, fail what is unresolved. Bounded; may be called again."""
        self._dead = True
        self._kafka._closed = True  # noqa: SLF001 - it won't be stop()ped, which would wait for ever
        for _ in range(_CANCEL_ROUNDS):
            tasks = {
                task
                for task in (self._sender.sender_task, self._client._sync_task, *self._sender.requests)  # noqa: SLF001
                if task is not None and not task.done()
            }
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.1)
        self.release()
        for connection in list(self._client._conns.values()):  # noqa: SLF001
            if connection._writer is not None:  # noqa: SLF001
                # abort(), as close() would first wait for a silent broker to take what is in the buffer
                connection._writer.transport.abort()  # noqa: SLF001
            connection.close()
        self._client._conns.clear()  # noqa: SLF001
        for future in list(self._unresolved):
            if not future.done():
                future.set_exception(Abandoned(f"producer {self.number} was abandoned"))
                with contextlib.suppress(Exception):
                    future.exception()  # a lane that has ended doesn't ask; that is no error of its own
