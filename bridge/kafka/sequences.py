"""Sequence numbers: by them a broker knows a batch that it has already, and one that is missing before it.

The rule: once a batch was written to a connection, its numbers belong to exactly its records until an answer says that it was not
appended. Other records under the same numbers would be taken for a repeat, and lost. So a batch whose fate is unknown is sent
again as it is; or, where that can't be, its partition gets a new epoch and begins at 0. A broker takes a higher epoch of a known
producer id as it comes, and refuses what comes later with the old one.
"""

from typing import Final

from bridge.kafka.batch import Batch, Numbers
from bridge.kafka.cluster import ProducerId

_LAST_SEQUENCE: Final = 0x7FFFFFFF
_LAST_EPOCH: Final = 0x7FFF


class PartitionNumbers:
    """Of one partition."""

    __slots__ = ("acknowledged", "batch", "epoch", "next", "producer_id")

    def __init__(self) -> None:
        # None until one was given
        self.producer_id: int | None = None
        self.epoch = self.next = 0
        # whether a batch was acknowledged under this epoch
        self.acknowledged = False
        # the one that is on its way, or that may be in the log: until that is known no other may have numbers here
        self.batch: Batch | None = None


class Sequences:
    """The numbers of all partitions.

    Attributes:
        epochs_raised: how many times a partition got a new epoch.
    """

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], PartitionNumbers] = {}
        self._given: ProducerId | None = None
        self._spent: set[int] = set()
        self.epochs_raised = 0

    def use(self, given: ProducerId | None) -> None:
        """Partitions without a producer id take this one from now on."""
        self._given = given

    def of(self, topic: str, partition: int) -> PartitionNumbers:
        """Those of a partition."""
        numbers = self._partitions.get((topic, partition))
        if numbers is None:
            numbers = self._partitions[topic, partition] = PartitionNumbers()
        return numbers

    def usable(self, topic: str, partition: int) -> bool:
        """Whether there is a producer id for the partition; else another one has to be asked for."""
        return self.of(topic, partition).producer_id is not None or self._can_give

    @property
    def _can_give(self) -> bool:
        return self._given is not None and self._given.producer_id not in self._spent

    def give(self, batch: Batch) -> None:
        """Give a batch its numbers, unless it has those that it was sent with before."""
        if batch.numbers is not None:
            return
        numbers = self.of(batch.topic, batch.partition)
        if numbers.producer_id is None:
            assert self._given is not None  # noqa: S101 - callers asked whether it is usable
            numbers.producer_id, numbers.epoch = self._given
            numbers.next, numbers.acknowledged = 0, False
        batch.numbers = Numbers(numbers.producer_id, numbers.epoch, numbers.next)

    def acknowledged(self, batch: Batch) -> None:
        """It is in the log."""
        numbers = self.of(batch.topic, batch.partition)
        sent = batch.numbers
        if sent is not None and (sent.producer_id, sent.epoch) == (numbers.producer_id, numbers.epoch):
            after = sent.first + len(batch.records)
            numbers.next = after if after <= _LAST_SEQUENCE else after - _LAST_SEQUENCE - 1
            numbers.acknowledged = True

    def raise_epoch(self, batch: Batch) -> None:
        """The partition's numbers begin anew: with the next epoch, or where there is none with another producer id."""
        numbers = self.of(batch.topic, batch.partition)
        batch.numbers, batch.unresolved = None, False
        numbers.batch = None
        numbers.next, numbers.acknowledged = 0, False
        self.epochs_raised += 1
        if numbers.epoch < _LAST_EPOCH:
            numbers.epoch += 1
        else:
            self._forget(numbers)

    def forget_id(self, batch: Batch) -> None:
        """The broker does not know the producer id any more, or knows a newer epoch of it: the partition needs another one."""
        numbers = self.of(batch.topic, batch.partition)
        batch.numbers, batch.unresolved = None, False
        numbers.batch = None
        self._forget(numbers)

    def _forget(self, numbers: PartitionNumbers) -> None:
        if numbers.producer_id is not None:
            self._spent.add(numbers.producer_id)
        numbers.producer_id = None
        numbers.next, numbers.acknowledged = 0, False
