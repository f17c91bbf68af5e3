"""A reader of ranges of a topic's partitions that ends when all of them are read."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bridge.config import Kafka
from bridge.errors import BridgeError, KafkaUnavailable, ReplayError
from bridge.operate.reading.client import (
    REQUEST_SECONDS,
    TIMEOUT_SECONDS,
    Stuck,
    T,
    bounded,
    client_configuration,
    consumer_configuration,
    log,
    make,
)
from bridge.operate.reading.errors import IGNORED_WITHOUT_A_GROUP, error_of, hopeless, in_words, more_telling

# As many messages as the processor's cache holds: with ten thousand at once each costs three times as much.
BATCH_RECORDS: Final = 200
_POLL_SECONDS: Final = 0.1
_FIRST_SECONDS: Final = 10.0


class Gap(msgspec.Struct, frozen=True):
    """Offsets that were gone when they should have been read: ``start`` to before ``end``."""

    partition: int
    start: int
    end: int


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
        configuration = consumer_configuration(client_configuration(kafka), group)
        self.consumer: Final = make(Consumer, {**configuration, "error_cb": self._on_error})
        self.consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in self._ends])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, as far as they let themselves be closed."""
        with contextlib.suppress(Stuck):
            bounded(self.consumer.close, REQUEST_SECONDS)

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
        answered_at = time.monotonic()
        while self._ends:
            batch = self._ask(lambda: self.consumer.consume(self._batch_records, _POLL_SECONDS))
            if batch:
                answered_at = time.monotonic()
                self._last = None
                yield self._within(batch)
                # Time spent on the batch is not Kafka's.
                answered_at = time.monotonic()
                continue
            if self._last is not None and hopeless(self._last):
                raise in_words(self._last, f"reading topic {self._topic}")
            if time.monotonic() - answered_at > self._timeout:
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
        earliest, high = self._ask(lambda: self.consumer.get_watermark_offsets(place, REQUEST_SECONDS))
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
        if error.code() not in IGNORED_WITHOUT_A_GROUP:
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


def first_as_young(
    kafka: Kafka, topic: str, ranges: Mapping[int, tuple[int, int]], time_ms: int, *, timeout_seconds: float
) -> dict[int, int]:
    """The offset of the first record in each range that is as young as the time; all ranges are read for it."""
    found: dict[int, int] = {}
    with Reader(kafka, topic, ranges, timeout_seconds=timeout_seconds) as reader:
        for batch in reader:
            for message in batch:
                partition: Any = message.partition()
                if partition not in found and message.timestamp()[1] >= time_ms:
                    found[partition] = message.offset()
                    reader.skip(partition)
    return found
