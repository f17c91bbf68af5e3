"""Questions to the cluster about its topics: partitions, offsets, settings."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import admin as administration
from confluent_kafka.admin import AdminClient

from bridge.config import Kafka
from bridge.errors import ReplayError
from bridge.operate import console
from bridge.operate.reading.client import (
    REQUEST_SECONDS,
    TIMEOUT_SECONDS,
    T,
    TokenKeeper,
    client_configuration,
    consumer_configuration,
    make,
)
from bridge.operate.reading.errors import IGNORED_WITHOUT_A_GROUP, error_of, hopeless, in_words, more_telling
from bridge.operate.reading.reader import first_as_young

# Untyped in the library.
OffsetSpec: Any = administration.OffsetSpec
ConfigResource: Any = administration.ConfigResource

_REPORT_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.25


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
        self._kafka, self._timeout = kafka, timeout_seconds
        self._last: KafkaError | None = None
        configuration = client_configuration(kafka)
        self.admin: Final = make(AdminClient, {**configuration, "error_cb": self._on_error})
        # Only a consumer's question about a topic never makes it.
        self._consumer: Final = make(
            Consumer, {**consumer_configuration(configuration, None), "error_cb": self._on_error}
        )
        self._tokens = TokenKeeper(configuration, self.admin, self._consumer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.stop()
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
        not: they look into the first segment only that has one. There the oldest offset is given. Kafka 2 names the oldest
        record, or none, where it is asked for the youngest one, so partitions that lost records are read there.
        """
        listed = self.list_offsets(topic, dict.fromkeys(partitions, OffsetSpec.for_timestamp(time_ms)))
        found: dict[int, int | None] = {partition: None if at < 0 else at for partition, at in listed.items()}
        doubtful = [partition for partition, at in found.items() if at is None]
        oldest = self.list_offsets(topic, dict.fromkeys(doubtful, OffsetSpec.earliest()))
        youngest = self._listed(topic, dict.fromkeys(doubtful, OffsetSpec.max_timestamp()))
        found |= {p: oldest[p] for p in doubtful if youngest[p].timestamp >= time_ms}
        unproven = [p for p in doubtful if found[p] is None and oldest[p] > 0 and youngest[p].offset <= oldest[p]]
        offsets = self.offsets(topic, unproven) if unproven else {}
        ranges = {p: (each.earliest, each.end) for p, each in offsets.items() if each.earliest < each.end}
        if ranges:
            console.say(
                f"topic {topic}: reading partitions {', '.join(map(str, ranges))} for the first record of that time"
            )
            found |= first_as_young(self._kafka, topic, ranges, time_ms, timeout_seconds=self._timeout)
        return found

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

    def group_offsets(self, group: str, *, stable: bool = False) -> list[TopicPartition]:
        """The offsets that a group has committed, of all topics; none where there is no such group.

        librdkafka crashes if it asks for offsets a broker that is not the group's coordinator, or not yet after its start
        (https://github.com/confluentinc/librdkafka/issues/5040). Such a broker refuses to describe the group as well, which
        does no harm, so that is asked first.

        Args:
            group: its name.
            stable: wait for transactions that are being committed.

        Raises:
            ReplayError: it may not be asked for.
            KafkaUnavailable: no broker answers in time.
        """

        def ask() -> list[TopicPartition]:
            # Also not found: a group of the new protocol.
            _found(self.admin.describe_consumer_groups([group], request_timeout=self.request_seconds))
            request = ConsumerGroupTopicPartitions(group)
            result = _found(self.admin.list_consumer_group_offsets([request], require_stable=stable))
            places: list[TopicPartition] = [] if result is None else result.topic_partitions
            for place in places:
                if place.error is not None:
                    raise KafkaException(place.error)
            return places

        return self.until_answered(ask, f"asking for the offsets of group {group}")

    def topic_configuration(self, topic: str) -> dict[str, str]:
        """The topic's settings that Kafka shows with a value; none where they may not be read.

        Raises:
            KafkaUnavailable: no broker answers in time.
        """

        def ask() -> dict[str, str]:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            (future,) = self.admin.describe_configs([resource], request_timeout=self.request_seconds).values()
            return {name: str(entry.value) for name, entry in future.result().items() if entry.value is not None}

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
        deadline, report_at = began + self._timeout, began + _REPORT_SECONDS
        while True:
            try:
                return ask()
            except KafkaException as exception:
                error = error_of(exception)
                # Only so do the clients tell why they can't connect.
                self._consumer.poll(0)
                self.admin.poll(0)
                words = doing() if callable(doing) else doing
                hopeless_error = next(
                    (each for each in (error, self._last) if each is not None and hopeless(each)), None
                )
                if hopeless_error is not None:
                    raise in_words(hopeless_error, words) from exception
                if time.monotonic() > report_at:
                    report_at = deadline
                    console.say(f"{words}: no answer yet; waiting up to {self._timeout:g} s")
                if time.monotonic() > deadline:
                    raise in_words(self._last or error, f"{words}, for {self._timeout:g} s") from exception
                time.sleep(_AGAIN_SECONDS)

    @property
    def request_seconds(self) -> float:
        """How long one request may take."""
        return max(1.0, min(REQUEST_SECONDS, self._timeout))

    def _on_error(self, error: KafkaError) -> None:
        if error.code() not in IGNORED_WITHOUT_A_GROUP:
            self._last = more_telling(self._last, error)


def _found(futures: Mapping[Any, Any]) -> Any:
    """What Kafka says of the one group that it was asked about; None where it does not find the group."""
    (future,) = futures.values()
    try:
        return future.result()
    except KafkaException as error:
        if error_of(error).code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        return None
