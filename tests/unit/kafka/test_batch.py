"""A batch as brokers take it: aiokafka reads it back, and the compiled part writes it as aiokafka does."""

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from bridge import compiled
from bridge.kafka.batch import Batch, Codec, Numbers, PythonWriter, Writer
from bridge.record import Record

ROOM = 1 << 16
# aiokafka's builder reckons a record from above
SLACK = 32
WRITERS = [PythonWriter, compiled.module.BatchWriter] if compiled.COMPILED else [PythonWriter]
CODECS: list[Codec] = ["none", "gzip", "snappy", "lz4", "zstd"]

small = st.binary(max_size=200)
records = st.builds(
    Record,
    topic=st.just("t"),
    key=small | st.none(),
    value=small,
    headers=st.lists(st.tuples(st.text(max_size=9), small), max_size=5),
    timestamp_ms=st.integers(1, 2**41),
    schema=st.none(),
)


def built_by_aiokafka(written: list[tuple[Record, bytes]]) -> bytes:
    """The same records by its builder, uncompressed."""
    builder: Any = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=7, producer_epoch=3, base_sequence=41, batch_size=1 << 22
    )
    for offset, (record, prefix) in enumerate(written):
        builder.append(offset, record.timestamp_ms, record.key, prefix + record.value, record.headers)
    return bytes(builder.build())


@given(st.lists(st.tuples(records, small), min_size=1, max_size=20), st.sampled_from(CODECS))
def test_a_batch_is_read_back_as_it_was_written(written: list[tuple[Record, bytes]], codec: Codec) -> None:
    """By aiokafka's reader, its sum checked; without compression it is aiokafka's batch to the byte."""
    batch = Batch("t", 0, codec, ROOM)
    for record, prefix in written:
        assert batch.extend([record], prefix) == 1
    batch.numbers = Numbers(7, 3, 41)
    built = batch.encoded()
    assert batch.encoded() == built  # a retry sends the same
    assert batch.size == len(built) <= batch.size_before_compression
    if codec == "none":
        assert built == built_by_aiokafka(written)

    read = MemoryRecords(built).next_batch()
    assert read.validate_crc()
    assert (7, 3, 41) == (read.producer_id, read.producer_epoch, read.base_sequence)
    found = [(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in read]
    assert found == [
        (offset, record.timestamp_ms, record.key, prefix + record.value, record.headers)
        for offset, (record, prefix) in enumerate(written)
    ]


def one(codec: Codec, record: Record, stamp_ms: int | None = None) -> Batch:
    """A batch of one record."""
    batch = Batch("t", 0, codec, ROOM, stamp_ms)
    batch.extend([record])
    batch.numbers = Numbers(7, 3, 41)
    return batch


def codec_of(built: bytes) -> int:
    """Its number, as a broker reads it; 0 for none."""
    return MemoryRecords(built).next_batch().compression_type  # type: ignore[no-any-return]


@pytest.mark.parametrize("codec", CODECS[1:])
def test_what_repeats_is_compressed_and_what_does_not_shrink_is_not(codec: Codec) -> None:
    """The batch says which of the two it is."""
    for value, compressed in ((b"x" * 500, True), (b"", False)):
        batch = one(codec, Record("t", None, value, [], 1))
        built = batch.encoded()
        assert (codec_of(built) != 0) == (len(built) < batch.size_before_compression) == compressed


@pytest.mark.parametrize("stamp_ms", [None, 5_000])
def test_another_codec_holds_the_same_records(stamp_ms: int | None) -> None:
    """Under the same numbers, whatever was asked of the batch before."""
    batch = one("lz4", Record("t", b"key", b"x" * 500, [("name", b"value")], 1_000), stamp_ms)
    found = []
    for codec in (*CODECS, *CODECS):
        batch.use_codec(codec)
        built = batch.encoded()
        assert batch.size == len(built)
        assert codec_of(built) == CODECS.index(codec)
        read = MemoryRecords(built).next_batch()
        assert read.validate_crc()
        assert (7, 3, 41) == (read.producer_id, read.producer_epoch, read.base_sequence)
        found.append([(each.timestamp, each.key, each.value, list(each.headers)) for each in read])
    assert found == [[(stamp_ms or 1_000, b"key", b"x" * 500, [("name", b"value")])]] * len(found)


def test_a_stamp_takes_the_place_of_the_records_own_times() -> None:
    """Of each record and of the batch; what the broker counts by is that alone."""
    batch = Batch("t", 0, "none", ROOM, 9_000)
    batch.extend([Record("t", None, b"", [], time) for time in (1, 20_000)])
    batch.numbers = Numbers(7, 3, 41)
    read = MemoryRecords(batch.encoded()).next_batch()
    assert [each.timestamp for each in read] == [9_000, 9_000] == [read.first_timestamp, read.max_timestamp]
    assert batch.stamped


def test_the_highest_numbers_fit() -> None:
    """Kafka's longest producer id, epoch and sequence number."""
    batch = one("none", Record("t", None, b"", [], 1))
    batch.numbers = highest = Numbers(2**63 - 1, 2**15 - 1, 2**31 - 1)
    read = MemoryRecords(batch.encoded()).next_batch()
    assert highest == (read.producer_id, read.producer_epoch, read.base_sequence)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_batch_takes_no_more(writer: type[Writer]) -> None:
    """A first record always fits, and no other that would be too much."""
    record = Record("t", b"key", b"x" * 100, [("name", b"value")], 1_700_000_000_000)
    alone = writer(1 << 20)  # type: ignore[call-arg]
    assert alone.extend([record], b"") == 1
    size = alone.size
    for room, fitting in ((1, 1), (2 * size - 1, 1), (2 * size + SLACK, 2), (3 * size + SLACK, 3)):
        writing = writer(room)  # type: ignore[call-arg]
        assert writing.extend([record] * 4, b"") == fitting == writing.count
        assert len(writing.written()) == fitting * size


@pytest.mark.parametrize("writer", WRITERS)
def test_the_times_of_a_batch_are_its_first_and_its_latest(writer: type[Writer]) -> None:
    """Also where a clock was set back."""
    writing = writer(ROOM)  # type: ignore[call-arg]
    writing.extend([Record("t", None, b"", [], time) for time in (5_000, 9_000, 4_000)], b"")
    assert (5_000, 9_000) == (writing.first_ms, writing.last_ms)
