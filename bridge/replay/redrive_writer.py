"""Publishes a redrive: events, notes and the group's offsets, a transaction a batch."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from bridge.config import Settings
from bridge.errors import ReplayError
from bridge.record import Record
from bridge.replay.client import Reader, client_configuration, error_of, in_words, make
from bridge.replay.notes import note_headers, note_value
from bridge.replay.redecode import Event

_TRANSACTION_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_BY_KEY: Final = -1


class Batch:
    """What one transaction will write."""

    def __init__(self) -> None:
        self.events: list[Record] = []
        self.positions: dict[int, int] = {}
        self.newest_ms: dict[int, int] = {}
        self._whole: dict[int, list[int]] = {}
        self._partly: dict[int, dict[int, list[str]]] = {}

    def add(self, message: Message, events: list[Event], partly: list[str] | None) -> None:
        """The events of one record; ``partly`` names all its items published so far, where not all of them are."""
        partition: Any = message.partition()
        offset: Any = message.offset()
        self.events += [event.record for event in events]
        self.positions[partition] = offset + 1
        self.newest_ms[partition] = max(self.newest_ms.get(partition, 0), message.timestamp()[1])
        if partly is None:
            self._whole.setdefault(partition, []).append(offset)
        else:
            self._partly.setdefault(partition, {})[offset] = partly

    def notes(self, topic: str) -> dict[int, bytes]:
        """The value of each partition's note."""
        return {
            partition: note_value(topic, self._whole.get(partition, []), self._partly.get(partition, {}))
            for partition in self.positions
        }


class Writer:
    """A transactional producer, the only one of all redrives of this quarantine from now on.

    Args:
        settings: the whole configuration.
        run: the id that marks what is written.
        group: keeps how far was looked.
        max_record_bytes: of the status topic.

    Raises:
        ReplayError: Kafka does not give a transactional id.
    """

    def __init__(self, settings: Settings, run: str, group: str, max_record_bytes: int) -> None:
        kafka = settings.kafka
        self._status, self._quarantine = settings.topics.status, settings.topics.quarantine
        self._note_headers = note_headers(run)
        self._producer = make(
            Producer,
            {
                **client_configuration(kafka),
                "transactional.id": f"chatapp-bridge-redrive-{self._quarantine}",
                "transaction.timeout.ms": int(_TRANSACTION_SECONDS * 1000),
                "acks": "all",
                # As Java's clients and the bridge place keys.
                "partitioner": "murmur2_random",
                "compression.type": kafka.compression_type,
                "linger.ms": 5,
                "batch.size": min(kafka.max_batch_bytes, max_record_bytes),
                "message.max.bytes": max(kafka.max_request_size, 1_000_000),
            },
        )
        # Nothing is read by it: it stands for the group.
        self._group = Reader(kafka, self._quarantine, {}, group=group)
        self._settled(lambda: self._producer.init_transactions(_PATIENCE_SECONDS), "beginning to publish")

    def write(self, batch: Batch) -> None:
        """Publish it, or nothing of it.

        Raises:
            ReplayError: nothing of it was published.
        """
        # Of the time of what they are about, so that nothing is kept for longer because of them.
        notes = [
            Record(self._quarantine, None, value, self._note_headers, batch.newest_ms[partition])
            for partition, value in batch.notes(self._status).items()
        ]
        self._transaction(batch.events, list(zip(batch.positions, notes, strict=True)), batch.positions)

    def finish(self, positions: Mapping[int, int]) -> None:
        """All was looked at, up to these offsets."""
        self._transaction([], [], positions)
        self._group.close()

    def _transaction(
        self, events: Sequence[Record], notes: Sequence[tuple[int, Record]], positions: Mapping[int, int]
    ) -> None:
        doing = f"publishing on topic {self._status}"
        try:
            self._producer.begin_transaction()
            for record in events:
                self._produce(record)
            for partition, note in notes:
                self._produce(note, partition)
            places = [TopicPartition(self._quarantine, partition, offset) for partition, offset in positions.items()]
            group = self._group.consumer.consumer_group_metadata()
            self._settled(lambda: self._producer.send_offsets_to_transaction(places, group, _PATIENCE_SECONDS), doing)
            self._settled(lambda: self._producer.commit_transaction(_PATIENCE_SECONDS), doing)
        except BaseException:  # Ctrl-C as well
            self._abort()
            raise

    def _produce(self, record: Record, partition: int = _BY_KEY) -> None:
        headers: Any = record.headers
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, partition, timestamp=record.timestamp_ms, headers=headers
                )
            except BufferError:
                self._producer.poll(_POLL_SECONDS)
            else:
                return

    def _settled(self, work: Callable[[], None], doing: str) -> None:
        """Do it, again where that helps.

        Raises:
            ReplayError: it can't be done.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                work()
            except KafkaException as exception:
                error = error_of(exception)
                if error.retriable() and time.monotonic() < deadline:
                    continue
                raise self._failed(error, doing) from exception
            else:
                return

    @staticmethod
    def _failed(error: KafkaError, doing: str) -> ReplayError:
        if error.code() in {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001 - its public codes
            other = "another redrive of this quarantine has begun, and goes on alone; this one published no more"
            return ReplayError(f"{doing}: {other}")
        told = in_words(error, doing)
        return type(told)(f"{told}. What was committed stays, and is known: run it again")

    def _abort(self) -> None:
        """Leave nothing open for others to wait for; where that fails the broker ends it by itself."""
        try:
            self._producer.abort_transaction(_PATIENCE_SECONDS)
        except KafkaException:
            return
