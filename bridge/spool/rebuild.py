"""The exchange of a damaged file: a new one takes over the rows that are whole, the damaged one is moved to ``damaged/``."""

import sqlite3
import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bridge.durable import sync
from bridge.spool.connection import INSERT_ROWS, INSERTS, create
from bridge.spool.disk import make_directory, size_of
from bridge.spool.format import DATABASE, PARTIAL, REBUILD
from bridge.spool.rows import crc_of
from bridge.spool.salvage import Value, WalFrames, raw_rows

_TAKE_OVER: Final = {count: sql.replace("INSERT", "INSERT OR IGNORE") for count, sql in INSERTS.items()}


class Rebuilt(msgspec.Struct, frozen=True):
    """What became of a damaged file: where it is now, and how much the new one took over from it."""

    moved_to: Path
    reason: str
    rows: int
    reports: int


def make_ready(directory: Path) -> Rebuilt | None:
    """Have a file that SQLite may open: finish an exchange, rebuild a file whose WAL is damaged, create one if absent."""
    database, partial = directory / DATABASE, directory / PARTIAL
    partial.unlink(missing_ok=True)
    if (directory / REBUILD).exists():
        _exchange(directory, "unfinished")
    wal = WalFrames(directory / f"{DATABASE}-wal")
    if wal.broken or _is_stale(database, wal):
        return rebuild(directory, "wal")
    if size_of(database) == 0:
        create(partial).close()
        sync(partial)
        partial.rename(database)
        sync(directory)
    return None


def rebuild(
    directory: Path,
    reason: str,
    first_seqs: Mapping[int, int] | None = None,
    unwanted: Container[tuple[int, int]] = frozenset(),
) -> Rebuilt:
    """Fill a new file with the whole rows of the damaged one, and move that to ``damaged/`` with its -wal and -shm.

    ``first_seqs``, where known, is the first seq of each lane that was not deleted. Where it is not known and the header
    is lost, rows that were deleted shortly before the damage may come back: they are published again with the same id.
    ``unwanted`` are rows (lane, seq) that were refused, though they may be in the file.
    """
    database, partial = directory / DATABASE, directory / PARTIAL
    wal = directory / f"{DATABASE}-wal"
    absent = directory / "absent"
    connection = create(partial)
    try:
        stale = _is_stale(database, WalFrames(wal))
        for part in [(database, absent), (absent, wal)] if stale else [(database, wal)]:
            _fill(connection, raw_rows(*part), first_seqs or {}, unwanted)
        rows, reports = connection.execute("SELECT count(*), coalesce(sum(n), 0) FROM queue").fetchone()
    except BaseException:
        partial.unlink()  # its room may be what is missing
        raise
    finally:
        connection.close()
    sync(partial)
    partial.rename(directory / REBUILD)
    sync(directory)
    return Rebuilt(_exchange(directory, reason), reason, rows, reports)


def _fill(
    connection: sqlite3.Connection,
    rows: Iterable[list[Value]],
    first_seqs: Mapping[int, int],
    unwanted: Container[tuple[int, int]],
) -> None:
    """Put every row that its CRC proves into a new file; rows of the ``dead_letter`` table unchanged."""
    values: list[object] = []
    connection.execute("BEGIN")
    for row in rows:
        match row:
            case [_, int(lane), int(seq), int(n), int(crc), bytes(body)]:
                wanted = seq >= first_seqs.get(lane, seq) and (lane, seq) not in unwanted
                if wanted and crc == crc_of(lane, seq, n, body):
                    values += (lane, seq, n, crc, body)
                if len(values) == 5 * INSERT_ROWS:
                    connection.execute(_TAKE_OVER[INSERT_ROWS], values)
                    values.clear()
            case [rowid, None, int(), int(), int(), str(), int(), int(), bytes()]:
                connection.execute(
                    "INSERT OR IGNORE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [rowid, *row[2:]]
                )
            case [_, str(key), str(value)]:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    if values:
        connection.execute(_TAKE_OVER[len(values) // 5], values)
    connection.execute("COMMIT")


def _is_stale(database: Path, wal: WalFrames) -> bool:
    """Whether the WAL belongs to another file than the one next to it."""
    if size_of(database) == 0:
        return bool(wal.pages or wal.lost)
    if wal.page_one_offset is None:
        return False
    with database.open("rb") as file:
        return file.read(72)[68:] != wal.page(wal.page_one_offset)[68:72]


def _exchange(directory: Path, reason: str) -> Path:
    """Move the damaged file away and the rebuilt one to its place; after a crash this may begin again."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    moved_to = directory / "damaged" / f"{stamp}-{time.time_ns() % 10**9:09d}-{reason}"
    make_directory(moved_to)
    for suffix in ("-wal", "-shm", ""):  # the file last: while it is in place a restart finds the exchange undone
        path = directory / (DATABASE + suffix)
        if path.exists():
            path.rename(moved_to / path.name)
    sync(moved_to)
    (directory / REBUILD).rename(directory / DATABASE)
    sync(directory)
    return moved_to
