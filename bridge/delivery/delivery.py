"""One deadline, one outcome for each callback.

A callback's records go to their lanes; it is answered 200 when every one of them is acknowledged by Kafka or stored in the spool,
503 when one can be neither in time. No request waits for Kafka itself: it waits for its ``PendingAck``, which Kafka, the spool or
the deadline settles, whichever is first.

Reconciliation, in reports, at every moment:
``received + recovered == published + waiting + dead_lettered + refused``. Reports of a refused callback that Kafka has all the
same are in ``published_after_refusal``, outside of it.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from bridge.config import Settings
from bridge.delivery.deadlines import Deadlines
from bridge.delivery.entry import LaneEntry, Memory, PendingAck, Refusal, SchemaIds, Taken, bytes_of
from bridge.delivery.lane import Lane
from bridge.delivery.layout import LAYOUT_KEY, Layout, by_lane
from bridge.delivery.refusals import Refusals
from bridge.errors import DeadlineExceeded, DeliveryError, Overloaded, SpoolFailed
from bridge.headers import CALLBACK, QUARANTINE_DETAIL, QUARANTINE_PATH, QUARANTINE_REASON, RECEIVED_AT
from bridge.kafka.producer import Producer
from bridge.observe.rate import Rate
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool
from bridge.spool.stats import SpoolEvent
from bridge.topics.spec import declared_topics

log = structlog.get_logger(__name__)

# A commit that has taken longer than this share of the deadline: what comes now would be late as well.
_LATE_COMMIT_SHARE = 0.5
_LOOK_SECONDS = 0.01
# What closing the spool may take, of the time for stopping.
_CLOSING_SECONDS = 0.5
_MIN_WINDOW_BYTES = 1 << 20


class Counters(msgspec.Struct):
    """Reports, since the start; see the module's head. ``published`` is by topic."""

    received: int = 0
    recovered: int = 0
    refused: int = 0
    dead_lettered: int = 0
    published_after_refusal: int = 0
    published: dict[str, int] = {}


class Delivery:
    """Lanes, producer and spool behind one call, ``submit``.

    Args:
        settings: the whole configuration.
        schema_ids: of records that lack theirs; asked only for those.

    Raises:
        SpoolBusy, SpoolTooNew, SpoolError: from ``start``, when the spool can't be used.
    """

    def __init__(self, settings: Settings, schema_ids: SchemaIds) -> None:
        self._settings = settings
        self._schema_ids = schema_ids
        self._loop = asyncio.get_running_loop()
        self._configured = (settings.topics.status, settings.topics.quarantine)
        self.counters = Counters()
        self.spool: Spool | None = None
        self.lanes: dict[str, list[Lane]] = {}
        self.memory = Memory()
        self._taken = Taken()
        self._missing: list[str] = []
        self._deadlines = Deadlines(self._loop, self._on_deadline)
        self.producer: Producer
        # reports acknowledged whose callback's outcome is not known yet
        self._undecided = 0
        # whether the spool's file was found damaged, so that its reports are known only when its rows are taken over
        self._salvages = False
        self._drained, self._filled = Rate(), Rate()
        self._sampler: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the spool, take over what is in it, begin to connect. Waits for the disk, never for Kafka."""
        if self._settings.spool.enabled:
            self.spool = await Spool.open(
                Path(self._settings.spool.directory),
                max_bytes=self._settings.spool.max_bytes,
                min_free_bytes=self._settings.spool.min_free_bytes,
                on_event=self._on_spool_event,
            )
        layout = await self._layout()
        topics = [topic for topic, _ in layout.topics]
        self.counters.published = dict.fromkeys(topics, 0)
        timeout = self._settings.delivery.producer_timeout_seconds
        self.producer = Producer(self._settings.kafka, topics, timeout, self._on_cluster)
        self._make_lanes(layout)
        self._schema_ids.start()
        self.producer.start()
        self._sample()

    async def stop(self, deadline: float) -> None:
        """Flush, journal what is left, end every task; done by ``deadline`` (the loop's time), whatever Kafka does."""
        now = self._loop.time()
        await self._until_safe(now + (deadline - now) / 2 if self.producer.ready else now)
        for lane in self.all_lanes():
            if lane.unsafe:
                lane.degrade()
        if self.spool:
            await self._until_safe(deadline - _CLOSING_SECONDS)
        for ack in self._deadlines.watched:
            self._refuse(ack, DeadlineExceeded("the bridge is stopping"))
        if self._sampler:
            self._sampler.cancel()
        await asyncio.gather(*(lane.stop() for lane in self.all_lanes()))
        await self.producer.stop()
        await self._schema_ids.stop()
        if self.spool:
            await self.spool.close(max(0.1, deadline - self._loop.time()))

    async def _until_safe(self, deadline: float) -> None:
        """Wait until everything is acknowledged or stored, until ``deadline`` at most."""
        while self._loop.time() < deadline and any(lane.unsafe for lane in self.all_lanes()):  # noqa: ASYNC110 - at the end only
            await asyncio.sleep(_LOOK_SECONDS)

    # --- a callback ---------------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Whether a callback could be taken now; asked before its body is read.

        Raises:
            Overloaded: what waits fills memory, or the disk is late.
        """
        if self.memory.bytes > self._settings.delivery.memory_bytes:
            raise Overloaded("too much is waiting in memory")
        late = self._settings.delivery.ack_deadline_seconds * _LATE_COMMIT_SHARE
        if self.spool and self.spool.oldest_waiting_seconds > late:
            raise Overloaded("the spool's disk is late")

    def submit(self, records: Sequence[Record], deadline: float) -> PendingAck:
        """Give the records of one callback, at least one, to their lanes, in order.

        Args:
            records: one for each report.
            deadline: the loop's time by which the outcome must be known.

        Returns:
            An ack; its ``outcome`` fails with ``DeliveryError`` where the records can't be stored durably in time.
        """
        ack = PendingAck(self._loop.create_future(), deadline, len(records))
        self.counters.received += len(records)
        self._deadlines.watch(ack)
        spool_at = min(self._loop.time() + self._spool_after_seconds, deadline - self._spool_after_seconds / 2)
        for lane, chosen in by_lane(records, self.lanes).items():
            entry = LaneEntry(chosen, ack, spool_at)
            ack.entries.append((lane, entry))
            ack.open += 1
        for lane, entry in list(ack.entries):
            if not ack.refused:
                lane.enqueue(entry)
        return ack

    @property
    def waiting(self) -> int:
        """Reports in memory or in the spool, neither published nor refused."""
        return sum(lane.depth for lane in self.all_lanes()) + self._undecided

    @property
    def drain_per_second(self) -> float:
        """Reports/s that left: published, refused or dead-lettered, over the last ten seconds."""
        return self._drained.per_second

    @property
    def backlog_eta_seconds(self) -> float:
        """Estimate of when nothing waits any more, at the rates of the last ten seconds; infinite while more comes than goes."""
        if not self.waiting:
            return 0.0
        net = self._drained.per_second - self._filled.per_second
        return self.waiting / net if net > 0 else math.inf

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest report that waits; 0 where none does."""
        times = [lane.oldest_ms for lane in self.all_lanes()]
        if self.spool is not None:
            times.append(self.spool.stats.oldest_at_ms)
        oldest = min((at for at in times if at is not None), default=None)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)

    def _sample(self) -> None:
        now, counters = self._loop.time(), self.counters
        arrived = counters.received + counters.recovered
        self._filled.sample(now, arrived)
        self._drained.sample(now, arrived - self.waiting)
        self._sampler = self._loop.call_later(1.0, self._sample)

    @property
    def refusals(self) -> list[Refusal]:
        """Of the lanes whose head Kafka refuses now."""
        return [lane.refusals.now for lane in self.all_lanes() if lane.refusals.now is not None]

    @property
    def last_refusal(self) -> str:
        """The error that Kafka last refused a batch with; empty where it never did."""
        return self._taken.last_refusal

    @property
    def spool_limit_bytes(self) -> int:
        """What the spool may hold; 0 without one."""
        return self._settings.spool.max_bytes if self.spool is not None else 0

    @property
    def ready(self) -> bool:
        """Whether a callback could be stored durably now, by Kafka or by the spool."""
        if self.spool is not None:
            return self.spool.stats.writable or self._kafka_ready
        return self._kafka_ready

    @property
    def schema_ids_ready(self) -> bool:
        """Whether the ids are known that what is encoded now needs; else its lanes wait for them."""
        return self._schema_ids.ready

    @property
    def _kafka_ready(self) -> bool:
        return (
            self.producer.ready
            and self.schema_ids_ready
            and all(map(self.producer.cluster.partitions, self._configured))
            and not all(lane.degraded for lane in self.all_lanes())
        )

    # --- an outcome ---------------------------------------------------------------------------------------------------

    def _on_deadline(self, ack: PendingAck) -> None:
        self._refuse(ack, DeadlineExceeded("neither Kafka nor the spool took it in time"))

    def _settle(self, ack: PendingAck) -> None:
        ack.settled = True
        self._deadlines.discard(ack)
        self._undecided -= sum(ack.published.values()) + ack.dead_lettered

    def _refuse(self, ack: PendingAck, error: DeliveryError) -> None:
        if ack.settled:
            return
        self._settle(ack)
        ack.refused = True
        self.counters.refused += ack.reports
        self.counters.published_after_refusal += sum(ack.published.values())
        if not ack.outcome.done():
            ack.outcome.set_exception(error)
            ack.outcome.exception()  # a client that went away does not ask
        for lane, entry in ack.entries:
            lane.refuse(entry)
        ack.entries.clear()

    # --- what lanes tell ----------------------------------------------------------------------------------------------

    def safe(self, entry: LaneEntry) -> None:
        """See ``Outcome``."""
        ack = entry.ack
        if ack is None or ack.settled:
            return
        ack.open -= 1
        if ack.open == 0:
            self._settle(ack)
            for topic, reports in ack.published.items():
                self.counters.published[topic] += reports
            self.counters.dead_lettered += ack.dead_lettered
            ack.entries.clear()
            if not ack.outcome.done():
                ack.outcome.set_result(None)

    def acknowledged(self, entry: LaneEntry, topic: str) -> None:
        """See ``Outcome``."""
        if not entry.safe:
            entry.safe = True
            self.safe(entry)
        entry.published = True
        ack = entry.ack
        if entry.refused:
            self.counters.published_after_refusal += entry.reports
        elif ack is None or ack.settled:
            self.counters.published[topic] += entry.reports
        else:
            ack.published[topic] = ack.published.get(topic, 0) + entry.reports
            self._undecided += entry.reports

    def not_stored(self, entry: LaneEntry, error: BaseException) -> None:
        """See ``Outcome``."""
        if entry.ack is not None:
            self._refuse(entry.ack, error if isinstance(error, DeliveryError) else SpoolFailed(str(error)))

    def damaged(self, reports: int) -> None:
        """See ``Outcome``."""
        self.counters.dead_lettered += reports
        log.error("reports_damaged_in_spool", reports=reports, remedy="chatapp-bridge spool show")

    async def give_away(self, entry: LaneEntry, record: Record, reason: str, *, too_large: bool) -> None:
        """See ``Outcome``."""
        if too_large and record.topic == self._settings.topics.status:
            await self._quarantine(entry, record)
        elif self.spool is not None:
            await self.spool.dead_letter([SpoolRow(self.lanes[record.topic][0].number, 0, 1, [record])], reason)
            ack = entry.ack
            if ack is not None and not ack.settled:
                ack.dead_lettered += 1
                ack.on_kafka = False
                self._undecided += 1
            elif not entry.refused:
                self.counters.dead_lettered += 1
            size, callback = bytes_of([record]), _callback_of(record)
            log.error("record_dead_lettered", topic=record.topic, reason=reason, bytes=size, callback=callback)
        elif entry.ack is not None:
            self._refuse(entry.ack, SpoolFailed(f"Kafka refuses it ({reason}), and there is no spool"))
            entry.reports = entry.reports or 1  # the lane takes one away, and a stand-in has none
            log.error("record_refused", topic=record.topic, reason=reason, callback=_callback_of(record))

    async def _quarantine(self, entry: LaneEntry, record: Record) -> None:
        """The broker found an event too large that the bridge did not: quarantine it, as its value."""
        headers = [
            (QUARANTINE_REASON, b"too_large"),
            (QUARANTINE_DETAIL, b"the broker refused the event as too large; the value is the encoded event"),
            (QUARANTINE_PATH, b"$"),
            *((name, value) for name, value in record.headers if name.startswith("bridge_")),
            (RECEIVED_AT, str(record.timestamp_ms).encode()),
        ]
        moved = Record(
            self._settings.topics.quarantine, record.key, record.self_describing_value, headers, record.timestamp_ms
        )
        while True:
            # Of no callback and of no report, so that its failing refuses none, and each is counted in one place at a time.
            ack = PendingAck(self._loop.create_future(), math.inf, 0)
            ((lane, records),) = by_lane([moved], self.lanes).items()
            stand_in = LaneEntry(records, ack, self._loop.time() + self._spool_after_seconds)
            stand_in.reports, ack.open, ack.entries = 0, 1, [(lane, stand_in)]
            lane.enqueue(stand_in)
            try:
                await ack.outcome
            except DeliveryError as error:
                if self.spool is None and entry.refused:
                    return  # no other place can keep it; it was answered 503, so the provider pushes it again
                log.warning("quarantine_delayed", error=str(error), callback=_callback_of(record))
                await asyncio.sleep(1.0)
            else:
                self._take_over(entry, lane, stand_in)
                return

    def _take_over(self, entry: LaneEntry, lane: Lane, stand_in: LaneEntry) -> None:
        """``stand_in`` is safe: from now on it is a report of the callback that ``entry`` is of."""
        stand_in.ack, stand_in.reports = entry.ack, 1
        if stand_in.published:
            stand_in.refused = entry.refused
            self.acknowledged(stand_in, lane.topic)
            return
        lane.depth += 1
        if entry.refused:
            lane.refuse(stand_in)
        elif entry.ack is not None and not entry.ack.settled:
            entry.ack.entries.append((lane, stand_in))

    # --- lanes --------------------------------------------------------------------------------------------------------

    @property
    def _spool_after_seconds(self) -> float:
        return self._settings.delivery.spool_after_ms / 1000

    def all_lanes(self) -> list[Lane]:
        """Of every topic."""
        return [lane for lanes in self.lanes.values() for lane in lanes]

    async def _layout(self) -> Layout:
        """As many lanes as partitions are declared: any number keeps the order, since a partition is found anew for each batch.

        While the spool holds rows theirs stays, also that of a topic which is not configured any more.
        """
        kept = self.spool is not None and (self.spool.stats.rows > 0 or not self.spool.stats.checked)
        layout = Layout.parse(self.spool.get_meta(LAYOUT_KEY) if self.spool and kept else None)
        declared = declared_topics(self._settings.topics)
        layout.topics += [
            (topic, declared[topic].partitions) for topic in self._configured if not layout.lanes_of(topic)
        ]
        if self.spool is not None:
            await self.spool.set_meta(LAYOUT_KEY, layout.text)
        return layout

    def _make_lanes(self, layout: Layout) -> None:
        total = sum(count for _, count in layout.topics)
        window = max(_MIN_WINDOW_BYTES, self._settings.delivery.memory_bytes // (2 * total))
        stored = self.spool.stats.lanes if self.spool is not None else {}
        self._salvages = self.spool is not None and self.spool.stats.salvaging
        # No process gives a number twice: a deleted row in an old page of a damaged file would be taken for one that waits.
        last_seq = max([time.time_ns(), *(found.last_seq for found in stored.values())])
        for topic, count in layout.topics:
            self.lanes[topic] = []
            for index in range(count):
                lane = Lane(
                    layout.number_of(topic, index),
                    topic,
                    index=index,
                    of=count,
                    last_seq=last_seq,
                    spool_after_seconds=self._spool_after_seconds,
                    quarantine=topic == self._settings.topics.quarantine,
                    window_bytes=window,
                    memory=self.memory,
                    refusals=Refusals(topic, layout.number_of(topic, index), self._taken),
                    producer=self.producer,
                    spool=self.spool,
                    schema_ids=self._schema_ids,
                    outcome=self,
                )
                found = stored.get(lane.number)
                if self._salvages or (found is None and self.spool is not None and not self.spool.stats.checked):
                    # The file may hold rows of this lane that nobody knows of yet: what is new comes behind any of them.
                    lane.resume(0, last_seq, 0)
                elif found is not None:
                    lane.resume(found.first_seq, found.last_seq, found.reports)
                    self.counters.recovered += found.reports
                self.lanes[topic].append(lane)
                lane.start()

    def _on_cluster(self, producer: Producer) -> None:
        missing = [topic for topic in self._configured if not producer.cluster.partitions(topic)]
        before, self._missing = self._missing, missing
        if missing and missing != before:
            log.error("topics_missing", topics=missing, remedy="create them: chatapp-bridge topics apply")

    def _on_spool_event(self, event: SpoolEvent) -> None:
        tell = log.info if event.kind in ("salvaged", "checking", "checked") else log.error
        where = str(event.path) if event.path else None
        tell("spool", kind=event.kind, message=event.message, path=where, rows=event.rows, reports=event.reports)
        if event.kind == "salvaged" and self._salvages:
            self._salvages = False
            for lane in self.all_lanes():
                lane.depth += (reports := event.lanes.get(lane.number, 0))
                self.counters.recovered += reports


def _callback_of(record: Record) -> str:
    """The id of the callback it came with, which ties lines of the log together."""
    return next((value.decode(errors="replace") for name, value in record.headers if name == CALLBACK), "")
