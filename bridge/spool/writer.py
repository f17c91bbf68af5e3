"""The spool's thread: it owns the file, commits in groups, and survives what the disk does.

It works in rounds. A round takes what is queued, commits all appends and deletes in one transaction with one fsync, posts
the answers, and then reads for a moment: rows for lanes, rows of a damaged file that are taken over, rows that the index
has to have. What is left of these waits for the next round, so no append waits longer for them, however slow the disk is.
`bridge.spool.spool` lists what this promises.
"""

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bridge.errors import SpoolError, SpoolFailed, SpoolFull
from bridge.spool.checking import Checking
from bridge.spool.deletes import PendingDeletes, PlannedAppend
from bridge.spool.failure import DISK_ERRORS, failure_of
from bridge.spool.file import SMALL_BYTES, SpoolFile, SpoolHooks
from bridge.spool.format import PAGE_BYTES, lock_directory
from bridge.spool.mailbox import Append, Call, Close, Delete, LoopClosed, Mailbox, Op, Read
from bridge.spool.rebuild import Source, exchange
from bridge.spool.room import LOOK_SECONDS, RETRY_SECONDS, Room
from bridge.spool.rows import EncodedRow, Ledger
from bridge.spool.stats import Counts, SpoolEvent, SpoolStats

_IDLE_SECONDS: Final = 1.0
_ORDINARY_BYTES: Final = 16 << 10
"""What an append of ordinary size costs: with less room than that the spool counts as not writable."""
_COMMIT_BYTES: Final = 4 << 20
"""Bodies beyond which what is queued is left for the next commit."""
_READ_SECONDS: Final = 0.05
"""How long a round reads."""
_READ_AT_MOST_SECONDS: Final = 0.5
"""How long rows are read for one lane before it gets those that were found: others wait."""
_MANY_BAD_ROWS: Final = 100
"""When reads have found this many bad rows, the file as a whole counts as damaged."""
_RULES: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
)
"""What a row that can't be stored raises, whatever the disk."""


def again(error: SpoolError) -> SpoolError:
    """The same error as another object: one that is raised often would grow a traceback."""
    return type(error)(*error.args)


class Writer:
    """Owns the file. ``run`` is the thread; nothing else may be called from outside it."""

    def __init__(
        self, mailbox: Mailbox, directory: Path, *, max_bytes: int, min_free_bytes: int, hooks: SpoolHooks
    ) -> None:
        self._mailbox = mailbox
        self._directory = directory
        self._hooks = hooks
        self._room = Room(
            directory, max_bytes=max_bytes, min_free_bytes=min_free_bytes, hooks=hooks, report=mailbox.report
        )
        self._deletes = PendingDeletes()
        self._counts = Counts()
        self._lock_fd: int | None = None
        self._file: SpoolFile | None = None
        self._down: SpoolError | None = None  # why there is no file
        self._failed_at = 0.0
        self._untrusted: tuple[str, Source, list[Source]] | None = None  # see `exchange`
        self._reads: deque[Read] = deque()  # not done yet
        self._checking = Checking(directory, mailbox.report)
        self._bad_rows_of_file = 0
        self._ledger = Ledger()
        self._meta: dict[str, str] = {}
        self._uncheckpointed = 0  # written since the last checkpoint, about
        self._checkpoint_wanted = False
        self._checkpointed_at = 0.0
        self._shrunk_at = 0.0

    # ── life ──

    def run(self) -> None:
        """Open, then work in rounds until closed. The lock is released last."""
        try:
            if not self._start():
                return
            while True:
                ops = self._mailbox.take(self._wait_seconds(), _COMMIT_BYTES)
                self._round(ops)
                if ops and isinstance(ops[-1], Close):
                    break
            self._finish_deletes()
            self._close_file()
        except LoopClosed:
            self._close_file()
        finally:
            if self._lock_fd is not None:
                os.close(self._lock_fd)
        self._mailbox.tell_ended()

    def _start(self) -> bool:
        try:
            self._lock_fd = lock_directory(self._directory)
            self._room.find_ballast()
            self._open()
            if self._salvages and self._file is not None:
                self._checking.opened(self._file)
            else:
                self._counts.recovered_reports = self._ledger.reports
            self._room.look(self._file)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller of `open` must hear of it
            self._mailbox.tell_opened(self._spool_error(error))
            return False
        self._post()
        self._mailbox.tell_opened()
        return True

    def _wait_seconds(self) -> float:
        """How long to wait for an operation before the next round."""
        if self._has_work:
            return 0.0
        if self._deletes and self._file is not None and not self._deletes.failed:
            return 0.0
        return LOOK_SECONDS if self._deletes or self._refusal() is not None else _IDLE_SECONDS

    def _finish_deletes(self) -> None:
        """Do the rest of large deletes, in rounds, until one fails: those rows are then published again."""
        errors = self._counts.write_errors
        while self._deletes and self._file is not None and self._counts.write_errors == errors:
            self._round([])

    def _close_file(self) -> None:
        """Close with SQLite's last checkpoint; if the disk refuses it, the WAL stays and is read at the next start."""
        if self._file is not None:
            try:
                self._file.close()
            except DISK_ERRORS:
                self._counts.write_errors += 1

    # ── rounds ──

    def _round(self, ops: list[Op]) -> None:
        """One commit for the appends and deletes, then the reads; whatever goes wrong, everything is answered."""
        self._deletes.begin(ops)
        try:
            self._room.look_if_due(self._file)
            self._reopen_if_due()
            self._execute(ops)
            if self._has_work:
                self._post()  # what is durable need not wait for what is read
                self._read_for_a_moment()
            self._maintain(idle=not ops and not self._has_work)
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread and leave callers waiting
            self._counts.write_errors += 1
            message = f"the spool's thread: {type(error).__name__}: {error}"
            self._mailbox.report(SpoolEvent("failed", message))
            self._reads.clear()
            self._checking.failed()
            self._mailbox.fail_unanswered(SpoolFailed(message))
            self._deletes.note_unplanned()
        self._post()

    def _execute(self, ops: Iterable[Op]) -> None:
        """Appends and deletes between two calls are one transaction; each call is one; reads come later."""
        writes: list[Append | Delete] = []
        for op in ops:
            if isinstance(op, Append | Delete):
                writes.append(op)
            elif isinstance(op, Read):
                self._reads.append(op)
            elif isinstance(op, Call):
                self._write(writes)
                writes = []
                self._answer_with(op)
        self._write(writes)

    @property
    def _has_work(self) -> bool:
        """Whether the next round reads."""
        file = self._file
        return bool(self._reads and not self._salvages) or (
            file is not None and not file.checked and self._checking.is_due
        )

    def _read_for_a_moment(self) -> None:
        """Do reads first, then what is to be checked. While rows are taken over from a damaged file, reads wait for them."""
        until = time.monotonic() + _READ_SECONDS
        while self._reads and not self._salvages:
            self._read_piece(self._reads[0])
            if time.monotonic() >= until:
                return
        file = self._file
        if file is None:
            return
        try:
            self._uncheckpointed += self._checking.work(file, until)
        except DISK_ERRORS as failure:
            self._checking.failed()
            self._failed(failure)
        if self._file is not None:
            self._ledger, self._meta = self._file.ledger, self._file.meta

    def _write(self, ops: Sequence[Append | Delete]) -> None:
        """Commit appends and deletes, and retry deletes that are left; on failure all these appends fail."""
        planned = self._deletes.plan(ops)
        appends = [op for op, _ in planned]
        if not appends and not self._deletes:
            return
        error = self._refusal(sum([op.cost_bytes for op in appends])) if appends else None
        if error is None and self._file is not None:  # without one deletes wait, and are no failure: it would
            # put off the next attempt to open one
            try:
                self._commit([row for _, rows in planned for row in rows])
            except _RULES as wrong:
                self._write_singly(planned, wrong)
                return
            except DISK_ERRORS as failure:
                error = self._failed(failure)
        if error is not None and self._deletes and self._file is not None:
            try:
                self._commit([])  # with the ballast freed there is room for these
            except DISK_ERRORS as failure:
                self._failed(failure)
                self._deletes.failed = True
        for op in appends:
            self._mailbox.answer(op, None, again(error) if error else None)

    def _commit(self, rows: Sequence[EncodedRow]) -> None:
        """One transaction: the deletes, then ``rows``."""
        if self._file is None:
            raise OSError("there is no file")
        before = self._ledger.rows
        self._deletes.done(self._file.commit(rows, self._deletes.through))
        self._ledger = self._file.ledger
        self._counts.commits += 1
        deleted = before + len(rows) - self._ledger.rows
        cost = sum([row.cost_bytes for row in rows])
        leaves = len({row.lane for row in rows}) + deleted // 2 + 4  # a lane's index page; about what deletes touch
        self._uncheckpointed += cost + leaves * PAGE_BYTES
        self._room.take(cost)
        if deleted and self._room.is_tight:
            self._room.look(self._file)  # there may be room again for the next commit

    def _write_singly(self, planned: Sequence[PlannedAppend], cause: Exception) -> None:
        """One append breaks a rule (its seq is taken, a number is too large): the others must not pay for it."""
        for op, rows in planned:
            error: Exception | None = None
            try:
                if self._file is None:
                    error = SpoolFailed(f"the disk failed after {cause}")
                else:
                    self._commit(rows)
            except _RULES as wrong:
                error = ValueError(f"rows {[(row.lane, row.seq) for row in rows][:4]}: {wrong}")
            except DISK_ERRORS as failure:
                error = self._failed(failure)
            self._mailbox.answer(op, None, error)

    @property
    def _salvages(self) -> bool:
        """Whether rows of a damaged file are being taken over, or will be."""
        return self._untrusted is not None or (self._file is not None and bool(self._file.sources.files))

    def _read_piece(self, read: Read) -> None:
        """Read a piece of what is asked for; answer when that is all, or when it has taken its time."""
        now = time.monotonic()
        read.began = read.began or now
        file = self._file
        more, error = self._attempt(partial(self._read, read), file) if file is not None else (None, self._no_file())
        if error is not None and self._salvages:
            return  # the file was damaged: the new one will have what is whole
        if error is not None or not more or now - read.began > _READ_AT_MOST_SECONDS:
            self._reads.popleft()
            self._mailbox.answer(read, read.rows, error)

    def _read(self, read: Read, file: SpoolFile) -> bool:
        """Whether there may be more."""
        after = max(read.after_seq, self._deletes.through.get(read.lane, read.after_seq))
        rows = file.read(read.lane, after, read.max_bytes)
        self._ledger, self._meta = file.ledger, file.meta
        if rows.good and not (read.rows and rows.size > read.max_bytes):
            read.rows += rows.good
            read.after_seq = rows.good[-1].seq
        read.max_bytes -= rows.size
        for row, reason in rows.bad:
            self._counts.damaged_rows += 1
            self._bad_rows_of_file += 1
            message = f"lane {row.lane}, seq {row.seq}: dead-lettered: {reason}"
            self._mailbox.report(SpoolEvent("damaged_row", message, None, 1, row.n))
        if self._bad_rows_of_file >= _MANY_BAD_ROWS:
            self._exchange("rows")
        return bool(rows.good) and read.max_bytes > 0

    # ── answers ──

    def _answer_with(self, op: Call) -> None:
        file = self._file
        result, error = self._attempt(op.run, file) if file is not None else (None, self._no_file())
        if self._file is not None:
            self._ledger, self._meta = self._file.ledger, self._file.meta
        self._mailbox.answer(op, result, error)

    def _no_file(self) -> SpoolError:
        return self._down or SpoolFailed("the spool has no file")

    def _attempt(self, run: Callable[[SpoolFile], object], file: SpoolFile) -> tuple[object, Exception | None]:
        try:
            return run(file), None
        except DISK_ERRORS as failure:
            return None, self._failed(failure)
        except (KeyError, ValueError) as wrong:
            return None, wrong

    def _refusal(self, cost_bytes: int = 0) -> SpoolError | None:
        """Why no append of that size is taken now; None if it is."""
        return self._down if self._file is None else self._room.refusal(cost_bytes)

    def _post(self) -> None:
        self._mailbox.post(self._stats(), self._meta, self._room.left(), self._refusal())

    def _stats(self) -> SpoolStats:
        ledger, counts, room = self._ledger, self._counts, self._room
        return SpoolStats(
            lanes=ledger.lanes,
            rows=ledger.rows,
            reports=ledger.reports,
            bytes=ledger.bytes,
            oldest_at_ms=ledger.oldest_at_ms(),
            recovered_reports_at_start=counts.recovered_reports + self._checking.salvaged_at_start,
            dead_letter_rows=ledger.dead_letter_rows,
            dead_letter_reports=ledger.dead_letter_reports,
            damaged_files=counts.damaged_files,
            kept_damaged_files=room.kept_damaged_files,
            damaged_rows=counts.damaged_rows,
            write_errors=counts.write_errors,
            commits=counts.commits,
            pending_deletes=len(self._deletes),
            file_bytes=room.file_bytes,
            free_bytes=room.free_bytes,
            writable=self._refusal(_ORDINARY_BYTES) is None,
            salvaging=self._salvages,
            checked=self._file is not None and self._file.checked,
            checked_share=self._checking.share(self._file) if self._file is not None else 0.0,
        )

    # ── failures ──

    def _failed(self, failure: Exception) -> SpoolError:
        """Draw the consequences of an error of the disk; returns the error for its appends."""
        self._counts.write_errors += 1
        kind = failure_of(failure, self._directory)
        error = self._spool_error(failure)
        if kind == "full":
            self._room.free_ballast()
            self._checkpoint_wanted = True  # into the ballast's room; deletes then need none for themselves
        else:
            self._mailbox.report(SpoolEvent("failed", str(error)))
        if kind == "damaged":
            self._exchange("io")
        self._failed_at = time.monotonic()
        return error

    def _spool_error(self, failure: Exception) -> SpoolError:
        if isinstance(failure, SpoolError):
            return failure
        kind = SpoolFull if failure_of(failure, self._directory) == "full" else SpoolFailed
        name = getattr(failure, "sqlite_errorname", type(failure).__name__)
        return kind(f"{self._directory}: {name}: {failure}")

    def _exchange(self, reason: str) -> None:
        """Stop trusting the file: a new one takes its place, and then its whole rows. If that fails, it is tried again."""
        file, self._file = self._file, None
        if file is None:
            return
        firsts = {lane: stats.first_seq for lane, stats in file.ledger.lanes.items()}
        source = Source("", 0, firsts, {(row.lane, row.seq) for row in file.doubtful})
        self._untrusted = reason, source, file.sources.files
        self._checking.exchanged(file.ledger)
        file.abandon()
        self._open_or_note()

    def _open(self) -> None:
        self._room.make_room_to_open()
        if self._untrusted is not None:
            self._note(exchange(self._directory, *self._untrusted))
            self._untrusted = None
        file, moved_to = SpoolFile.open(self._directory, self._hooks, max_pages=self._room.max_pages)
        if moved_to is not None:
            self._note(moved_to)
        self._file, self._down = file, None
        self._ledger, self._meta = file.ledger, file.meta
        self._bad_rows_of_file = 0

    def _open_or_note(self) -> bool:
        try:
            self._open()
        except DISK_ERRORS as failure:
            self._counts.write_errors += 1
            self._down = self._spool_error(failure)
            self._failed_at = time.monotonic()
            return False
        return True

    def _note(self, moved_to: Path) -> None:
        self._counts.damaged_files += 1
        self._room.recount_damaged()
        message = f"{moved_to}: a damaged file was moved here; its whole rows are being taken over"
        self._mailbox.report(SpoolEvent("damaged_file", message, moved_to))

    def _reopen_if_due(self) -> None:
        if self._file is not None or time.monotonic() - self._failed_at < RETRY_SECONDS:
            return
        if self._open_or_note():
            self._mailbox.report(SpoolEvent("recovered", f"{self._directory}: the spool could be opened again"))

    # ── maintenance ──

    def _maintain(self, *, idle: bool) -> None:
        """Checkpoint when the WAL is long; shrink the file when there is nothing to do and little in it."""
        if self._file is None:
            return
        now = time.monotonic()
        room = self._room
        empty = self._ledger.rows == 0 and self._mailbox.is_empty
        try:
            if (empty or idle) and now - self._shrunk_at >= _IDLE_SECONDS and self._is_large_for_its_rows():
                self._shrunk_at = now
                self._file.shrink()
                self._uncheckpointed = 0
                room.look(self._file)
            elif self._uncheckpointed >= room.wal_bytes or (
                (self._checkpoint_wanted or room.wal_excess_bytes) and now - self._checkpointed_at >= LOOK_SECONDS
            ):
                self._uncheckpointed = 0
                self._checkpointed_at = now
                self._file.checkpoint(truncate=self._file.wal_bytes() > 2 * room.wal_bytes)
                self._checkpoint_wanted = False
                room.look(self._file)
        except DISK_ERRORS as failure:
            self._failed(failure)

    def _is_large_for_its_rows(self) -> bool:
        return self._file is not None and self._file.file_bytes() > SMALL_BYTES + 4 * self._ledger.bytes
