"""The spool: makes a lane's waiting groups durable on disk while Kafka can't take them.

`Spool` is its face on the event loop; nothing in it blocks. Behind it one thread, `_Writer`, owns the file
(`bridge.spool.file`: format, damage) and commits in groups: whatever is queued while one commit runs is one
transaction of the next, with one fsync.

Invariants
==========
- The future of an append resolves only after the fsync of a transaction that holds all its rows, or after a delete that
  was queued behind it covers them. It fails only when none of its rows is in the queue: where the fsync itself failed,
  the file that takes the damaged one's place leaves them out. (Killed in between, they may be there at the next start.)
- Appends and deletes take effect in the order they were called: a delete never leaves a row appended before it, and never
  takes one appended after it.
- A delete is never forgotten: one that fails is tried until it succeeds, and a close does what is left of them. A read
  never shows what a delete has covered.
- Appends are taken only while the ballast stands; deletes, reads and checkpoints go on without.
- Every future is answered, whatever fails; one ``call_soon_threadsafe`` a commit, not a row.
- Disk in use, except for ``damaged/``, stays within ``max_bytes``: pages in use, ballast, and twice the WAL's bound.
"""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from bridge.errors import SpoolError, SpoolFailed, SpoolFull
from bridge.spool.file import (
    BALLAST_BYTES,
    DISK_ERRORS,
    SMALL_BYTES,
    WAL_BYTES,
    Ballast,
    DeadLetter,
    EncodedRow,
    LaneStats,
    Ledger,
    Rebuilt,
    SpoolFile,
    SpoolHooks,
    SpoolReader,
    SpoolRow,
    encode_row,
    failure_of,
    lock_directory,
    open_read_only,
    rebuild,
)
from bridge.spool.salvage import PAGE_BYTES

__all__ = [
    "DeadLetter",
    "LaneStats",
    "Spool",
    "SpoolEvent",
    "SpoolHooks",
    "SpoolReader",
    "SpoolRow",
    "SpoolStats",
    "open_read_only",
]

_LOOK_SECONDS: Final = 0.1
"""How often free space is looked at while something is written, or while appends are refused."""
_IDLE_SECONDS: Final = 1.0
_COUNT_SECONDS: Final = 5.0
"""Between counts of the files moved aside as damaged."""
_RETRY_SECONDS: Final = 1.0
"""Between attempts to open a file that could not be opened, and to make a ballast that had to be freed."""
_ORDINARY_BYTES: Final = 16 << 10
"""What an append of ordinary size costs: where there is less room, it is as good as none."""
_COMMIT_BYTES: Final = 4 << 20
"""Bodies beyond which what is queued is left for the next commit."""
_RULES: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
)
"""What a row that can't be stored raises, whatever the disk."""
_MANY_BAD_ROWS: Final = 100
"""So many bad rows found by reading, and the file as a whole is taken for damaged."""


class SpoolEvent(msgspec.Struct, frozen=True):
    """Something an operator should hear of; no event carries a key or a value.

    ``damaged_file``: moved to ``path``, ``rows`` and ``reports`` taken over. ``damaged_row``: dead-lettered.
    ``full``: appends are refused. ``failed``: the disk failed. ``recovered``: appends are taken again.
    """

    kind: Literal["damaged_file", "damaged_row", "full", "failed", "recovered"]
    message: str
    path: Path | None = None
    rows: int = 0
    reports: int = 0


class SpoolStats(msgspec.Struct, frozen=True):
    """As of the last commit or look. Lanes with nothing in them are absent; ``bytes`` are of bodies.

    ``file_bytes`` is the disk the file and its WAL take, ``free_bytes`` what the file system has left for us.
    ``kept_damaged_files`` lie aside in the directory, those of earlier lives too, as ``damaged_files`` are this life's.
    ``pending_deletes`` are lanes with a delete not done yet. ``writable``: an append of ordinary size would be taken now.
    """

    lanes: dict[int, LaneStats] = {}
    rows: int = 0
    reports: int = 0
    bytes: int = 0
    oldest_at_ms: int | None = None
    recovered_reports_at_start: int = 0
    dead_letter_rows: int = 0
    dead_letter_reports: int = 0
    damaged_files: int = 0
    kept_damaged_files: int = 0
    damaged_rows: int = 0
    write_errors: int = 0
    commits: int = 0
    pending_deletes: int = 0
    file_bytes: int = 0
    free_bytes: int = 0
    writable: bool = False


# ── what the loop hands to the thread, and back ──────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Append:
    rows: list[EncodedRow]
    cost_bytes: int
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Delete:
    lane: int
    seq: int


@dataclass(slots=True)
class _Read:
    lane: int
    after_seq: int
    max_bytes: int
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Call:
    """Anything rare, as a transaction of its own; the close as well."""

    run: Callable[[SpoolFile], object]
    future: asyncio.Future[Any]


class _Close:
    """The last one."""


_Op = _Append | _Delete | _Read | _Call | _Close
_Asked = _Append | _Read | _Call
_Answer = tuple[asyncio.Future[Any], object, Exception | None]


@dataclass(slots=True)
class _Settled:
    """Answers, and how things are now. ``room_bytes`` is what may still be queued; ``refusal``: nothing may."""

    answers: list[_Answer]
    appends: int
    appended_bytes: int
    events: list[SpoolEvent]
    stats: SpoolStats
    meta: dict[str, str]
    room_bytes: int
    refusal: SpoolError | None


class Spool:
    """The spool of one directory, owned by this process. Call it from its event loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_event: Callable[[SpoolEvent], None] | None) -> None:
        """Use `open`."""
        self._loop = loop
        self._on_event = on_event
        self._queue: queue.SimpleQueue[_Op] = queue.SimpleQueue()
        self._futures: set[asyncio.Future[Any]] = set()
        self._waiting_since: deque[float] = deque()
        self._queued_bytes = 0
        self._room_bytes = 0
        self._refusal: SpoolError | None = None
        self._meta: dict[str, str] = {}
        self._opened: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._closing = False
        self.stats = SpoolStats()

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        max_bytes: int,
        min_free_bytes: int,
        on_event: Callable[[SpoolEvent], None] | None = None,
        hooks: SpoolHooks | None = None,
        schemas: bool = False,
    ) -> Self:
        """Own a directory, made if absent, and count what is in its spool.

        ``max_bytes`` bounds the disk it takes (`damaged/` apart), ``min_free_bytes`` is left free on the file system.
        ``on_event`` is called on the loop. ``schemas``: records may lack their schema's id, which an older bridge would not see.

        Raises:
            SpoolBusy: another process owns it.
            SpoolTooNew: a newer bridge wrote it; nothing was touched.
            SpoolFull: there is no room even for an empty one.
            SpoolFailed: the disk does not let it be made or read.
        """
        loop = asyncio.get_running_loop()
        spool = cls(loop, on_event)
        writer = _Writer(
            spool,
            directory,
            max_bytes=max_bytes,
            min_free_bytes=min_free_bytes,
            hooks=hooks or SpoolHooks(),
            schemas=schemas,
        )
        threading.Thread(target=writer.run, name="spool", daemon=True).start()
        try:
            await asyncio.shield(spool._opened)
        except asyncio.CancelledError:
            spool._queue.put(_Close())
            raise
        return spool

    @property
    def oldest_waiting_seconds(self) -> float:
        """Age of the oldest append that is neither durable nor refused yet; 0.0 if there is none."""
        return time.monotonic() - self._waiting_since[0] if self._waiting_since else 0.0

    def append(self, rows: Sequence[SpoolRow]) -> asyncio.Future[None]:
        """Make rows durable, all in one transaction; resolves after its fsync.

        Costs the loop about a microsecond a row and a few more a call: encoding here is cheaper than measuring the rows, and
        the thread would take the same time of the same GIL.

        Raises (by the future):
            SpoolFull: a bound is reached, or the disk's is; at once where that is known.
            SpoolFailed: the disk failed, or the spool is closed.
            ValueError: a ``(lane, seq)`` is in the spool already.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        refusal = self._refusal
        encoded = [] if refusal else [encode_row(row) for row in rows]
        cost = sum([row.cost_bytes for row in encoded])
        if refusal is None and self._queued_bytes + cost > self._room_bytes:
            refusal = SpoolFull(f"no room for {cost} bytes: the spool's bound, or the disk's, would be passed")
        if refusal is not None:
            future.set_exception(_again(refusal))
            return future
        self._queued_bytes += cost
        self._waiting_since.append(time.monotonic())
        self._futures.add(future)
        self._queue.put(_Append(encoded, cost, future))
        return future

    def delete_through(self, lane: int, seq: int) -> None:
        """Delete a lane's rows up to ``seq``, those of earlier appends too. Tried until it succeeds; see the stats."""
        if not self._closing:
            self._queue.put(_Delete(lane, seq))

    def read(self, lane: int, after_seq: int, *, max_bytes: int) -> asyncio.Future[list[SpoolRow]]:
        """Rows of a lane behind ``after_seq``, by seq: as many as fit ``max_bytes`` of bodies, one at least if any.

        Rows that their CRC does not prove are dead-lettered and left out. Raises SpoolFailed by the future.
        """
        return self._ask(lambda future: _Read(lane, after_seq, max_bytes, future))

    def dead_letter(self, rows: Sequence[SpoolRow], reason: str) -> asyncio.Future[None]:
        """Keep rows for good, out of the way. One that is in the queue just so leaves it in the same transaction.

        A part of a queued group (other records under its lane and seq) leaves the group where it is.
        """
        encoded = [encode_row(row) for row in rows]
        return self._call(lambda file: file.dead_letter(encoded, reason))

    def dead_letters(self, after_id: int = 0, *, max_bytes: int) -> asyncio.Future[list[DeadLetter]]:
        """Dead letters with a larger id, by id: as many as fit ``max_bytes`` of bodies, one at least if any."""
        return self._call(lambda file: file.dead_letters(after_id, max_bytes))

    def requeue(self, dead_letter_id: int, lane: int, seq: int) -> asyncio.Future[None]:
        """Queue a dead letter again, as ``(lane, seq)``. KeyError: no such row. ValueError: damaged, or seq taken."""
        return self._call(lambda file: file.requeue(dead_letter_id, lane, seq))

    def get_meta(self, key: str) -> str | None:
        """What `set_meta` last made durable."""
        return self._meta.get(key)

    def set_meta(self, key: str, value: str) -> asyncio.Future[None]:
        """Keep a text beside the rows, such as the number of lanes."""
        return self._call(lambda file: file.set_meta(key, value))

    async def close(self, timeout_seconds: float) -> None:
        """Finish what is queued, checkpoint, let go of the directory.

        Bounded: after ``timeout_seconds`` the thread is left to itself (a daemon) with the directory's lock, and whatever
        is unanswered fails with SpoolFailed.
        """
        if not self._closing:
            self._closing = True
            self._refusal = SpoolFailed("the spool is closed")
            self._queue.put(_Close())
        await asyncio.wait([self._ended], timeout=timeout_seconds)
        for future in self._futures:
            if not future.done():
                future.set_exception(SpoolFailed("the spool was closed before the disk answered"))
        self._futures.clear()
        self._waiting_since.clear()

    def _call(self, run: Callable[[SpoolFile], Any]) -> asyncio.Future[Any]:
        return self._ask(lambda future: _Call(run, future))

    def _ask(self, op: Callable[[asyncio.Future[Any]], _Op]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing:
            future.set_exception(SpoolFailed("the spool is closed"))
        else:
            self._futures.add(future)
            self._queue.put(op(future))
        return future

    def _settle(self, settled: _Settled) -> None:
        """Take in what the thread did: one call for all that one commit settled."""
        self.stats, self._meta = settled.stats, settled.meta
        self._room_bytes = settled.room_bytes
        if not self._closing:
            self._refusal = settled.refusal
        self._queued_bytes -= settled.appended_bytes
        for _ in range(min(settled.appends, len(self._waiting_since))):
            self._waiting_since.popleft()
        for future, result, error in settled.answers:
            self._futures.discard(future)
            if future.done():
                continue  # the caller gave up on it
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        for event in settled.events:
            if self._on_event is not None:
                self._on_event(event)


def _again(error: SpoolError) -> SpoolError:
    """The same error as an object of its own: one that is raised often would grow a traceback."""
    return type(error)(*error.args)


# ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Writer:
    """Owns the file. ``run`` is the thread; nothing else may be called from outside it."""

    def __init__(
        self,
        spool: Spool,
        directory: Path,
        *,
        max_bytes: int,
        min_free_bytes: int,
        hooks: SpoolHooks,
        schemas: bool,
    ) -> None:
        self._spool = spool
        self._loop = spool._loop  # noqa: SLF001 - one thing in two classes
        self._queue = spool._queue  # noqa: SLF001
        self._directory = directory
        self._hooks = hooks
        self._schemas = schemas
        self._min_free_bytes = min_free_bytes
        self._wal_bytes = min(WAL_BYTES, max_bytes // 16)
        self._ballast_bytes = min(BALLAST_BYTES, max_bytes // 8)
        self._capacity_bytes = max_bytes - self._ballast_bytes - 2 * self._wal_bytes
        self._max_pages = max_bytes // PAGE_BYTES
        self._file: SpoolFile | None = None
        self._ballast: Ballast | None = None
        self._lock_fd: int | None = None
        self._deletes: dict[int, int] = {}  # lane → through; what is left of them
        self._deletes_failed = False
        self._unplanned: list[_Delete] = []  # of this round, not in `_deletes` yet
        self._untrusted: tuple[str, dict[int, int], set[tuple[int, int]]] | None = None  # see `rebuild`
        self._answers: list[_Answer] = []
        self._events: list[SpoolEvent] = []
        self._settled_appends = 0
        self._settled_bytes = 0
        self._ledger = Ledger()
        self._meta: dict[str, str] = {}
        self._recovered_reports = 0
        self._damaged_files = 0
        self._kept_damaged_files = 0
        self._damaged_rows = 0
        self._bad_rows_of_file = 0
        self._write_errors = 0
        self._commits = 0
        self._used_bytes = 0
        self._file_bytes = 0
        self._free_bytes = 0
        self._unchecked_bytes = 0  # written since the last checkpoint, about
        self._wal_excess_bytes = 0  # what the WAL takes beyond its bound, because a reader does not let it be restarted
        self._checkpoint_wanted = False
        self._checkpointed_at = 0.0
        self._looked_at = 0.0
        self._counted_at = -_COUNT_SECONDS
        self._failed_at = 0.0
        self._freed_at = 0.0
        self._shrunk_at = 0.0
        self._down: SpoolError | None = None  # why there is no file

    # ── life ──

    def run(self) -> None:
        """Open, then rounds until closed. The lock goes last."""
        try:
            if not self._start():
                return
            while True:
                ops = self._take()
                closing = bool(ops) and isinstance(ops[-1], _Close)
                self._round(ops)
                if closing:
                    break
            self._finish_deletes()
            self._close_file()
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._close_file()  # the loop is gone without a close: nobody is left to be told
        finally:
            if self._lock_fd is not None:
                os.close(self._lock_fd)
        self._tell(self._spool._ended)  # noqa: SLF001 - one thing in two classes

    def _start(self) -> bool:
        try:
            self._lock_fd = lock_directory(self._directory, schemas=self._schemas)
            self._ballast = Ballast(self._directory, self._ballast_bytes)
            self._open()
            self._recovered_reports = self._ledger.reports
            self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, who opens must hear of it
            self._tell(self._spool._opened, self._spool_error(error))  # noqa: SLF001
            return False
        self._post()
        self._tell(self._spool._opened)  # noqa: SLF001
        return True

    def _tell(self, future: asyncio.Future[None], error: Exception | None = None) -> None:
        def answer() -> None:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(answer)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _finish_deletes(self) -> None:
        """What is left of large deletes, by turns; given up at the first that fails: the rows are published again."""
        errors = self._write_errors
        while self._deletes and self._file is not None and self._write_errors == errors:
            self._round([])

    def _close_file(self) -> None:
        """Close with SQLite's last checkpoint; if the disk refuses it, the WAL stays and is read at the next start."""
        if self._file is not None:
            try:
                self._file.close()
            except DISK_ERRORS:
                self._write_errors += 1

    # ── rounds ──

    def _take(self) -> list[_Op]:
        """Everything queued up to `_COMMIT_BYTES`; waits for the first, not longer than the next look is due."""
        size = 0
        ops: list[_Op] = []
        try:
            while size < _COMMIT_BYTES:
                op = self._queue.get(timeout=0 if ops else self._patience_seconds())
                ops.append(op)
                size += op.cost_bytes if isinstance(op, _Append) else 0
                if isinstance(op, _Close):
                    break
        except queue.Empty:
            pass  # that was everything
        return ops

    def _patience_seconds(self) -> float:
        if self._deletes and self._file is not None and not self._deletes_failed:
            return 0.0
        return _LOOK_SECONDS if self._deletes or self._refusal() is not None else _IDLE_SECONDS

    def _round(self, ops: list[_Op]) -> None:
        """One commit for the appends and deletes, then the reads; whatever goes wrong, everything is answered."""
        unanswered = {id(op): op for op in ops if isinstance(op, _Asked)}
        self._unplanned = [op for op in ops if isinstance(op, _Delete)]
        try:
            self._look_if_due()
            self._reopen_if_due()
            self._execute(ops, unanswered)
            self._maintain(idle=not ops)
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread and leave callers waiting
            self._write_errors += 1
            self._events.append(SpoolEvent("failed", f"the spool's thread: {type(error).__name__}: {error}"))
            for op in unanswered.values():
                self._answer(op, None, SpoolFailed(f"the spool's thread: {type(error).__name__}: {error}"))
            self._note_deletes(self._unplanned)
        self._post()

    def _execute(self, ops: Iterable[_Op], unanswered: dict[int, _Asked]) -> None:
        """Appends and deletes between two calls are one transaction; each call is one; reads come last."""
        writes: list[_Append | _Delete] = []
        reads: list[_Read] = []
        for op in ops:
            if isinstance(op, _Append | _Delete):
                writes.append(op)
            elif isinstance(op, _Read):
                reads.append(op)
            elif isinstance(op, _Call):
                self._write(writes, unanswered)
                writes = []
                self._answer_with(op, op.run, unanswered)
        self._write(writes, unanswered)
        if self._answers and reads:
            self._post()  # what is durable need not wait for the reads
        for read in reads:
            self._answer_with(read, partial(self._read, read), unanswered)

    def _write(self, ops: Sequence[_Append | _Delete], unanswered: dict[int, _Asked]) -> None:
        """Commit appends and deletes, and retry deletes that are left; on failure all these appends fail."""
        planned = self._plan(ops)
        appends = [op for op, _ in planned]
        if not appends and not self._deletes:
            return
        error = self._refusal(sum([op.cost_bytes for op in appends])) if appends else None
        if error is None:
            try:
                self._commit([row for _, rows in planned for row in rows])
            except _RULES as wrong:
                self._write_singly(planned, unanswered, wrong)
                return
            except DISK_ERRORS as failure:
                error = self._failed(failure)
        if error is not None and self._deletes and self._file is not None:
            try:
                self._commit([])  # with the ballast gone there is room for these
            except DISK_ERRORS as failure:
                self._failed(failure)
                self._deletes_failed = True
        for op in appends:
            unanswered.pop(id(op))
            self._answer(op, None, _again(error) if error else None)

    def _plan(self, ops: Sequence[_Append | _Delete]) -> list[tuple[_Append, list[EncodedRow]]]:
        """Appends with the rows to insert, those left out that a later delete covers; notes the deletes.

        All that is left over goes in behind all the deletes: what a delete does not come after, it must not touch.
        """
        through: dict[int, int] = {}
        planned: list[tuple[_Append, list[EncodedRow]]] = []
        for op in reversed(ops):
            if isinstance(op, _Delete):
                through[op.lane] = max(op.seq, through.get(op.lane, op.seq))
            elif not through:
                planned.append((op, op.rows))
            else:
                left = [row for row in op.rows if row.seq > through.get(row.lane, row.seq - 1)]
                planned.append((op, left))
        deletes = [op for op in ops if isinstance(op, _Delete)]
        self._note_deletes(deletes)
        del self._unplanned[: len(deletes)]
        planned.reverse()
        return planned

    def _note_deletes(self, deletes: Iterable[_Delete]) -> None:
        for op in deletes:
            self._deletes[op.lane] = max(op.seq, self._deletes.get(op.lane, op.seq))

    def _commit(self, rows: Sequence[EncodedRow]) -> None:
        """One transaction: the deletes, then ``rows``."""
        if self._file is None:
            raise OSError("there is no file")
        before = self._ledger.rows
        self._deletes = self._file.commit(rows, self._deletes)
        self._deletes_failed = False
        self._ledger = self._file.ledger
        self._commits += 1
        deleted = before + len(rows) - self._ledger.rows
        cost = sum([row.cost_bytes for row in rows])
        leaves = len({row.lane for row in rows}) + deleted // 2 + 4  # a lane's index page; about what deletes touch
        self._unchecked_bytes += cost + leaves * PAGE_BYTES
        self._used_bytes += cost
        if deleted and self._is_tight():
            self._looked_at = 0.0  # there may be room again: look before the next commit
            self._look()

    def _write_singly(
        self,
        planned: Sequence[tuple[_Append, list[EncodedRow]]],
        unanswered: dict[int, _Asked],
        cause: Exception,
    ) -> None:
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
            unanswered.pop(id(op))
            self._answer(op, None, error)

    def _read(self, read: _Read, file: SpoolFile) -> list[SpoolRow]:
        after = max(read.after_seq, self._deletes.get(read.lane, read.after_seq))
        rows, bad = file.read(read.lane, after, read.max_bytes)
        self._ledger = file.ledger
        for row, reason in bad:
            self._damaged_rows += 1
            self._bad_rows_of_file += 1
            message = f"lane {row.lane}, seq {row.seq}: dead-lettered: {reason}"
            self._events.append(SpoolEvent("damaged_row", message, None, 1, row.n))
        if self._bad_rows_of_file >= _MANY_BAD_ROWS:
            self._exchange("rows")
        return rows

    def _answer_with(
        self, op: _Read | _Call, run: Callable[[SpoolFile], object], unanswered: dict[int, _Asked]
    ) -> None:
        result: object = None
        error: Exception | None = self._down or SpoolFailed("the spool has no file")
        file = self._file
        if self._file is not None:
            result, error = self._attempt(run, self._file)
        if error is not None and self._file is not file and self._file is not None and isinstance(op, _Read):
            result, error = self._attempt(run, self._file)  # the file was damaged: the new one has what is whole
        if self._file is not None:
            self._ledger, self._meta = self._file.ledger, self._file.meta
        unanswered.pop(id(op))
        self._answer(op, result, error)

    def _attempt(self, run: Callable[[SpoolFile], object], file: SpoolFile) -> tuple[object, Exception | None]:
        try:
            return run(file), None
        except DISK_ERRORS as failure:
            return None, self._failed(failure)
        except (KeyError, ValueError) as wrong:
            return None, wrong

    # ── answers ──

    def _answer(self, op: _Asked, result: object, error: Exception | None) -> None:
        self._answers.append((op.future, result, error))
        if isinstance(op, _Append):
            self._settled_appends += 1
            self._settled_bytes += op.cost_bytes

    def _post(self) -> None:
        refusal = self._refusal()
        settled = _Settled(
            self._answers,
            self._settled_appends,
            self._settled_bytes,
            self._events,
            self._stats(self._refusal(_ORDINARY_BYTES) is None),
            self._meta,
            self._room(),
            refusal,
        )
        self._answers, self._events = [], []
        self._settled_appends = self._settled_bytes = 0
        self._loop.call_soon_threadsafe(self._spool._settle, settled)  # noqa: SLF001 - one thing in two classes

    def _stats(self, writable: bool) -> SpoolStats:
        ledger = self._ledger
        return SpoolStats(
            lanes=ledger.lanes,
            rows=ledger.rows,
            reports=ledger.reports,
            bytes=ledger.bytes,
            oldest_at_ms=ledger.oldest_at_ms(),
            recovered_reports_at_start=self._recovered_reports,
            dead_letter_rows=ledger.dead_letter_rows,
            dead_letter_reports=ledger.dead_letter_reports,
            damaged_files=self._damaged_files,
            kept_damaged_files=self._kept_damaged_files,
            damaged_rows=self._damaged_rows,
            write_errors=self._write_errors,
            commits=self._commits,
            pending_deletes=len(self._deletes),
            file_bytes=self._file_bytes,
            free_bytes=self._free_bytes,
            writable=writable,
        )

    # ── room ──

    def _room(self) -> int:
        """Bytes that may still be appended."""
        return min(self._capacity_bytes - self._used_bytes, self._free_bytes - self._min_free_bytes)

    def _is_tight(self) -> bool:
        return self._room() < self._capacity_bytes // 8

    def _refusal(self, cost_bytes: int = 0) -> SpoolError | None:
        """Why no append of that size is taken now; None if it is."""
        if self._file is None:
            return self._down
        if self._ballast is None or not self._ballast.stands:
            return SpoolFull(f"{self._directory}: the disk is full")
        if self._capacity_bytes - self._used_bytes <= cost_bytes:
            return SpoolFull(f"{self._directory}: the spool's bound is reached")
        if self._free_bytes - self._min_free_bytes <= cost_bytes:
            return SpoolFull(f"{self._directory}: {self._free_bytes} bytes free, {self._min_free_bytes} to be left")
        return None

    def _look_if_due(self) -> None:
        tight = self._is_tight()
        if tight or time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._look()

    def _look(self) -> None:
        """Measure what is used and what is free; make the ballast again when there is room for it."""
        self._looked_at = time.monotonic()
        self._free_bytes = self._free()
        self._count_damaged()
        if self._file is not None:
            self._file_bytes = self._file.file_bytes()
            self._wal_excess_bytes = max(0, self._file.wal_bytes() - 2 * self._wal_bytes)
            self._used_bytes = self._file.used_bytes() + self._wal_excess_bytes
        ballast = self._ballast
        if ballast is None or ballast.stands or time.monotonic() - self._freed_at < _RETRY_SECONDS:
            return
        if self._free_bytes >= self._min_free_bytes + 2 * ballast.size_bytes and ballast.make():
            self._free_bytes = self._free()
            self._events.append(SpoolEvent("recovered", f"{self._directory}: there is room on the disk again"))

    def _count_damaged(self) -> None:
        """Files moved aside as damaged lie there until somebody takes them away, over restarts too."""
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            self._counted_at = now
            self._kept_damaged_files = len(list((self._directory / "damaged").glob("*")))

    def _free(self) -> int:
        stat = os.statvfs(self._directory)
        return self._hooks.free_bytes(stat.f_bavail * stat.f_frsize)

    def _make_room_to_open(self) -> None:
        """SQLite needs some blocks to open a file: on a full disk the ballast gives them."""
        if self._ballast is None:
            return
        self._free_bytes = self._free()
        if self._ballast.stands and self._free_bytes < self._ballast_bytes:
            self._free_ballast()
        elif not self._ballast.stands and self._free_bytes >= 2 * self._ballast_bytes:
            self._ballast.make()

    def _free_ballast(self) -> None:
        if self._ballast is not None and self._ballast.stands:
            self._ballast.free()
            self._events.append(SpoolEvent("full", f"{self._directory}: the disk is full"))
        self._freed_at = time.monotonic()

    # ── failures ──

    def _failed(self, failure: Exception) -> SpoolError:
        """Draw the consequences of an error of the disk; returns what its appends are told."""
        self._write_errors += 1
        kind = failure_of(failure, self._directory)
        error = self._spool_error(failure)
        if kind == "full":
            self._free_ballast()
            self._checkpoint_wanted = True  # into the ballast's room; then deletes need none of their own
        else:
            self._events.append(SpoolEvent("failed", str(error)))
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
        """The file is not trusted any more: a new one takes over what is whole; if that fails too, later again."""
        file, self._file = self._file, None
        if file is None:
            return
        firsts = {lane: stats.first_seq for lane, stats in file.ledger.lanes.items()}
        self._untrusted = reason, firsts, {(row.lane, row.seq) for row in file.doubtful}
        file.abandon()
        self._open_or_note()

    def _open(self) -> None:
        self._make_room_to_open()
        if self._untrusted is not None:
            self._note(rebuild(self._directory, *self._untrusted))
            self._untrusted = None
        file, rebuilt = SpoolFile.open(self._directory, self._hooks, max_pages=self._max_pages)
        if rebuilt is not None:
            self._note(rebuilt)
        self._file, self._down = file, None
        self._ledger, self._meta = file.ledger, file.meta
        self._bad_rows_of_file = 0

    def _open_or_note(self) -> bool:
        try:
            self._open()
        except DISK_ERRORS as failure:
            self._write_errors += 1
            self._down = self._spool_error(failure)
            self._failed_at = time.monotonic()
            return False
        return True

    def _note(self, rebuilt: Rebuilt) -> None:
        self._damaged_files += 1
        self._counted_at = -_COUNT_SECONDS
        message = f"{rebuilt.moved_to}: a damaged file was moved here; {rebuilt.rows} rows were taken over"
        self._events.append(SpoolEvent("damaged_file", message, rebuilt.moved_to, rebuilt.rows, rebuilt.reports))

    def _reopen_if_due(self) -> None:
        if self._file is not None or time.monotonic() - self._failed_at < _RETRY_SECONDS:
            return
        if self._open_or_note():
            self._events.append(SpoolEvent("recovered", f"{self._directory}: the spool could be opened again"))

    # ── maintenance ──

    def _maintain(self, *, idle: bool) -> None:
        """Checkpoint when the WAL is long; shrink the file when there is nothing to do and little in it."""
        if self._file is None:
            return
        now = time.monotonic()
        empty = self._ledger.rows == 0 and self._queue.empty()
        try:
            if (empty or idle) and now - self._shrunk_at >= _IDLE_SECONDS and self._is_large_for_its_rows():
                self._shrunk_at = now
                self._file.shrink()
                self._unchecked_bytes = 0
                self._look()
            elif self._unchecked_bytes >= self._wal_bytes or (
                (self._checkpoint_wanted or self._wal_excess_bytes) and now - self._checkpointed_at >= _LOOK_SECONDS
            ):
                self._unchecked_bytes = 0
                self._checkpointed_at = now
                self._file.checkpoint(truncate=self._file.wal_bytes() > 2 * self._wal_bytes)
                self._checkpoint_wanted = False
                self._look()
        except DISK_ERRORS as failure:
            self._failed(failure)

    def _is_large_for_its_rows(self) -> bool:
        return self._file is not None and self._file.file_bytes() > SMALL_BYTES + 4 * self._ledger.bytes
