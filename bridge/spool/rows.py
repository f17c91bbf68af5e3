"""Rows of the spool: what they hold, how they are encoded, and the ledger that counts them without asking the file."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bridge import compiled
from bridge.record import Record
from bridge.spool.format import PAGE_BYTES

_CRC_HEAD: Final = struct.Struct("<qqq")
_ROW_OVERHEAD_BYTES: Final = 64

encode_body_python = msgspec.msgpack.Encoder().encode
encode_body = compiled.module.packed if compiled.COMPILED else encode_body_python
"""The faster of the two."""
decode_body = msgspec.msgpack.Decoder(list[Record]).decode


def crc_of(lane: int, seq: int, n: int, body: bytes) -> int:
    """CRC-32 over lane, seq and n (little-endian, 8 bytes each) and the body."""
    return zlib.crc32(body, zlib.crc32(_CRC_HEAD.pack(lane, seq, n)))


def crc_of_total(total: Sequence[object]) -> int:
    """CRC-32 over the columns of a row of ``totals``, in decimal, with commas between."""
    return zlib.crc32(",".join(map(str, total)).encode())


def crc_of_text(key: str, value: str) -> int:
    """CRC-32 over a row of ``meta``: the key, NUL, the value."""
    return zlib.crc32(f"{key}\0{value}".encode())


class SpoolRow(msgspec.Struct, frozen=True):
    """One lane entry: ``n`` reports encoded as ``records``; ``seq`` is unique in the lane and orders it."""

    lane: int
    seq: int
    n: int
    records: list[Record]


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter since ``at_ms`` (milliseconds since the epoch); ``body`` is unchanged, and may be damaged."""

    id: int
    lane: int
    seq: int
    n: int
    reason: str
    at_ms: int
    crc: int
    body: bytes

    @property
    def whole(self) -> bool:
        """Whether the CRC proves the row."""
        return crc_of(self.lane, self.seq, self.n, self.body) == self.crc

    def records(self) -> list[Record]:
        """The records.

        Raises:
            msgspec.DecodeError: the body is damaged.
        """
        return decode_body(self.body)


class EncodedRow(msgspec.Struct, frozen=True):
    """A `SpoolRow` as the file has it: ``at_ms`` is its first record's timestamp, ``cost_bytes`` the most disk it takes."""

    lane: int
    seq: int
    n: int
    body: bytes
    at_ms: int | None
    cost_bytes: int


def encode_row(row: SpoolRow) -> EncodedRow:
    """Encode a row, 1 to 3 µs for a few records. A row larger than a page has overflow pages that it shares with no other."""
    at_ms = row.records[0].timestamp_ms if row.records else None
    body = encode_body(row.records)
    size = len(body) + _ROW_OVERHEAD_BYTES
    cost = size if size < PAGE_BYTES else (size // (PAGE_BYTES - 4) + 2) * PAGE_BYTES
    return EncodedRow(row.lane, row.seq, row.n, body, at_ms, cost)


Total = tuple[int, int, int, int, int, int, int | None]
"""A row of the table ``totals`` without its CRC: the lane, then `LaneStats`."""
ALL_LANES: Final = -1
"""The lane of the sums in the table ``totals``."""


class LaneStats(msgspec.Struct, frozen=True):
    """What one lane has in the spool. ``bytes`` counts bodies; ``oldest_at_ms`` is of the first record of the first row."""

    rows: int
    reports: int
    bytes: int
    first_seq: int
    last_seq: int
    oldest_at_ms: int | None

    def joined(self, other: "LaneStats") -> "LaneStats":
        """Both as one."""
        first = self if self.first_seq <= other.first_seq else other
        return LaneStats(
            self.rows + other.rows,
            self.reports + other.reports,
            self.bytes + other.bytes,
            first.first_seq,
            max(self.last_seq, other.last_seq),
            first.oldest_at_ms,
        )


@dataclass(slots=True)
class Ledger:
    """What the file holds, by lane and in total, without asking it. It never counts single rows."""

    lanes: dict[int, LaneStats] = field(default_factory=dict)
    rows: int = 0
    reports: int = 0
    bytes: int = 0
    dead_letter_rows: int = 0
    dead_letter_reports: int = 0

    def copy(self) -> "Ledger":
        """A copy to work on; lanes are immutable."""
        return Ledger(
            self.lanes.copy(), self.rows, self.reports, self.bytes, self.dead_letter_rows, self.dead_letter_reports
        )

    def add(self, rows: Iterable[EncodedRow]) -> None:
        """Count rows that were inserted."""
        sums: dict[int, list[int]] = {}
        heads: dict[int, EncodedRow] = {}
        for row in rows:
            found = sums.get(row.lane)
            if found is None:
                sums[row.lane], heads[row.lane] = [1, row.n, len(row.body), row.seq], row
                continue
            found[0] += 1
            found[1] += row.n
            found[2] += len(row.body)
            if row.seq > found[3]:
                found[3] = row.seq
            elif row.seq < heads[row.lane].seq:
                heads[row.lane] = row
        for lane, (count, reports, size, last) in sums.items():
            head, old = heads[lane], self.lanes.get(lane)
            new = LaneStats(count, reports, size, head.seq, last, head.at_ms)
            self.put(lane, new if old is None else old.joined(new))

    def put(self, lane: int, new: LaneStats | None) -> None:
        """Replace a lane's figures by ``new``; None means that the lane is empty."""
        old = self.lanes.pop(lane, None)
        for sign, stats in ((-1, old), (1, new)):
            if stats is not None:
                self.rows += sign * stats.rows
                self.reports += sign * stats.reports
                self.bytes += sign * stats.bytes
        if new is not None:
            self.lanes[lane] = new

    def totals(self, before: "Ledger") -> list[Total]:
        """The rows of the table ``totals`` that differ from those of ``before``."""
        rows: list[Total] = [
            (lane, new.rows, new.reports, new.bytes, new.first_seq, new.last_seq, new.oldest_at_ms)
            for lane, new in self.lanes.items()
            if before.lanes.get(lane) is not new
        ]
        rows += [(lane, 0, 0, 0, 0, 0, None) for lane in before.lanes if lane not in self.lanes]
        rows.append(self.sums)
        return rows

    @property
    def sums(self) -> Total:
        """The row of ``totals`` that has the sums."""
        return ALL_LANES, self.rows, self.reports, self.bytes, self.dead_letter_rows, self.dead_letter_reports, None

    @classmethod
    def of_totals(cls, rows: Iterable[Total]) -> "Ledger":
        """The ledger that the table ``totals`` holds.

        Raises:
            ValueError: the lanes do not add up to their sums.
        """
        ledger, sums = cls(), None
        for total in rows:
            if total[0] == ALL_LANES:
                sums = total
                ledger.dead_letter_rows, ledger.dead_letter_reports = total[4:6]
            elif total[1]:
                ledger.put(total[0], LaneStats(*total[1:]))
        if ledger.sums != (sums or cls().sums):
            raise ValueError("the lanes' totals do not add up to their sums")
        return ledger

    def oldest_at_ms(self) -> int | None:
        """The smallest first timestamp of all lanes; None when there is none."""
        return min((s.oldest_at_ms for s in self.lanes.values() if s.oldest_at_ms is not None), default=None)
