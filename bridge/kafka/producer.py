"""The produce path: takes batches of records from lanes, brings each into the log once, and tells the lanes.

A *round* is one request: when a broker's link is free and lanes have something for it, one batch of each of these lanes goes into
one Produce request, and all of them are settled when its answer comes. Nothing awaits in between, and nobody waits for this.
docs/decisions/produce-path.md says why there is no library's producer here.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from bridge.config import Kafka
from bridge.kafka.batch import Batch, Codec
from bridge.kafka.cluster import Cluster
from bridge.kafka.connection import MountedFiles, client_arguments
from bridge.kafka.errors import (
    CLUSTER_AUTHORIZATION_FAILED,
    DUPLICATE_SEQUENCE_NUMBER,
    NOT_SENT,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    TOPIC_AUTHORIZATION_FAILED,
    Action,
    ProduceError,
)
from bridge.kafka.rounds import Rounds
from bridge.kafka.sequences import Sequences
from bridge.kafka.sizes import Sizes
from bridge.kafka.watch import Traffic, Watch
from bridge.kafka.wire import Connection, connect

log = structlog.get_logger(__name__)

# For connecting to a broker and logging in: several answers of a slow one.
_OPEN_SECONDS: Final = 30.0
# Brokers that were not heard for longer do not answer.
_SILENT_SECONDS: Final = 6.0
# A refusal by the cluster, or a missing right: it costs one small request to look again.
_SHORT_PAUSE_SECONDS, _LONG_PAUSE_SECONDS = 1.0, 30.0
# After a batch without numbers was sent again: a broker reads what came before on another connection within milliseconds.
_REST_SECONDS: Final = 1.0
# One line of the log for each error and topic in so many seconds.
_TELL_SECONDS: Final = 10.0
_REFUSED_NUMBERS: Final = {
    "remedy": 'grant this user IdempotentWrite; if the service has no idempotent producers, set kafka.idempotence = "false"'
}
_REFUSALS: Final = {Action.REFUSE, Action.CLOCK, Action.RETRY, Action.RESEND}


class Producer:
    """See the module's head. Idempotent, with acks=all.

    Args:
        settings: ``[kafka]``.
        topics: all topics that will be written.
        producer_timeout_seconds: after which a request without an answer is looked into.
        on_change: called when something new is known of the cluster.

    Attributes:
        traffic: what was acknowledged.
        batches_failed: by what was done about it and the error's name.
        connections_opened: to brokers, for Produce.
    """

    def __init__(
        self,
        settings: Kafka,
        topics: Sequence[str],
        producer_timeout_seconds: float,
        on_change: Callable[["Producer"], None],
    ) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self.cluster = Cluster(settings, topics, self._cluster_changed)
        self.sequences = Sequences()
        self.traffic = Traffic()
        self.batches_failed: Counter[tuple[str, str]] = Counter()
        self.connections_opened = 0
        self.sizes = Sizes(settings)
        self.rounds = Rounds(settings, self.cluster, self.sequences, self.sizes, self)
        # What lanes call most is not wrapped again.
        self.offer, self.withdraw, self.leave = self.rounds.offer, self.rounds.withdraw, self.rounds.leave
        self._watch = Watch(self, producer_timeout_seconds)
        self._codecs: dict[str, Codec] = {}
        self._old_formats: set[str] = set()
        self._logged: dict[tuple[str, str], float] = {}
        self._right_missing = False
        self._mounted = MountedFiles(settings)
        self._watcher: asyncio.Task[None] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; returns at once, whatever Kafka is doing."""
        self.cluster.start()
        self._watch.start()
        self._watcher = asyncio.create_task(self._watch_credentials(), name="kafka-credentials")

    async def stop(self) -> None:
        """End every task and connection. What must be acknowledged has been waited for before."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        await self._watch.stop()
        await self.cluster.stop()
        self.rounds.stop()

    async def _watch_credentials(self) -> None:
        """Connections live on with what they were made with; when the files change, new ones take over between requests."""
        while True:
            await asyncio.sleep(1.0)
            if await self._mounted.changed():
                log.info("kafka_credentials_changed")
                self.cluster.renew_connection()
                for link in self.rounds.links():
                    link.renew()

    # --- how it is ----------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a lane could send now: there is a producer id, brokers answer, and one at least can be connected to."""
        return (
            self.cluster.producer_id is not None
            and self.silent_seconds < _SILENT_SECONDS
            and len(self.rounds.link_errors) < len(self.cluster.brokers)
        )

    @property
    def silent_seconds(self) -> float:
        """Since a broker last answered: acknowledged a batch, or told of the cluster."""
        return self._loop.time() - max(self._watch.answered_at, self.cluster.answered_at)

    @property
    def in_flight(self) -> int:
        """Batches that are on their way."""
        return sum(len(link.flight.batches) for link in self.rounds.links() if link.flight is not None)

    @property
    def last_error(self) -> str:
        """Why there is no connection to Kafka, or to one of its brokers, in words; empty where there is."""
        return self.cluster.last_error or next(iter(self.rounds.link_errors.values()), "")

    @property
    def credentials_usable(self) -> bool:
        """Whether the files that a connection is made with could be used at the last attempt."""
        return self.cluster.credentials_usable

    @property
    def refuses_everything(self) -> bool:
        """Whether Kafka refused two lanes or more and has accepted nothing since: then it decides who tries again, and when."""
        return self.rounds.pacing.refuses_everything

    # --- what lanes do ------------------------------------------------------------------------------------------------

    def open_batch(self, topic: str, partition: int, *, stamp_ms: int | None = None) -> Batch:
        """An empty batch for the partition; ``stamp_ms`` takes the place of the records' own times."""
        codec = self._codecs.get(topic, self._settings.compression_type)
        return Batch(topic, partition, codec, self.sizes.most_batch_bytes, stamp_ms)

    def may_begin(self, topic: str, partition: int, batch: Batch | None = None) -> bool:
        """Whether a batch could go to the partition now; ``batch``: this one, which was sent before.

        The partition has a leader, and no other batch is on its way to it, or may be in its log, or may have a late copy.
        """
        return (
            self.cluster.leader(topic, partition) is not None
            and self.sequences.of(topic, partition).batch in {None, batch}
            and self._loop.time() >= self.sequences.of(topic, partition).rests_until
            and self.sequences.usable(topic, partition)
        )

    def renumber(self, batch: Batch) -> None:
        """The batch may be in the log, and is to be taken apart: its numbers must not be used for other records."""
        if batch.unresolved:
            if not batch.numbered:
                self._rest(batch)
            self.sequences.raise_epoch(batch)

    def _rest(self, batch: Batch) -> None:
        """Give a late copy of a batch without numbers the time to arrive before anything newer."""
        self.sequences.of(batch.topic, batch.partition).rests_until = self._loop.time() + _REST_SECONDS

    def use_next_codec(self, batch: Batch) -> bool:
        """The broker does not take the batch's codec: another one from now on; False where there is none left."""
        current = self._codecs.get(batch.topic, self._settings.compression_type)
        if batch.codec == current:
            if current == "none":
                self._report_old_format(batch.topic)
                return False
            self._codecs[batch.topic] = current = "none" if current == "gzip" else "gzip"
            log.warning(
                "codec_not_supported", topic=batch.topic, codec=batch.codec, instead=current,
                remedy=f"set kafka.compression_type to {current}, or one that the brokers take",
            )  # fmt: skip
        batch.use_codec(current)
        return True

    def _report_old_format(self, topic: str) -> None:
        """Kafka refuses the topic's records without any compression too: of brokers before 3.0 the format may be the cause."""
        if topic not in self._old_formats:
            self._old_formats.add(topic)
            log.warning(
                "message_format_not_supported", topic=topic,
                remedy="raise the topic's message.format.version to 0.11.0 or newer: older formats have no headers",
            )  # fmt: skip

    # --- what rounds and the cluster tell -----------------------------------------------------------------------------

    def answered(self, node: int, sent_at: float) -> None:
        """See ``Resolver``."""
        self._watch.acknowledged(node, sent_at)

    async def open(self, node: int) -> Connection:
        """See ``Resolver``. Nothing is sent over a connection before its other end is known to be of the cluster."""
        connection = await self.connect(node)
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await self.cluster.confirm(connection)
        except BaseException:
            connection.abort("not used")
            raise
        return connection

    async def connect(self, node: int) -> Connection:
        """A new connection to the broker, over which nothing may be produced."""
        broker = self.cluster.brokers.get(node)
        if broker is None:
            raise OSError(f"broker {node} is no longer in the cluster's metadata")
        self.connections_opened += 1
        return await connect(broker.host, broker.port, client_arguments(self._settings), _OPEN_SECONDS)

    def _cluster_changed(self) -> None:
        if self.cluster.is_other:
            self.cluster.is_other = False
            self.rounds.drop_connections("it is another cluster")
            self.sequences.forget_all()
        self.sequences.use(self.cluster.producer_id)
        self.rounds.cluster_changed()
        self._on_change(self)

    # --- what became of a batch ---------------------------------------------------------------------------------------

    def resolve(self, batch: Batch, error: ProduceError | None) -> None:
        """See ``Resolver``."""
        numbers = self.sequences.of(batch.topic, batch.partition)
        if error is not None and error.code == DUPLICATE_SEQUENCE_NUMBER and batch.unresolved and batch.numbered:
            error = None  # the broker has it from an attempt before
        if error is None:
            if batch.unresolved and not batch.numbered:
                self._rest(batch)
            batch.unresolved = False
            self.sequences.acknowledged(batch)
            if self._right_missing:
                # The right may be why there is no producer id. It is there now, so the bridge does not wait for an hour.
                self._right_missing = False
                self.cluster.want_producer_id()
            self.rounds.pacing.accepted()
            self.traffic.acknowledged(time.perf_counter() - batch.sent_at, len(batch.records))
        else:
            self._account(batch, error)
        numbers.batch = batch if batch.unresolved else None
        self.rounds.batch_resolved()
        try:
            batch.source.resolved(batch, error)
        except Exception as wrong:  # noqa: BLE001 - a lane's fault must not end the others'
            batch.source.broken(wrong)

    def _account(self, batch: Batch, error: ProduceError) -> None:
        """Keep the rule of ``sequences.py`` for a batch that was not acknowledged, and tell of it."""
        if error is NOT_SENT:
            if not batch.unresolved:
                batch.numbers = None
            return
        action = error.action
        self._right_missing |= error.code == TOPIC_AUTHORIZATION_FAILED and not batch.numbered
        self.batches_failed[action.value, error.name] += 1
        if _can_try_otherwise(batch, action):
            self.rounds.pacing.admit(batch.source)
        elif error.is_answer and not error.of_the_leader and action in _REFUSALS:
            self.rounds.pacing.refused(
                batch.source, _SHORT_PAUSE_SECONDS if action is Action.RETRY else _LONG_PAUSE_SECONDS
            )
        if action is Action.RENUMBER or error.code == DUPLICATE_SEQUENCE_NUMBER:
            self._renumber(batch, error)
        elif not error.not_appended:
            batch.unresolved = True
        elif not batch.unresolved:
            batch.numbers = None
        if error.of_the_leader:
            self.cluster.refresh()
        self._log_failure(batch, error)

    def _renumber(self, batch: Batch, error: ProduceError) -> None:
        numbers = self.sequences.of(batch.topic, batch.partition)
        if error.code == OUT_OF_ORDER_SEQUENCE_NUMBER and numbers.acknowledged:
            log.error(
                "broker_lost_acknowledged_data", topic=batch.topic, partition=batch.partition, error=error.text,
                remedy="the broker lost acknowledged data: look at its log and its disk; consumers may lack these records",
            )  # fmt: skip
        if error.code in {OUT_OF_ORDER_SEQUENCE_NUMBER, DUPLICATE_SEQUENCE_NUMBER}:
            self.sequences.raise_epoch(batch)
        else:
            self.sequences.forget_id(batch)
        if not self.sequences.usable(batch.topic, batch.partition):
            self.cluster.want_producer_id()

    def _log_failure(self, batch: Batch, error: ProduceError) -> None:
        key, now = (error.name, batch.topic), self._loop.time()
        if now - self._logged.get(key, -_TELL_SECONDS) < _TELL_SECONDS:
            return
        self._logged[key] = now
        size = batch.size_before_compression  # the other can't be told where compressing is what failed
        log.warning(
            "batch_failed", topic=batch.topic, partition=batch.partition, records=len(batch.records), bytes=size,
            error=error.text, action=error.action.value, failed=self.batches_failed[error.action.value, error.name],
            **_REFUSED_NUMBERS if batch.numbered and error.code == CLUSTER_AUTHORIZATION_FAILED else {},
        )  # fmt: skip


def _can_try_otherwise(batch: Batch, action: Action) -> bool:
    """Whether the next attempt differs from the one that was refused; there are few such attempts for the same records."""
    match action:
        case Action.SPLIT:
            return len(batch.records) > 1
        case Action.CODEC:
            return batch.codec != "none"
        case Action.CLOCK:
            return not batch.stamped
    return False
