"""Spools for tests: rows that are known by their place, a hand on the writer, and everything closed at the end."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.record import Record
from bridge.spool.file import SpoolHooks
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

if TYPE_CHECKING:
    from bridge.spool.stats import SpoolEvent

MIB = 1 << 20
TIMEOUT_SECONDS = 20.0


def row(lane: int, seq: int, *, size: int = 100, n: int = 2) -> SpoolRow:
    """A group of ``n`` records whose content follows from lane and seq."""
    record = Record("topic", b"%d-%d" % (lane, seq), b"v" * size, [("ce_id", b"id")], 1_000_000 + seq)
    return SpoolRow(lane, seq, n, [record] * n)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something observable, not for a time."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is awaited sets no event
            await asyncio.sleep(0.001)


async def seqs(spool: Spool, lane: int) -> list[int]:
    """Every seq of a lane, read in pieces."""
    found: list[int] = []
    await eventually(lambda: spool.stats.checked)
    while rows := await spool.read(lane, found[-1] if found else -1, max_bytes=2_000):
        found += [each.seq for each in rows]
    return found


class Gate(SpoolHooks):
    """Holds the writer before a commit until let go, and fails where told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.held = threading.Event()
        self.commit_errors: list[Exception | None] = []  # of the next commits
        self.delete_errors: list[Exception] = []
        self.free: int | None = None

    def before_commit(self) -> None:
        """Hold, then fail if told to."""
        self.held.set()
        assert self.open.wait(TIMEOUT_SECONDS)
        error = self.commit_errors.pop(0) if self.commit_errors else None
        if error is not None:
            raise error

    def before_delete(self) -> None:
        """Fail if told to."""
        if self.delete_errors:
            raise self.delete_errors.pop(0)

    def free_bytes(self, actual: int) -> int:
        """As told."""
        return actual if self.free is None else self.free


def sqlite_error(code: int) -> sqlite3.Error:
    """What SQLite raises with that extended code."""
    error = sqlite3.OperationalError("provoked")
    error.sqlite_errorcode = code
    return error


def insert_unindexed(directory: Path, row: Sequence[object]) -> None:
    """Add a row of ``queue`` that its index lacks, to a spool that is closed: the schema is without it meanwhile."""
    with closing(sqlite3.connect(directory / "spool.db", isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        schema = database.execute("SELECT * FROM sqlite_schema WHERE tbl_name = 'queue'").fetchall()
        database.execute("DELETE FROM sqlite_schema WHERE name = 'sqlite_autoindex_queue_1'")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ', PRIMARY KEY (lane, seq)', '') WHERE name = 'queue'"
        )
    with closing(sqlite3.connect(directory / "spool.db", isolation_level=None)) as database:
        database.execute("INSERT INTO queue VALUES (?, ?, ?, ?, ?)", row)
        database.execute("PRAGMA writable_schema = ON")
        database.execute("DELETE FROM sqlite_schema WHERE tbl_name = 'queue'")
        database.executemany("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", schema)
        others = "UPDATE sqlite_schema SET rowid = rowid + 10 WHERE tbl_name IN ('dead_letter', 'meta', 'totals')"
        database.execute(others)


class House:
    """Opens spools and closes what is left open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gate = Gate()
        self.events: list[SpoolEvent] = []
        self._open: list[Spool] = []

    async def open(self, **changes: Any) -> Spool:
        """A spool on the directory."""
        options: dict[str, Any] = {"max_bytes": 64 * MIB, "min_free_bytes": 0, "hooks": self.gate} | changes
        spool = await Spool.open(self.directory, on_event=self.events.append, **options)
        self._open.append(spool)
        return spool

    async def hold(self, spool: Spool) -> asyncio.Future[None]:
        """Stop the writer within a commit, of lane 99; returns that commit's future."""
        self.gate.open.clear()
        self.gate.held.clear()
        future = spool.append([row(99, 10**9 + spool.stats.commits)])
        await asyncio.to_thread(self.gate.held.wait, TIMEOUT_SECONDS)
        return future

    def damaged(self) -> list[Path]:
        """The files moved aside as damaged, oldest first."""
        return sorted((self.directory / "damaged").glob("*"))

    async def close(self) -> None:
        """Let everything end."""
        self.gate.open.set()
        for spool in self._open:
            await spool.close(TIMEOUT_SECONDS)
