"""Watches requests that have no answer: is the broker slow, or dead?

A slow broker is not dead. A Kafka that writes to an object store, or across an ocean, may take seconds. If the bridge
abandoned such a request and sent it again each time, Kafka would never acknowledge it. So if a request has no answer
within the limit, the bridge opens another connection to its broker. As long as the broker answers there, the bridge
waits for the request. The limit follows the latency that is observed.
"""

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

import structlog

from bridge.kafka.connection import reason
from bridge.kafka.errors import TIMED_OUT
from bridge.kafka.link import Flight, Link, Role
from bridge.kafka.wire import CONNECTION_FAILURES
from bridge.observe.metrics import Histogram

if TYPE_CHECKING:
    from bridge.kafka.producer import Producer

log = structlog.get_logger(__name__)

_LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RECORDS_BOUNDS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
_LOOK_SECONDS: Final = 0.25
# The longest wait for an answer, apart from the time that a large request gets for its size; and the highest limit.
_MOST_SECONDS, _MOST_LIMIT_SECONDS = 120.0, 30.0
# A live broker answers within a second, or within three times the time that connecting to it took before.
_ANSWER_SECONDS, _OF_OPENING = 1.0, 3.0
# The bridge also abandons a request if the broker answered this many later ones, each within this share of its wait.
# Then its connection is stuck, not the broker.
_OTHERS, _OTHERS_SHARE = 3, 0.1
# Bytes per second on a narrow line, where a large request takes long and small ones are answered at once. The first
# value gives a large request more time before it counts as stuck. The second adds to the longest wait.
_SLOW_LINE, _SLOWEST_LINE = 20_000, 5_000
# The shortest time between two checks that a broker answers.
_ASK_AGAIN_SECONDS: Final = 2.0
# The slowest acknowledgement counts for this long. For each step of this size, one maximum is kept.
_REMEMBERED_SECONDS, _STEP_SECONDS = 300.0, 10.0
# If no broker has answered for this long, the bridge asks for metadata to find out whether one does.
_SILENT_SECONDS: Final = 2.0
# An acknowledgement that takes longer than the first value is logged, at most once in the second.
_SLOW_SECONDS, _LOG_SECONDS = 1.0, 60.0
# Hosted services close connections that are idle for four minutes. Links for healthy lanes ask something before that, so
# that the first report after a quiet night finds them open. The bridge closes all other idle links, spare links earlier.
_IDLE_SECONDS, _SPARE_SECONDS = 180.0, 10.0


class Traffic:
    """Statistics of acknowledged batches: how long each took, and how many records it had."""

    def __init__(self) -> None:
        self.latency = Histogram(
            "kafka_batch_latency_seconds", "From a batch's sending to its acknowledgement.", _LATENCY_BOUNDS
        )
        self.records = Histogram("kafka_batch_records", "Records in an acknowledged batch.", _RECORDS_BOUNDS)

    def acknowledged(self, seconds: float, records: int) -> None:
        """Count a batch with this number of records, acknowledged this many seconds after it was sent."""
        self.latency.observe(seconds)
        self.records.observe(records)


class Watch:
    """See the module docstring.

    Args:
        producer: the producer whose links are watched.
        limit_seconds: the lowest value of the limit.

    Attributes:
        answered_at: when a broker last acknowledged a batch, in the loop's time.
    """

    def __init__(self, producer: "Producer", limit_seconds: float) -> None:
        self._producer, self._least_limit = producer, limit_seconds
        self._loop = asyncio.get_running_loop()
        self._slowest: deque[tuple[float, float]] = deque()
        # by broker: when each answered request was written, and how long its answer took
        self._answers: defaultdict[int, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=_OTHERS))
        self._timer: asyncio.TimerHandle | None = None
        self._questions: set[asyncio.Task[None]] = set()
        self._slow_logged_at = float("-inf")
        self.answered_at = float("-inf")

    def start(self) -> None:
        """Start watching."""
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    async def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._questions:
            task.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)

    def acknowledged(self, node: int, sent_at: float) -> None:
        """Record that the broker acknowledged a batch whose request was written at ``sent_at``, in the loop's time."""
        self.answered_at = now = self._loop.time()
        seconds = now - sent_at
        if seconds > _SLOW_SECONDS and now - self._slow_logged_at > _LOG_SECONDS:
            self._slow_logged_at = now
            log.warning("kafka_slow", broker=node, answered_after_seconds=round(seconds, 1))
        answers = self._answers[node]
        if not answers or answers[-1][0] != sent_at:
            answers.append((sent_at, seconds))
        if not self._slowest or now - self._slowest[-1][0] > _STEP_SECONDS:
            self._slowest.append((now, seconds))
        elif seconds > self._slowest[-1][1]:
            self._slowest[-1] = (self._slowest[-1][0], seconds)

    @property
    def limit_seconds(self) -> float:
        """How long a request may have no answer before the bridge checks its broker."""
        slowest = max((seconds for _, seconds in self._slowest), default=0.0)
        return max(self._least_limit, min(2 * slowest, _MOST_LIMIT_SECONDS))

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)
        now = self._loop.time()
        while self._slowest and now - self._slowest[0][0] > _REMEMBERED_SECONDS:
            self._slowest.popleft()
        if self._producer.silent_seconds > _SILENT_SECONDS:
            self._producer.cluster.refresh()
        self._producer.sizes.regrow()
        for link in self._producer.rounds.links():
            flight = link.flight
            if flight is not None:
                self._look_at(link, flight, now)
            elif not link.wanted:
                idle = now - link.idle_since
                if idle > (_SPARE_SECONDS if link.role is Role.SPARE else _IDLE_SECONDS):
                    if link.role is Role.HEALTHY and link.node in self._producer.cluster.leaders():
                        link.keep_alive()
                    else:
                        self._producer.rounds.prune(link, "idle")

    def _look_at(self, link: Link, flight: Flight, now: float) -> None:
        age = now - flight.sent_at
        if age > _MOST_SECONDS + flight.size / _SLOWEST_LINE:
            link.give_up(TIMED_OUT, f"no answer for {age:.0f} s")
        elif age > self._patience(flight) and self._is_stuck(link, flight, age):
            link.give_up(TIMED_OUT, f"no answer for {age:.0f} s, while the broker answers on other connections")
        elif age > self.limit_seconds and not flight.asking:
            if flight.asked_at > flight.sent_at and now - flight.asked_at < _ASK_AGAIN_SECONDS:
                return
            flight.asking = True
            task = self._loop.create_task(self._ask(link, flight))
            self._questions.add(task)
            task.add_done_callback(self._questions.discard)

    def _patience(self, flight: Flight) -> float:
        """How long a request may take on a connection that is slower than others; twice as long after each attempt."""
        attempts = max((batch.timeouts for batch in flight.batches.values()), default=0)
        return (self.limit_seconds + flight.size / _SLOW_LINE) * 2.0 ** min(attempts, 10)

    def _is_stuck(self, link: Link, flight: Flight, age: float) -> bool:
        if not all(batch.numbered for batch in flight.batches.values()):
            return False  # its bytes may arrive later, and the broker would append them behind later records
        later = [seconds for sent_at, seconds in self._answers[link.node] if sent_at > flight.sent_at]
        return len(later) == _OTHERS and max(later) < age * _OTHERS_SHARE

    async def _ask(self, link: Link, flight: Flight) -> None:
        """Abandon the request, unless the broker answers on another connection."""
        error = ""
        limit = max(_ANSWER_SECONDS, _OF_OPENING * (link.connection.opening_seconds if link.connection else 0.0))
        try:
            async with asyncio.timeout(limit):
                connection = await self._producer.connect(link.node)
            connection.abort("it answers")
        except CONNECTION_FAILURES as failed:
            error = reason(failed)
        finally:
            flight.asking, flight.asked_at = False, self._loop.time()
        if link.flight is not flight:
            return
        age = self._loop.time() - flight.sent_at
        if error:
            log.warning("kafka_not_answering", broker=link.node, waited_seconds=round(age, 1), error=error)
            link.give_up(TIMED_OUT, f"no answer for {age:.0f} s, and none to another question: {error}")
        elif not flight.logged:
            flight.logged = True
            log.warning(
                "kafka_slow", broker=link.node, waited_seconds=round(age, 1), most_seconds=_MOST_SECONDS,
                batches=len(flight.batches),
            )  # fmt: skip
