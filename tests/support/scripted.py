"""Lanes on a stage: the real ``Delivery`` and its lanes, a scripted cluster and disk, and a clock that only the test turns.

    stage = Stage()
    pushed = stage.push("a", "b")
    stage.cluster.acknowledge()
    assert stage.answer(pushed) == 200

Nothing happens by itself but what lanes do at once: the cluster resolves a batch when told, the disk works off its queue when
told, time passes when told. ``Scripted`` stands for the ``Producer``; the disk is a ``Spool`` in memory.
"""

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from msgspec import structs

from bridge.config import Settings, load
from bridge.delivery.delivery import Delivery
from bridge.delivery.entry import PendingAck, size_in_memory
from bridge.delivery.lane import Lane
from bridge.delivery.layout import Layout, placed
from bridge.errors import SpoolFailed
from bridge.kafka.errors import NOT_SENT, Action, ProduceError
from bridge.record import Record
from bridge.spool.rows import LaneStats, SpoolRow
from bridge.spool.stats import SpoolEvent, SpoolStats

if TYPE_CHECKING:
    from bridge.kafka.producer import Producer
    from bridge.spool.spool import Spool

STATUS, QUARANTINE = "status", "quarantine"
LANES = 2
DEADLINE_SECONDS = 2.0
LOOK_SECONDS = 0.2
_ROUNDS = 25

T = TypeVar("T")


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time is the test's."""

    now = 1000.0

    def time(self) -> float:
        """As told."""
        return self.now


class ScriptedBatch:
    """Takes ``most`` records."""

    def __init__(self, topic: str, partition: int, most: int, size: int, *, stamped: bool) -> None:
        self.topic, self.partition, self.stamped = topic, partition, stamped
        self.records: list[Record] = []
        self.sent: list[Record] = []
        """As Kafka gets them."""
        self.source: Any = None
        self.unresolved = False
        self.closes = 0
        self.numbered = True
        self.size = self.size_before_compression = size
        self._most = most

    def extend(self, records: Sequence[Record], prefix: bytes = b"") -> int:
        """As a batch does: a first one always fits."""
        taken = records[: max(self._most, 1) - len(self.records)]
        self.records += taken
        self.sent += [structs.replace(each, value=prefix + each.value) if prefix else each for each in taken]
        return len(taken)


class Sent:
    """A batch on its way."""

    def __init__(self, batch: ScriptedBatch) -> None:
        self.batch = batch
        self.topic, self.partition, self.records = batch.topic, batch.partition, batch.sent

    @property
    def lane(self) -> tuple[str, int]:
        """Whose it is."""
        return self.topic, placed(self.records[0], LANES) if self.topic == STATUS else 0


class ScriptedIds:
    """A registry's ids: what the test has put into ``prefixes``."""

    def __init__(self) -> None:
        self.prefixes: dict[tuple[str, bytes], bytes] = {}
        self.ready = True

    def start(self) -> None:
        """Nothing to look up."""

    async def stop(self) -> None:
        """Nothing to end."""

    def prefix(self, topic: str, schema: bytes) -> bytes | None:
        """As told."""
        return self.prefixes.get((topic, schema))


class Scripted:
    """What lanes see of a ``Producer``, and the cluster behind it: ``log`` is what that has, in the order it came."""

    def __init__(self) -> None:
        self.partition_counts = {STATUS: LANES, QUARANTINE: 1}
        self.leaderless: set[tuple[str, int]] = set()
        self.batch_records = 1000
        self.log: list[Record] = []
        self.flying: list[Sent] = []
        self.history: list[Sent] = []
        self.late: list[Sent] = []
        """Given up by the bridge, bytes still in a socket."""
        self.acknowledged: set[int] = set()
        self.reachable = True
        self.held = False
        """Whether the links are busy with others' batches."""
        self.batch_bytes = 100
        """Of every batch, before and after compression."""
        self.accepted_bytes = 0
        """Of the largest request that a broker accepted of late."""
        self.largest: int | None = 50
        """``max.message.bytes``."""
        self.begin()

    def begin(self) -> None:
        """A process of its own: the last one's batches are answered to nobody."""
        self.late += self.flying
        self.flying = []
        self.renumbered = self.left = 0
        self.owed: dict[tuple[str, int], list[Record]] = {}
        self.ready = True
        self.refuses_everything = False
        self.batches_failed: Counter[tuple[str, str]] = Counter()
        self._offered: dict[Lane, None] = {}
        self.cluster = self.sizes = self

    def release(self) -> None:
        """The links are free."""
        self.held = False
        for lane in list(self._offered):
            self.offer(lane)

    # --- what lanes call ----------------------------------------------------------------------------------------------

    def offer(self, lane: Lane) -> None:
        """Asked for its batches soon, or when it can be."""
        self._offered[lane] = None
        lane._loop.call_soon(self._round)

    def _round(self) -> None:
        if self.held:
            return
        offered, self._offered = self._offered, {}
        for lane in offered:
            partition = lane.next_partition(self.partitions(lane.topic))
            if partition is None:
                continue
            if not self.reachable or not self.may_begin(lane.topic, partition):
                lane._loop.call_later(LOOK_SECONDS, self.offer, lane)
                continue
            batches = lane.fill()
            if not batches:
                lane._loop.call_later(LOOK_SECONDS, self.offer, lane)
            for batch in batches:
                batch.source = lane
                self.take(cast("ScriptedBatch", batch))

    def withdraw(self, lane: Lane) -> None:
        """It waits no more."""
        self._offered.pop(lane, None)

    def leave(self, batches: Sequence[ScriptedBatch]) -> None:
        """A lane was degraded with batches on their way."""
        del batches
        self.left += 1

    def partitions(self, topic: str) -> int:
        """As the test has them."""
        return self.partition_counts[topic]

    def largest_message(self, topic: str) -> int | None:
        """As the test has it."""
        del topic
        return self.largest

    def may_begin(self, topic: str, partition: int, batch: ScriptedBatch | None = None) -> bool:
        """Unless the test took the leader away, or a batch is on its way there."""
        del batch
        busy = any((each.topic, each.partition) == (topic, partition) for each in self.flying)
        return (topic, partition) not in self.leaderless and not busy

    def open_batch(self, topic: str, partition: int, *, stamp_ms: int | None = None) -> ScriptedBatch:
        """An empty one."""
        return ScriptedBatch(topic, partition, self.batch_records, self.batch_bytes, stamped=stamp_ms is not None)

    def renumber(self, batch: ScriptedBatch) -> None:
        """Other records may follow."""
        if batch.unresolved:
            self.renumbered += 1
            self.owed.pop((batch.topic, batch.partition), None)
        batch.unresolved = False

    def leader(self, topic: str, partition: int) -> int:
        """There is one broker."""
        del topic, partition
        return 1

    def largest_accepted(self, node: int | None, since: float) -> int:
        """As the test has it."""
        del node, since
        return self.accepted_bytes

    def batch_too_large(self, batch: ScriptedBatch) -> None:
        """The lane halves by itself."""

    def use_next_codec(self, batch: ScriptedBatch) -> bool:
        """There is none."""
        del batch
        return False

    def take(self, batch: ScriptedBatch) -> None:
        """A batch was sent. At most one of a partition may be, and after one that may be in the log the same."""
        sent = Sent(batch)
        key = batch.topic, batch.partition
        assert all((each.topic, each.partition) != key for each in self.flying), "two of one partition"
        owed = self.owed.pop(key, None)
        assert owed is None or owed == sent.records, "other records under the numbers of a batch that may be in the log"
        self.flying.append(sent)
        self.history.append(sent)

    # --- what the test does -------------------------------------------------------------------------------------------

    def acknowledge(self, sent: Sent | None = None) -> None:
        """Take a batch in and say so: this one, or all that are on their way."""
        for each in [sent] if sent is not None else list(self.flying):
            self.flying.remove(each)
            self.log += each.records
            self.acknowledged |= {id(record) for record in each.records}
            each.batch.source.resolved(each.batch, None)

    def fail(self, sent: Sent, error: ProduceError, *, arrives: Literal["never", "now", "late"] = "never") -> None:
        """Answer it with an error, or not at all; its records may be in the log all the same, or come there later."""
        self.flying.remove(sent)
        if arrives == "now":
            self.log += sent.records
        elif arrives == "late":
            self.late.append(sent)
        batch = sent.batch
        self.batches_failed[error.action.value, error.name] += 1
        if error.action is Action.RENUMBER:
            batch.unresolved = False
        elif not error.not_appended and error is not NOT_SENT:
            batch.unresolved = True
        if batch.unresolved:
            self.owed[sent.topic, sent.partition] = sent.records
        batch.source.resolved(batch, error)

    def deliver_late(self, number: int = 0) -> None:
        """Bytes of a batch that was given up arrive."""
        self.log += self.late.pop(number).records


Found = Literal["whole", "unchecked", "damaged"]
"""How a start finds the file; of a damaged one no row is known before it is salvaged."""


class Disk:
    """The Spool's interface over a dictionary; works off its queue, in order, when told. So it salvages and checks."""

    def __init__(self, former: "Disk | None" = None, found: Found = "whole") -> None:
        self.rows: dict[tuple[int, int], SpoolRow] = former.rows if former else {}
        self.damaged: dict[tuple[int, int], SpoolRow] = former.damaged if former else {}
        """Rows that are to be taken over; a read waits for them."""
        self.checked = found == "whole"
        self.on_event: Callable[[SpoolEvent], None] = lambda _: None
        self._held: list[tuple[str, Callable[[], Any], asyncio.Future[Any] | None]] = []
        self.salvaging = bool(self.damaged)
        if found == "damaged":
            self.damage()
        self._salvaged: Counter[int] = Counter()
        """Reports by lane, of former processes."""
        for row in self.rows.values():
            self._salvaged[row.lane] += row.n
        self._since_start = self.salvaging
        self.dead_letters: list[SpoolRow] = former.dead_letters if former else []
        self.queue: deque[tuple[str, Callable[[], Any], asyncio.Future[Any] | None]] = deque()
        self.deletes: list[tuple[int, int]] = []
        self.oldest_waiting_seconds = 0.0

    @property
    def stats(self) -> SpoolStats:
        """As an opening counts them."""
        lanes = {}
        for number in {lane for lane, _ in self.rows}:
            rows = [row for (lane, _), row in self.rows.items() if lane == number]
            seqs, reports = [row.seq for row in rows], sum(row.n for row in rows)
            lanes[number] = LaneStats(len(rows), reports, 0, min(seqs), max(seqs), None)
        checked = self.checked and not self.salvaging
        return SpoolStats(
            lanes=lanes,
            rows=len(self.rows),
            writable=True,
            checked=checked,
            salvaging=self.salvaging,
            checked_share=0.5,
        )

    # --- the Spool's interface ----------------------------------------------------------------------------------------

    def append(self, rows: Sequence[SpoolRow]) -> "asyncio.Future[None]":
        """See ``Spool``."""
        return self._ask("append", lambda: self._insert(rows))

    def delete_through(self, lane: int, seq: int) -> None:
        """See ``Spool``."""
        self.deletes.append((lane, seq))
        self.queue.append(("delete", lambda: self._delete(lane, seq), None))

    def read(self, lane: int, after_seq: int, *, max_bytes: int) -> "asyncio.Future[list[SpoolRow]]":
        """See ``Spool``."""
        return self._ask("read", lambda: self._read(lane, after_seq, max_bytes))

    def dead_letter(self, rows: Sequence[SpoolRow], reason: str) -> "asyncio.Future[None]":
        """See ``Spool``."""
        del reason
        return self._ask("dead_letters", lambda: self.dead_letters.extend(rows))

    # --- what the test does -------------------------------------------------------------------------------------------

    def work(self, error: Exception | None = None, *, kept: bool = False, answered: bool = True) -> str:
        """Do what is next in the queue.

        Args:
            error: An append fails with it; anything else is done.
            kept: The failed append's rows are on the disk all the same: it was the fsync that failed.
            answered: False: done, and the process dies before it hears of it.
        """
        kind, run, future = self.queue.popleft()
        if kind == "read" and self.salvaging:
            self._held.append((kind, run, future))
            return kind
        fails = error is not None and kind == "append"
        result = run() if not fails or kept else None
        if future is not None and answered and not future.done():
            if fails:
                future.set_exception(cast("Exception", error))
            else:
                future.set_result(result)
        return kind

    def damage(self) -> None:
        """An empty file takes the place of the one with all the rows, which is salvaged."""
        self.damaged = self.rows | self.damaged
        self.rows = {}
        self.salvaging = True

    def salvage(self, most: int | None = None) -> None:
        """Take over some rows, all if None; after the last say so, and do the reads that waited."""
        for place in list(self.damaged)[:most]:
            row = self.damaged.pop(place)
            assert place not in self.rows, "a number was given twice"
            self.rows[place] = row
            self._salvaged[row.lane] += row.n
        if self.damaged or not self.salvaging:
            return
        self.salvaging = False
        self.queue.extendleft(reversed(self._held))
        self._held = []
        lanes = dict(self._salvaged) if self._since_start else {}
        self.on_event(SpoolEvent("salvaged", "", None, 0, sum(lanes.values()), lanes))

    def _ask(self, kind: str, run: Callable[[], Any]) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue.append((kind, run, future))
        return future

    def _insert(self, rows: Sequence[SpoolRow]) -> None:
        for row in rows:
            assert (row.lane, row.seq) not in self.rows | self.damaged, "a row twice"
            self.rows[row.lane, row.seq] = row

    def _delete(self, lane: int, seq: int) -> None:
        for rows in (self.rows, self.damaged):
            for each in [key for key in rows if key[0] == lane and key[1] <= seq]:
                del rows[each]

    def _read(self, lane: int, after_seq: int, max_bytes: int) -> list[SpoolRow]:
        rows = sorted((r for (n, seq), r in self.rows.items() if n == lane and seq > after_seq), key=lambda r: r.seq)
        sizes = list(itertools.accumulate(size_in_memory(row.records) for row in rows))
        return [row for row, size in zip(rows, sizes, strict=True) if size <= max_bytes] or rows[:1]


class Stage:
    """One process after another on the same cluster and disk.

    Args:
        window_bytes: A lane's window of memory.
        spool: Whether there is one.
    """

    def __init__(self, *, window_bytes: int = 1 << 20, spool: bool = True) -> None:
        self.clock = Clock()
        self.cluster = self.scripted()
        self.ids = ScriptedIds()
        self.window_bytes = window_bytes
        self._numbers = itertools.count(1)
        self.disk = Disk()
        self._spool = spool
        self.begin()

    def scripted(self) -> Any:
        """The cluster behind all processes."""
        return Scripted()

    def begin(self, found: Found = "whole") -> None:
        """Start a process, which finds the file so."""
        self.disk = Disk(self.disk, found)
        self.cluster.begin()
        self.run(self._begin())
        self.settle()

    async def _begin(self) -> None:
        self.delivery = Delivery(settings(), self.ids)
        self.delivery.spool = cast("Spool", self.disk) if self._spool else None
        self.disk.on_event = self.delivery._on_spool_event
        self.delivery.producer = self.producer()
        self.delivery.counters.published = {STATUS: 0, QUARANTINE: 0}
        self.delivery._make_lanes(Layout([(STATUS, LANES), (QUARANTINE, 1)]))
        for lane in self.delivery.all_lanes():
            lane._window_bytes = self.window_bytes

    def producer(self) -> "Producer":
        """The process's."""
        return cast("Producer", self.cluster)

    def crash(self, unheard: int = 0, found: Found = "whole") -> None:
        """``kill -9``; the disk did ``unheard`` more of its queue. Then the next process."""
        for _ in range(min(unheard, len(self.disk.queue))):
            self.disk.work(answered=False)
        self.end()
        self.begin(found)

    def end(self) -> None:
        """No process runs."""
        tasks = asyncio.all_tasks(self.clock)
        for task in tasks:
            task.cancel()
        for timer in list(self.clock._scheduled):  # type: ignore[attr-defined]  # a dead process has no timers
            timer.cancel()
        self.run(asyncio.sleep(0))
        self.settle()

    def close(self) -> None:
        """End it all."""
        self.end()
        self.clock.close()

    # --- what happens -------------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the stage's loop."""
        return self.clock.run_until_complete(work)

    def settle(self) -> None:
        """Let lanes do what they do at once."""

        async def turns() -> None:
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)

        self.run(turns())

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.settle()

    def push(self, *keys: str, kind: str = "") -> PendingAck:
        """A callback with a report for each key; ``kind`` marks what the cluster is to think of them."""
        records = [record(key, next(self._numbers), kind) for key in keys]

        async def submit() -> PendingAck:
            return self.delivery.submit(records, self.clock.now + DEADLINE_SECONDS)

        ack = self.run(submit())
        self.settle()
        return ack

    def acknowledge(self, sent: Sent | None = None) -> None:
        """See ``Scripted.acknowledge``."""
        self.run(in_loop(partial(self.cluster.acknowledge, sent)))
        self.settle()

    def fail(self, sent: Sent, error: ProduceError, *, arrives: Literal["never", "now", "late"] = "never") -> None:
        """See ``Scripted.fail``."""
        self.run(in_loop(partial(self.cluster.fail, sent, error, arrives=arrives)))
        self.settle()

    def commit(self, error: Exception | None = None, *, kept: bool = False) -> None:
        """The disk works off all that is queued; appends fail with ``error``."""
        while self.disk.queue:
            self.disk.work(error, kept=kept)
            self.settle()

    def salvage(self, most: int | None = None) -> None:
        """See ``Disk.salvage``."""
        self.run(in_loop(partial(self.disk.salvage, most)))
        self.settle()

    # --- what is seen -------------------------------------------------------------------------------------------------

    @staticmethod
    def answer(ack: PendingAck) -> int | None:
        """200, 503, or None while it is open."""
        if not ack.outcome.done():
            return None
        return 200 if ack.outcome.exception() is None else 503

    def lane(self, key: str) -> Lane:
        """A key's lane."""
        return self.delivery.lanes[STATUS][placed(record(key, 0), LANES)]

    @property
    def flying(self) -> list[list[int]]:
        """Numbers of the records in each batch on its way."""
        return [numbers(sent.records) for sent in self.cluster.flying]

    @property
    def log(self) -> list[int]:
        """Numbers of the records on the cluster's status topic, as they came."""
        return numbers([each for each in self.cluster.log if each.topic == STATUS])

    @property
    def on_disk(self) -> list[int]:
        """Numbers of the records in the spool, in its order."""
        rows = [self.disk.rows[place] for place in sorted(self.disk.rows)]
        return [number for row in rows for number in numbers(row.records)]

    @property
    def quarantined(self) -> list[int]:
        """The same of the quarantine."""
        return numbers([each for each in self.cluster.log if each.topic == QUARANTINE])

    def check(self) -> None:
        """What holds at every moment."""
        self.check_accounting()

    def first_occurrences(self) -> dict[str, list[int]]:
        """The same by key, repeats left out."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for each in self.cluster.log:
            number = int(each.value)
            key = (each.key or b"").decode()
            if each.topic == STATUS and number not in found[key]:
                found[key].append(number)
        return dict(found)

    def check_accounting(self) -> None:
        """The identity, and that nothing is less than nothing."""
        counters, waiting = self.delivery.counters, self.delivery.waiting
        published = sum(counters.published.values())
        assert counters.received + counters.recovered == published + waiting + counters.dead_lettered + counters.refused
        assert waiting >= 0
        assert self.delivery.memory.bytes == sum(lane.memory_bytes for lane in self.delivery.all_lanes())
        assert all(lane.depth >= 0 and lane.memory_bytes >= 0 for lane in self.delivery.all_lanes())

    def finish(self) -> None:
        """Everything is well from now on, until nothing waits."""
        self.cluster.reachable = True
        self.cluster.leaderless.clear()
        self.salvage()
        self.disk.checked = True
        for _ in range(200):
            self.advance(0.5)
            self.acknowledge()
            self.commit()
            well = all(lane.idle and not lane.degraded for lane in self.delivery.all_lanes())
            if self.delivery.waiting == 0 and well and not self.cluster.flying and not self.disk.queue:
                break
        self.check_accounting()
        assert self.delivery.waiting == 0
        assert all(lane.idle and not lane.degraded for lane in self.delivery.all_lanes())


async def in_loop(call: Callable[[], None]) -> None:
    """Call it where the loop runs, as what happens in a process does."""
    call()


FAILED = SpoolFailed("provoked")


def record(key: str, number: int, kind: str = "") -> Record:
    """A record that says its number."""
    return Record(STATUS, key.encode(), b"%d" % number, [("kind", kind.encode())], number)


def kind_of(each: Record) -> str:
    """What ``Stage.push`` marked it with."""
    return dict(each.headers).get("kind", b"").decode()


def numbers(records: Sequence[Record]) -> list[int]:
    """What they say."""
    return [int(each.value) for each in records]


def settings(*assignments: str) -> Settings:
    """The bridge's own defaults with the stage's topics, and what is given over them."""
    topics = [f"topics.status={STATUS}", f"topics.quarantine={QUARANTINE}"]
    return load(environment={}, assignments=["access.allow_unauthenticated=true", *topics, *assignments]).settings
