"""Moments of a lane and its spool that are too short to hit by chance: a failpoint in the spool holds its writer right there.

The spool is the real one, the cluster scripted. ``kill -9`` is shown by a copy of the directory made while the writer stands
still, which is what a killed process would leave: it is opened, and a new bridge goes on with it.
"""

import asyncio
import itertools
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from support.scripted import QUARANTINE, STATUS, Scripted, ScriptedIds, numbers, record, settings

from bridge.delivery.delivery import Delivery
from bridge.delivery.entry import PendingAck
from bridge.delivery.layout import Layout
from bridge.kafka.errors import TIMED_OUT
from bridge.spool.file import SpoolHooks
from bridge.spool.spool import Spool

if TYPE_CHECKING:
    from bridge.kafka.producer import Producer

TIMEOUT_SECONDS = 20.0
SPOOL_AFTER_MS = 40
KEY = "k0"


class Failpoint(SpoolHooks):
    """Holds the writer at the point named, once, until let go."""

    def __init__(self, point: str) -> None:
        self.point: str | None = point
        self.reached = threading.Event()
        self.go = threading.Event()

    def _at(self, point: str) -> None:
        if point == self.point:
            self.point = None
            self.reached.set()
            assert self.go.wait(TIMEOUT_SECONDS)

    def before_insert(self) -> None:
        """See ``SpoolHooks``."""
        self._at("before the insert")

    def before_commit(self) -> None:
        """See ``SpoolHooks``."""
        self._at("between insert and commit")

    def after_commit(self) -> None:
        """See ``SpoolHooks``."""
        self._at("after the commit")

    def before_delete(self) -> None:
        """See ``SpoolHooks``."""
        self._at("before the delete")


class Life:
    """A bridge's delivery on a directory, from its start to its end."""

    def __init__(self, delivery: Delivery, spool: Spool, cluster: Scripted) -> None:
        self.delivery, self.spool, self.cluster = delivery, spool, cluster

    @classmethod
    @asynccontextmanager
    async def begin(cls, directory: Path, cluster: Scripted, hooks: SpoolHooks | None = None) -> "AsyncIterator[Life]":
        """Open the spool, take over what is in it."""
        spool = await Spool.open(directory, max_bytes=64 << 20, min_free_bytes=0, hooks=hooks)
        delivery = Delivery(settings(f"delivery.spool_after_ms={SPOOL_AFTER_MS}"), ScriptedIds())
        delivery.spool, delivery.producer = spool, cast("Producer", cluster)
        delivery.counters.published = {STATUS: 0, QUARANTINE: 0}
        delivery._make_lanes(Layout([(STATUS, 2), (QUARANTINE, 1)]))
        try:
            yield cls(delivery, spool, cluster)
        finally:
            await asyncio.gather(*(lane.stop() for lane in delivery.all_lanes()))
            await spool.close(TIMEOUT_SECONDS)

    def push(self, number: int) -> PendingAck:
        """A callback of one report."""
        deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
        return self.delivery.submit([record(KEY, number)], deadline)

    def check_accounting(self) -> None:
        """The identity."""
        counters = self.delivery.counters
        left = sum(counters.published.values()) + self.delivery.waiting + counters.dead_lettered + counters.refused
        assert counters.received + counters.recovered == left
        assert self.delivery.waiting >= 0

    async def drained(self) -> None:
        """Acknowledge whatever is sent until nothing waits and the disk holds nothing."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (
                self.delivery.waiting
                or self.spool.stats.rows
                or self.spool.stats.pending_deletes
                or self.cluster.flying
            ):
                self.cluster.acknowledge()
                self.check_accounting()
                await asyncio.sleep(0.005)


async def until(holds: Callable[[], bool]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not holds():  # noqa: ASYNC110 - what is awaited sets no event of this loop
            await asyncio.sleep(0.002)


def in_order(cluster: Scripted) -> list[int]:
    """First occurrences."""
    return list(dict.fromkeys(numbers(cluster.log)))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ends lives in the reverse of their order."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("late", [True, False], ids=["acknowledged while held", "acknowledged by the next life only"])
@pytest.mark.parametrize("point", ["before the insert", "between insert and commit", "after the commit"])
async def test_the_head_succeeds_late_around_its_journalling_then_kill_9(
    tmp_path: Path, stack: AsyncExitStack, point: str, *, late: bool
) -> None:
    """The head's batch waits beyond spool_after_ms and is acknowledged at that moment: what is answered 200 is published.

    Nothing stays on disk, and the reconciliation balances; also where the process is killed right then, with no 200 given
    before the acknowledgement or the fsync.
    """
    failpoint, cluster = Failpoint(point), Scripted()
    life = await stack.enter_async_context(Life.begin(tmp_path / "spool", cluster, failpoint))
    first = life.push(1)
    await until(failpoint.reached.is_set)
    second = life.push(2)
    assert not first.outcome.done()
    if late:
        cluster.acknowledge(cluster.flying[0])
        await until(first.outcome.done)
        assert first.outcome.exception() is None
        assert not second.outcome.done()
    life.check_accounting()
    promised = {1} if late else set()
    image = shutil.copytree(tmp_path / "spool", tmp_path / "image")

    # The one that was not killed.
    failpoint.go.set()
    await until(lambda: first.outcome.done() and second.outcome.done())
    await life.drained()
    assert life.spool.stats.rows == 0
    assert in_order(cluster) == [1, 2]

    # The one that was.
    after = Scripted()
    after.log = [record(KEY, 1)] if late else []
    next_life = await stack.enter_async_context(Life.begin(image, after))
    found = next_life.delivery.counters.recovered
    assert found == (1 if point == "after the commit" else 0)
    next_life.push(3)
    await next_life.drained()
    assert promised <= set(numbers(after.log))
    assert in_order(after) == sorted(set(numbers(after.log)))


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_kill_9_between_acknowledgement_and_delete_and_in_mid_drain(
    tmp_path: Path, stack: AsyncExitStack, batch: int
) -> None:
    """Rows of what was acknowledged are still there: they are sent again, with the same ids, before all that follows."""
    failpoint, cluster = Failpoint("before the delete"), Scripted()
    cluster.batch_records = batch
    life = await stack.enter_async_context(Life.begin(tmp_path / "spool", cluster, failpoint))
    cluster.reachable = False
    acks = [life.push(number) for number in range(1, 11)]
    await until(lambda: all(ack.outcome.done() for ack in acks))
    assert all(ack.outcome.exception() is None for ack in acks)
    cluster.reachable = True
    await until(lambda: bool(cluster.flying))
    cluster.acknowledge()
    await until(failpoint.reached.is_set)
    assert numbers(cluster.log) == list(range(1, min(batch, 10) + 1))
    image = shutil.copytree(tmp_path / "spool", tmp_path / "image")
    failpoint.go.set()

    after = Scripted()
    after.log = list(cluster.log)
    next_life = await stack.enter_async_context(Life.begin(image, after))
    assert next_life.delivery.counters.recovered == 10
    await next_life.drained()
    assert in_order(after) == list(range(1, 11))
    await life.drained()
    assert in_order(cluster) == list(range(1, 11))


async def test_abandoned_bytes_that_arrive_late_are_repeats(tmp_path: Path, stack: AsyncExitStack) -> None:
    """A batch is given up with its producer and sent again; its old bytes come last, and no first occurrence moves."""
    cluster = Scripted()
    life = await stack.enter_async_context(Life.begin(tmp_path / "spool", cluster))
    for number in (1, 2, 3):
        life.push(number)
    await until(lambda: bool(cluster.flying))
    cluster.fail(cluster.flying[0], TIMED_OUT, arrives="late")
    await life.drained()
    for _ in itertools.repeat(None, len(cluster.late)):
        cluster.deliver_late()

    assert len(cluster.log) > 3
    assert in_order(cluster) == [1, 2, 3]
