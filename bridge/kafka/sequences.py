"""Sequence numbers: they show a broker that it already has a batch, or that an earlier batch is missing.

The rule: once a batch was written to a connection, its numbers belong to exactly its records until an answer says that
it was not appended. The broker would take other records under the same numbers for a repeat, and they would be lost.
So the bridge sends an unresolved batch again unchanged. If it cannot, the partition gets a new epoch, in which the
numbers begin at 0. A broker accepts a higher epoch of a known producer id at once. It then refuses batches that arrive
late with the old epoch.

All numbers belong to the cluster that gave the producer id. Another cluster may give the same one, to this bridge or to
another; so nothing of the former numbers is kept (``forget_all``).

A cluster without idempotent producers gives no producer id. Then batches have no numbers (``NO_PRODUCER_ID``), and a
batch that is sent again after a doubtful answer may be in the log twice. No epoch keeps the first copy out if it is late.
So after such a batch is acknowledged, or before it is taken apart, the partition rests: a live broker appends the first
copy before anything newer.
If the cluster gives a producer id later, a batch that is unresolved is settled without numbers first.
"""

from typing import Final

from bridge.kafka.batch import Batch, Numbers
from bridge.kafka.cluster import NO_PRODUCER_ID, ProducerId

_NO_NUMBERS: Final = Numbers(-1, -1, -1)
_LAST_SEQUENCE: Final = 0x7FFFFFFF
_LAST_EPOCH: Final = 0x7FFF


class PartitionNumbers:
    """The producer id, the epoch and the next sequence number of one partition."""

    __slots__ = ("acknowledged", "batch", "epoch", "next", "producer_id", "rests_until")

    def __init__(self) -> None:
        # None until the partition gets a producer id
        self.producer_id: int | None = None
        self.epoch = self.next = 0
        # whether Kafka has acknowledged a batch in this epoch
        self.acknowledged = False
        # The batch that is on its way or may be in the log. Until it is resolved, no other batch may get numbers here.
        self.batch: Batch | None = None
        # in the loop's time: until then the partition gets no other batch
        self.rests_until = 0.0


class Sequences:
    """The numbers of all partitions.

    Attributes:
        epochs_raised: how many times any partition got a new epoch.
    """

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], PartitionNumbers] = {}
        self._given: ProducerId | None = None
        self._spent: set[int] = set()
        self.epochs_raised = 0

    def use(self, given: ProducerId | None) -> None:
        """From now on, give this producer id to partitions that have none. A real one ends ``NO_PRODUCER_ID`` everywhere."""
        if self._given == NO_PRODUCER_ID != given:
            for numbers in self._partitions.values():
                if numbers.producer_id == NO_PRODUCER_ID.producer_id:
                    numbers.producer_id = None
        self._given = given

    def of(self, topic: str, partition: int) -> PartitionNumbers:
        """The numbers of a partition."""
        numbers = self._partitions.get((topic, partition))
        if numbers is None:
            numbers = self._partitions[topic, partition] = PartitionNumbers()
        return numbers

    def usable(self, topic: str, partition: int) -> bool:
        """Whether there is a producer id for the partition; if not, the bridge must ask for another one."""
        return self.of(topic, partition).producer_id is not None or self._can_give

    @property
    def _can_give(self) -> bool:
        return self._given is not None and self._given.producer_id not in self._spent

    def give(self, batch: Batch) -> None:
        """Give a batch its numbers, unless it still has those of an earlier attempt."""
        if batch.numbers is not None:
            return
        numbers = self.of(batch.topic, batch.partition)
        if numbers.producer_id is None:
            assert self._given is not None  # noqa: S101 - callers have checked ``usable``
            numbers.producer_id, numbers.epoch = self._given
            numbers.next, numbers.acknowledged = 0, False
        if numbers.producer_id == NO_PRODUCER_ID.producer_id:
            batch.numbers = _NO_NUMBERS
        else:
            batch.numbers = Numbers(numbers.producer_id, numbers.epoch, numbers.next)

    def acknowledged(self, batch: Batch) -> None:
        """Advance the partition's numbers past a batch that is in the log."""
        numbers = self.of(batch.topic, batch.partition)
        sent = batch.numbers
        if sent is None or not batch.numbered:
            return
        if (sent.producer_id, sent.epoch) == (numbers.producer_id, numbers.epoch):
            after = sent.first + len(batch.records)
            numbers.next = after if after <= _LAST_SEQUENCE else after - _LAST_SEQUENCE - 1
            numbers.acknowledged = True

    def raise_epoch(self, batch: Batch) -> None:
        """Restart the partition's numbers at 0 in the next epoch or, after the last epoch, with another producer id."""
        numbers = self.of(batch.topic, batch.partition)
        batch.numbers, batch.unresolved = None, False
        numbers.batch = None
        numbers.next, numbers.acknowledged = 0, False
        if numbers.producer_id in {None, NO_PRODUCER_ID.producer_id}:
            return
        self.epochs_raised += 1
        if numbers.epoch < _LAST_EPOCH:
            numbers.epoch += 1
        else:
            self._forget(numbers)

    def forget_id(self, batch: Batch) -> None:
        """Drop the partition's producer id, which the broker has forgotten or knows with a newer epoch."""
        numbers = self.of(batch.topic, batch.partition)
        batch.numbers, batch.unresolved = None, False
        numbers.batch = None
        self._forget(numbers)

    def forget_all(self) -> None:
        """It is another cluster: drop all producer ids and numbers, also those of batches that may be in the former log.

        No batch may be on its way.
        """
        for numbers in self._partitions.values():
            if numbers.batch is not None:
                numbers.batch.numbers, numbers.batch.unresolved = None, False
        self._partitions.clear()
        self._spent.clear()
        self._given = None

    def _forget(self, numbers: PartitionNumbers) -> None:
        if numbers.producer_id not in {None, NO_PRODUCER_ID.producer_id}:
            self._spent.add(numbers.producer_id)
        numbers.producer_id = None
        numbers.next, numbers.acknowledged = 0, False
