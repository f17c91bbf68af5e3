"""The spool: makes a lane's waiting entries durable on disk while Kafka can't take them.

`Spool` is its face on the event loop; nothing in it blocks. Behind it one thread, `bridge.spool.writer`, owns the file
(`bridge.spool.format` specifies it) and commits in groups: whatever is queued while one commit runs is one transaction of
the next, with one fsync.

Invariants
==========
- The future of an append resolves only after the fsync of a transaction that holds all its rows, or after a delete that
  was queued behind it covers them. It fails only when none of its rows is in the queue: where the fsync itself failed,
  the file that takes the damaged one's place leaves them out. (If the process is killed in between, they may be in the
  file at the next start.)
- Appends and deletes take effect in the order they were called: a delete never leaves a row appended before it, and never
  takes one appended after it.
- A delete is never forgotten: one that fails is tried until it succeeds, and a close finishes those that are left. A read
  never shows a row that a delete has covered.
- Appends are taken only while the ballast stands; deletes, reads and checkpoints go on without.
- Every future is answered, whatever fails; one ``call_soon_threadsafe`` a commit, not a row.
- Disk in use, except for ``damaged/``, stays within ``max_bytes``: pages in use, ballast, and twice the WAL's bound.
  The rows of a damaged file are taken over beyond that bound, if the disk has room; appends are refused then.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from bridge.errors import SpoolError, SpoolFailed, SpoolFull
from bridge.spool.file import SpoolFile, SpoolHooks
from bridge.spool.mailbox import Append, Call, Close, Delete, Mailbox, Op, Read, Settled
from bridge.spool.rows import DeadLetter, SpoolRow, encode_row
from bridge.spool.stats import SpoolEvent, SpoolStats
from bridge.spool.writer import Writer, again

_LOOK_SECONDS = 0.05


class Spool:
    """The spool of one directory, owned by this process. Call it only on the thread of its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_event: Callable[[SpoolEvent], None] | None) -> None:
        """Use `open`."""
        self._loop = loop
        self._on_event = on_event
        self._mailbox = Mailbox(loop, self._settle)
        self._futures: set[asyncio.Future[Any]] = set()
        self._waiting_since: deque[float] = deque()
        self._queued_bytes = 0
        self._room_bytes = 0
        self._refusal: SpoolError | None = None
        self._meta: dict[str, str] = {}
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
    ) -> Self:
        """Own a directory, made if absent, and open its spool, which takes as long whatever is in it.

        Whether the file is whole is looked at behind that, and what a damaged one holds is taken over: see the stats.

        ``max_bytes`` bounds the disk it takes (`damaged/` apart), ``min_free_bytes`` is left free on the file system.
        ``on_event`` is called on the loop.

        Raises:
            SpoolBusy: another process owns it.
            SpoolTooNew: a newer bridge wrote it; nothing was touched.
            SpoolFull: there is no room even for an empty one.
            SpoolFailed: the disk does not let it be made or read.
        """
        loop = asyncio.get_running_loop()
        spool = cls(loop, on_event)
        writer = Writer(
            spool._mailbox,
            directory,
            max_bytes=max_bytes,
            min_free_bytes=min_free_bytes,
            hooks=hooks or SpoolHooks(),
        )
        threading.Thread(target=writer.run, name="spool", daemon=True).start()
        try:
            await asyncio.shield(spool._mailbox.opened)
        except asyncio.CancelledError:
            spool._mailbox.put(Close())
            raise
        return spool

    @property
    def oldest_waiting_seconds(self) -> float:
        """Age of the oldest append that is neither durable nor refused yet; 0.0 if there is none."""
        return time.monotonic() - self._waiting_since[0] if self._waiting_since else 0.0

    async def wait_until_checked(self) -> None:
        """Wait until the file is checked, and all rows of a damaged one are taken over."""
        while not self.stats.checked:  # noqa: ASYNC110 - what is awaited sets no event
            await asyncio.sleep(_LOOK_SECONDS)

    def append(self, rows: Sequence[SpoolRow]) -> asyncio.Future[None]:
        """Make rows durable, all in one transaction; resolves after its fsync.

        Costs the loop about a microsecond a row and a few more a call. The rows are encoded here, which is cheaper than to
        measure them; the thread would hold the same GIL for as long.

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
            future.set_exception(again(refusal))
            return future
        self._queued_bytes += cost
        self._waiting_since.append(time.monotonic())
        self._futures.add(future)
        self._mailbox.put(Append(encoded, cost, future))
        return future

    def delete_through(self, lane: int, seq: int) -> None:
        """Delete a lane's rows up to ``seq``, those of earlier appends too. Tried until it succeeds; see the stats."""
        if not self._closing:
            self._mailbox.put(Delete(lane, seq))

    def read(self, lane: int, after_seq: int, *, max_bytes: int) -> asyncio.Future[list[SpoolRow]]:
        """Rows of a lane behind ``after_seq``, by seq: as many as fit ``max_bytes`` of bodies, one at least if any.

        Rows that their CRC does not prove are dead-lettered and left out. Raises SpoolFailed by the future.
        """
        return self._ask(lambda future: Read(lane, after_seq, max_bytes, future))

    def dead_letter(self, rows: Sequence[SpoolRow], reason: str) -> asyncio.Future[None]:
        """Make rows dead letters. A row that the queue holds unchanged leaves it in the same transaction.

        A part of a queued lane entry (other records under its lane and seq) leaves the entry in the queue.
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
        """The text that `set_meta` last made durable."""
        return self._meta.get(key)

    def set_meta(self, key: str, value: str) -> asyncio.Future[None]:
        """Store a text next to the rows, such as the number of lanes."""
        return self._call(lambda file: file.set_meta(key, value))

    async def close(self, timeout_seconds: float) -> None:
        """Finish what is queued, checkpoint, release the directory.

        Bounded: after ``timeout_seconds`` nobody waits any longer for the thread (a daemon), which keeps the directory's
        lock, and all that is unanswered fails with SpoolFailed.
        """
        if not self._closing:
            self._closing = True
            self._refusal = SpoolFailed("the spool is closed")
            self._mailbox.put(Close())
        await asyncio.wait([self._mailbox.ended], timeout=timeout_seconds)
        for future in self._futures:
            if not future.done():
                future.set_exception(SpoolFailed("the spool was closed before the disk answered"))
        self._futures.clear()
        self._waiting_since.clear()

    def _call(self, run: Callable[[SpoolFile], Any]) -> asyncio.Future[Any]:
        return self._ask(lambda future: Call(run, future))

    def _ask(self, op: Callable[[asyncio.Future[Any]], Op]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing:
            future.set_exception(SpoolFailed("the spool is closed"))
        else:
            self._futures.add(future)
            self._mailbox.put(op(future))
        return future

    def _settle(self, settled: Settled) -> None:
        """Take in what the thread did: one call for everything that one commit settled."""
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
                continue  # the caller cancelled it
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        for event in settled.events:
            if self._on_event is not None:
                self._on_event(event)
