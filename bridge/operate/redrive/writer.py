"""Publishes a redrive: events, notes and the group's offsets, a transaction a batch; or at least once, in this order."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Message, TopicPartition

from bridge.config import Settings
from bridge.operate.at_least_once import AtLeastOnce
from bridge.operate.reading.reader import Reader
from bridge.operate.redrive.markers import note_headers, note_value
from bridge.operate.redrive.redecode import Event
from bridge.operate.transactions import Transactions
from bridge.operate.writing import BY_KEY, TopicWriter
from bridge.record import Record


class Batch:
    """What is written before the next note."""

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
    """A producer; if it is transactional, the only one of all redrives of this quarantine from now on.

    Args:
        settings: the whole configuration.
        run: the id that marks what is written.
        group: keeps how far was looked.
        max_record_bytes: of the status topic.
        at_least_once: whether it writes without transactions.

    Raises:
        ReplayError: Kafka does not give a transactional id.
    """

    def __init__(
        self, settings: Settings, run: str, group: str, max_record_bytes: int, *, at_least_once: bool = False
    ) -> None:
        self._status, self._quarantine = settings.topics.status, settings.topics.quarantine
        self._note_headers = note_headers(run)
        batch_bytes = min(settings.kafka.max_batch_bytes, max_record_bytes)
        self._writer: TopicWriter
        if at_least_once:
            remedy = ". What was published stays, and what is not known yet is published again: run it again"
            self._writer = AtLeastOnce(settings.kafka, batch_bytes=batch_bytes, remedy=remedy)
        else:
            self._writer = Transactions(
                settings.kafka,
                f"chatapp-bridge-redrive-{self._quarantine}",
                batch_bytes=batch_bytes,
                beginning="beginning to publish",
                fenced="another redrive of this quarantine has begun, and goes on alone; this one published no more",
                remedy=". What was committed stays, and is known: run it again",
            )
        # Nothing is read by it: it stands for the group.
        self._group = Reader(settings.kafka, self._quarantine, {}, group=group)

    def write(self, batch: Batch) -> None:
        """Publish it, or in a transaction nothing of it.

        Raises:
            ReplayError: nothing of it was published, or what was is not known to be.
        """
        # Of the time of what they are about, so that nothing is kept for longer because of them.
        notes = [
            Record(self._quarantine, None, value, self._note_headers, batch.newest_ms[partition])
            for partition, value in batch.notes(self._status).items()
        ]
        self._write(batch.events, list(zip(batch.positions, notes, strict=True)), batch.positions)

    def finish(self, positions: Mapping[int, int]) -> None:
        """All was looked at, up to these offsets."""
        self._write([], [], positions)
        self._group.close()

    def _write(
        self, events: Sequence[Record], notes: Sequence[tuple[int, Record]], positions: Mapping[int, int]
    ) -> None:
        doing = f"publishing on topic {self._status}"
        places = [TopicPartition(self._quarantine, partition, offset) for partition, offset in positions.items()]
        try:
            self._writer.write(self._status, (_arguments(record, BY_KEY) for record in events), doing)
            self._writer.settle(doing)  # a note without its events would lose them
            self._writer.write(self._quarantine, (_arguments(note, place) for place, note in notes), doing)
            self._writer.commit(places, self._group.consumer, doing)
        except BaseException:  # Ctrl-C as well
            self._writer.close()
            raise


def _arguments(record: Record, partition: int) -> dict[str, Any]:
    return {
        "value": record.value,
        "key": record.key,
        "partition": partition,
        "timestamp": record.timestamp_ms,
        "headers": record.headers,
    }
