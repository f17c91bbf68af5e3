"""The provider: pushes callbacks, and pushes again what is not answered 200 in time.

An answer has to be 200, to carry ``{"code":0,…}`` and to be whole within 3 s of the attempt's start; else the
same bytes are pushed again after 1 minute and once more after 5, and then never again. Connections are kept
alive; each carries one push at a time. A push that has a time is sent at that time whatever became of the
others (an open loop), and its latency counts from it: neither a busy connection nor a slow bridge makes a
late answer look quick. Pushes without a time are sent as fast as the connections take them.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus

import msgspec

from bridge.errors import ConfigurationError
from bridge.lab.simulate.answer import Answer, AnswerError
from bridge.lab.simulate.connection import Connection, Target
from bridge.lab.simulate.ledger import Attempt, LateAnswer, Ledger
from bridge.lab.simulate.push import Push
from bridge.lab.simulate.sequence import Sequence

_SUCCESS = b'{"code":0,"msg":"Success"}'
_EARLY_SECONDS = 0.001
"""Timers are this coarse: a push may go that much early, and is then measured from when it went."""
_BREATHE_EVERY = 16
_UNRESOLVED_PER_CONNECTION = 32


class ProviderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to push. Wrong values raise ConfigurationError.

    ``connections`` bounds how many pushes are in flight. ``retry_after_seconds`` are the waits before each
    retry, times ``retry_scale``. ``answer_timeout_seconds`` is never scaled. A connection that was idle for
    longer than ``idle_seconds`` is not used again: the other side may be about to close it, as the bridge does
    after ``limits.header_read_seconds``, and a push that meets that would have no answer. For ``late_answer_seconds``
    after a timeout the connection is still listened to, so that late answers are seen; 0 hangs up at once.
    ``ordered``: pushes with a message in common go one after the other (see ``sequence``). ``tls`` is for
    https; None verifies against the system's authorities.
    """

    connections: int = 64
    retry_after_seconds: tuple[float, ...] = (60.0, 300.0)
    retry_scale: float = 1.0
    answer_timeout_seconds: float = 3.0
    idle_seconds: float = 2.0
    late_answer_seconds: float = 2.0
    ordered: bool = False
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.connections < 1:
            raise ConfigurationError(f"connections is {self.connections}: at least 1")
        if self.answer_timeout_seconds <= 0:
            raise ConfigurationError(f"answer_timeout_seconds is {self.answer_timeout_seconds}: above 0")
        if self.retry_scale < 0 or self.late_answer_seconds < 0:
            raise ConfigurationError("retry_scale and late_answer_seconds can't be negative")


class _Job:
    """A push on its way: which attempt is next, and when it is meant to go (None: when it goes)."""

    __slots__ = ("attempt", "intended_at", "push")

    def __init__(self, push: Push, intended_at: float | None) -> None:
        self.push = push
        self.attempt = 1
        self.intended_at = intended_at


class _Ready:
    """Jobs that wait for a connection, first come first served, by the connection that was used last.

    So no more connections are opened than are needed at once, however many there may be.
    """

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._idle: list[asyncio.Future[_Job]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: _Job) -> None:
        while self._idle:
            worker = self._idle.pop()
            if not worker.done():
                worker.set_result(job)
                return
        self._jobs.append(job)

    async def get(self) -> _Job:
        if self._jobs:
            return self._jobs.popleft()
        worker: asyncio.Future[_Job] = asyncio.get_running_loop().create_future()
        self._idle.append(worker)
        return await worker


class Provider:
    """Pushes to one target and writes everything down in a ledger. One ``run`` for an instance."""

    def __init__(
        self,
        target: Target,
        ledger: Ledger,
        options: ProviderOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target, self._ledger, self._clock = target, ledger, clock
        self._options = options if options is not None else ProviderOptions()
        self._tls: ssl.SSLContext | None = None
        if target.scheme == "https":
            self._tls = self._options.tls or ssl.create_default_context()
        self._ready = _Ready()
        self._sequence = Sequence()
        self._held: dict[int, _Job] = {}
        self._unresolved = 0
        self._listening: set[Connection] = set()
        self._changed = asyncio.Event()
        self.waiting_for_retry = 0

    async def run(self, pushes: Iterable[Push]) -> None:
        """Push all; returns when each is acknowledged or given up.

        Raises OSError if the ledger can't be written, and whatever ``pushes`` raises.
        """
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self._options.connections)]
                await self._feed(pushes)
                await self._until(lambda: self._unresolved == 0 and not self._listening)
                for worker in workers:
                    worker.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the others are of the same cause
        finally:
            for connection in list(self._listening):
                connection.close()

    async def _feed(self, pushes: Iterable[Push]) -> None:
        """Hand each push to the workers when its time comes, or when there is room for it."""
        room = self._options.connections * _UNRESOLVED_PER_CONNECTION
        start = self._clock()
        for count, push in enumerate(pushes):
            intended_at = None
            if push.at_seconds is not None:
                intended_at = await self._sleep_until(start + push.at_seconds)
            else:
                await self._until(lambda: self._unresolved < room and len(self._ready) < self._options.connections)
            if count % _BREATHE_EVERY == 0:
                await asyncio.sleep(0)  # behind its time the loop above never waits; others have to run too
            self._unresolved += 1
            self._admit(_Job(push, intended_at))

    async def _sleep_until(self, due: float) -> float:
        """Sleep until ``due``, or a little less; the time to measure latency from."""
        if (ahead := due - self._clock()) > _EARLY_SECONDS:
            await asyncio.sleep(ahead - _EARLY_SECONDS)
        return min(due, self._clock())

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    def _admit(self, job: _Job) -> None:
        if not self._options.ordered or self._sequence.admit(job.push):
            self._ready.put(job)
        else:
            self._held[job.push.number] = job

    async def _work(self) -> None:
        """One connection: attempt after attempt, connecting again whenever it has to."""
        connection: Connection | None = None
        try:
            while True:
                idle_since = self._clock()
                job = await self._ready.get()
                self._changed.set()
                if connection is not None and self._clock() - idle_since > self._options.idle_seconds:
                    connection.close()
                connection = await self._attempt(job, connection)
        finally:
            if connection is not None:
                connection.close()

    async def _attempt(self, job: _Job, connection: Connection | None) -> Connection | None:
        """Make one attempt and write it down; the connection if it can be used again."""
        sent_at = self._clock()
        intended_at = job.intended_at if job.intended_at is not None else sent_at
        if job.attempt == 1:
            self._ledger.opened(job.push, sent_at)
        connection, status, error = await self._exchange(job, connection, sent_at)
        gave_up = error is not None and job.attempt > len(self._options.retry_after_seconds)
        now = self._clock()
        self._ledger.attempted(Attempt(job.push.number, job.attempt, intended_at, sent_at, now, status, error, gave_up))
        if error is None or gave_up:
            self._resolved(job)
        else:
            self._retry_later(job)
        return connection

    async def _exchange(
        self, job: _Job, connection: Connection | None, sent_at: float
    ) -> tuple[Connection | None, int | None, str | None]:
        """Send and wait for the answer: the connection, the HTTP status if any, what went wrong if any."""
        try:
            if connection is None or not connection.usable:
                connection = None
                connection = await self._connect()
            left = self._options.answer_timeout_seconds - (self._clock() - sent_at)
            answer = await connection.post(self._target.request(job.push.body), left)
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        except TimeoutError:
            if connection is not None:
                self._listen_late(job, connection)
            return None, None, "timeout"
        except AnswerError as failure:
            return None, None, failure.word
        except ConnectionRefusedError:
            return None, None, "refused"
        except ConnectionError:
            return None, None, "closed"
        except OSError:  # unreachable, unknown host, certificate
            return None, None, "connect"
        return connection, answer.status, _judge(answer)

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self._options.answer_timeout_seconds):
            return await Connection.open(self._target, self._tls)

    def _retry_later(self, job: _Job) -> None:
        wait = self._options.retry_after_seconds[job.attempt - 1] * self._options.retry_scale
        job.attempt += 1
        job.intended_at = self._clock() + wait
        self.waiting_for_retry += 1
        asyncio.get_running_loop().call_later(wait, self._retry, job)

    def _retry(self, job: _Job) -> None:
        self.waiting_for_retry -= 1
        self._ready.put(job)

    def _resolved(self, job: _Job) -> None:
        self._unresolved -= 1
        self._changed.set()
        if not self._options.ordered:
            return
        for push in self._sequence.release(job.push):
            freed = self._held.pop(push.number)
            if freed.intended_at is not None:
                # It was this side that held it back: its latency starts now.
                freed.intended_at = max(freed.intended_at, self._clock())
            self._ready.put(freed)

    def _listen_late(self, job: _Job, connection: Connection) -> None:
        push, number = job.push.number, job.attempt

        def on_late(answer: Answer | None) -> None:
            self._listening.discard(connection)
            self._changed.set()
            if answer is not None:
                self._ledger.answered_late(LateAnswer(push, number, answer.status, self._clock()))

        self._listening.add(connection)
        connection.listen_late(on_late, self._options.late_answer_seconds)


def _judge(answer: Answer) -> str | None:
    """What is wrong with an answer, or None if it acknowledges."""
    if answer.status != HTTPStatus.OK:
        return "status"
    if answer.body == _SUCCESS:
        return None
    try:
        code = msgspec.json.decode(answer.body, type=dict[str, object]).get("code")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "body"
    return None if code == 0 and not isinstance(code, bool) else "body"
