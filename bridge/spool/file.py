"""The open file of a spool, used by one thread; `bridge.spool.writer` is that thread."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from bridge.durable import modes_in, set_mode
from bridge.spool.connection import INSERT_ROWS, INSERT_ROWS_MANY, INSERTS, REPLACE_TOTALS, close_untouched, connect
from bridge.spool.disk import size_of
from bridge.spool.failure import DISK_ERRORS, failure_of, malformed
from bridge.spool.format import DATABASE, PAGE_BYTES, SUFFIXES
from bridge.spool.index_check import IndexCheck
from bridge.spool.reader import Rows, head_of, load_ledger, load_texts, read_dead_letters, read_rows
from bridge.spool.rebuild import SALVAGE, Found, Sources, exchange, make_ready, mark_taken_over
from bridge.spool.rows import (
    DeadLetter,
    EncodedRow,
    LaneStats,
    Ledger,
    SpoolRow,
    crc_of,
    crc_of_text,
    crc_of_total,
    encode_row,
)

SMALL_BYTES: Final = 1 << 20
"""A file of this size takes next to nothing."""
_VACUUM_LIVE_BYTES: Final = 4 << 20
"""The file is rewritten only when no more than this is in it, which takes milliseconds."""
PIECE_ROWS: Final = 64
"""Rows that one statement reads or checks at most: on a cold disk each may be a page of its own, and appends wait."""
_DELETE_ROWS: Final = 500
"""Rows one commit deletes at most, so that no append waits long behind a large delete: each may touch another page."""
_NOT_ITS_OWN_FILE: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY)
"""While opening: a version in the header, or a name in the schema, that the spool does not write."""


class SpoolHooks:
    """Where a fault test steps in, on the writer thread: block there, or raise OSError or sqlite3.Error."""

    def before_insert(self) -> None:
        """Before the rows of a transaction are inserted."""

    def before_delete(self) -> None:
        """Before a delete."""

    def before_commit(self) -> None:
        """Before COMMIT, which writes and syncs the WAL."""

    def after_commit(self) -> None:
        """After COMMIT; to raise here is to fail its fsync."""

    def before_checkpoint(self) -> None:
        """Before a checkpoint."""

    def before_open(self) -> None:
        """Before SQLite opens the file, the first time and after a damage."""

    def before_read(self) -> None:
        """Before a read."""

    def free_bytes(self, actual: int) -> int:
        """Bytes free on the file system, as the spool is to see them."""
        return actual


class SpoolFile:
    """The open file. Every method may raise sqlite3.Error or OSError; `failure_of` says what that means."""

    def __init__(self, directory: Path, connection: sqlite3.Connection, hooks: SpoolHooks, max_pages: int) -> None:
        self.directory = directory
        self.ledger = Ledger()
        self.meta: dict[str, str] = {}
        self.doubtful: Sequence[EncodedRow] = ()  # of a commit that failed: they may be in the file all the same
        self.sources = Sources([])  # damaged files whose rows are being taken over
        self.check: IndexCheck | None = None  # while it is not done
        self._connection = connection
        self._hooks = hooks
        self._max_pages = max_pages
        self._wal = directory / f"{DATABASE}-wal"

    @classmethod
    def open(cls, directory: Path, hooks: SpoolHooks, *, max_pages: int) -> tuple[Self, Path | None]:
        """Open or create the file in a directory this process owns; a damaged one is exchanged first.

        Returns:
            The file, and where a damaged one was moved to. ``sources`` says what is to be taken over, ``check`` what is
            to be checked.
        """
        hooks.before_open()
        moved_to = make_ready(directory)
        try:
            return cls._open(directory, hooks, max_pages), moved_to
        except DISK_ERRORS as error:
            if (
                failure_of(error, directory) != "damaged"
                and getattr(error, "sqlite_errorcode", None) not in _NOT_ITS_OWN_FILE
            ):
                raise
        moved_to = exchange(directory, "malformed")
        return cls._open(directory, hooks, max_pages), moved_to

    @classmethod
    def _open(cls, directory: Path, hooks: SpoolHooks, max_pages: int) -> Self:
        for suffix in SUFFIXES:
            path = directory / (DATABASE + suffix)
            if path.exists():
                set_mode(path, modes_in(directory).file)
        connection = connect(directory / DATABASE)
        try:
            file = cls(directory, connection, hooks, max_pages)
            file.ledger, file.meta = load_ledger(connection)
            file.sources = Sources.of(file.meta)
            if not file.sources.files:
                file.bound()
            check = IndexCheck(connection)
            file.check = None if check.done else check
        except BaseException:
            close_untouched(connection, directory / DATABASE)
            raise
        return file

    @property
    def checked(self) -> bool:
        """Whether all rows of a damaged file are taken over, and the index is known to have every row."""
        return not self.sources.files and self.check is None

    def bound(self) -> None:
        """Let the file grow to its bound and no further; while rows are taken over from another it has no bound."""
        self._connection.execute(f"PRAGMA max_page_count = {self._max_pages}").fetchall()

    def close(self) -> None:
        """Checkpoint and close; the -wal goes."""
        self._connection.close()

    def abandon(self) -> None:
        """Close without touching the file or its WAL, which are not trusted any more."""
        close_untouched(self._connection, self.directory / DATABASE)

    @contextmanager
    def _transaction(self) -> Iterator[Ledger]:
        """Everything inside is committed and synced, or nothing is; yields the ledger to work on."""
        draft = self.ledger.copy()
        self._connection.execute("BEGIN")
        try:
            yield draft
            self._write_totals(draft)
            self._hooks.before_commit()
            self._connection.execute("COMMIT")
            self._hooks.after_commit()
        except BaseException:
            if self._connection.in_transaction:  # some errors have rolled back already
                self._connection.execute("ROLLBACK")
            raise
        self.ledger = draft

    def _write_totals(self, draft: Ledger) -> None:
        totals = draft.totals(self.ledger)
        for start in range(0, len(totals), INSERT_ROWS):
            some = totals[start : start + INSERT_ROWS]
            values = [value for total in some for value in (*total, crc_of_total(total))]
            self._connection.execute(REPLACE_TOTALS[len(some)], values)

    def commit(self, rows: Sequence[EncodedRow], deletes: Mapping[int, int]) -> dict[int, int]:
        """Delete the prefixes ``deletes`` (lane → through seq), then insert ``rows``: one transaction, one fsync.

        At most `_DELETE_ROWS` are deleted; returns the deletes that are not done yet. Rows that an unfinished delete
        covers are not inserted before it is done: it is finished first.
        """
        remaining: dict[int, int] = {}
        self.doubtful = ()
        covered = {row.lane for row in rows if row.seq <= deletes.get(row.lane, row.seq - 1)} if deletes else ()
        with self._transaction() as draft:
            if deletes and self.sources.files:
                for lane, through in deletes.items():
                    self.sources.deleted(lane, through)
                self._put_text(SALVAGE, self.sources.text)
            budget = _DELETE_ROWS
            for lane, through in deletes.items():
                budget -= self._delete(draft, lane, through, draft.rows if lane in covered else budget)
                left = draft.lanes.get(lane)
                if left is not None and left.first_seq <= through:
                    remaining[lane] = through
            if rows:
                self._insert(rows)
                draft.add(rows)
                self.doubtful = rows
        self.doubtful = ()
        return remaining

    def _delete(self, draft: Ledger, lane: int, through: int, limit: int) -> int:
        """Delete up to ``limit`` rows of a lane's prefix; returns how many."""
        old = draft.lanes.get(lane)
        if old is None or old.first_seq > through or limit <= 0:
            return 0
        self._hooks.before_delete()
        if through >= old.last_seq and old.rows <= limit:
            deleted = self._connection.execute("DELETE FROM queue WHERE lane = ? AND seq <= ?", (lane, through))
            if deleted.rowcount != old.rows:
                raise malformed(f"lane {lane} has {deleted.rowcount} rows, and {old.rows} by its totals")
            draft.put(lane, None)
            return old.rows
        rows, reports, size, last = self._connection.execute(
            "SELECT count(*), sum(n), sum(size), max(seq) FROM (SELECT seq, n, length(body) AS size FROM queue "
            "WHERE lane = ? AND seq <= ? ORDER BY seq LIMIT ?)",
            (lane, through, limit),
        ).fetchone()
        if rows:
            self._connection.execute("DELETE FROM queue WHERE lane = ? AND seq <= ?", (lane, last))
        draft.put(lane, self._lane_after(old, rows, reports or 0, size or 0, lane))
        return int(rows)

    def _lane_after(self, old: LaneStats, rows: int, reports: int, size: int, lane: int) -> LaneStats | None:
        """A lane's figures without a part of it; its new head and its last seq are looked up."""
        head = head_of(self._connection, lane)
        if head is None:
            return None
        (last,) = self._connection.execute("SELECT max(seq) FROM queue WHERE lane = ?", (lane,)).fetchone()
        return LaneStats(old.rows - rows, old.reports - reports, old.bytes - size, head[0], last, head[1])

    def _insert(self, rows: Sequence[EncodedRow]) -> None:
        """Insert in as few statements as possible.

        Every step of a statement releases the GIL, and a busy event loop may keep it for 5 ms before this thread gets it
        back. Next to a busy loop, one statement a row made 551 rows/s; one statement a hundred rows made 6,396.
        """
        self._hooks.before_insert()
        start = 0
        while start < len(rows):
            left = len(rows) - start
            count = next((size for size in (INSERT_ROWS_MANY, INSERT_ROWS) if left >= size), left)
            values: list[object] = []
            for row in rows[start : start + count]:
                values += (row.lane, row.seq, row.n, crc_of(row.lane, row.seq, row.n, row.body), row.body)
            self._connection.execute(INSERTS[count], values)
            start += count

    def read(self, lane: int, after_seq: int, max_bytes: int) -> Rows:
        """The next rows of a lane behind ``after_seq``, in order, up to ``max_bytes`` of bodies but at least one.

        No more than `PIECE_ROWS`, as appends wait for a read. Rows that the CRC refuses are dead-lettered first.
        """
        self._hooks.before_read()
        bad: list[tuple[SpoolRow, str]] = []
        while True:
            stats = self.ledger.lanes.get(lane)
            if stats is None or stats.last_seq <= after_seq:
                return Rows([], bad, 0)
            limit = max(1, min(PIECE_ROWS, max_bytes * stats.rows // max(1, stats.bytes)))
            rows = read_rows(self._connection, lane, after_seq, limit, max_bytes)
            for row, reason in rows.bad:
                if any(row.seq == before.seq for before, _ in bad):
                    raise malformed(f"lane {lane}, seq {row.seq} can't be removed")
                self._dead_letter_bad_rows(row, reason)
                bad.append((row, reason))
            if rows.good or not rows.bad:
                return Rows(rows.good, bad, rows.size)

    def _dead_letter_bad_rows(self, row: SpoolRow, reason: str) -> None:
        with self._transaction() as draft:
            self._move_to_dead_letters(draft, row.lane, row.seq, reason)

    def _move_to_dead_letters(self, draft: Ledger, lane: int, seq: int, reason: str) -> None:
        """Move a row of the queue to ``dead_letter`` unchanged, whatever state its body is in."""
        found = self._connection.execute(  # the casts: of a damaged row anything may be anything
            "SELECT CAST(n AS INTEGER), length(CAST(body AS BLOB)) FROM queue WHERE lane = ? AND seq = ?",
            (lane, seq),
        ).fetchone()
        if found is None:
            raise malformed(f"lane {lane}, seq {seq} is in the index alone")
        n, size = found[0] or 0, found[1] or 0
        self._connection.execute(
            "INSERT INTO dead_letter (lane, seq, n, reason, at_ms, crc, body) "
            "SELECT lane, seq, n, ?, ?, crc, body FROM queue WHERE lane = ? AND seq = ?",
            (reason, time.time_ns() // 1_000_000, lane, seq),
        )
        self._connection.execute("DELETE FROM queue WHERE lane = ? AND seq = ?", (lane, seq))
        draft.put(lane, self._lane_after(draft.lanes[lane], 1, n, size, lane))
        draft.dead_letter_rows += 1
        draft.dead_letter_reports += n

    def dead_letter(self, rows: Sequence[EncodedRow], reason: str) -> None:
        """Make rows dead letters. A row that the queue holds unchanged leaves it; a part of a row leaves it there."""
        with self._transaction() as draft:
            for row in rows:
                crc = crc_of(row.lane, row.seq, row.n, row.body)
                same = self._connection.execute(
                    "SELECT 1 FROM queue WHERE lane = ? AND seq = ? AND crc = ?", (row.lane, row.seq, crc)
                ).fetchone()
                if same:
                    self._move_to_dead_letters(draft, row.lane, row.seq, reason)
                    continue
                self._connection.execute(
                    "INSERT INTO dead_letter (lane, seq, n, reason, at_ms, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (row.lane, row.seq, row.n, reason, time.time_ns() // 1_000_000, crc, row.body),
                )
                draft.dead_letter_rows += 1
                draft.dead_letter_reports += row.n

    def dead_letters(self, after_id: int, max_bytes: int) -> list[DeadLetter]:
        """Dead letters behind ``after_id``, in order, up to ``max_bytes`` of bodies but at least one if there is any."""
        return read_dead_letters(self._connection, after_id, max_bytes)

    def requeue(self, dead_letter_id: int, lane: int, seq: int) -> None:
        """Move a dead letter back to the queue, as ``(lane, seq)``.

        Raises:
            KeyError: there is no such row.
            ValueError: its CRC does not prove it, or ``(lane, seq)`` is taken.
        """
        found = read_dead_letters(self._connection, dead_letter_id - 1, 0)
        if not found or found[0].id != dead_letter_id:
            raise KeyError(f"there is no dead letter {dead_letter_id}")
        if not found[0].whole:
            raise ValueError(f"dead letter {dead_letter_id} is damaged: {found[0].reason}")
        records = found[0].records()
        row = encode_row(SpoolRow(lane, seq, found[0].n, records))
        with self._transaction() as draft:
            try:
                self._insert([row])
            except sqlite3.IntegrityError as error:
                raise ValueError(f"lane {lane}, seq {seq} is in the spool already") from error
            self._connection.execute("DELETE FROM dead_letter WHERE id = ?", (dead_letter_id,))
            draft.add([row])
            draft.dead_letter_rows -= 1
            draft.dead_letter_reports -= row.n

    def set_meta(self, key: str, value: str) -> None:
        """Keep a text for the caller."""
        with self._transaction():
            self._put_text(key, value)
        self.meta = {**self.meta, key: value}

    def _put_text(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, crc_of_text(key, value)))

    # ── what a damaged file held ──

    def take_over(self, found: Found) -> dict[int, int]:
        """Store rows of the first of ``sources``, and how far that has come, in one transaction.

        Returns:
            Reports of the rows that were not there before, by lane.
        """
        source = self.sources.files[0]
        distinct = {(row.lane, row.seq): row for row in found.queue if source.wants(row.lane, row.seq)}
        new = [row for row in distinct.values() if not self._has(row)]
        source.page += found.pages
        try:
            self._store(found, new)
        except BaseException:
            source.page -= found.pages
            raise
        reports: dict[int, int] = {}
        for row in new:
            reports[row.lane] = reports.get(row.lane, 0) + row.n
        return reports

    def _store(self, found: Found, new: Sequence[EncodedRow]) -> None:
        with self._transaction() as draft:
            if new:
                self._insert(new)
                draft.add(new)
            for row in found.dead_letters:
                self._take_over_dead_letter(draft, row)
            for key, text in found.texts.items():
                if key != SALVAGE:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO meta VALUES (?, ?, ?)", (key, text, crc_of_text(key, text))
                    )
            self._put_text(SALVAGE, self.sources.text)

    def _has(self, row: EncodedRow) -> bool:
        place = row.lane, row.seq
        return self._connection.execute("SELECT 1 FROM queue WHERE lane = ? AND seq = ?", place).fetchone() is not None

    def _take_over_dead_letter(self, draft: Ledger, row: Sequence[object]) -> None:
        """Under its own id if that is free; a page may be found twice."""
        columns = "lane, seq, n, reason, at_ms, crc, body"
        known = self._connection.execute("SELECT 1 FROM dead_letter WHERE id = ?", row[:1]).fetchone()
        same = "SELECT 1 FROM dead_letter WHERE at_ms = ? AND crc = ? AND lane IS ? AND seq IS ?"
        if known and self._connection.execute(same, (row[5], row[6], *row[1:3])).fetchone():
            return
        self._connection.execute(
            f"INSERT INTO dead_letter (id, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
            [row[0] if known is None else None, *row[1:]],
        )
        draft.dead_letter_rows += 1
        draft.dead_letter_reports += int(str(row[3]))

    def end_source(self) -> None:
        """The first of ``sources`` is done. After the last the lanes' heads are known, and the file has its bound again."""
        mark_taken_over(self.directory / self.sources.files[0].path)
        if len(self.sources.files) > 1:
            sources = Sources(self.sources.files[1:])
            self.set_meta(SALVAGE, sources.text)
            self.sources = sources
            return
        with self._transaction() as draft:
            for lane, stats in list(draft.lanes.items()):
                draft.put(lane, self._lane_after(stats, 0, 0, 0, lane))
            self._connection.execute("DELETE FROM meta WHERE key = ?", (SALVAGE,))
        self.sources = Sources([])
        self.meta = load_texts(self._connection)
        self.bound()

    def check_until(self, until: float) -> None:
        """Go on with the check of the index until that time (monotonic), for a piece at least."""
        while self.check is not None:
            self.check.step(PIECE_ROWS)
            if self.check.done:
                self.check = None
            if time.monotonic() >= until:
                return

    def used_bytes(self) -> int:
        """Bytes of pages that hold something; the freelist is room."""
        pages, free = self._connection.execute(
            "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
        ).fetchone()
        return int(pages - free) * PAGE_BYTES

    def file_bytes(self) -> int:
        """Bytes of the file and its WAL on disk."""
        return size_of(self.directory / DATABASE) + size_of(self._wal)

    def wal_bytes(self) -> int:
        """Bytes of the WAL, which does not shrink by a checkpoint alone."""
        return size_of(self._wal)

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Bring the WAL into the file; False if a reader keeps a part of it. ``truncate``: cut it to nothing."""
        self._hooks.before_checkpoint()
        mode = "TRUNCATE" if truncate else "PASSIVE"
        busy, frames, done = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return bool(busy == 0 and frames == done)

    def shrink(self) -> None:
        """Give free pages back to the file system if little is in use: a rewrite of that little, then a truncation."""
        used = self.used_bytes()
        if self.checked and used <= _VACUUM_LIVE_BYTES and self.file_bytes() > 4 * used + SMALL_BYTES:
            self._connection.execute("VACUUM")
        self.checkpoint(truncate=True)
