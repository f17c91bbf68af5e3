"""How the event loop and the spool's thread talk: operations go in, settlements come out.

The loop puts operations; the thread takes them in rounds, answers each and posts: one ``call_soon_threadsafe`` brings
all the answers of a commit to the loop, not one a row.
"""

import asyncio
import queue
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import SpoolError
from bridge.spool.file import SpoolFile
from bridge.spool.rows import EncodedRow, SpoolRow
from bridge.spool.stats import SpoolEvent, SpoolStats


@dataclass(slots=True)
class Append:
    """Rows to be made durable together."""

    rows: list[EncodedRow]
    cost_bytes: int
    future: asyncio.Future[Any]


@dataclass(slots=True)
class Delete:
    """A lane's rows up to ``seq``."""

    lane: int
    seq: int


@dataclass(slots=True)
class Read:
    """Rows of a lane behind ``after_seq``."""

    lane: int
    after_seq: int
    max_bytes: int
    future: asyncio.Future[Any]
    began: float | None = None
    rows: list[SpoolRow] = field(default_factory=list)


@dataclass(slots=True)
class Call:
    """Anything rare, done apart from the appends and deletes around it."""

    run: Callable[[SpoolFile], object]
    future: asyncio.Future[Any]


class Close:
    """The last operation."""


Op = Append | Delete | Read | Call | Close
Asked = Append | Read | Call
"""The operations that have a future to be answered."""
Answer = tuple[asyncio.Future[Any], object, Exception | None]
"""A future, its result, and the error instead of one."""


@dataclass(slots=True)
class Settled:
    """All the answers of a round, and how the spool is after it.

    ``room_bytes`` may still be queued; with a ``refusal`` nothing may.
    """

    answers: list[Answer]
    appends: int
    appended_bytes: int
    events: list[SpoolEvent]
    stats: SpoolStats
    meta: dict[str, str]
    room_bytes: int
    refusal: SpoolError | None


class LoopClosed(Exception):  # noqa: N818 - named for what is the case
    """The event loop was closed before the spool: nobody is left to be answered."""


class Mailbox:
    """Between one loop and one thread. The loop may call `put` and await the two futures; the rest is the thread's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_settled: Callable[[Settled], None]) -> None:
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._on_settled = on_settled
        self._ops: queue.SimpleQueue[Op] = queue.SimpleQueue()
        self._unanswered: dict[int, Asked] = {}
        self._answers: list[Answer] = []
        self._appends = 0
        self._appended_bytes = 0
        self._events: list[SpoolEvent] = []

    # ── the loop's side ──

    def put(self, op: Op) -> None:
        """Queue an operation."""
        self._ops.put(op)

    # ── the thread's side ──

    def take(self, timeout_seconds: float, max_bytes: int) -> list[Op]:
        """Take what is queued, up to ``max_bytes`` of appends; wait for the first until the timeout."""
        size = 0
        ops: list[Op] = []
        try:
            while size < max_bytes:
                op = self._ops.get(timeout=0 if ops else timeout_seconds)
                ops.append(op)
                size += op.cost_bytes if isinstance(op, Append) else 0
                if isinstance(op, Close):
                    break
        except queue.Empty:
            pass  # that was everything
        self._unanswered |= {id(op): op for op in ops if isinstance(op, Asked)}
        return ops

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued."""
        return self._ops.empty()

    @property
    def has_answers(self) -> bool:
        """Whether answers wait for the next `post`."""
        return bool(self._answers)

    def answer(self, op: Asked, result: object, error: Exception | None) -> None:
        """Answer an operation that was taken, once."""
        del self._unanswered[id(op)]
        self._answers.append((op.future, result, error))
        if isinstance(op, Append):
            self._appends += 1
            self._appended_bytes += op.cost_bytes

    def fail_unanswered(self, error: Exception) -> None:
        """Answer every operation that was taken and has no answer yet."""
        for op in list(self._unanswered.values()):
            self.answer(op, None, error)

    def report(self, event: SpoolEvent) -> None:
        """Send an event along with the next `post`."""
        self._events.append(event)

    def post(self, stats: SpoolStats, meta: dict[str, str], room_bytes: int, refusal: SpoolError | None) -> None:
        """Send the answers and events to the loop, with how the spool is now.

        Raises:
            LoopClosed: the loop is closed.
        """
        settled = Settled(
            self._answers, self._appends, self._appended_bytes, self._events, stats, meta, room_bytes, refusal
        )
        self._answers, self._events = [], []
        self._appends = self._appended_bytes = 0
        self._call(lambda: self._on_settled(settled))

    def tell_opened(self, error: Exception | None = None) -> None:
        """Resolve `opened`."""
        self._resolve(self.opened, error)

    def tell_ended(self) -> None:
        """Resolve `ended`."""
        self._resolve(self.ended, None)

    def _resolve(self, future: asyncio.Future[None], error: Exception | None) -> None:
        def resolve() -> None:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        with suppress(LoopClosed):  # then nobody waits for it any more
            self._call(resolve)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError as error:
            if self._loop.is_closed():
                raise LoopClosed from error
            raise
