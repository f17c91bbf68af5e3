"""A lane: a FIFO of record entries with at most one batch in flight.

A key always has the same lane, so the order of a lane is the order of its keys. Two things make an entry safe, and either lets
its callback be answered: Kafka's acknowledgement, or its row in the spool. The spool makes queue entries durable and nothing
else; there is one way to Kafka.

States: *healthy*, nothing is written to disk; *degraded*, once an entry has waited for ``spool_after_ms``: what waits is
journalled, and so is what arrives, at once. What doesn't fit the lane's window of memory is on disk alone (*spilled*), and is
read back as the window empties. When nothing is spilled and acknowledgements come quickly again, the lane is healthy.

Invariants
- Nothing later in a lane is sent before its head is acknowledged.
- Rows are deleted only after their acknowledgement, and only as a prefix of the lane.
- ``queue`` holds what comes next, in order, without a gap but for entries refused; all that is behind ``loaded_through`` is in
  the spool, or in ``journalling`` on its way there.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import structlog

from bridge import compiled
from bridge.delivery.layout import placed
from bridge.kafka.batch import Batch
from bridge.kafka.errors import Verdict, error_text, verdict_on
from bridge.kafka.producer import Producer
from bridge.kafka.producers import Producers
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

log = structlog.get_logger(__name__)

_BACKOFF_SECONDS = (0.05, 1.0)
# The longest pause of a lane whose records Kafka refuses: the cause rarely passes within a second, and each try costs a producer.
_REFUSED_BACKOFF_SECONDS = 30.0
# A single record becomes a dead letter after this long, if Kafka accepted a batch of another lane this recently.
_REFUSED_ALONE_SECONDS, _TAKEN_ELSEWHERE_SECONDS = 300.0, 60.0
# How often a lane without a leader, or without a producer, looks again.
_LOOK_SECONDS = 0.2
# What a record costs in memory beside its key and value: headers, objects.
_RECORD_OVERHEAD_BYTES = 1500
_UNBOUNDED = 1 << 30


class Outcome(Protocol):
    """What a lane tells of its entries; the delivery counts and answers by it."""

    def safe(self, entry: "LaneEntry") -> None:
        """The entry is acknowledged by Kafka or stored in the spool, whichever was first."""

    def published(self, entry: "LaneEntry", topic: str) -> None:
        """Kafka has acknowledged the whole entry."""

    def not_stored(self, entry: "LaneEntry", error: BaseException) -> None:
        """The spool did not take the entry, and it is not acknowledged."""

    async def give_away(self, entry: "LaneEntry", record: Record, verdict: "Verdict", reason: str) -> None:
        """Kafka refuses ``record`` for good; returns when it is kept elsewhere, where it is counted from then on."""

    def damaged(self, reports: int) -> None:
        """So many reports were in the spool, and could not be read back: their rows became dead letters."""


class SchemaIds(Protocol):
    """The ids that a registry has for schemas; records that lack theirs wait until it is known."""

    def start(self) -> None:
        """Begin to look them up, in the background."""

    async def stop(self) -> None:
        """End that."""

    @property
    def ready(self) -> bool:
        """Whether what is encoded now could be sent."""

    def prefix(self, topic: str, schema: bytes) -> bytes | None:
        """What goes before a bare value of ``topic``, by the fingerprint of its schema; None while it is not known."""


class LaneEntry:
    """The records of one callback in one lane; ``reports`` of them count. A row of the spool."""

    __slots__ = (
        "ack",
        "dropped",
        "flying",
        "journalled",
        "published",
        "records",
        "refused",
        "reports",
        "safe",
        "seq",
        "size",
        "spool_at",
        "unsent",
    )  # fmt: skip

    def __init__(self, records: list[Record], ack: "PendingAck | None", spool_at: float) -> None:
        self.records = records
        self.ack = ack
        self.spool_at = spool_at
        self.reports = len(records)
        self.size = size_in_memory(records)
        self.seq = 0
        # records not yet acknowledged, in order
        self.unsent: Sequence[Record] = records
        # in a batch that is on its way
        self.flying = False
        # given to the spool
        self.journalled = False
        # acknowledged or stored: its callback need not wait for it
        self.safe = False
        # acknowledged, the whole of it
        self.published = False
        # its callback was answered 503
        self.refused = False
        # refused and forgotten: won't be sent
        self.dropped = False


class PendingAck:
    """What became of one callback: ``outcome`` is done when it may be answered."""

    __slots__ = (
        "dead_lettered",
        "deadline",
        "entries",
        "on_kafka",
        "open",
        "outcome",
        "published",
        "refused",
        "reports",
        "settled",
    )  # fmt: skip

    def __init__(self, outcome: "asyncio.Future[None]", deadline: float, reports: int) -> None:
        self.outcome = outcome
        self.deadline = deadline
        self.reports = reports
        self.entries: list[tuple[Lane, LaneEntry]] = []
        # entries neither acknowledged nor stored yet
        self.open = 0
        # reports acknowledged before the outcome was known, by topic
        self.published: dict[str, int] = {}
        # dead letters before
        self.dead_lettered = 0
        self.settled = False
        self.refused = False
        # False as soon as something of it was stored in the spool before Kafka acknowledged it
        self.on_kafka = True


def bytes_of_python(records: list[Record]) -> int:
    """Bytes of the keys and values."""
    return sum(len(r.value) + len(r.key or b"") for r in records)


bytes_of = compiled.module.bytes_of if compiled.COMPILED else bytes_of_python
"""The faster of the two."""


def size_in_memory(records: list[Record]) -> int:
    """Bytes that ``records`` are reckoned to take in memory, from above."""
    return bytes_of(records) + _RECORD_OVERHEAD_BYTES * len(records)


class Memory:
    """Bytes that all lanes hold together, as each reckons."""

    def __init__(self) -> None:
        self.bytes = 0


class Taken:
    """When Kafka last accepted a batch of each lane, in the loop's time: tells one refused record from a refusal of everything.

    ``last_refusal`` is the error of the last refused batch of any lane, empty before the first.
    """

    def __init__(self) -> None:
        self._at: dict[int, float] = {}
        self.last_refusal = ""

    def note(self, lane: int, now: float) -> None:
        """A batch of this lane was acknowledged."""
        self._at[lane] = now

    def elsewhere(self, lane: int, since: float) -> bool:
        """Whether one of another lane was, since then."""
        return any(at >= since for other, at in self._at.items() if other != lane)


class Refusal(NamedTuple):
    """What Kafka last refused a lane's batch with."""

    error: str
    #: Wall clock, seconds since the epoch, of the first in a row.
    since: float


class Lane:
    """See the module's head.

    Args:
        number: the lane's number in the spool.
        topic: where its records go.
        of: how many lanes the topic has, ``index`` being this one's place among them.
        spool_after_seconds: a lane whose entry waited longer is degraded.
        producer_timeout_seconds: a producer whose batch is unresolved for longer is given up.
        window_bytes: memory for what is also on disk.
        memory: what all lanes hold.
        taken: of all lanes.
        schema_ids: what goes before values.
    """

    def __init__(
        self,
        number: int,
        topic: str,
        *,
        index: int,
        of: int,
        spool_after_seconds: float,
        producer_timeout_seconds: float,
        window_bytes: int,
        memory: Memory,
        taken: Taken,
        producers: Producers,
        spool: Spool | None,
        schema_ids: SchemaIds,
        outcome: Outcome,
    ) -> None:
        self.number = number
        self.topic = topic
        self.degraded = False
        # reports that are in this lane, in memory or on disk
        self.depth = 0
        self.memory_bytes = 0
        self._memory = memory
        self._taken = taken
        #: what Kafka refuses the head with; None where it doesn't
        self.refusal: Refusal | None = None
        # the record that is refused alone, and since when
        self._alone: tuple[Record, float] | None = None
        #: batches that failed, by what was done about it: see ``Verdict``, and whether its record became a dead letter
        self.batches_failed = dict.fromkeys((*(verdict.name.lower() for verdict in Verdict), "dead_letter"), 0)
        self._index, self._of = index, of
        self._spool_after_seconds = spool_after_seconds
        self._producer_timeout_seconds = producer_timeout_seconds
        self._window_bytes = window_bytes
        self._producers = producers
        self._spool = spool
        self._schema_ids = schema_ids
        self._outcome = outcome
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._last_seq = 0
        self._queue: deque[LaneEntry] = deque()
        self._loaded_through = 0
        self._spilled = False
        # sequence numbers given to the spool and not answered yet
        self._journalling: dict[int, LaneEntry] = {}
        # the last that was given to the spool, and the last known to be there
        self._journalled_through = self._stored_through = 0
        # on disk alone, of callbacks that were answered 503
        self._refused_on_disk: set[int] = set()
        # entries that are in the batch on its way, wholly or in part
        self._flying: list[LaneEntry] = []
        self._sending_with: Producer | None = None
        # what the next batch waits for: the leader's answer to others' batches
        self._turn: asyncio.Future[None] | None = None
        self._most_records = _UNBOUNDED
        self._timer: asyncio.TimerHandle | None = None
        self._pump: asyncio.Task[None] | None = None

    # --- what happens to a lane ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        self._pump = asyncio.create_task(self._run(), name=f"lane-{self.number}")
        self._pump.add_done_callback(self._ended)

    def resume(self, first_seq: int, last_seq: int, reports: int) -> None:
        """Take over what a former process left in the spool."""
        self._last_seq = self._journalled_through = self._stored_through = last_seq
        self._loaded_through = first_seq - 1
        self._spilled = self.degraded = True
        self.depth = reports

    def enqueue(self, entry: LaneEntry) -> None:
        """Append ``entry``; its outcome is told through ``Outcome``."""
        self._last_seq += 1
        entry.seq = self._last_seq
        self.depth += entry.reports
        self._hold(entry.size)
        journal = self.degraded and self._spool is not None
        if journal and self.memory_bytes > self._window_bytes:
            self._spilled = True
        if not self._spilled:
            self._queue.append(entry)
            self._loaded_through = entry.seq
        if journal:
            self._journal([entry])
        else:
            self._arm(entry.spool_at)
        self._wake.set()

    def refuse(self, entry: LaneEntry) -> None:
        """Its callback was answered 503: forget the entry, unless it is in flight or on disk, and so published still."""
        if entry.published:
            return
        entry.refused = True
        self.depth -= entry.reports
        if entry.safe and entry.seq > self._loaded_through:
            self._refused_on_disk.add(entry.seq)
        elif not (entry.safe or entry.flying or entry.seq in self._journalling):
            self._drop(entry)

    def degrade(self) -> None:
        """Journal all that is not durable; keep the healthy lanes away from the producer that let this one wait."""
        if not self.degraded:
            self.degraded = True
            log.info("lane_degraded", topic=self.topic, lane=self.number, reports=self.depth)
            if self._sending_with is not None:
                self._producers.isolate(self._sending_with)
        if self._spool:
            self._journal([g for g in self._queue if not (g.journalled or g.safe or g.dropped)])

    async def stop(self) -> None:
        """End sending; what is in flight stays unresolved."""
        if self._timer:
            self._timer.cancel()
        if self._pump:
            self._pump.cancel()
            await asyncio.wait([self._pump])

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is on disk."""
        return not (self._queue or self._journalling or self._spilled)

    @property
    def unsafe(self) -> bool:
        """Whether something waits that is neither acknowledged nor stored."""
        return bool(self._journalling) or any(not (g.safe or g.dropped) for g in self._queue)

    @property
    def oldest_ms(self) -> int | None:
        """Create time of the next record to be sent, milliseconds since the epoch; None where memory holds none."""
        return next((g.records[0].timestamp_ms for g in self._queue if g.records), None)

    # --- when the spool is used -----------------------------------------------------------------------------------

    def _arm(self, at: float) -> None:
        if self._timer is None or at < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._on_spool_due)

    def _on_spool_due(self) -> None:
        self._timer = None
        waiting = [g.spool_at for g in self._queue if not (g.safe or g.dropped)]
        if waiting and min(waiting) <= self._loop.time():
            self.degrade()
        elif waiting:
            self._arm(min(waiting))

    def _journal(self, entries: list[LaneEntry]) -> None:
        assert self._spool is not None  # noqa: S101 - callers have looked
        for entry in entries:
            entry.journalled = True
            self._journalling[entry.seq] = entry
            self._journalled_through = max(self._journalled_through, entry.seq)
            future = self._spool.append([SpoolRow(self.number, entry.seq, len(entry.records), entry.records)])
            future.add_done_callback(partial(self._on_journalled, entry))

    def _on_journalled(self, entry: LaneEntry, done: "asyncio.Future[None]") -> None:
        del self._journalling[entry.seq]
        error = done.exception()
        if error is None:
            self._stored_through = max(self._stored_through, entry.seq)
            if entry.ack is not None and not entry.safe:
                entry.ack.on_kafka = False
            self._make_safe(entry)
            self._note_refused_on_disk(entry)
            self._shrink(entry)
        elif not entry.safe:
            entry.journalled = False
            if not entry.refused:
                self._outcome.not_stored(entry, error)
            elif not entry.flying:
                self._drop(entry)
            self._note_refused_on_disk(entry)  # where its fsync failed the row may be there
        self._wake.set()

    def _note_refused_on_disk(self, entry: LaneEntry) -> None:
        if entry.refused and entry.seq > self._loaded_through:
            self._refused_on_disk.add(entry.seq)

    def _make_safe(self, entry: LaneEntry) -> None:
        if not entry.safe:
            entry.safe = True
            self._outcome.safe(entry)

    def _shrink(self, entry: LaneEntry) -> None:
        """``entry`` is on disk: keep it in memory only as far as the window goes."""
        if entry.seq > self._loaded_through:
            self._release(entry)
        while self.memory_bytes > self._window_bytes and self._queue:
            last = self._queue[-1]
            begun = last.flying or len(last.unsent) < len(last.records)
            if begun or not (last.safe or last.dropped):
                return
            self._queue.pop()
            self._release(last)
            if last.refused:
                # A dropped entry too: its row may be on disk although its fsync failed.
                self._refused_on_disk.add(last.seq)
            if not last.dropped:
                self._spilled = True
                self._loaded_through = last.seq - 1

    def _drop(self, entry: LaneEntry) -> None:
        entry.dropped = True
        self._release(entry)
        while self._queue and self._queue[0].dropped:
            self._queue.popleft()

    def _hold(self, more: int) -> None:
        self.memory_bytes += more
        self._memory.bytes += more

    def _release(self, entry: LaneEntry) -> None:
        self._hold(-entry.size)
        entry.size = 0
        entry.records = []
        entry.unsent = ()

    # --- the pump -----------------------------------------------------------------------------------------------------

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            # A lane must not end; its queue is intact, so it goes on with the same head.
            log.error("lane_failed", lane=self.number, exc_info=task.exception())
            self._settle({}, {})
            self._loop.call_later(_BACKOFF_SECONDS[1], self.start)

    async def _run(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        while True:
            while not self._queue:
                await self._refill()
            batches, producer = self._fill()
            if self._turn is not None:
                await self._turn
                continue
            if producer is None or not batches:
                await self._look_again(producer)
                continue
            errors = await self._send(producer, batches)
            self._settle(batches, errors)
            if not errors:
                backoff = _BACKOFF_SECONDS[0]
            elif longest := await self._react(producer, batches, errors):
                backoff = min(backoff, longest)
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                backoff *= 2

    async def _refill(self) -> None:
        """Wait for something to arrive, or bring the next rows of the spool into the queue."""
        self._wake.clear()
        if not self._spilled:
            if not self._journalling:
                self._recover()  # nothing waits, nor is anything on disk: what comes next starts afresh
                if self.depth:
                    self._outcome.damaged(self.depth)
                    self.depth = 0
            await self._wake.wait()
            return
        assert self._spool is not None  # noqa: S101 - nothing spills without
        stored = self._stored_through
        rows = await self._spool.read(self.number, self._loaded_through, max_bytes=self._window_bytes // 2)
        for row in rows:
            self._queue.append(self._from_disk(row))
            self._loaded_through = row.seq
        if rows or stored != self._stored_through:
            return
        if any(seq > self._loaded_through for seq in self._journalling):
            await self._wake.wait()
        else:
            self._spilled = False
            self._loaded_through = self._last_seq
            self._refused_on_disk.clear()

    def _from_disk(self, row: SpoolRow) -> LaneEntry:
        entry = LaneEntry(row.records, None, 0.0)
        entry.seq, entry.reports = row.seq, row.n
        entry.journalled = entry.safe = True
        entry.refused = row.seq in self._refused_on_disk
        self._refused_on_disk.discard(row.seq)
        self._hold(entry.size)
        return entry

    async def _look_again(self, producer: Producer | None) -> None:
        """No producer, no such topic or no leader: wait a little, and see to it that this becomes known."""
        if producer is not None:
            producer.refresh_metadata()
        await self._producers.change(_LOOK_SECONDS)

    def _may_begin(self, producer: Producer, partition: int, *, first: bool) -> bool:
        """Whether there is a leader for the batch; and, of the first one, whether it is that leader's turn."""
        if first:
            self._turn = producer.turn(self.topic, partition)
        return self._turn is None and producer.has_leader(self.topic, partition)

    def _fill(self) -> tuple[dict[int, Batch], Producer | None]:
        """Batches, one a partition, with a prefix of the queue; none where its first record's partition has no leader.

        While the registry has not told the id of the first record's schema, there is no producer for it either.
        """
        batches: dict[int, Batch] = {}
        self._turn = None
        head = next((record for entry in self._queue for record in entry.unsent), None)
        if head is not None and self._prefix_of(head) is None:
            return batches, None
        producer = self._producers.pick(degraded=self.degraded)
        partitions = producer.partitions(self.topic) if producer else 0
        if producer is None or not partitions:
            return batches, producer
        room = self._most_records
        for entry in self._queue:
            for partition, records in self._by_partition(entry.unsent, partitions):
                prefix = self._prefix_of(records[0])  # an entry's records were encoded alike
                if prefix is None:
                    return batches, producer
                batch = batches.get(partition)
                if batch is None:
                    if not self._may_begin(producer, partition, first=not batches):
                        return batches, producer
                    batch = batches[partition] = producer.open_batch()
                taken = batch.extend(records[:room], prefix)
                room -= taken
                if taken and not entry.flying:
                    entry.flying = True
                    self._flying.append(entry)
                if taken < len(records):
                    return batches, producer
        return batches, producer

    def _prefix_of(self, record: Record) -> bytes | None:
        return b"" if record.schema is None else self._schema_ids.prefix(self.topic, record.schema)

    def _by_partition(self, records: Sequence[Record], partitions: int) -> Iterable[tuple[int, Sequence[Record]]]:
        """Records in their order, in pieces that have one partition each; mostly all in one, as a lane is of one partition."""
        if partitions == self._of:
            return [(self._index, records)] if records else ()
        return [(placed(record, partitions), [record]) for record in records]

    async def _send(self, producer: Producer, batches: dict[int, Batch]) -> dict[int, BaseException]:
        """Send the batches and wait for them all; the error of each partition that failed."""
        self._sending_with = producer
        give_up = self._loop.call_later(self._producer_timeout_seconds, self._producers.abandon, producer)
        errors: dict[int, BaseException] = {}
        try:
            futures = [(p, producer.send(self.topic, p, batch)) for p, batch in batches.items() if batch.records]
            for partition, future in futures:
                try:
                    await future
                except Exception as error:  # noqa: BLE001 - every kind is looked at in verdict_on
                    errors[partition] = error
        finally:
            give_up.cancel()
            self._sending_with = None
        return errors

    def _settle(self, batches: dict[int, Batch], errors: dict[int, BaseException]) -> None:
        """Take what is acknowledged out of the queue."""
        if errors:
            acknowledged = {id(r) for p, batch in batches.items() if p not in errors for r in batch.records}
            for entry in self._flying:
                entry.unsent = [r for r in entry.unsent if id(r) not in acknowledged]
        else:
            # All of them, and they were filled in the queue's order.
            count = sum(len(batch.records) for batch in batches.values())
            for entry in self._flying:
                unsent = len(entry.unsent)
                entry.unsent = () if count >= unsent else entry.unsent[count:]
                count = max(0, count - unsent)
        for entry in self._flying:
            entry.flying = False
            if entry.refused and not entry.journalled and entry.unsent:
                self._drop(entry)
        self._flying = []
        self._pop_finished()

    def _pop_finished(self) -> None:
        """Answer and remove the entries at the head that have nothing left to send."""
        last = None
        while self._queue and not self._queue[0].unsent:
            entry = self._queue.popleft()
            if entry.dropped:
                self._release(entry)
                continue
            last = entry
            self._make_safe(entry)
            if not entry.refused:
                self.depth -= entry.reports
            entry.published = True
            self._outcome.published(entry, self.topic)
            self._release(entry)
        if last is None:
            return
        self.refusal = None
        self._taken.note(self.number, self._loop.time())
        self._most_records = min(self._most_records * 2, _UNBOUNDED)
        if self._spool and self._journalled_through:
            self._spool.delete_through(self.number, last.seq)
            if last.seq >= self._journalled_through:
                self._journalled_through = 0
        # Healthy again: nothing is on disk alone, and this was acknowledged well before its time or was the last.
        if not self._spilled and (not self._queue or self._loop.time() < last.spool_at - self._spool_after_seconds / 2):
            self._recover()

    def _recover(self) -> None:
        if self.degraded:
            self.degraded = False
            log.info("lane_healthy", topic=self.topic, lane=self.number)

    async def _react(self, producer: Producer, batches: dict[int, Batch], errors: dict[int, BaseException]) -> float:
        """Do what the errors call for; the longest pause before the next try, 0 for none."""
        longest = 0.0
        for partition, error in errors.items():
            verdict = verdict_on(error)
            self.batches_failed[verdict.name.lower()] += 1
            if verdict is Verdict.RESEND:
                continue
            self._producers.spent(producer)
            records = batches[partition].records
            self._note_refusal(partition, records, error)
            if verdict is Verdict.BACKOFF:
                longest = max(longest, _BACKOFF_SECONDS[1])
            elif len(records) > 1:
                self._most_records = max(1, len(records) // 2)
                longest = max(longest, _BACKOFF_SECONDS[0] if verdict is Verdict.REFUSE else 0.0)
            elif verdict is Verdict.SPLIT or self._is_refused_alone(records[0]):
                self.batches_failed["dead_letter"] += 1
                await self._give_away(records[0], verdict, type(error).__name__)
            else:
                longest = _REFUSED_BACKOFF_SECONDS
        return longest

    def _note_refusal(self, partition: int, records: list[Record], error: BaseException) -> None:
        text = self._taken.last_refusal = error_text(error)
        self.refusal = Refusal(text, time.time() if self.refusal is None else self.refusal.since)
        log.warning("batch_refused", topic=self.topic, partition=partition, records=len(records), error=text)

    def _is_refused_alone(self, record: Record) -> bool:
        """Whether Kafka refuses this record only, and not everything."""
        now = self._loop.time()
        if self._alone is None or self._alone[0] is not record:
            self._alone = record, now
        since = self._alone[1]
        return now - since >= _REFUSED_ALONE_SECONDS and self._taken.elsewhere(
            self.number, now - _TAKEN_ELSEWHERE_SECONDS
        )

    async def _give_away(self, record: Record, verdict: Verdict, reason: str) -> None:
        """Kafka won't take ``record`` here, whatever is tried: have it kept elsewhere, and go on without it."""
        entry = next((g for g in self._queue if any(r is record for r in g.unsent)), None)
        if entry is None:
            return
        # Until then it is neither spilled nor forgotten.
        entry.flying = True
        self._flying.append(entry)
        await self._outcome.give_away(entry, record, verdict, reason)
        entry.unsent = [r for r in entry.unsent if r is not record]
        entry.reports -= 1
        if not entry.refused:
            self.depth -= 1
        self._settle({}, {})
