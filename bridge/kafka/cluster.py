"""The bridge's view of the cluster: its brokers, partition leaders, a producer id, and each topic's largest message.

One task asks for all of it, on a connection for nothing else. If a broker does not answer within
``kafka.request_timeout_ms``, the task asks the next one as well. The first answer counts.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from aiokafka.conn import collect_hosts
from aiokafka.protocol.admin import DescribeConfigsRequest

from bridge.config import Kafka
from bridge.errors import ConfigurationError, ConnectionEnded, KafkaUnavailable, UnsupportedBroker
from bridge.kafka import messages
from bridge.kafka.connection import client_arguments, reason
from bridge.kafka.errors import NONE, code_name
from bridge.kafka.identity import Identity
from bridge.kafka.metadata import Broker, Metadata, ask_metadata
from bridge.kafka.wire import CONNECTION_FAILURES, Connection, connect

log = structlog.get_logger(__name__)

# The limit for each step of an update: metadata from any of the brokers, a producer id, a topic's setting.
_UPDATE_SECONDS: Final = 30.0
_BACKOFF_SECONDS: Final = (0.1, 2.0)
# The shortest time between two updates if they succeed, and the longest while a producer id, a topic or a new
# connection is missing.
_INTERVAL_SECONDS, _SILENT_ASK_SECONDS = 0.1, 2.0
# Every fifth update asks another broker: one that the controller cannot reach would report former leaders forever.
_SAME_BROKER: Final = 5
_UNKNOWN_TOPIC: Final = 3
# A broker that has just started has no producer ids yet, and answers with one of these codes for a moment.
_NOT_YET: Final = {14, 15, 16, 41}
# Three of these refusals within half a minute are believed, each two seconds or more after the one before: a cluster that has
# just started may refuse for a moment. The bridge asks again after an hour.
_REFUSALS, _REFUSALS_SECONDS, _REFUSALS_APART_SECONDS, _ASK_AGAIN_SECONDS = 3, 30.0, 2.0, 3600.0
_CONFIG_OF_A_TOPIC: Final = 2
_MAX_MESSAGE_BYTES: Final = "max.message.bytes"


class ProducerId(NamedTuple):
    """A producer id from a broker, and the epoch that it begins with."""

    producer_id: int
    epoch: int


NO_PRODUCER_ID: Final = ProducerId(-1, -1)
"""Stands for a producer id where the cluster has none to give."""


async def ask_producer_id(connection: Connection) -> messages.ProducerId:
    """Ask a broker for a producer id, and again while it has none yet. The caller sets a limit.

    Raises:
        UnsupportedBroker: the broker does not offer the request.
        ConnectionEnded, UnreadableAnswer: the broker gave no answer, or one that could not be read.
    """
    version = messages.common_version(messages.INIT_PRODUCER_ID, connection.versions)
    while True:
        answer = await connection.ask(messages.INIT_PRODUCER_ID, version, messages.init_producer_id_request())
        given = messages.read_producer_id(answer)
        if given.code not in _NOT_YET:
            return given
        await asyncio.sleep(_INTERVAL_SECONDS)


class Cluster:
    """See the module docstring.

    Args:
        settings: ``[kafka]``.
        topics: all topics that the bridge writes; the task asks about no others.
        on_change: called after each answer with metadata or a producer id.

    Attributes:
        brokers: the brokers' addresses, by id.
        identity: the ids by which the cluster is recognised.
        is_other: whether it is another cluster than before; the producer sets it back.
        producer_id: the newest producer id; None before the first.
        last_error: why the last update failed, in words; empty if it succeeded.
        credentials_usable: whether the credential files could be used at the last attempt to connect.
        answered_at: when a broker last answered a metadata request, in the loop's time.
        producer_ids: how many producer ids the brokers have given.
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
        self._kept_answer: Metadata | None = None
        self._kept_broker: Broker | None = None
        self._refused_by: set[Broker | None] = set()
        self.brokers: dict[int, Broker] = {}
        self.identity = Identity()
        self.is_other = False
        self.producer_id: ProducerId | None = None
        self.producer_ids = 0
        self._refused_ids: list[float] = []
        self._ask_id_at = float("inf")
        if settings.idempotence == "false":
            self.producer_id, self._id_wanted = NO_PRODUCER_ID, False
        self.last_error = ""
        self.credentials_usable = True
        self.answered_at = float("-inf")

    # --- called by the producer and its parts -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the task; returns at once."""
        self._task = asyncio.create_task(self._run(), name="kafka-cluster")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Stop the task and close its connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._keep(None)

    def partitions(self, topic: str) -> int:
        """The number of partitions of ``topic``; 0 while the topic is unknown or missing."""
        return len(self._leaders.get(topic, ()))

    def leader(self, topic: str, partition: int) -> int | None:
        """The id of the broker that leads the partition; None if no leader is known."""
        node = self._leaders.get(topic, {}).get(partition, -1)
        return node if node in self.brokers else None

    def leaders(self) -> set[int]:
        """The ids of all brokers that lead a partition."""
        return {node for leaders in self._leaders.values() for node in leaders.values() if node in self.brokers}

    def largest_message(self, topic: str) -> int | None:
        """Return the topic's ``max.message.bytes`` as last reported, or None if it is unknown, and ask for it again."""
        self._largest_wanted.add(topic)
        self._wanted.set()
        return self._largest.get(topic)

    @property
    def idempotent(self) -> bool | None:
        """Whether the newest producer id is a real one; None before the first."""
        return None if self.producer_id is None else self.producer_id != NO_PRODUCER_ID

    async def confirm(self, connection: Connection) -> None:
        """Ask over a connection for the ids of the cluster and its topics.

        Raises:
            KafkaUnavailable: the other end is not known to belong to the cluster that gave the producer id.
        """
        self._confirmed_by(await ask_metadata(connection, self._topics))

    def _confirmed_by(self, metadata: Metadata) -> None:
        if not self.identity.is_confirmed_by(metadata):
            raise KafkaUnavailable("it describes none of the topics, or others than before: asking the cluster again")

    def refresh(self) -> None:
        """Ask for brokers and leaders soon."""
        self._wanted.set()

    def want_producer_id(self) -> None:
        """Ask for another producer id soon."""
        self._id_wanted = self._settings.idempotence != "false"
        self._wanted.set()

    def renew_connection(self) -> None:
        """Replace the connection as soon as a new one can be opened, because the credential files have changed."""
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
        """Wait until a caller asks for an update, or the next one is due."""
        longest = self._settings.metadata_max_age_ms / 1000
        complete = self.producer_id is not None and not self._renew and all(map(self.partitions, self._topics))
        try:
            async with asyncio.timeout(min(longest, longest if complete else _SILENT_ASK_SECONDS)):
                await self._wanted.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0.0, self._asked_at + _INTERVAL_SECONDS - self._loop.time()))

    async def _learn(self) -> bool:
        """Ask for everything that is needed; return whether all of it was answered."""
        self._asked_at = self._loop.time()
        try:
            metadata, known = await self._metadata(), len(self._leaders)
            if self._kept_answer is not None and self._kept_answer is not metadata:
                raise KafkaUnavailable("two brokers answered at once")
            self._take(metadata)
            self._on_change()
            if len(self._leaders) > known and self.producer_id == NO_PRODUCER_ID:
                self.want_producer_id()  # rights that were missing may be why there is none
            if self._id_wanted or self._loop.time() >= self._ask_id_at:
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

    async def _metadata(self) -> Metadata:
        """Ask for metadata. If the connection is to be replaced but no new one can be opened, use the old one."""
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

    async def _first_answer(self) -> Metadata:
        """Return the first answer to a metadata request.

        Ask one broker after another. An earlier broker may still answer after a later one was asked.
        """
        known = random.sample(sorted(self.brokers.items()), len(self.brokers))
        # One broker that refuses a producer id does not speak for the cluster: others are asked, that one last.
        refused = self._id_wanted and 0 < len(self._refused_ids) < _REFUSALS
        known.sort(key=lambda each: refused and each[1] in self._refused_by)
        named = [(f"broker {node}, advertised as ", broker) for node, broker in known]
        first = [("", Broker(host, port)) for host, port, _ in collect_hosts(self._settings.bootstrap_servers)]
        attempts: list[Callable[[], Coroutine[Any, Any, Metadata]]]
        attempts = [partial(self._ask_anew, name, broker) for name, broker in [*named, *first]]
        self._questions += 1
        another = self._renew or ((self._questions % _SAME_BROKER == 0 or refused) and len(known) > 1)
        current = None if another else self._connection
        if current is not None and not current.end and not current.expired:
            attempts.insert(0, partial(self._ask_metadata, current))
        reasons: list[str] = []
        running: set[asyncio.Task[Metadata]] = set()
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
        # The last reasons are those of the bootstrap servers, which are the addresses that the operator configured.
        raise KafkaUnavailable("; ".join(dict.fromkeys(reasons[-len(first) :])))

    async def _ask_anew(self, name: str, broker: Broker) -> Metadata:
        try:
            arguments = client_arguments(self._settings)
            connection = await connect(broker.host, broker.port, arguments, _UPDATE_SECONDS)
        except CONNECTION_FAILURES as error:
            if isinstance(error, ConfigurationError):
                raise
            why = reason(error)
            raise KafkaUnavailable(f"{name}{broker.host}:{broker.port}: {why}") from error
        try:
            answer = await self._ask_metadata(connection)
        except BaseException:
            connection.abort("not used")
            raise
        self._kept_broker = broker
        return answer

    async def _ask_metadata(self, connection: Connection) -> Metadata:
        answer = await ask_metadata(connection, self._topics)
        if not answer.brokers:
            raise KafkaUnavailable("the answer names no broker")
        self._keep(connection)
        # The producer id is asked for over this connection, so it must be the cluster of this answer that gives it.
        self._kept_answer = answer
        return answer

    def _take(self, metadata: Metadata) -> None:
        self.answered_at = self._loop.time()
        if self.identity.take(metadata):
            self.is_other = True
            if self.producer_id != NO_PRODUCER_ID:
                self.producer_id = None
            self.want_producer_id()
        self.brokers = dict(metadata.brokers)
        for topic in metadata.topics:
            if topic.code == NONE:
                self._leaders[topic.name] = dict(topic.leaders)
            elif topic.code == _UNKNOWN_TOPIC:
                self._leaders.pop(topic.name, None)

    # --- producer ids and topic settings ------------------------------------------------------------------------------

    async def _ask_producer_id(self) -> bool:
        """Ask for a producer id; return whether a broker gave one.

        A refusal is logged, and the connection stays open.
        """
        assert self._connection is not None  # noqa: S101 - the metadata has just come over it
        try:
            async with asyncio.timeout(_UPDATE_SECONDS):
                given = await ask_producer_id(self._connection)
        except UnsupportedBroker as error:
            return self._no_producer_id(str(error), counts=True)
        except ConnectionEnded as error:
            return self._no_producer_id(f"InitProducerId was not answered: {error}", counts=False)
        if given.code:
            why = f"{code_name(given.code)}{_REMEDIES.get(given.code, '')}"
            return self._no_producer_id(why, counts=given.code in _REMEDIES)
        self._id_wanted, self._ask_id_at = False, float("inf")
        self._refused_ids, self._refused_by = [], set()
        self.producer_ids += 1
        self.producer_id = ProducerId(given.producer_id, given.epoch)
        log.info("producer_id_given", producer_id=given.producer_id)
        return True

    def _no_producer_id(self, why: str, *, counts: bool) -> bool:
        """The cluster gave no producer id; return whether the bridge goes on without one.

        Args:
            why: in words.
            counts: whether this is how a cluster without idempotent producers refuses.
        """
        now, idempotence = self._loop.time(), self._settings.idempotence
        self._refused_ids = [at for at in self._refused_ids if now - at < _REFUSALS_SECONDS]
        if counts and not any(now - at < _REFUSALS_APART_SECONDS for at in self._refused_ids):
            self._refused_ids.append(now)
        self._refused_by.add(self._kept_broker)
        if self.producer_id != NO_PRODUCER_ID:
            if idempotence == "true" or len(self._refused_ids) < _REFUSALS:
                way_out = f'kafka.idempotence is "{idempotence}"; with "false" the bridge publishes without one'
                self._failed(KafkaUnavailable(f"the broker gives no producer id: {why}; {way_out}"))
                return False
            log.warning(
                "idempotence_not_available", error=why,
                remedy='a batch that is sent again may be in the log twice; kafka.idempotence = "true" waits for a producer id',
            )  # fmt: skip
        self.producer_id, self._id_wanted, self._ask_id_at = NO_PRODUCER_ID, False, now + _ASK_AGAIN_SECONDS
        return True

    async def _ask_largest(self, topic: str) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101 - the metadata has just come over it
        self._largest_wanted.discard(topic)
        async with asyncio.timeout(_UPDATE_SECONDS):
            resources = [(_CONFIG_OF_A_TOPIC, topic, [_MAX_MESSAGE_BYTES])]
            answer = await connection.ask_aiokafka(DescribeConfigsRequest(resources))
        for code, _, _, _, entries in answer.resources or ():
            values = [
                value for name, value, *_ in entries or () if name == _MAX_MESSAGE_BYTES and (value or "").isdecimal()
            ]
            if not code and values:
                self._largest[topic] = int(values[0])


# CLUSTER_AUTHORIZATION_FAILED and UNSUPPORTED_VERSION: what a cluster without idempotent producers answers.
_REMEDIES: Final = {
    31: "; no ACL lets this user write to a topic (see `chatapp-bridge topics acls`), or the service has no idempotent producers",
    35: "; the service has no idempotent producers",
}
