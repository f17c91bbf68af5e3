"""Records on their way into one Kafka batch (format v2), and the state of the attempts to send it.

The compiled part writes the records if it is installed; otherwise aiokafka's builder writes them. This module
compresses them and adds the head with the numbers by which the broker identifies the batch. aiokafka's builder is not
used for compression because it offers LZ4 only at level 9.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import cramjam
from aiokafka.codec import gzip_encode, snappy_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from bridge import compiled
from bridge.record import Record

Codec = Literal["none", "gzip", "snappy", "lz4", "zstd"]

# Before the checksum's range: base offset, length, leader epoch, version, checksum. Within it: attributes, last offset
# delta, first and last time, producer id, epoch, base sequence, number of records.
_BEFORE: Final = struct.Struct(">qiibI")
_AFTER: Final = struct.Struct(">hiqqqhii")
_HEAD_BYTES: Final = _BEFORE.size + _AFTER.size
_UNCOUNTED_BYTES: Final = 12  # the length field and the base offset before it
_NO_LEADER_EPOCH, _VERSION = -1, 2
# Level 1 takes an eighth to a third of level 9's time, for up to a quarter more bytes: benchmarks/compression.py.
_LZ4_LEVEL: Final = 1


def _lz4(records: bytes) -> bytes:
    # Brokers do not accept linked blocks.
    compressor = cramjam.lz4.Compressor(level=_LZ4_LEVEL, content_checksum=False, block_linked=False)
    compressor.compress(records)
    return bytes(compressor.finish())


_CODECS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, _lz4),
    "zstd": (4, zstd_encode),
}


class Writer(Protocol):
    """Writes records one after another, uncompressed. Times are milliseconds since the epoch."""

    count: int
    first_ms: int
    last_ms: int

    @property
    def size(self) -> int:
        """The bytes written so far."""

    def extend(self, records: Sequence[Record], prefix: bytes) -> int:
        """Add records, with ``prefix`` before each value, until one does not fit; return how many were added."""

    def written(self) -> bytes:
        """The bytes of all records."""


class PythonWriter:
    """Writes records with aiokafka's builder.

    Args:
        most_bytes: the limit for all records together; the first record always fits.
        stamp_ms: the time of every record in place of its own, in milliseconds since the epoch.
    """

    def __init__(self, most_bytes: int, stamp_ms: int | None = None) -> None:
        self._stamp_ms = stamp_ms
        self._builder: Any = DefaultRecordBatchBuilder(
            _VERSION, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0,
            batch_size=_HEAD_BYTES + most_bytes,
        )  # fmt: skip
        self.count = self.first_ms = self.last_ms = 0

    @property
    def size(self) -> int:
        """The bytes written so far."""
        size: int = self._builder.size()
        return size - _HEAD_BYTES

    def extend(self, records: Sequence[Record], prefix: bytes) -> int:
        """Add records, with ``prefix`` before each value, until one does not fit; return how many were added."""
        before = self.count
        for record in records:
            time = record.timestamp_ms if self._stamp_ms is None else self._stamp_ms
            if self._builder.append(self.count, time, record.key, prefix + record.value, record.headers) is None:
                break
            self.first_ms = self.first_ms if self.count else time
            self.last_ms = max(self.last_ms, time)
            self.count += 1
        return self.count - before

    def written(self) -> bytes:
        """The bytes of all records; no record can be added after this call."""
        return bytes(memoryview(self._builder.build())[_HEAD_BYTES:])


class Numbers(NamedTuple):
    """The numbers by which a broker identifies a batch: producer id, epoch, and the first record's sequence number."""

    producer_id: int
    epoch: int
    first: int


class Batch:
    """Records for one partition, from the moment they are chosen until the batch is acknowledged or has failed.

    Args:
        topic: the partition's topic.
        partition: the partition's number.
        compression: the codec.
        most_bytes: the limit for the batch before compression; the first record always fits.
        stamp_ms: the time of every record in place of its own, in milliseconds since the epoch.

    Attributes:
        records: the records in the batch, in order.
        source: the sender of the records, which receives the result.
        numbers: the numbers of the last attempt; None before the first attempt, and when they are free again.
        unresolved: whether an attempt with these numbers may have put the batch into the log.
        alone: whether the batch must be the only one in its request.
        closes: how many times in a row the connection was closed when the batch was sent alone.
        timeouts: how many times in a row a request with the batch got no answer in time.
        sent_at: when the batch was last written, by ``time.perf_counter``.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        compression: Codec,
        most_bytes: int,
        stamp_ms: int | None = None,
    ) -> None:
        self.topic, self.partition = topic, partition
        self.records: list[Record] = []
        self.source: Any = None
        self.numbers: Numbers | None = None
        self.unresolved = self.alone = False
        self.closes = self.timeouts = 0
        self.sent_at = 0.0
        self.codec = compression
        room = most_bytes - _HEAD_BYTES
        self._writer: Writer
        if stamp_ms is None and compiled.COMPILED:
            self._writer = compiled.module.BatchWriter(room)
        else:
            self._writer = PythonWriter(room, stamp_ms)
        self.stamped = stamp_ms is not None
        self._payload: tuple[int, bytes] | None = None

    def extend(self, records: Sequence[Record], prefix: bytes = b"") -> int:
        """Add records, with ``prefix`` before each value, until the batch is full; return how many were added.

        The first record always fits.
        """
        count = self._writer.extend(records, prefix)
        self.records += records[:count]
        return count

    def use_codec(self, compression: Codec) -> None:
        """Compress the batch with another codec from now on."""
        self.codec, self._payload = compression, None

    @property
    def numbered(self) -> bool:
        """Whether the batch has numbers by which a broker recognises it when it is sent again."""
        return self.numbers is not None and self.numbers.producer_id >= 0

    @property
    def size(self) -> int:
        """Bytes of the batch as it is sent; no record can be added after this was read."""
        return _HEAD_BYTES + len(self._compressed()[1])

    @property
    def size_before_compression(self) -> int:
        """Bytes of the batch before compression, which count if the broker writes the batch with another codec."""
        return _HEAD_BYTES + self._writer.size

    def compress(self) -> None:
        """Compress the batch now, so that nothing can fail later; no record can be added after this call."""
        self._compressed()

    def _compressed(self) -> tuple[int, bytes]:
        if self._payload is None:
            attributes, payload = 0, self._writer.written()
            codec = _CODECS.get(self.codec)
            if codec is not None:
                compressed = codec[1](payload)
                if len(compressed) < len(payload):
                    attributes, payload = codec[0], compressed
            self._payload = attributes, payload
        return self._payload

    def encoded(self) -> bytes:
        """Encode the batch with its numbers, as it is sent."""
        attributes, payload = self._compressed()
        assert self.numbers is not None  # noqa: S101 - the caller has given it numbers
        writer, count = self._writer, len(self.records)
        after = _AFTER.pack(attributes, count - 1, writer.first_ms, writer.last_ms, *self.numbers, count) + payload
        before = _BEFORE.pack(
            0, _BEFORE.size + len(after) - _UNCOUNTED_BYTES, _NO_LEADER_EPOCH, _VERSION, calc_crc32c(after)
        )
        return before + after
