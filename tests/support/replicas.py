"""Several bridges behind one address, each with a spool of its own, as the chart runs them; and the check of what became of all.

    async with Replicas(bootstrap, tmp_path, topics, count=3) as replicas:
        replicas.load(seconds=60)
        ...
        replicas.enough()
        verdict = await replicas.verdict()

Of the whole nothing may be lost or invented; between replicas no order is promised. Of each replica, over all its lives, every
event that it answered 200 has to be on Kafka by its own hand, and each key's in the order in which it took them. So the
checker is asked once for all, and once for each replica: ``support.front`` tells what that one was sent and what it published.
"""

from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from bridge.lab.simulate.check import CheckResult, Consumed, check
from bridge.lab.simulate.identity import raw_sha256
from bridge.lab.simulate.ledger import Summary
from support.arena import Arena
from support.front import Front, PushedLedger
from support.topics import consume_all


class ReplicasVerdict(NamedTuple):
    """What became of everything.

    Attributes:
        whole: of all replicas, without order.
        each: by replica, with order.
        lives: by replica, how many processes of it published anything.
        between: events that stand, taken over all replicas, not in the order they were pushed in: nobody promised it.
        summary: the provider's word.
    """

    whole: CheckResult
    each: list[CheckResult]
    lives: list[int]
    between: int
    summary: Summary


class Replicas:
    """Bridges, each watched, behind a front, and a provider that pushes there.

    Args:
        bootstrap: of Kafka.
        directory: for a directory of each, with its spool and log.
        topics: for events and quarantine.
        count: of bridges.
    """

    def __init__(self, bootstrap: str, directory: Path, topics: tuple[str, str], *, count: int) -> None:
        self.bootstrap, self.topics = bootstrap, topics
        self.arenas = [Arena(bootstrap, directory / f"replica-{number}", topics) for number in range(count)]
        # One provider pushes at all of them: the first arena's.
        self._provider = self.arenas[0]
        self._ledger = self._provider.ledger = PushedLedger()
        self.front = Front([arena.bridge.port for arena in self.arenas], self._ledger.of_body)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start them all."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.front)
            for arena in self.arenas:
                await stack.enter_async_context(arena)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them all."""
        await self._stack.aclose()

    def load(self, seconds: float, reports_per_second: float) -> None:
        """Begin to push at the front, in order by key: until ``enough``, or for so long."""
        url = f"http://127.0.0.1:{self.front.port}{self._provider.bridge.path}"
        self._provider.load(seconds, reports_per_second, url=url)

    def enough(self) -> None:
        """Begin no more pushes."""
        self._provider.enough()

    async def verdict(self) -> ReplicasVerdict:
        """Wait until each push is acknowledged or given up and each spool is empty, then check.

        Raises:
            AssertionError: Something was lost, invented or, within a replica, put out of order; or a reconciliation failed.
        """
        await self._provider.loaded()
        for arena in self.arenas:
            await arena.drained()
        status, quarantine = [await consume_all(self.bootstrap, topic) for topic in self.topics]
        entries, digests = self._ledger.entries.values(), [raw_sha256(record.value) for record in quarantine]
        whole = check(entries, map(_consumed, status), digests, ordered=False)
        assert whole.ok, whole.describe()
        mixed = check(entries, map(_consumed, status), digests)
        parted, lives = self._parted(status)
        each = [
            check(account.values(), map(_consumed, records), [])
            for account, records in zip(self.front.accounts, parted, strict=True)
        ]
        for number, checked in enumerate(each):
            assert checked.ok, f"replica {number}: {checked.describe()}"
            assert checked.promised > 0
            assert checked.ordered_keys > 0
        verdict = ReplicasVerdict(whole, each, lives, len(mixed.damages), self._ledger.summary())
        print(report(verdict))  # noqa: T201 - seen with pytest -s, and where the test fails
        return verdict

    def _parted(self, records: list[Any]) -> tuple[list[list[Any]], list[int]]:
        """Records by the replica that published them, and of how many processes of each they are.

        Raises:
            AssertionError: A record is of a request that never brought it, or a process had callbacks of two replicas.
        """
        parted: list[list[Any]] = [[] for _ in self.arenas]
        processes: defaultdict[str, set[int]] = defaultdict(set)
        for record in records:
            headers = {name: value.decode() for name, value in record.headers}
            request = self.front.forwarded[headers["traceparent"]]
            assert headers["ce_id"] in {report.event_id for report in request.push.reports}
            process, _, _ = headers["bridge_callback"].rpartition("-")
            processes[process].add(request.replica)
            parted[request.replica].append(record)
        assert all(len(replicas) == 1 for replicas in processes.values()), processes
        owners = [replica for replicas in processes.values() for replica in replicas]
        return parted, [owners.count(number) for number in range(len(self.arenas))]


def report(verdict: ReplicasVerdict) -> str:
    """Figures of a run, for people."""
    whole, summary = verdict.whole, verdict.summary
    lines = [
        f"{summary.pushes} callbacks, {summary.reports} reports in {summary.duration_seconds:.1f} s, answers {summary.answers}",
        f"promised {whole.promised}, found {whole.found}, repeats {whole.repeats}",
    ]
    lines += [
        f"replica {number}: {lives} lives, promised {each.promised}, found {each.found}, keys in order {each.ordered_keys}"
        for number, (each, lives) in enumerate(zip(verdict.each, verdict.lives, strict=True))
    ]
    lines.append(f"between replicas, where no order is promised, {verdict.between} events are out of order")
    return "".join(f"\n  {line}" for line in lines)


def _consumed(record: Any) -> Consumed:
    return Consumed(dict(record.headers)["ce_id"].decode(), record.key.decode(), record.partition, record.offset)
