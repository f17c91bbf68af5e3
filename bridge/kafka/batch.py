"""Records on their way into one Kafka batch (format v2), and what is known of the attempts to send it.

The records are written by the compiled part, where there is one, compressed, and given their head with the numbers by which the
broker knows them. aiokafka's own builder has LZ4 at its ninth level only.
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

# Base offset, length, leader epoch, version, and the sum of what follows: attributes, last offset delta, first and last time,
# producer's id and epoch, base sequence, count.
_BEFORE: Final = struct.Struct(">qiibI")
_AFTER: Final = struct.Struct(">hiqqqhii")
_HEAD_BYTES: Final = _BEFORE.size + _AFTER.size
_UNCOUNTED_BYTES: Final = 12  # the length's own, and what is before it
_NO_LEADER_EPOCH, _VERSION = -1, 2
# An eighth to a third of the ninth level's time, for up to a quarter more bytes: benchmarks/compression.py.
_LZ4_LEVEL: Final = 1


def _lz4(records: bytes) -> bytes:
    # Brokers take no linked blocks.
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
    """Writes records one behind the other, uncompressed. Times are milliseconds since the epoch."""

    count: int
    first_ms: int
    last_ms: int

    @property
    def size(self) -> int:
        """Bytes so far."""

    def extend(self, records: Sequence[Record], prefix: bytes) -> int:
        """Add records, ``prefix`` before their values, until one does not fit; how many were."""

    def written(self) -> bytes:
        """What was written."""


class PythonWriter:
    """By aiokafka's builder.

    Args:
        most_bytes: of all records; a first one always fits.
        stamp_ms: every record's time, in place of its own.
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
        """Bytes so far."""
        size: int = self._builder.size()
        return size - _HEAD_BYTES

    def extend(self, records: Sequence[Record], prefix: bytes) -> int:
        """Add records, ``prefix`` before their values, until one does not fit; how many were."""
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
        """What was written; nothing can be added then."""
        return bytes(memoryview(self._builder.build())[_HEAD_BYTES:])


class Numbers(NamedTuple):
    """What a broker knows a batch by: its first record's sequence number, of a producer id and epoch."""

    producer_id: int
    epoch: int
    first: int


class Batch:
    """Records for one partition, from the time when they are chosen to the time when it is known what became of them.

    Args:
        topic: of the partition.
        partition: its number.
        compression: by which codec.
        most_bytes: of the batch before compression; a first record always fits.
        stamp_ms: the records' time stamp in place of their own, milliseconds since the epoch.

    Attributes:
        records: those in it, in order.
        source: whose records they are; told what became of them.
        numbers: those it was sent with; None before, and where they are free again.
        unresolved: whether an attempt with these numbers may have put it into the log.
        alone: whether it is to be the only one in its request.
        closes: how many times in a row the connection was closed when it was sent alone.
        timeouts: how many times in a row it was waited for in vain.
        sent_at: when it was last written, by ``time.perf_counter``.
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
        """Add records, ``prefix`` before their values, until the batch is full; how many were. A first one always fits."""
        count = self._writer.extend(records, prefix)
        self.records += records[:count]
        return count

    def use_codec(self, compression: Codec) -> None:
        """Another one than before."""
        self.codec, self._payload = compression, None

    @property
    def size(self) -> int:
        """Bytes as it is sent; no record can be added once this was asked."""
        return _HEAD_BYTES + len(self._compressed()[1])

    @property
    def size_before_compression(self) -> int:
        """Bytes as a broker counts them that writes it with another codec."""
        return _HEAD_BYTES + self._writer.size

    def compress(self) -> None:
        """Do it now, so that nothing can fail later; no record can be added then."""
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
        """The batch with its numbers, as it is sent."""
        attributes, payload = self._compressed()
        assert self.numbers is not None  # noqa: S101 - they are given before
        writer, count = self._writer, len(self.records)
        after = _AFTER.pack(attributes, count - 1, writer.first_ms, writer.last_ms, *self.numbers, count) + payload
        before = _BEFORE.pack(
            0, _BEFORE.size + len(after) - _UNCOUNTED_BYTES, _NO_LEADER_EPOCH, _VERSION, calc_crc32c(after)
        )
        return before + after
