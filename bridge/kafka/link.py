"""A link: one of the bridge's connections to one broker for Produce, with at most one request in flight.

A broker reads nothing more from a connection until it has sent its answer. So a slow follower or a large record delays
everything else on the same connection. For this reason each broker has one link for healthy lanes, one for degraded
lanes, and one for the quarantine. A link can change its role: if a healthy lane has waited too long on it, the link is
left to the degraded lanes.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final, Protocol

import structlog

from bridge.errors import UnreadableAnswer
from bridge.kafka import messages
from bridge.kafka.batch import Batch
from bridge.kafka.connection import reason
from bridge.kafka.errors import CLOSED, MISSING, UNREADABLE, ProduceError
from bridge.kafka.wire import CONNECTION_FAILURES, Connection

log = structlog.get_logger(__name__)

_BACKOFF_SECONDS: Final = (0.05, 2.0)
# The loop's timers may fire slightly early.
_SLACK_SECONDS: Final = 0.005
# A broker's answer may ask for a pause of any length. A pause longer than this is taken for a mistake, and cut short.
_MOST_THROTTLE_SECONDS: Final = 120.0


class Role(Enum):
    """The lanes that a link serves."""

    HEALTHY = auto()
    DEGRADED = auto()
    QUARANTINE = auto()
    SPARE = auto()  # no lanes: it waits for its last answer, or for a new role


class Flight:
    """A request in flight.

    Attributes:
        batches: the batches whose result is not known yet, by topic and partition.
        sent_at: when the request was written, in the loop's time.
        count: how many batches the request had when it was written.
        size: bytes of the request's body.
        asked_at: when the bridge last checked that the broker answers, in the loop's time; ``sent_at`` before.
        asking: whether such a check is running.
        logged: whether the log already reports that the bridge waits for the answer.
    """

    __slots__ = ("asked_at", "asking", "batches", "count", "logged", "sent_at", "size")

    def __init__(self, batches: Sequence[Batch], size: int, now: float) -> None:
        self.batches = {(batch.topic, batch.partition): batch for batch in batches}
        self.count, self.size = len(batches), size
        self.sent_at = self.asked_at = now
        self.asking = self.logged = False


class Owner(Protocol):
    """The owner of a link, which opens its connections and receives its events."""

    throttled_until: dict[int, float]
    """When each broker may be written to again, in the loop's time, by its id."""

    async def open(self, node: int) -> Connection:
        """Open a new connection to the broker."""

    def free(self, link: "Link") -> None:
        """Called when the link can take a request, or should be tried again."""

    def accepted(self, link: "Link", flight: Flight) -> None:
        """Called when a broker has accepted at least one batch of a request, before its batches are settled."""

    def settled(self, batch: Batch, error: ProduceError | None) -> None:
        """Called when a batch is in the log or, with an error, when it was refused or its answer will not come."""

    def gone(self, link: "Link", flight: Flight, error: ProduceError) -> None:
        """Called when a request will not be answered, before its batches are settled with ``error``."""

    def connected(self, link: "Link", error: str) -> None:
        """Called when an attempt to connect has ended; ``error`` is its error in words, empty if it succeeded."""


class Link:
    """See the module docstring.

    Args:
        node: the broker's id.
        role: the lanes that the link serves.
        owner: opens connections and receives events.
        timeout_ms: how long a broker may wait for its followers, in milliseconds.

    Attributes:
        waiting: the sources that have a batch to send over the link.
        queued: the batches that are already filled.
    """

    def __init__(self, node: int, role: Role, owner: Owner, timeout_ms: int) -> None:
        self.node, self.role = node, role
        self.waiting: dict[Any, None] = {}
        self.queued: deque[Batch] = deque()
        self.flight: Flight | None = None
        self.connection: Connection | None = None
        self._owner, self._timeout_ms = owner, timeout_ms
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[None] | None = None
        self._backoff = _BACKOFF_SECONDS[0]
        self._next: Connection | None = None
        self._renew_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = self._loop.time()
        self.closed = False

    # --- called by the producer -------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether any source or batch waits for the link."""
        return bool(self.waiting or self.queued)

    def is_free(self) -> bool:
        """Whether a request can be written now; if not, ``Owner.free`` is called later."""
        if self.flight is not None or self.closed or self._timer is not None:
            return False
        throttled = self._owner.throttled_until.get(self.node, 0.0) - self._loop.time()
        if throttled > 0:
            self._later(throttled)
            return False
        if self.connection is not None and self.connection.end:
            self.drop("the connection has ended")
        self.prepare()
        return self.connection is not None and not self.connection.busy

    def prepare(self) -> None:
        """Open a connection if there is none, or a replacement for one that has expired.

        The expired connection stays in use until the replacement is open.
        """
        current, now = self.connection, self._loop.time()
        due = (current is None or current.expired) and now >= self._renew_at
        if due and self._opening is None and self._next is None and not self.closed:
            self._opening = self._loop.create_task(self._open(), name=f"kafka-link-{self.node}")

    def send(self, batches: Sequence[Batch]) -> None:
        """Write one request with these batches, which already have their numbers.

        Raises:
            Exception: the request was not written, or only in part; the caller must fail the batches.
        """
        connection = self.connection
        assert connection is not None  # noqa: S101 - the caller has checked ``is_free``
        version = messages.common_version(messages.PRODUCE, connection.versions)
        body = messages.produce_request(((b.topic, b.partition, b.encoded()) for b in batches), self._timeout_ms)
        flight = Flight(batches, sum(map(len, body)), self._loop.time())
        connection.on_end = self._on_end

        def answered(answer: bytes) -> None:
            self._on_answer(answer, version)

        connection.send(messages.PRODUCE, version, body, answered)
        self.flight = flight  # set last: if writing fails, only the caller fails the batches

    def renew(self) -> None:
        """Replace the connection, because the credential files have changed."""
        if self.connection is not None:
            self.connection.expire()
            self.prepare()

    def keep_alive(self) -> None:
        """Have a connection that nobody closes as idle."""
        self.idle_since = self._loop.time()
        if self.connection is not None:
            self.connection.keep_alive()
        else:
            self.prepare()

    def drop(self, why: str) -> None:
        """Close the connection at once; the batches in flight fail."""
        if self.connection is not None:
            self.connection.abort(why)
            self._on_end()

    def drop_all(self, why: str) -> None:
        """As ``drop``, and close a replacement that is open already."""
        if self._next is not None:
            self._next.abort(why)
            self._next = None
        self.drop(why)

    def close(self, why: str) -> None:
        """Close the link permanently."""
        self.closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.drop_all(why)

    # --- events -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        connection: Connection | None = None
        try:
            connection = await self._owner.open(self.node)
            messages.common_version(messages.PRODUCE, connection.versions)
        except Exception as error:
            if connection is not None:
                connection.abort("not used")
            self._opening = None
            self._owner.connected(self, reason(error))
            if not isinstance(error, CONNECTION_FAILURES):
                log.exception("kafka_connection_error", broker=self.node)
            pause = self._backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            self._backoff = min(self._backoff * 2, _BACKOFF_SECONDS[1])
            self._renew_at = self._loop.time() + pause - _SLACK_SECONDS
            if self.connection is None and self._timer is None:
                self._later(pause)
            return
        self._opening, self._next = None, connection
        self._owner.connected(self, "")
        if self.flight is None:
            self._change_over()

    def _change_over(self) -> None:
        """Switch to the connection that was opened last."""
        before, self.connection, self._next = self.connection, self._next, None
        if before is not None:
            before.on_end = before.on_free = _nothing
            before.abort("replaced by a newer connection")
        if self.connection is not None:
            self.connection.on_end, self.connection.on_free = self._on_end, self._on_free
            if self.connection.end:
                self._on_end()
        self._owner.free(self)

    def _later(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        self._timer = None
        self._owner.free(self)

    def _on_answer(self, answer: bytes, version: int) -> None:
        flight, now = self.flight, self._loop.time()
        assert flight is not None  # noqa: S101 - a connection rejects an answer without a request
        try:
            read = messages.read_produce_answer(answer, version)
        except UnreadableAnswer as unreadable:
            self.give_up(UNREADABLE, str(unreadable))
            return
        self.flight, self.idle_since = None, now
        self._backoff = _BACKOFF_SECONDS[0]
        self._throttle(now + min(read.throttle_seconds, _MOST_THROTTLE_SECONDS))
        if any(error is None for _, _, error in read.partitions):
            self._owner.accepted(self, flight)
        for topic, partition, error in read.partitions:
            batch = flight.batches.pop((topic, partition), None)
            if batch is not None:
                self._settle(batch, error)
        for batch in list(flight.batches.values()):
            self._settle(batch, MISSING)
        self._go_on()

    def _settle(self, batch: Batch, error: ProduceError | None) -> None:
        """Report the result of a batch; an exception there must not keep the other batches from their results."""
        try:
            self._owner.settled(batch, error)
        except Exception:
            log.exception("batch_not_settled", broker=self.node, topic=batch.topic, partition=batch.partition)

    def _throttle(self, until: float) -> None:
        # The quota applies to the client, so a new connection must not evade it.
        self._owner.throttled_until[self.node] = max(until, self._owner.throttled_until.get(self.node, until))

    def _on_free(self) -> None:
        self._owner.free(self)

    def _on_end(self) -> None:
        self.give_up(CLOSED, self.connection.end if self.connection is not None else "")

    def give_up(self, error: ProduceError, why: str) -> None:
        """Close the connection; the batches in flight fail with ``error``."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.on_end = connection.on_free = _nothing
            connection.abort(why)
        flight, self.flight = self.flight, None
        self.idle_since = self._loop.time()
        if flight is not None:
            log.info("kafka_request_lost", broker=self.node, error=error.name, why=why, batches=len(flight.batches))
            self._owner.gone(self, flight, error)
            for batch in list(flight.batches.values()):
                self._settle(batch, error)
        self._go_on()

    def _go_on(self) -> None:
        """Continue after the request in flight has ended."""
        if self._next is not None:
            self._change_over()
        else:
            self._owner.free(self)


def _nothing() -> None:
    """Do nothing: the link has already handled the connection's end."""
