"""What is known of the cluster: its brokers, the leaders of the partitions, a producer id, the topics' largest message.

One task asks for all of it, on a connection of its own. A broker that does not answer is not waited for: after
``kafka.request_timeout_ms`` the next one is asked as well, and the first answer counts.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from aiokafka.conn import collect_hosts
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from bridge.config import Kafka
from bridge.errors import ConfigurationError, KafkaUnavailable
from bridge.kafka import messages
from bridge.kafka.connection import client_arguments, reason
from bridge.kafka.errors import NONE, code_name
from bridge.kafka.wire import CONNECTION_FAILURES, Connection, connect

log = structlog.get_logger(__name__)

# For one update, over all brokers that are asked.
_UPDATE_SECONDS: Final = 30.0
_BACKOFF_SECONDS: Final = (0.1, 2.0)
# Metadata is not asked for more often, and at least as often while nothing is heard from the cluster.
_INTERVAL_SECONDS, _SILENT_ASK_SECONDS = 0.1, 2.0
# Every so many questions another broker is asked: one that the controller can't reach would tell of former leaders for ever.
_SAME_BROKER: Final = 5
_UNKNOWN_TOPIC: Final = 3
# A broker that has just begun has no producer ids to give for a moment.
_NOT_YET: Final = {14, 15, 16, 41}
_CONFIG_OF_A_TOPIC: Final = 2
_MAX_MESSAGE_BYTES: Final = "max.message.bytes"


class Broker(NamedTuple):
    """A broker as the cluster tells of it."""

    host: str
    port: int


class ProducerId(NamedTuple):
    """An id that a broker gave, and the epoch it begins with."""

    producer_id: int
    epoch: int


class Cluster:
    """See the module's head.

    Args:
        settings: ``[kafka]``.
        topics: all topics that will be written; nothing else is asked about.
        on_change: called when anything is known anew.

    Attributes:
        brokers: by their ids.
        producer_id: the newest one, None before the first.
        last_error: why nothing could be learned at the last attempt, in words; empty where it could.
        credentials_usable: whether the files that a connection is made with could be used at the last attempt.
        answered_at: the loop's time when a broker last answered here.
        producer_ids: how many were given.
    """

    def __init__(self, settings: Kafka, topics: Sequence[str], on_change: Callable[[], None]) -> None:
        self._settings, self._topics, self._on_change = settings, list(topics), on_change
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._leaders: dict[str, dict[int, int]] = {}
        self._largest: dict[str, int] = {}
        self._largest_wanted: set[str] = set()
        self._wanted = asyncio.Event()
        self._id_wanted, self._renew = True, False
        self._task: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._questions = 0
        self.brokers: dict[int, Broker] = {}
        self.producer_id: ProducerId | None = None
        self.producer_ids = 0
        self.last_error = ""
        self.credentials_usable = True
        self.answered_at = float("-inf")

    # --- what a user does ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask; returns at once."""
        self._task = asyncio.create_task(self._run(), name="kafka-cluster")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Ask nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._keep(None)

    def partitions(self, topic: str) -> int:
        """Number of partitions of ``topic``; 0 while it is unknown or missing."""
        return len(self._leaders.get(topic, ()))

    def leader(self, topic: str, partition: int) -> int | None:
        """The id of the broker that takes records for this partition; None where none is known."""
        node = self._leaders.get(topic, {}).get(partition, -1)
        return node if node in self.brokers else None

    def leaders(self) -> set[int]:
        """The ids of all brokers that take records for a partition."""
        return {node for leaders in self._leaders.values() for node in leaders.values() if node in self.brokers}

    def largest_message(self, topic: str) -> int | None:
        """``max.message.bytes`` of the topic as it was last asked for, None where it isn't known; it is asked for again."""
        self._largest_wanted.add(topic)
        self._wanted.set()
        return self._largest.get(topic)

    def refresh(self) -> None:
        """Ask for brokers and leaders soon."""
        self._wanted.set()

    def want_producer_id(self) -> None:
        """Ask for another producer id."""
        self._id_wanted = True
        self._wanted.set()

    def renew_connection(self) -> None:
        """What connections are made with has changed: a new one takes over as soon as one can be made."""
        self._renew = True
        self._wanted.set()

    # --- the task -----------------------------------------------------------------------------------------------------

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("kafka_cluster_failed", exc_info=task.exception())
            self._loop.call_later(_BACKOFF_SECONDS[1], self.start)

    async def _run(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        while True:
            self._wanted.clear()
            if await self._learn():
                backoff = _BACKOFF_SECONDS[0]
                await self._pause()
            else:
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    async def _pause(self) -> None:
        """Until somebody wants to know something, or it is time to ask."""
        longest = self._settings.metadata_max_age_ms / 1000
        complete = self.producer_id is not None and not self._renew and all(map(self.partitions, self._topics))
        try:
            async with asyncio.timeout(min(longest, longest if complete else _SILENT_ASK_SECONDS)):
                await self._wanted.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0.0, self._asked_at + _INTERVAL_SECONDS - self._loop.time()))

    async def _learn(self) -> bool:
        """Ask for everything that is wanted; whether all of it was answered."""
        self._asked_at = self._loop.time()
        try:
            self._take(await self._metadata())
            self._on_change()
            if self._id_wanted:
                if not await self._ask_producer_id():
                    return False
                self._on_change()
            for topic in sorted(self._largest_wanted):
                await self._ask_largest(topic)
        except CONNECTION_FAILURES as error:
            self._failed(error)
            self._keep(None)
            return False
        if not self._renew:
            self.last_error, self.credentials_usable = "", True
        return True

    async def _metadata(self) -> Any:
        """What a broker tells; by the connection that there is where a new one is wanted, and can't be made."""
        try:
            answer = await self._first_answer()
        except CONNECTION_FAILURES as error:
            if not self._renew or self._connection is None:
                raise
            self._failed(error)
            async with asyncio.timeout(_UPDATE_SECONDS):
                return await self._ask_metadata(self._connection)
        self._renew = False
        return answer

    def _failed(self, error: Exception) -> None:
        why = reason(error)
        self.credentials_usable = not isinstance(error, ConfigurationError)
        if why != self.last_error:
            log.warning("kafka_not_available", error=why)
        self.last_error = why

    def _keep(self, connection: Connection | None) -> None:
        if self._connection is not None and self._connection is not connection:
            self._connection.abort("not used any more")
        self._connection = connection

    # --- brokers and leaders ------------------------------------------------------------------------------------------

    async def _first_answer(self) -> Any:
        """Ask one broker after another, without waiting for the last; the first answer."""
        known = random.sample(sorted(self.brokers.items()), len(self.brokers))
        named = [(f"broker {node}, advertised as ", broker) for node, broker in known]
        first = [("", Broker(host, port)) for host, port, _ in collect_hosts(self._settings.bootstrap_servers)]
        attempts: list[Callable[[], Coroutine[Any, Any, Any]]]
        attempts = [partial(self._ask_anew, name, broker) for name, broker in [*named, *first]]
        self._questions += 1
        another = self._renew or (self._questions % _SAME_BROKER == 0 and len(known) > 1)
        current = None if another else self._connection
        if current is not None and not current.end and not current.expired:
            attempts.insert(0, partial(self._ask_metadata, current))
        reasons: list[str] = []
        running: set[asyncio.Task[Any]] = set()
        try:
            async with asyncio.timeout(_UPDATE_SECONDS):
                while attempts or running:
                    if attempts:
                        running.add(asyncio.create_task(attempts.pop(0)()))
                    patience = self._settings.request_timeout_ms / 1000
                    done, running = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                    if not done and not attempts:
                        self.last_error = f"no answer yet from {', '.join(self._settings.bootstrap_servers)}"
                    for task, error in [(task, task.exception()) for task in done]:
                        if error is None:
                            return task.result()
                        if isinstance(error, ConfigurationError) or not isinstance(error, CONNECTION_FAILURES):
                            raise error
                        reasons.append(reason(error))
        except TimeoutError:
            reasons.append(f"no answer within {_UPDATE_SECONDS:g} s")
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        # What the bootstrap servers say is last, and is what the operator wrote.
        raise KafkaUnavailable("; ".join(dict.fromkeys(reasons[-len(first) :])))

    async def _ask_anew(self, name: str, broker: Broker) -> Any:
        try:
            arguments = client_arguments(self._settings)
            connection = await connect(broker.host, broker.port, arguments, _UPDATE_SECONDS)
        except CONNECTION_FAILURES as error:
            if isinstance(error, ConfigurationError):
                raise
            why = reason(error)
            raise KafkaUnavailable(f"{name}{broker.host}:{broker.port}: {why}") from error
        try:
            return await self._ask_metadata(connection)
        except BaseException:
            connection.abort("not used")
            raise

    async def _ask_metadata(self, connection: Connection) -> Any:
        answer = await connection.ask_aiokafka(MetadataRequest(self._topics, allow_auto_topic_creation=False))
        if not answer.brokers:
            raise KafkaUnavailable("the answer names no broker")
        self._keep(connection)
        return answer

    def _take(self, metadata: Any) -> None:
        self.answered_at = self._loop.time()
        self.brokers = {node: Broker(host, port) for node, host, port, *_ in metadata.brokers}
        for code, topic, _, partitions in metadata.topics:
            if code == NONE:
                self._leaders[topic] = {partition: leader for _, partition, leader, *_ in partitions}
            elif code == _UNKNOWN_TOPIC:
                self._leaders.pop(topic, None)

    # --- what else is wanted ------------------------------------------------------------------------------------------

    async def _ask_producer_id(self) -> bool:
        """Ask for a producer id; whether one was given. A refusal is told, and is no reason for another connection."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - metadata was just answered on it
        version = messages.common_version(messages.INIT_PRODUCER_ID, connection.versions)
        async with asyncio.timeout(_UPDATE_SECONDS):
            while True:
                answer = await connection.ask(messages.INIT_PRODUCER_ID, version, messages.init_producer_id_request())
                given = messages.read_producer_id(answer)
                if given.code not in _NOT_YET:
                    break
                await asyncio.sleep(_INTERVAL_SECONDS)
        if given.code:
            words = f"the broker gives no producer id: {code_name(given.code)}{_REMEDIES.get(given.code, '')}"
            self._failed(KafkaUnavailable(words))
            return False
        self._id_wanted = False
        self.producer_ids += 1
        self.producer_id = ProducerId(given.producer_id, given.epoch)
        log.info("producer_id_given", producer_id=given.producer_id)
        return True

    async def _ask_largest(self, topic: str) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101 - metadata was just answered on it
        self._largest_wanted.discard(topic)
        async with asyncio.timeout(_UPDATE_SECONDS):
            resources = [(_CONFIG_OF_A_TOPIC, topic, [_MAX_MESSAGE_BYTES])]
            answer = await connection.ask_aiokafka(DescribeConfigsRequest(resources))
        for code, _, _, _, entries in answer.resources or ():
            values = [value for name, value, *_ in entries or () if name == _MAX_MESSAGE_BYTES and value]
            if not code and values:
                self._largest[topic] = int(values[0])


_REMEDIES: Final = {
    31: "; no ACL lets this user write to a topic; see `chatapp-bridge topics acls`; or this service has no idempotent producers",
    35: "; this service has no idempotent producers",
}
