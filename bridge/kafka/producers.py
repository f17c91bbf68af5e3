"""Which producer a lane sends with, and the replacing of those that went bad.

Three roles: *current*, shared by all healthy lanes; *ward*, shared by the degraded ones, so that their retries slow nobody else;
and *retiring*, used for nothing new, closed when its last batch is resolved. A lane that degrades on the current producer
makes it the ward, and a fresh one is started for the others, which change over between batches.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

import structlog

from bridge.config import Kafka
from bridge.errors import BridgeError, ConfigurationError
from bridge.kafka.connection import MountedFiles, reason
from bridge.kafka.producer import Producer, Traffic

log = structlog.get_logger(__name__)

_START_SECONDS = 5.0
_BACKOFF_SECONDS = (0.1, 2.0)
# More than this many retiring: the oldest is abandoned. Each has connections and a task or two.
_MAX_RETIRING = 2
_WARD_IDLE_SECONDS = 10.0
# A producer that heard nothing for so long asks for metadata, to know whether its brokers are there; for longer: they aren't.
_ASK_SECONDS, _SILENT_SECONDS = 2.0, 6.0
# A current producer is not replaced sooner, unless it can't be used: many lanes turning degraded one by one need not one each.
_LEAST_AGE_SECONDS = 2.0
_WATCH_SECONDS = 0.25
# Between looks at the files that connections are made with.
_LOOK_SECONDS = 1.0


class Producers:
    """Keeps a current producer alive and hands producers to lanes; never waited for by a request.

    Args:
        settings: ``[kafka]``.
        topics: all topics that will be written.
        on_started: called with each producer that came up.

    Attributes:
        credentials_usable: whether the files that a connection is made with could be used at the last start.
    """

    def __init__(self, settings: Kafka, topics: Sequence[str], on_started: Callable[[Producer], None]) -> None:
        self._settings = settings
        self._topics = topics
        self._on_started = on_started
        self._current: Producer | None = None
        self._ward: Producer | None = None
        self._retiring: list[Producer] = []
        self._wanted = asyncio.Event()
        # Whether the current producer is one that nothing is held against.
        self._fresh = False
        self._started_at = 0.0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._background: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = False
        self.started = 0
        self.traffic = Traffic()
        self.last_error = ""
        self._mounted = MountedFiles(settings)
        self._watcher: asyncio.Task[None] | None = None
        self.credentials_usable = True

    def start(self) -> None:
        """Begin to supervise; returns at once, whatever Kafka is doing."""
        if not self._stopping:
            self._supervisor = asyncio.create_task(self._supervise(), name="producers")
            self._supervisor.add_done_callback(self._ended)
            self._watcher = self._watcher or asyncio.create_task(self._watch_credentials(), name="credentials")

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            # Without supervision nothing would ever be sent again.
            log.error("producers_failed", exc_info=task.exception())
            asyncio.get_running_loop().call_later(_BACKOFF_SECONDS[1], self.start)

    def pick(self, *, degraded: bool) -> Producer | None:
        """The producer for a lane's next batch, None while there is none."""
        current = None if self._current is None or self._current.dead else self._current
        ward = None if self._ward is None or self._ward.dead else self._ward
        if not degraded:
            return current or ward
        if ward is None and current is not None:
            self.isolate(current)
            return current
        return ward

    async def change(self, timeout_seconds: float) -> None:
        """Wait until another producer is to be had, at most so long."""
        await asyncio.wait([self._changed], timeout=timeout_seconds)

    def isolate(self, producer: Producer) -> None:
        """A lane was degraded while its batch was with ``producer``: get the healthy lanes away from it."""
        if producer is self._current:
            self._replace_current()
            if self._ward is not None and self._ward.dead:
                self.abandon(self._ward)
            self._ward = self._ward or producer

    def spent(self, producer: Producer) -> None:
        """``producer`` had a batch rejected: its sequence numbers no longer fit. Use it for nothing new."""
        if producer is self._current or producer is self._ward:
            self._forget(producer)
            self._retiring.append(producer)
            self._replace_current()

    def abandon(self, producer: Producer) -> None:
        """Give ``producer`` up, in the background; its batches fail with ``Abandoned`` once its tasks are dead."""
        if producer is self._current:
            self._replace_current()
        self._forget(producer)
        task = asyncio.create_task(producer.abandon(), name=f"abandon-{producer.number}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        log.warning("producer_abandoned", producer=producer.number, unresolved=producer.unresolved)

    async def stop(self) -> None:
        """Abandon all. What must be acknowledged has been waited for before."""
        self._stopping = True
        tasks = [task for task in (self._supervisor, self._watcher) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        alive = [p for p in (self._current, self._ward, *self._retiring) if p is not None]
        await asyncio.gather(*(producer.abandon() for producer in dict.fromkeys(alive)), *self._background)

    @property
    def ready(self) -> bool:
        """Whether a lane could send now: there is a producer, and its brokers answer."""
        current, now = self._current, asyncio.get_running_loop().time()
        return current is not None and not current.dead and current.silent_seconds(now) < _SILENT_SECONDS

    @property
    def unresolved(self) -> int:
        """Batches that are on their way, over all producers in use."""
        alive = [p for p in (self._current, self._ward, *self._retiring) if p is not None]
        return sum(producer.unresolved for producer in dict.fromkeys(alive))

    def _replace_current(self) -> None:
        self._fresh = False
        self._wanted.set()

    def _forget(self, producer: Producer) -> None:
        self._current = None if self._current is producer else self._current
        self._ward = None if self._ward is producer else self._ward

    async def _supervise(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._wanted.wait()
            self._sweep()
            now = asyncio.get_running_loop().time()
            if self._current is not None and (self._fresh or now < self._started_at + _LEAST_AGE_SECONDS):
                self._wanted.clear()
            elif await self._start_one():
                backoff = _BACKOFF_SECONDS[0]
            else:
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    async def _watch_credentials(self) -> None:
        """Connections live on with what they were made with; a producer that begins now takes what the files say now.

        A task of its own: a mount that hangs must not hold up the supervision.
        """
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if await self._mounted.changed():
                log.info("kafka_credentials_changed")
                self._replace_current()

    async def _start_one(self) -> bool:
        self.started += 1
        try:
            producer = Producer(self._settings, self._topics, self.started, self.traffic)
            await producer.start(_START_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the next attempt may do
            why = str(error) if isinstance(error, BridgeError) else reason(error)
            if why != self.last_error:
                log.warning("producer_start_failed", producer=self.started, error=why)
            self.last_error = why
            self.credentials_usable = not isinstance(error, ConfigurationError)
            return False
        self.last_error, self.credentials_usable = "", True
        self._fresh = True
        self._started_at = asyncio.get_running_loop().time()
        before = self._current
        if before is not None and before is not self._ward:
            self._retiring.append(before)
        self._current = producer
        if before is not None:
            before.release()
        log.info("producer_started", producer=producer.number)
        self._changed.set_result(None)
        self._changed = asyncio.get_running_loop().create_future()
        self._on_started(producer)
        return True

    def _sweep(self) -> None:
        """Close what has nothing left to do, and what died by itself."""
        for producer in (self._current, self._ward):
            if producer is not None and producer.dead:
                log.warning("producer_died", producer=producer.number)
                self.abandon(producer)
        now = asyncio.get_running_loop().time()
        if self._current is not None and (
            self._current.silent_seconds(now) > _ASK_SECONDS
            or not all(self._current.partitions(topic) for topic in self._topics)
        ):
            # Without traffic, too, it is to be known that brokers answer, and that a topic was made: readiness depends on both.
            self._current.refresh_metadata()
        if (
            self._ward is not None
            and self._ward is not self._current
            and self._ward.idle_seconds(now) > _WARD_IDLE_SECONDS
        ):
            self._retiring.append(self._ward)
            self._ward = None
        for producer in list(self._retiring):
            too_many = len(self._retiring) > _MAX_RETIRING and producer is self._retiring[0]
            if producer.dead or too_many or not producer.unresolved:
                self._retiring.remove(producer)
                self.abandon(producer)
