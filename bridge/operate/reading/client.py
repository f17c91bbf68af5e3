"""confluent-kafka for those that read back: its configuration from ``[kafka]``, its errors in words, and a reader that ends.

Nothing here joins a consumer group: partitions are assigned, so that a reader disturbs nobody and is not disturbed.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeVar, cast

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import admin as administration
from confluent_kafka.admin import AdminClient

from bridge.config import Kafka
from bridge.errors import BridgeError, ConfigurationError, KafkaUnavailable, ReplayError
from bridge.kafka.librdkafka import librdkafka_arguments
from bridge.operate import console
from bridge.threads import in_daemon_thread

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())
log.propagate = False

T = TypeVar("T")
# Untyped in the library.
OffsetSpec: Any = administration.OffsetSpec
ConfigResource: Any = administration.ConfigResource

TIMEOUT_SECONDS: Final = 60.0
# As many messages as the processor's cache holds: with ten thousand at once each costs three times as much.
BATCH_RECORDS: Final = 200
# What a reader holds beside the batch in hand: fetched and not yet given; and what one answer may hold, compressed.
_QUEUED_KIB: Final = 16_384
_FETCH_BYTES: Final = 4 << 20
_PARTITION_FETCH_BYTES: Final = 1 << 20
# The library's own, a second, would leave a full queue to run dry.
_FETCH_AGAIN_MS: Final = 10
_POLL_SECONDS: Final = 0.1
_REQUEST_SECONDS: Final = 10.0
_FIRST_SECONDS: Final = 10.0
_TELL_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.25


# --- configuration ----------------------------------------------------------------------------------------------------


def client_configuration(kafka: Kafka) -> dict[str, Any]:
    """The library's configuration for connecting, of any kind of client.

    Raises:
        ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
    """
    return {
        **librdkafka_arguments(kafka),
        "reconnect.backoff.max.ms": 2_000,
        # Its own lines on standard error would tear a progress bar; what matters comes as an error as well.
        "logger": log,
        "log_level": 3,
    }


def make(kind: Callable[[dict[str, Any]], T], configuration: dict[str, Any]) -> T:
    """A client of that kind.

    Raises:
        ConfigurationError: the library refuses the configuration, or a file can't be used: certificates, keys, a token.
    """
    token = configuration.get("oauth_cb")
    if token is not None:
        token("")  # the library says of its failure only that there was one
    try:
        client = kind(configuration)
        if token is not None:
            # Only this asks for the first token; until it is there nothing connects, and no question brings it.
            cast("Any", client).poll(0)
    except KafkaException as error:
        keys = "kafka.ssl_cafile, kafka.ssl_certfile, kafka.ssl_keyfile, kafka.ssl_password"
        raise ConfigurationError(
            f"[kafka] can't be used: {error.args[0].str()}; if that is about certificates, look at {keys}"
        ) from error
    return client


# --- errors in words --------------------------------------------------------------------------------------------------

_REFUSED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not do that with the topic; grant it Read, or Write for a target",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the consumer group; grant it Read",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "this user may not use the transactional id; grant it Write",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "this user may not do that with the cluster; grant it IdempotentWrite",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the brokers refuse these credentials; look at kafka.sasl_*",
    KafkaError._AUTHENTICATION: "the brokers refuse these credentials; look at kafka.sasl_*",  # noqa: SLF001 - its public codes
    KafkaError._SSL: "TLS could not be agreed on; look at kafka.security_protocol and kafka.ssl_*",  # noqa: SLF001
    KafkaError.UNKNOWN_TOPIC_OR_PART: "there is no such topic, or this user may not see it",
    KafkaError._UNKNOWN_TOPIC: "there is no such topic, or this user may not see it",  # noqa: SLF001
    KafkaError.TOPIC_EXCEPTION: "no topic can have this name",
    KafkaError._UNKNOWN_PARTITION: "there is no such partition",  # noqa: SLF001
}
_IGNORED_WITHOUT_A_GROUP: Final = {KafkaError.GROUP_AUTHORIZATION_FAILED}


def error_of(exception: KafkaException) -> KafkaError:
    """What went wrong, of an exception of the library."""
    error: KafkaError = exception.args[0]
    return error


def in_words(error: KafkaError, doing: str) -> BridgeError:
    """The error to raise; ``doing`` says what was being done: ``reading topic x``."""
    if error.code() in _REFUSED:
        return ReplayError(f"{doing}: {_REFUSED[error.code()]} ({error.str()})")
    if error.fatal():
        return ReplayError(f"{doing}: {error.str()} ({error.name()})")
    return KafkaUnavailable(f"{doing}: {error.str()} ({error.name()}); look at the brokers and kafka.bootstrap_servers")


def more_telling(known: KafkaError | None, heard: KafkaError) -> KafkaError:
    """Which of two errors to keep: the later, unless it only sums up the earlier."""
    return known if known is not None and heard.code() == KafkaError._ALL_BROKERS_DOWN else heard  # noqa: SLF001


def hopeless(error: KafkaError) -> bool:
    """Whether waiting can't help."""
    return error.fatal() or error.code() in _REFUSED


class Stuck(Exception):  # noqa: N818 - what it is
    """A call of the library did not come back."""


def bounded(call: Callable[[], T], seconds: float) -> T:
    """Make a call that has a time limit of its own, but may not keep it.

    A call that needs a broker which left the cluster may wait for it until a connection is idle for too long: ten minutes. That
    was seen with librdkafka from 2.10 on, which is why pyproject.toml keeps to an older one.

    Raises:
        Stuck: it is not back; its thread ends with the process.
    """
    outcome = in_daemon_thread(call, "librdkafka")
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise
        raise Stuck from None


# --- asking -----------------------------------------------------------------------------------------------------------


class PartitionOffsets(msgspec.Struct, frozen=True):
    """Of one partition at one moment: its first offset; the end for readers of what is committed; the end of all there is."""

    earliest: int
    end: int
    high: int


class ClusterInspector:
    """Asks the cluster about topics; each question again and again until the timeout.

    Args:
        kafka: ``[kafka]``.
        timeout_seconds: how long brokers may be away, or leaders missing.
    """

    def __init__(self, kafka: Kafka, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout_seconds
        self._last: KafkaError | None = None
        configuration = client_configuration(kafka)
        self.admin: Final = make(AdminClient, {**configuration, "error_cb": self._on_error})
        # Only a consumer's question about a topic never makes it.
        self._consumer: Final = make(Consumer, {**_reading(configuration, None), "error_cb": self._on_error})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic.

        Raises:
            ReplayError: it is not there, or may not be seen.
            KafkaUnavailable: no broker answers in time.
        """
        return self.until_answered(lambda: self._partitions(topic), f"asking about topic {topic}")

    def _partitions(self, topic: str) -> list[int]:
        found = self._consumer.list_topics(topic, timeout=self.request_seconds).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def offsets(self, topic: str, partitions: Sequence[int] | None = None) -> dict[int, PartitionOffsets]:
        """Where each partition begins and ends now; all of them unless named.

        Raises:
            ReplayError: the topic is not there, or may not be read.
            KafkaUnavailable: a broker, or a partition's leader, is not there in time; names them.
        """
        wanted = self.partitions(topic) if partitions is None else list(partitions)
        first = self.list_offsets(topic, dict.fromkeys(wanted, OffsetSpec.earliest()))
        committed = self.list_offsets(topic, dict.fromkeys(wanted, OffsetSpec.latest()), committed=True)
        all_there = self.list_offsets(topic, dict.fromkeys(wanted, OffsetSpec.latest()))
        return {p: PartitionOffsets(first[p], max(committed[p], first[p]), all_there[p]) for p in wanted}

    def offsets_at(self, topic: str, partitions: Sequence[int], time_ms: int) -> dict[int, int | None]:
        """An offset of each before which no record is as young as the time; None where all records are older.

        Where records were deleted within segments that are still there, brokers may say that all are older though some are
        not: they look into the first segment only that has one. There the oldest offset is given.
        """
        found = self.list_offsets(topic, dict.fromkeys(partitions, OffsetSpec.for_timestamp(time_ms)))
        doubtful = [partition for partition, offset in found.items() if offset < 0]
        youngest = self._listed(topic, dict.fromkeys(doubtful, OffsetSpec.max_timestamp()))
        contradicted = [partition for partition in doubtful if youngest[partition].timestamp >= time_ms]
        oldest = self.list_offsets(topic, dict.fromkeys(contradicted, OffsetSpec.earliest()))
        return {partition: oldest.get(partition) if offset < 0 else offset for partition, offset in found.items()}

    def list_offsets(self, topic: str, specs: Mapping[int, Any], *, committed: bool = False) -> dict[int, int]:
        """The offset for each specification, by partition."""
        return {partition: result.offset for partition, result in self._listed(topic, specs, committed).items()}

    def _listed(self, topic: str, specs: Mapping[int, Any], committed: bool = False) -> dict[int, Any]:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        found: dict[int, Any] = {}

        def ask() -> dict[int, Any]:
            missing = {TopicPartition(topic, p): spec for p, spec in specs.items() if p not in found}
            errors = []
            futures = self.admin.list_offsets(missing, isolation_level=level, request_timeout=self.request_seconds)
            for place, future in futures.items():
                try:
                    found[place.partition] = future.result()
                except KafkaException as error:
                    errors.append(error)
            if errors:
                raise errors[0]
            return found

        def doing() -> str:
            missing = sorted(set(specs) - set(found))
            return f"asking for the offsets of topic {topic}, partitions {', '.join(map(str, missing))}"

        return self.until_answered(ask, doing) if specs else {}

    def topic_configuration(self, topic: str) -> dict[str, str]:
        """The topic's settings; none where they may not be read.

        Raises:
            KafkaUnavailable: no broker answers in time.
        """

        def ask() -> dict[str, str]:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            (future,) = self.admin.describe_configs([resource], request_timeout=self.request_seconds).values()
            return {name: str(entry.value) for name, entry in future.result().items()}

        try:
            return self.until_answered(ask, f"asking for the settings of topic {topic}")
        except ReplayError:
            return {}

    def until_answered(self, ask: Callable[[], T], doing: str | Callable[[], str]) -> T:
        """Ask until there is an answer, or it is known that there will be none.

        Raises:
            ReplayError: waiting can't help.
            KafkaUnavailable: no broker answers within the timeout.
        """
        began = time.monotonic()
        deadline, told_at = began + self._timeout, began + _TELL_SECONDS
        while True:
            try:
                return ask()
            except KafkaException as exception:
                error = error_of(exception)
                # Only so do the clients tell why they can't connect.
                self._consumer.poll(0)
                self.admin.poll(0)
                said = doing() if callable(doing) else doing
                hopeless_error = next(
                    (each for each in (error, self._last) if each is not None and hopeless(each)), None
                )
                if hopeless_error is not None:
                    raise in_words(hopeless_error, said) from exception
                if time.monotonic() > told_at:
                    told_at = deadline
                    console.say(f"{said}: no answer yet; waiting up to {self._timeout:g} s")
                if time.monotonic() > deadline:
                    raise in_words(self._last or error, f"{said}, for {self._timeout:g} s") from exception
                time.sleep(_AGAIN_SECONDS)

    @property
    def request_seconds(self) -> float:
        """How long one request may take."""
        return max(1.0, min(_REQUEST_SECONDS, self._timeout))

    def _on_error(self, error: KafkaError) -> None:
        if error.code() not in _IGNORED_WITHOUT_A_GROUP:
            self._last = more_telling(self._last, error)


# --- reading ----------------------------------------------------------------------------------------------------------


class Gap(msgspec.Struct, frozen=True):
    """Offsets that were gone when they should have been read: ``start`` to before ``end``."""

    partition: int
    start: int
    end: int


def _reading(configuration: Mapping[str, Any], group: str | None) -> dict[str, Any]:
    return {
        **configuration,
        # librdkafka wants one even where none is used.
        "group.id": group or f"{configuration['client.id']}-reader",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "enable.partition.eof": True,
        "check.crcs": True,
        "queued.max.messages.kbytes": _QUEUED_KIB,
        "queued.min.messages": 100_000,
        "fetch.queue.backoff.ms": _FETCH_AGAIN_MS,
        "fetch.max.bytes": _FETCH_BYTES,
        "max.partition.fetch.bytes": _PARTITION_FETCH_BYTES,
        "receive.message.max.bytes": 100_000_000,
    }


class TopicChangedError(ReplayError):
    """Where reading was to go on there is nothing any more, and going on is no use."""


class Reader:
    """Reads ranges of a topic's partitions, what is committed only, and ends when each is read.

        with Reader(kafka, topic, {0: (start, end)}) as reader:
            for messages in reader:  # none is outside of its range, none has an error
                ...
                reader.positions

    Offsets that are gone when they should be read are noted in ``gaps`` and left out. What compaction or an aborted
    transaction left empty costs nothing.

    Args:
        kafka: ``[kafka]``.
        topic: one that is there.
        ranges: by partition, the first offset and the one after the last; an empty range is read at once.
        group: for :attr:`consumer`, where progress is committed; nothing is joined.
        timeout_seconds: how long nothing at all may come before it is given up.
        batch_records: most messages at once.

    Attributes:
        positions: by partition, the offset to go on from behind what was given, or passed over.
        gaps: as above, in the order they were met.
        consumer: the library's, with the partitions assigned.
    """

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        ranges: Mapping[int, tuple[int, int]],
        *,
        group: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        batch_records: int = BATCH_RECORDS,
    ) -> None:
        self._topic = topic
        self._ends = {partition: end for partition, (start, end) in ranges.items() if start < end}
        self._timeout = timeout_seconds
        self._batch_records = batch_records
        self._last: KafkaError | None = None
        self.positions = {partition: start for partition, (start, _) in ranges.items()}
        self.gaps: list[Gap] = []
        configuration = _reading(client_configuration(kafka), group)
        self.consumer: Final = make(Consumer, {**configuration, "error_cb": self._on_error})
        self.consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in self._ends])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, as far as they let themselves be closed."""
        with contextlib.suppress(Stuck):
            bounded(self.consumer.close, _REQUEST_SECONDS)

    @property
    def left(self) -> int:
        """Offsets still to be read; of what is there, no more than that."""
        return sum(end - self.positions[partition] for partition, end in self._ends.items())

    def skip(self, partition: int) -> None:
        """Read no more of a partition."""
        self._reached(partition, self._ends.get(partition, 0))

    def __iter__(self) -> Iterator[list[Message]]:
        """Batches of messages; a batch may be empty, so that whoever reads can look at the clock.

        Raises:
            ReplayError: the topic may not be read, or went away.
            KafkaUnavailable: nothing came for as long as the timeout.
        """
        heard = time.monotonic()
        while self._ends:
            batch = self._ask(lambda: self.consumer.consume(self._batch_records, _POLL_SECONDS))
            if batch:
                heard = time.monotonic()
                self._last = None
                yield self._within(batch)
                # Time spent on the batch is not Kafka's.
                heard = time.monotonic()
                continue
            if self._last is not None and hopeless(self._last):
                raise in_words(self._last, f"reading topic {self._topic}")
            if time.monotonic() - heard > self._timeout:
                raise self._away()
            yield batch

    def _within(self, batch: list[Message]) -> list[Message]:
        """The messages to give; notes how far each partition is."""
        last = {message.partition(): message.offset() for message in batch}
        if any(map(Message.error, batch)) or any(
            offset >= self._ends.get(partition, 0) - 1 for partition, offset in last.items()
        ):
            return [message for message in batch if self._take(message)]
        for partition, offset in last.items():
            self.positions[partition] = offset + 1
        return batch

    def _take(self, message: Message) -> bool:
        """Whether a message is to be given; what else came as one is dealt with."""
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is None:
            end = self._ends.get(partition)
            if end is None:
                return False
            self._reached(partition, min(offset + 1, end))
            return offset < end  # type: ignore[no-any-return]
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public codes
            # All that is committed has been read: behind the last record there may be markers and what was aborted.
            self._reached(partition, offset)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._expired(partition)
        else:
            self._on_error(error)
            if hopeless(error):
                raise in_words(error, f"reading topic {self._topic}")
        return False

    def _reached(self, partition: int, position: int) -> None:
        end = self._ends.get(partition)
        if end is None:
            return
        self.positions[partition] = max(self.positions[partition], min(position, end))
        if position >= end:
            del self._ends[partition]
            self.consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _expired(self, partition: int) -> None:
        """The offset to read next is gone: go on with the oldest there is.

        Raises:
            TopicChangedError: it lies beyond the end.
        """
        end, position = self._ends.get(partition), self.positions[partition]
        if end is None:
            return
        place = TopicPartition(self._topic, partition)
        earliest, high = self._ask(lambda: self.consumer.get_watermark_offsets(place, _REQUEST_SECONDS))
        if position > high:
            raise TopicChangedError(
                f"reading topic {self._topic}: partition {partition} ends at {high:,} now, before {position:,}, which was to be "
                "read next: the topic was made anew, or its brokers lost records; start anew"
            )
        found = min(max(earliest, position), end)
        if found > position:
            self.gaps.append(Gap(partition, position, found))
        if found < end:
            self.consumer.incremental_unassign([TopicPartition(self._topic, partition)])
            self.consumer.incremental_assign([TopicPartition(self._topic, partition, found)])
        self._reached(partition, found)

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except KafkaException as error:
            raise in_words(error_of(error), f"reading topic {self._topic}") from error

    def _away(self) -> BridgeError:
        waiting = ", ".join(map(str, sorted(self._ends)))
        doing = f"reading topic {self._topic}: nothing came for {self._timeout:g} s from partitions {waiting}"
        if self._last is not None:
            return in_words(self._last, doing)
        return KafkaUnavailable(f"{doing}; look at the brokers, and whether these partitions have leaders")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() not in _IGNORED_WITHOUT_A_GROUP:
            self._last = more_telling(self._last, error)


def first_times(kafka: Kafka, topic: str, ranges: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """The time of the first record in each range, in milliseconds; those that come within seconds."""
    found: dict[int, int] = {}
    with Reader(kafka, topic, ranges, timeout_seconds=_FIRST_SECONDS, batch_records=1) as reader:
        try:
            for batch in reader:
                for message in batch:
                    partition: Any = message.partition()
                    found.setdefault(partition, message.timestamp()[1])
                    reader.skip(partition)
        except KafkaUnavailable:
            log.info("no record of some partitions of %s within %g s", topic, _FIRST_SECONDS)
    return found
