"""A lane: a FIFO of record entries with at most one round of batches on its way.

A key always has the same lane, so the order of a lane is the order of its keys. Two things make an entry safe, and either lets
its callback be answered: Kafka's acknowledgement, or its row in the spool. The spool makes queue entries durable and nothing
else; there is one way to Kafka.

States: *healthy*, nothing is written to disk; *degraded*, once an entry has waited for ``spool_after_ms``: what waits is
journalled, and so is what arrives, at once. What doesn't fit the lane's window of memory is on disk alone (*spilled*), and is
read back as the window empties. When nothing is spilled and acknowledgements come quickly again, the lane is healthy.

Invariants
- Nothing later in a lane is sent before its head is acknowledged.
- A batch that may be in the log is sent again as it is, or its partition gets a new epoch before anything else goes there.
- Rows are deleted only after their acknowledgement, and only as a prefix of the lane.
- ``queue`` holds what comes next, in order, without a gap but for entries refused; all that is behind ``loaded_through`` is in
  the spool, or in ``journalling`` on its way there.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from functools import partial

import structlog

from bridge.delivery.entry import LaneEntry, Memory, Outcome, SchemaIds
from bridge.delivery.layout import placed
from bridge.delivery.refusals import Refusals, Step
from bridge.kafka.batch import Batch
from bridge.kafka.errors import ProduceError
from bridge.kafka.link import Role
from bridge.kafka.producer import Producer
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

log = structlog.get_logger(__name__)

_BACKOFF_SECONDS = 0.05
# How often a lane looks again for what it can't be told of: a schema's id, a leader that went in between.
_LOOK_SECONDS = 0.2
# A batch that was halved has no bound of its own any more once it may have so many records.
_MANY_RECORDS = 1 << 16
# After an error of its own.
_BROKEN_SECONDS = 1.0


class Activity(Enum):
    """What a lane is about."""

    IDLE = auto()  # it can be asked for a batch
    SENDING = auto()
    READING = auto()  # rows of the spool
    PAUSED = auto()
    GIVING_AWAY = auto()
    STOPPED = auto()


class Lane:
    """See the module's head.

    Args:
        number: the lane's number in the spool.
        topic: where its records go.
        of: how many lanes the topic has, ``index`` being this one's place among them.
        last_seq: entries get larger sequence numbers. It is larger than any that a former process gave.
        quarantine: whether it is of the quarantine, which has links of its own.
        spool_after_seconds: a lane whose entry waited longer is degraded.
        window_bytes: memory for what is also on disk.
        memory: what all lanes hold.
        refusals: what to do about failed batches.
        schema_ids: what goes before values.
    """

    def __init__(
        self,
        number: int,
        topic: str,
        *,
        index: int,
        of: int,
        last_seq: int,
        quarantine: bool,
        spool_after_seconds: float,
        window_bytes: int,
        memory: Memory,
        refusals: Refusals,
        producer: Producer,
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
        self.refusals = refusals
        self._index, self._of, self._quarantine = index, of, quarantine
        self._spool_after_seconds = spool_after_seconds
        self._window_bytes = window_bytes
        self._memory = memory
        self._producer = producer
        self._spool = spool
        self._schema_ids = schema_ids
        self._outcome = outcome
        self._loop = asyncio.get_running_loop()
        self._activity = Activity.IDLE
        self._last_seq = last_seq
        self._queue: deque[LaneEntry] = deque()
        self._loaded_through = 0
        self._spilled = False
        # sequence numbers given to the spool and not answered yet
        self._journalling: dict[int, LaneEntry] = {}
        # the last that was given to the spool, and the last known to be there
        self._journalled_through = self._stored_through = 0
        # on disk alone, of callbacks that were answered 503
        self._refused_on_disk: set[int] = set()
        # entries that are in a batch, wholly or in part
        self._flying: list[LaneEntry] = []
        # the batches on their way, what became of those of them that are back, and those that are to be sent again as they are
        self._sent: Sequence[Batch] = ()
        self._results: list[tuple[Batch, ProduceError | None]] = []
        self._again: list[Batch] = []
        # whether those on their way are of these, and so not what the queue begins with
        self._sent_again = False
        self._most_records: int | None = None
        # failures in a row
        self._failures = 0
        self._spool_timer: asyncio.TimerHandle | None = None
        self._spool_due_at = math.inf
        self._pause_timer: asyncio.TimerHandle | None = None
        self._giving_away: asyncio.Task[None] | None = None

    # --- what happens to a lane ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        self._go_on()

    def resume(self, first_seq: int, last_seq: int, reports: int) -> None:
        """Take over what a former process left in the spool."""
        self._journalled_through = self._stored_through = last_seq
        self._loaded_through = first_seq - 1
        self._spilled = self.degraded = True
        self.depth = reports

    def enqueue(self, entry: LaneEntry) -> None:
        """Append ``entry``; its outcome is told through ``Outcome``."""
        self._last_seq += 1
        entry.seq = self._last_seq
        self.depth += entry.reports
        self.memory_bytes += entry.size
        self._memory.bytes += entry.size
        journal = self.degraded and self._spool is not None
        if journal and self.memory_bytes > self._window_bytes:
            self._spilled = True
        if not self._spilled:
            self._queue.append(entry)
            self._loaded_through = entry.seq
        if journal:
            self._journal([entry])
        elif entry.spool_at < self._spool_due_at:
            self._arm(entry.spool_at)
        if self._activity is Activity.IDLE:
            self._go_on()

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
        """Journal all that is not durable; keep the healthy lanes away from the link on which this one waits."""
        if not self.degraded:
            self.degraded = True
            log.info("lane_degraded", topic=self.topic, lane=self.number, reports=self.depth)
            if self._activity is Activity.SENDING:
                self._producer.leave(self._sent)
            self._producer.withdraw(self)
            self._go_on()
        if self._spool:
            self._journal([g for g in self._queue if not (g.journalled or g.safe or g.refused)])

    async def stop(self) -> None:
        """End sending; what is in flight stays unresolved."""
        self._activity = Activity.STOPPED
        self._producer.withdraw(self)
        for timer in (self._spool_timer, self._pause_timer):
            if timer is not None:
                timer.cancel()
        if self._giving_away is not None:
            self._giving_away.cancel()
            await asyncio.wait([self._giving_away])

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is on disk."""
        return not (self._queue or self._journalling or self._spilled)

    @property
    def unsafe(self) -> bool:
        """Whether something waits that is owed, and neither acknowledged nor stored."""
        return bool(self._journalling) or any(not (g.safe or g.refused) for g in self._queue)

    @property
    def oldest_ms(self) -> int | None:
        """Create time of the next record to be sent, milliseconds since the epoch; None where memory holds none."""
        return next((g.records[0].timestamp_ms for g in self._queue if g.records), None)

    # --- when the spool is used -----------------------------------------------------------------------------------

    def _arm(self, at: float) -> None:
        if self._spool_timer is not None:
            self._spool_timer.cancel()
        self._spool_due_at = at
        self._spool_timer = self._loop.call_at(at, self._on_spool_due)

    def _on_spool_due(self) -> None:
        self._spool_timer, self._spool_due_at = None, math.inf
        waiting = [g.spool_at for g in self._queue if not (g.safe or g.refused)]
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
        self._go_on()

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

    # --- what the producer asks -----------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """See ``Source``."""
        if self._quarantine:
            return Role.QUARANTINE
        return Role.DEGRADED if self.degraded else Role.HEALTHY

    def next_partition(self, partitions: int) -> int | None:
        """See ``Source``."""
        if self._activity is not Activity.IDLE:
            return None
        if self._again and self._again[0].partition >= partitions:
            # The topic was made anew, with fewer partitions: what may be in the old one's log goes to the new one.
            for batch in self._again:
                self._producer.renumber(batch)
            self._again = []
            self._settle()
        if self._again:
            return self._again[0].partition
        head = next((record for entry in self._queue for record in entry.unsent), None)
        if head is None:
            if not self._queue:
                self._refill()
            return None
        if self._prefix_of(head) is None:
            self._pause(_LOOK_SECONDS)
            return None
        return self._index if partitions == self._of else placed(head, partitions)

    def fill(self) -> Sequence[Batch]:
        """See ``Source``: with a prefix of the queue, or those again that may be in the log."""
        if self._activity is not Activity.IDLE:
            return ()
        self._sent_again = bool(self._again)
        if self._again:
            batches = [batch for batch in self._again if self._producer.may_begin(batch.topic, batch.partition, batch)]
            self._again = [batch for batch in self._again if batch not in batches]
        else:
            batches = self._filled()
        if batches:
            self._sent, self._activity = batches, Activity.SENDING
        elif not (self._queue or self._again):
            self._refill()
        return batches

    def _filled(self) -> list[Batch]:
        batches: dict[int, Batch] = {}
        producer = self._producer
        partitions = producer.cluster.partitions(self.topic)
        room = self._most_records
        for entry in self._queue:
            for partition, records in self._by_partition(entry.unsent, partitions):
                prefix = self._prefix_of(records[0])  # an entry's records were encoded alike
                batch = batches.get(partition)
                if prefix is None or (batch is None and not producer.may_begin(self.topic, partition)):
                    return list(batches.values())
                if batch is None:
                    stamp_ms = time.time_ns() // 1_000_000 if self.refusals.stamp else None
                    batch = batches[partition] = producer.open_batch(self.topic, partition, stamp_ms=stamp_ms)
                taken = batch.extend(records if room is None else records[:room], prefix)
                if room is not None:
                    room -= taken
                if taken and not entry.flying:
                    entry.flying = True
                    self._flying.append(entry)
                if taken < len(records):
                    return [batch for batch in batches.values() if batch.records]
        return list(batches.values())

    def _prefix_of(self, record: Record) -> bytes | None:
        return b"" if record.schema is None else self._schema_ids.prefix(self.topic, record.schema)

    def _by_partition(self, records: Sequence[Record], partitions: int) -> Iterable[tuple[int, Sequence[Record]]]:
        """Records in their order, in pieces that have one partition each; mostly all in one, as a lane is of one partition."""
        if partitions == self._of:
            return [(self._index, records)] if records else ()
        return [(placed(record, partitions), [record]) for record in records]

    def resolved(self, batch: Batch, error: ProduceError | None) -> None:
        """See ``Source``."""
        self._results.append((batch, error))
        if len(self._results) < len(self._sent):
            return
        if self._activity is Activity.SENDING:
            self._activity = Activity.IDLE
        if all(error is None for _, error in self._results):
            self._failures = 0
            self._settle([batch for batch, _ in self._results], partly=self._sent_again)
        else:
            self._react(self._results)
        # Only now: where one of these raises, ``broken`` has to know the batches.
        self._results, self._sent = [], ()
        self._go_on()

    def broken(self, error: Exception) -> None:
        """See ``Source``: a lane must not end; its queue is intact, so it goes on with the same head."""
        log.error("lane_failed", lane=self.number, exc_info=error)
        back = [batch for batch, _ in self._results]
        if self._activity is Activity.SENDING and len(back) < len(self._sent):
            return  # the other batches are on their way still
        for batch in (*self._sent, *self._again, *back):
            self._producer.renumber(batch)
        self._sent, self._again, self._results = (), [], []
        for entry in self._flying:
            entry.flying = False
        self._flying = []
        self._pause(_BROKEN_SECONDS)

    # --- going on -------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what is next, unless something is done already."""
        if self._activity is not Activity.IDLE:
            return
        if self._queue or self._again:
            self._producer.offer(self)
        else:
            self._refill()

    def _pause(self, seconds: float) -> None:
        if self._activity is Activity.STOPPED:
            return
        self._activity = Activity.PAUSED
        self._pause_timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._activity, self._pause_timer = Activity.IDLE, None
        self._go_on()

    def _refill(self) -> None:
        """Nothing is in memory: bring the next rows of the spool into the queue, if there are any."""
        if not self._spilled:
            if not self._journalling:
                self._recover()  # nothing waits, nor is anything on disk: what comes next starts afresh
                self.refusals.stamp = False
                if self.depth:
                    self._outcome.damaged(self.depth)
                    self.depth = 0
            return
        assert self._spool is not None  # noqa: S101 - nothing spills without
        self._activity = Activity.READING
        read = self._spool.read(self.number, self._loaded_through, max_bytes=self._window_bytes // 2)
        read.add_done_callback(partial(self._on_read, self._stored_through))

    def _on_read(self, stored: int, done: "asyncio.Future[list[SpoolRow]]") -> None:
        if done.cancelled():
            return
        error = done.exception()  # asked for also by a lane that was stopped: asyncio logs one that nobody asked for
        if self._activity is not Activity.READING:
            return
        self._activity = Activity.IDLE
        if error is not None:
            log.error("lane_failed", lane=self.number, exc_info=error)
            self._pause(_BROKEN_SECONDS)
            return
        rows = done.result()
        for row in rows:
            self._queue.append(self._from_disk(row))
            self._loaded_through = row.seq
        if not rows and stored == self._stored_through:
            if self._spool is not None and not self._spool.stats.checked:
                self._pause(_LOOK_SECONDS)  # the index may lack rows, so this lane is not called empty yet
                return
            if any(seq > self._loaded_through for seq in self._journalling):
                return  # its row comes next
            self._spilled = False
            self._loaded_through = self._last_seq
            self._refused_on_disk.clear()
        self._go_on()

    def _from_disk(self, row: SpoolRow) -> LaneEntry:
        entry = LaneEntry(row.records, None, 0.0)
        entry.seq, entry.reports = row.seq, row.n
        entry.journalled = entry.safe = True
        entry.refused = row.seq in self._refused_on_disk
        self._refused_on_disk.discard(row.seq)
        self._hold(entry.size)
        return entry

    # --- what became of batches -----------------------------------------------------------------------------------------

    def _settle(self, acknowledged: Sequence[Batch] = (), *, partly: bool = False) -> None:
        """Take what is acknowledged out of the queue; ``partly``: it may be other records than the queue begins with."""
        if self._again or partly:
            done = {id(record) for batch in acknowledged for record in batch.records}
            flying = {id(record) for batch in self._again for record in batch.records}
            for entry in self._flying:
                entry.unsent = [record for record in entry.unsent if id(record) not in done]
                entry.flying = any(id(record) in flying for record in entry.unsent)
        else:
            # All of them, and they were filled in the queue's order.
            count = sum(len(batch.records) for batch in acknowledged)
            for entry in self._flying:
                unsent = len(entry.unsent)
                entry.unsent = () if count >= unsent else entry.unsent[count:]
                count = max(0, count - unsent)
                entry.flying = False
        for entry in self._flying:
            if entry.refused and not entry.journalled and entry.unsent and not entry.flying:
                self._drop(entry)
        self._flying = [entry for entry in self._flying if entry.flying]
        self._pop_finished()

    def _pop_finished(self) -> None:
        """Answer and remove the entries at the head that have nothing left to send."""
        last, freed, queue = None, 0, self._queue
        while queue and not queue[0].unsent:
            entry = queue.popleft()
            freed += entry.size
            if not entry.dropped:
                last = entry
                if not entry.refused:
                    self.depth -= entry.reports
                self._outcome.acknowledged(entry, self.topic)
            entry.size, entry.records = 0, []
        self._hold(-freed)
        if last is None:
            return
        self.refusals.accepted()
        if self._most_records is not None:
            self._most_records = self._most_records * 2 if self._most_records < _MANY_RECORDS else None
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

    def _react(self, results: Sequence[tuple[Batch, ProduceError | None]]) -> None:
        """Do what the errors call for, and pause for as long as they want."""
        longest, given_away = 0.0, []
        for batch, error in results:
            if error is None:
                continue
            step = self.refusals.step(batch, error, self._producer)
            if step.again:
                self._again.append(batch)
            if step.halve:
                self._most_records = max(1, len(batch.records) // 2)
            given_away += [(record, step) for record in step.give_away]
            longest = max(longest, step.pause_seconds)
        # Other lanes may wait for the partitions of these, so they never wait for the others' partitions.
        self._again.sort(key=lambda batch: not batch.unresolved)
        self._settle([batch for batch, error in results if error is None], partly=True)
        self._failures += 1
        if given_away and self._activity is not Activity.STOPPED:
            self._begin_giving_away(given_away)
        elif longest and not self._producer.refuses_everything:
            seconds = min(longest, _BACKOFF_SECONDS * 2 ** min(self._failures - 1, 20))
            self._pause(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    # --- records that Kafka will not take -------------------------------------------------------------------------------

    def _begin_giving_away(self, chosen: Sequence[tuple[Record, Step]]) -> None:
        self._activity = Activity.GIVING_AWAY
        self._giving_away = self._loop.create_task(self._give_away(chosen), name=f"lane-{self.number}-gives-away")
        self._giving_away.add_done_callback(self._on_given_away)

    def _on_given_away(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self._activity is Activity.STOPPED:
            return
        self._activity = Activity.IDLE
        error = task.exception()
        if isinstance(error, Exception):
            self.broken(error)
        else:
            self._go_on()

    async def _give_away(self, chosen: Sequence[tuple[Record, Step]]) -> None:
        """Have records kept elsewhere, and go on without them."""
        for record, step in chosen:
            entry = next((g for g in self._queue if any(r is record for r in g.unsent)), None)
            if entry is None:
                continue
            # Until then it is neither spilled nor forgotten.
            if not entry.flying:
                entry.flying = True
                self._flying.append(entry)
            await self._outcome.give_away(entry, record, step.reason, too_large=step.too_large)
            self._producer.batches_failed["dead_letter", "too_large" if step.too_large else "refused"] += 1
            entry.unsent = [r for r in entry.unsent if r is not record]
            entry.reports -= 1
            if not entry.refused:
                self.depth -= 1
            self._settle()
