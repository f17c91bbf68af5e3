"""The rule of sequence numbers: once sent, they belong to the same records until it is known that these were not appended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.batch import Batch, Numbers
from bridge.kafka.cluster import NO_PRODUCER_ID, ProducerId
from bridge.kafka.sequences import Sequences
from bridge.record import Record

LAST_SEQUENCE, LAST_EPOCH = 2**31 - 1, 2**15 - 1
GIVEN = ProducerId(7, 0)


@pytest.fixture
def sequences() -> Sequences:
    """With a producer id."""
    sequences = Sequences()
    sequences.use(GIVEN)
    return sequences


def batch_of(records: int, partition: int = 0) -> Batch:
    """One of so many records, without numbers."""
    batch = Batch("t", partition, "none", 1 << 20)
    batch.extend([Record("t", None, b"", [], 1)] * records)
    return batch


def sent(sequences: Sequences, records: int = 1, partition: int = 0) -> Batch:
    """One that has numbers."""
    batch = batch_of(records, partition)
    sequences.give(batch)
    return batch


def java_increment(sequence: int, by: int) -> int:
    """``DefaultRecordBatch.incrementSequence``."""
    if sequence > LAST_SEQUENCE - by:
        return by - (LAST_SEQUENCE - sequence) - 1
    return sequence + by


def test_each_partition_has_numbers_of_its_own(sequences: Sequences) -> None:
    """They begin at 0 and follow each other."""
    for records, first in ((3, 0), (2, 3), (1, 5)):
        batch = sent(sequences, records)
        assert batch.numbers == Numbers(7, 0, first)
        sequences.acknowledged(batch)
    assert sent(sequences, partition=1).numbers == Numbers(7, 0, 0)


def test_a_batch_keeps_the_numbers_that_it_was_sent_with(sequences: Sequences) -> None:
    """Whatever was acknowledged, or given, since."""
    batch = sent(sequences, 2)
    before = batch.numbers
    sequences.use(ProducerId(8, 0))
    sequences.give(batch)
    assert batch.numbers == before


def test_numbers_that_were_not_used_are_given_again(sequences: Sequences) -> None:
    """Of a batch that is known not to be in the log; the next one has them."""
    sent(sequences, 5).numbers = None
    assert sent(sequences, 2).numbers == Numbers(7, 0, 0)


@given(first=st.integers(0, LAST_SEQUENCE) | st.integers(LAST_SEQUENCE - 20, LAST_SEQUENCE), records=st.integers(1, 20))
def test_after_the_last_number_0_comes_again(first: int, records: int) -> None:
    """As Java counts, also within a batch."""
    sequences = Sequences()
    sequences.use(GIVEN)
    sequences.of("t", 0).next = first
    batch = batch_of(records)
    sequences.of("t", 0).producer_id = 7
    sequences.give(batch)
    assert batch.numbers == Numbers(7, 0, first)
    sequences.acknowledged(batch)
    assert sequences.of("t", 0).next == java_increment(first, records)


def test_another_epoch_begins_at_0(sequences: Sequences) -> None:
    """And an acknowledgement of the former one, should it come still, moves nothing."""
    sequences.acknowledged(sent(sequences, 3))
    batch = sent(sequences, 2)
    batch.unresolved = True
    former = batch_of(2)
    former.numbers = batch.numbers

    sequences.raise_epoch(batch)

    assert batch.numbers is None
    assert not batch.unresolved
    assert not sequences.of("t", 0).acknowledged
    sequences.acknowledged(former)
    assert sent(sequences).numbers == Numbers(7, 1, 0)
    assert sequences.epochs_raised == 1
    assert sent(sequences, partition=1).numbers == Numbers(7, 0, 0)


def test_after_the_last_epoch_another_producer_id_is_needed(sequences: Sequences) -> None:
    """The one that has no more epochs is not taken again, by no partition that has none."""
    batch = sent(sequences)
    sequences.of("t", 0).epoch = LAST_EPOCH - 1
    sequences.raise_epoch(batch)
    sequences.give(batch)
    assert batch.numbers == Numbers(7, LAST_EPOCH, 0)
    sent(sequences, partition=1)

    sequences.raise_epoch(batch)

    assert not sequences.usable("t", 0)
    assert not sequences.usable("t", 2)
    assert sequences.usable("t", 1)  # it has an epoch of its own
    sequences.use(ProducerId(8, 3))
    assert sequences.usable("t", 0)
    sequences.give(batch)
    assert batch.numbers == Numbers(8, 3, 0)


def test_an_id_that_a_broker_does_not_know_is_not_taken_again_there(sequences: Sequences) -> None:
    """Other partitions keep it: their brokers may know it well."""
    batch, other = sent(sequences), sent(sequences, partition=1)
    sequences.acknowledged(other)
    sequences.forget_id(batch)
    assert batch.numbers is None
    assert not sequences.usable("t", 0)
    assert sent(sequences, partition=1).numbers == Numbers(7, 0, 1)
    sequences.use(ProducerId(8, 0))
    assert sent(sequences).numbers == Numbers(8, 0, 0)
    assert sent(sequences, partition=1).numbers == Numbers(7, 0, 1)


def test_nothing_is_kept_for_another_cluster(sequences: Sequences) -> None:
    """It may give the same producer id: also one that was spent before counts as new."""
    sequences.acknowledged(sent(sequences, 3))
    unresolved, spent = sent(sequences, 2), sent(sequences, partition=1)
    unresolved.unresolved, sequences.of("t", 0).batch = True, unresolved
    sequences.forget_id(spent)

    sequences.forget_all()

    assert (unresolved.numbers, unresolved.unresolved) == (None, False)
    assert not any(sequences.usable("t", partition) for partition in range(3))
    sequences.use(GIVEN)
    for partition in range(2):
        assert sequences.usable("t", partition)
        assert sent(sequences, partition=partition).numbers == Numbers(7, 0, 0)


def test_without_a_producer_id_nothing_can_be_sent() -> None:
    """Until there is one."""
    sequences = Sequences()
    assert not sequences.usable("t", 0)
    sequences.use(None)
    assert not sequences.usable("t", 0)
    sequences.use(GIVEN)
    assert sequences.usable("t", 0)


def test_without_a_producer_id_a_batch_has_no_numbers() -> None:
    """And none is spent: whatever becomes of it, the next has none either, until the cluster gives an id after all."""
    sequences = Sequences()
    sequences.use(NO_PRODUCER_ID)
    nothing = Numbers(-1, -1, -1)
    batch = sent(sequences, 3)
    assert batch.numbers == nothing
    sequences.acknowledged(batch)
    assert not sequences.of("t", 0).acknowledged
    batch = sent(sequences)
    batch.unresolved = True
    sequences.raise_epoch(batch)
    assert (batch.unresolved, batch.numbers, sequences.epochs_raised) == (False, None, 0)
    sequences.give(batch)
    sequences.forget_id(batch)
    assert sequences.usable("t", 0)
    assert sent(sequences).numbers == nothing
    sequences.use(GIVEN)
    assert sent(sequences).numbers == Numbers(7, 0, 0)
    assert sent(sequences, partition=1).numbers == Numbers(7, 0, 0)


def test_a_batch_that_was_sent_without_numbers_stays_without() -> None:
    """Though an id was given since; its acknowledgement spends none, nor does it raise an epoch when it is taken apart."""
    sequences = Sequences()
    sequences.use(NO_PRODUCER_ID)
    batch, other = sent(sequences), sent(sequences, partition=1)
    other.unresolved = True
    sequences.use(GIVEN)
    sequences.give(batch)
    assert not batch.numbered
    sequences.acknowledged(batch)
    sequences.raise_epoch(other)
    assert sequences.epochs_raised == 0
    assert sent(sequences).numbers == Numbers(7, 0, 0)
    assert sent(sequences, partition=1).numbers == Numbers(7, 0, 0)
