"""Where the bridge is hurt: it runs under load against a real Kafka, watched, and what became of everything is checked.

    async with Arena(cluster.bootstrap_servers, tmp_path, topics) as arena:
        arena.load(seconds=10, reports_per_second=800)
        await cluster.kill_all()
        ...
        verdict = await arena.verdict()

A watcher scrapes the bridge's metrics all the time; at each scrape the reconciliation must balance:
``received + recovered == published + waiting + dead_lettered + refused``. The verdict is the checker's: what was answered 200, as
the provider wrote it down, against what a consumer reads from the beginning, as multisets by event id, and by key as sequences of
first occurrences. It needs nothing of the bridge. Where the brokers' disks are known, the sequence numbers of the producers are
judged too (``support.segments``).

The fixture ``make_arena`` is there in modules that say ``pytest_plugins = ("support.arena_fixture",)``.
"""

import asyncio
import itertools
import math
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.lab.simulate.check import CheckResult, Consumed, check
from bridge.lab.simulate.connection import Target
from bridge.lab.simulate.identity import raw_sha256
from bridge.lab.simulate.ledger import Latency, Ledger, Summary
from bridge.lab.simulate.provider import Provider, ProviderOptions
from bridge.lab.simulate.push import Push
from bridge.lab.simulate.run import new_run
from support.bridge_process import BridgeProcess
from support.segments import Verdict as LogVerdict
from support.segments import judge
from support.topics import consume_all, create_topic, unique_name, until

LONG = os.environ.get("BRIDGE_LONG") == "1"
"""The long form: the same tests for longer, with more rounds, under more load."""
RATE = 3000.0 if LONG else 700.0
DRAINED_SECONDS = 600.0 if LONG else 60.0
DEADLINE_SECONDS = 3.0
PARTITIONS = 12
STATUS_CONFIG = {"min.insync.replicas": "2", "max.message.bytes": "1048588"}
QUARANTINE_CONFIG = {"min.insync.replicas": "2", "max.message.bytes": "9437184"}
_SCRAPE_SECONDS = 0.05
_PREFIX = "chatapp_bridge_"
# 1 and 5 minutes between attempts, in tests 1.2 and 6 s.
_RETRY_SCALE = 0.02

Metrics = dict[str, float]
T = TypeVar("T")


def longer(short: float, long: float) -> float:
    """A duration or a number: of the short form, or of the long one."""
    return long if LONG else short


class Scrape(NamedTuple):
    """One look: when, by the monotonic clock, and every sample by its name without the prefix."""

    at: float
    metrics: Metrics

    def total(self, name: str) -> float:
        """Over all labels; of a counter without its suffix."""
        return sum(
            value
            for key, value in self.metrics.items()
            if re.split(r"[{]", key)[0] in {name, f"{name}_total"} and not key.endswith("_created")
        )

    @property
    def waiting(self) -> float:
        """Reports."""
        return self.total("reports_waiting")

    @property
    def degraded(self) -> float:
        """Lanes."""
        return self.metrics['lanes{state="degraded"}']

    @property
    def imbalance(self) -> float:
        """What came in less what is known of it; must be 0."""
        came = self.total("reports_received") + self.total("reports_recovered")
        return came - sum(
            self.total(f"reports_{what}") for what in ("published", "waiting", "dead_lettered", "refused")
        )


class Watcher:
    """Scrapes a bridge from its start to its end, over its deaths."""

    def __init__(self, bridge: BridgeProcess) -> None:
        self._bridge = bridge
        self._changed = asyncio.Event()
        self.scrapes: list[Scrape] = []

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            AssertionError: The reconciliation does not balance, or less than nothing waits.
        """
        while True:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                metrics = await self._bridge.metrics()
                scrape = Scrape(time.monotonic(), {k.removeprefix(_PREFIX): v for k, v in metrics.items()})
                assert scrape.imbalance == 0, f"the reconciliation is off by {scrape.imbalance:g}: {scrape.metrics}"
                assert scrape.waiting >= 0, f"{scrape.waiting:g} reports wait"
                self.scrapes.append(scrape)
                self._changed.set()
            await asyncio.sleep(_SCRAPE_SECONDS)

    async def next(self) -> Scrape:
        """The next look."""
        self._changed.clear()
        await self._changed.wait()
        return self.scrapes[-1]


class Verdict(NamedTuple):
    """What became of everything: the checker's word, the provider's, and the number of reconciliations that balanced."""

    checked: CheckResult
    summary: Summary
    scrapes: int
    drained_seconds: float
    log: LogVerdict | None = None


class Arena:
    """A bridge, a provider, a watcher.

    Args:
        bootstrap: Where the topics are read back; the bridge's too unless told.
        directory: For its spool and log.
        topics: For events and quarantine.
        settings: The bridge's.
        bridge_bootstrap: What the bridge is told.
        log_dirs: ``log.dirs`` of all brokers, where they can be read.
    """

    def __init__(
        self,
        bootstrap: str,
        directory: Path,
        topics: tuple[str, str],
        settings: Mapping[str, Any] | None = None,
        *,
        bridge_bootstrap: str | None = None,
        log_dirs: Sequence[Path] = (),
    ) -> None:
        self.bootstrap, self.topics, self.log_dirs = bootstrap, topics, log_dirs
        defaults = {"log.level": "info", "server.shutdown_seconds": 6.0}
        self.bridge = BridgeProcess(
            bridge_bootstrap or bootstrap, directory, {**defaults, **(settings or {})}, topics, wait="live"
        )
        self.ledger = Ledger()
        self.watcher = Watcher(self.bridge)
        self._loads: list[asyncio.Task[None]] = []
        self._enough = False
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start the bridge and the watcher."""
        await self.bridge.__aenter__()
        self._background.append(asyncio.create_task(self.watcher.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        for task in (*self._loads, *self._background):
            task.cancel()
        await asyncio.gather(*self._loads, *self._background, return_exceptions=True)
        self.bridge.close()

    # --- load ---------------------------------------------------------------------------------------------------------

    def load(
        self,
        seconds: float,
        reports_per_second: float | None = None,
        *,
        size: int = 10,
        seed: int = 1,
        mix: Mix | None = None,
        url: str | None = None,
    ) -> None:
        """Begin to push, in order by key, at a constant rate whatever the answers; more than one load may run.

        It is pushed to the bridge's own address unless ``url`` is given.
        """
        rate = reports_per_second or RATE
        options = ProviderOptions(
            connections=512, retry_scale=_RETRY_SCALE, answer_timeout_seconds=DEADLINE_SECONDS, ordered=True
        )
        campaign = CampaignOptions(
            messages=None,
            max_reports=int(seconds * rate),
            seed=seed,
            run=new_run(),
            size=(size, size),
            reports_per_second=rate,
            mix=mix or Mix(undecodable=0.001),
        )
        provider = Provider(Target.parse(url or self.bridge.url), self.ledger, options)
        first = len(self._loads) * 1_000_000  # numbers of pushes are those of the ledger
        pushes = (
            Push(first + each.number, each.at_seconds, each.body, each.reports)
            for each in itertools.takewhile(lambda _: not self._enough, Campaign(campaign).pushes())
        )
        self._loads.append(asyncio.create_task(provider.run(pushes)))

    def enough(self) -> None:
        """Begin no more pushes; those that began go on to their end."""
        self._enough = True

    async def loaded(self) -> None:
        """Wait until each push is acknowledged or given up."""
        await self._unless_broken(asyncio.gather(*self._loads))

    # --- what is seen -------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[Scrape], bool], seconds: float = DRAINED_SECONDS) -> Scrape:
        """Look until it holds.

        Raises:
            AssertionError: The reconciliation did not balance on the way, or it does not hold in time.
        """

        async def look() -> Scrape:
            while not holds(scrape := await self.watcher.next()):
                pass
            return scrape

        try:
            return await self._unless_broken(asyncio.wait_for(look(), seconds))
        except TimeoutError:
            last = self.watcher.scrapes[-1].metrics if self.watcher.scrapes else "none"
            raise AssertionError(f"not so after {seconds:g} s; the last scrape: {last}") from None

    async def _unless_broken(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        await asyncio.wait([task, *self._background], return_when=asyncio.FIRST_COMPLETED)
        for watching in self._background:
            if watching.done():
                task.cancel()
                watching.result()
        return await task

    async def drained(self) -> float:
        """Wait until nothing waits and every lane is healthy; seconds it took."""
        began = time.monotonic()
        await self.until(
            lambda scrape: scrape.waiting == 0 and scrape.degraded == 0 and scrape.metrics["spool_rows"] == 0
        )
        return time.monotonic() - began

    async def verdict(self, *, but: Collection[str] = (), extra: Collection[str] = ()) -> Verdict:
        """Wait for the end of the load and of the drain, then check.

        Args:
            but: Kinds of damage that are none here.
            extra: SHA-256 of quarantined values that this test pushed itself.

        Raises:
            AssertionError: Something was lost, invented or put out of order, or the reconciliation did not balance.
        """
        await self.loaded()
        drained = await self.drained()
        status, quarantine = [await consume_all(self.bootstrap, topic) for topic in self.topics]
        checked = check(
            self.ledger.entries.values(),
            [Consumed(dict(r.headers)["ce_id"].decode(), r.key.decode(), r.partition, r.offset) for r in status],
            [digest for digest in (raw_sha256(r.value) for r in quarantine) if digest not in extra],
        )
        damages = [damage for damage in checked.damages if damage.kind not in but]
        assert not damages, checked.describe()
        assert checked.promised > 0
        assert checked.ordered_keys > 0
        summary = self.ledger.summary()
        assert summary.unresolved == 0
        judged = None
        if self.log_dirs:
            judged = await asyncio.to_thread(judge, self.log_dirs, self.topics[0], quarantine=self.topics[1])
            assert judged.ok, judged.describe()
        verdict = Verdict(checked, summary, len(self.watcher.scrapes), drained, judged)
        print(report(verdict))  # noqa: T201 - seen with pytest -s, and where the test fails
        return verdict

    def latency(self, chosen: Callable[[Any], bool], since: float, until_: float = math.inf) -> Latency:
        """Of first attempts meant for that time, of the pushes chosen by their ledger entries."""
        return Latency.of(
            attempt.latency_seconds
            for entry in self.ledger.entries.values()
            if chosen(entry)
            for attempt in entry.attempts[:1]
            if since <= attempt.intended_at < until_
        )

    def answered_in_time(self) -> float:
        """Share of first attempts that were answered 200 within the provider's three seconds."""
        firsts = [entry.attempts[0] for entry in self.ledger.entries.values() if entry.attempts]
        return sum(attempt.error is None for attempt in firsts) / len(firsts)


def report(verdict: Verdict) -> str:
    """Figures of a run, for people."""
    checked, summary = verdict.checked, verdict.summary
    latency = summary.latency
    ms = [
        each * 1000 for each in (latency.p50_seconds, latency.p99_seconds, latency.p99_9_seconds, latency.max_seconds)
    ]
    lines = (
        f"{summary.pushes} callbacks, {summary.reports} reports in {summary.duration_seconds:.1f} s",
        f"answers {summary.answers}; p50 {ms[0]:.1f} ms, p99 {ms[1]:.0f} ms, p99.9 {ms[2]:.0f} ms, longest {ms[3]:.0f} ms",
        f"promised {checked.promised}, found {checked.found}, repeats {checked.repeats}, keys in order {checked.ordered_keys}",
        f"damage {len(checked.damages)}; the reconciliation balanced in {verdict.scrapes} scrapes",
        f"drained {verdict.drained_seconds:.1f} s after the last answer",
    )
    judged = [] if verdict.log is None else verdict.log.describe().splitlines()
    return "".join(f"\n  {line}" for line in [*lines, *judged])


class MakeArena(Protocol):
    """Starts a bridge in an arena on the three nodes."""

    async def __call__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        topics: tuple[str, str] | None = None,
        bridge_bootstrap: str | None = None,
    ) -> Arena:
        """Topics as they are declared, of unique names, are made unless names are given."""


async def make_status(bootstrap: str, name: str | None = None) -> str:
    """A topic for events, as it is declared."""
    return await create_topic(bootstrap, name or unique_name("status"), partitions=PARTITIONS, config=STATUS_CONFIG)


async def make_quarantine(bootstrap: str, name: str | None = None) -> str:
    """The other one."""
    return await create_topic(bootstrap, name or unique_name("quarantine"), partitions=3, config=QUARANTINE_CONFIG)


# --- topics, beyond what support.topics makes ------------------------------------------------------------------------------


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create_assigned(
    bootstrap: str, name: str, replicas: Mapping[int, list[int]], config: Mapping[str, str]
) -> str:
    """Make a topic whose partitions have their replicas where told, the first one leading; wait until it can be written."""
    async with admin(bootstrap) as client:
        wanted = NewTopic(name, -1, -1, replica_assignments=dict(replicas), topic_configs=dict(config))
        answer = await client.create_topics([wanted])
        for _, code, *message in answer.topic_errors:
            assert code == 0, for_code(code)(str(message))

        async def led() -> bool:
            (topic,) = await client.describe_topics([name])
            return len(topic["partitions"]) == len(replicas) and all(p["leader"] >= 0 for p in topic["partitions"])

        async with asyncio.timeout(30):
            await until(led)
    return name
