"""Records on their way into one Kafka batch (format v2), in the shape that aiokafka's accumulator takes.

Its own builder checks each record, sums what is not compressed yet, and has LZ4 at its ninth level only; here the records are
written by the compiled part, where there is one, compressed, and given their head.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

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
    """

    def __init__(self, most_bytes: int) -> None:
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
            time = record.timestamp_ms
            if self._builder.append(self.count, time, record.key, prefix + record.value, record.headers) is None:
                break
            self.first_ms = self.first_ms if self.count else time
            self.last_ms = max(self.last_ms, time)
            self.count += 1
        return self.count - before

    def written(self) -> bytes:
        """What was written; nothing can be added then."""
        return bytes(memoryview(self._builder.build())[_HEAD_BYTES:])


class Batch:
    """An open batch; ``records`` are those in it.

    Args:
        compression: by which codec.
        most_bytes: of the batch before compression; a first record always fits.
    """

    def __init__(self, compression: Codec, most_bytes: int) -> None:
        self.records: list[Record] = []
        writer = compiled.module.BatchWriter if compiled.COMPILED else PythonWriter
        self._writer: Writer = writer(most_bytes - _HEAD_BYTES)
        self._codec = _CODECS.get(compression)
        self._state = (-1, -1, 0)
        self._bytes: bytes | None = None

    def extend(self, records: Sequence[Record], prefix: bytes = b"") -> int:
        """Add records, ``prefix`` before their values, until the batch is full; how many were. A first one always fits."""
        count = self._writer.extend(records, prefix)
        self.records += records[:count]
        return count

    # --- what aiokafka asks of a builder --------------------------------------------------------------------------------

    def close(self) -> None:
        """Nothing is added but by ``extend``."""

    def closed(self) -> bool:
        """It waits for nothing more."""
        return True

    def record_count(self) -> int:
        """Of records."""
        return len(self.records)

    def size(self) -> int:
        """Bytes, uncompressed."""
        return _HEAD_BYTES + self._writer.size

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._state = producer_id, producer_epoch, base_sequence

    def _build(self) -> bytes:
        # A retry sends the same bytes.
        if self._bytes is None:
            self._bytes = self._built()
        return self._bytes

    def _built(self) -> bytes:
        attributes, records = 0, self._writer.written()
        if self._codec is not None:
            number, encode = self._codec
            compressed = encode(records)
            if len(compressed) < len(records):
                attributes, records = number, compressed
        writer, count = self._writer, len(self.records)
        after = _AFTER.pack(attributes, count - 1, writer.first_ms, writer.last_ms, *self._state, count) + records
        before = _BEFORE.pack(
            0, _BEFORE.size + len(after) - _UNCOUNTED_BYTES, _NO_LEADER_EPOCH, _VERSION, calc_crc32c(after)
        )
        return before + after
