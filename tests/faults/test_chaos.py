"""Random faults of many kinds, under load. ``BRIDGE_SEED=NUMBER`` repeats the choices of a run; an hour in the long form."""

import asyncio
import os
import random
import secrets
import statistics
import time
from pathlib import Path

import pytest
from support.arena import LONG, longer
from support.kafka_frames import Request
from support.kafka_proxy import Fault
from support.proxied import MakeProxied

pytest_plugins = ("support.proxied_fixture",)

SECONDS = longer(10, 3600)
RATE = longer(300, 150)
"""Reports a second: what an hour brings is judged in memory."""
SHARE = 0.04
"""Of the requests."""
NOT_APPENDED = (19, 44, 45)
"""A broker that answers these appends nothing; after 45 the bridge may publish again what it sent."""
OPEN = (6, 7, 20, -1)
"""Answers that a broker may give whether it appended or not."""
MINUTE = 60.0
GROWTH = 1.05


class Chaos:
    """Decides by chance, from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a scripted fault
        self._kinds = (
            self._delay,
            self._cut,
            self._lose,
            self._open_error,
            self._refusal,
            self._throttle,
            self._missing,
            self._another_id,
        )

    def on_produce(self, request: Request) -> Fault | None:
        """A few of the requests get a fault."""
        if self._chance.random() >= SHARE:
            return None
        return self._chance.choice(self._kinds)(request)

    def on_other(self, request: Request) -> Fault | None:
        """Metadata and the like."""
        if self._chance.random() >= SHARE:
            return None
        return self._chance.choice([self._delay, self._cut, self._lose])(request)

    def _delay(self, _: Request) -> Fault:
        return Fault(delay_seconds=self._chance.uniform(0.0, 2.0))

    def _cut(self, _: Request) -> Fault:
        return Fault(cut_answer_at=self._chance.randrange(60))

    def _lose(self, _: Request) -> Fault:
        return Fault(lose_request=True)

    def _open_error(self, request: Request) -> Fault:
        some, code = self._some(request), self._chance.choice(OPEN)
        return Fault(withhold=some if self._chance.random() < 0.5 else (), codes=dict.fromkeys(some, code))

    def _refusal(self, request: Request) -> Fault:
        some = self._some(request)
        return Fault(withhold=some, codes=dict.fromkeys(some, self._chance.choice(NOT_APPENDED)))

    def _throttle(self, _: Request) -> Fault:
        return Fault(throttle_time_ms=self._chance.randrange(1, 1000))

    def _missing(self, request: Request) -> Fault:
        return Fault(without=self._some(request))

    def _another_id(self, _: Request) -> Fault:
        return Fault(wrong_correlation_id=True)

    def _some(self, request: Request) -> list[tuple[str, int]]:
        partitions = sorted(request.batches)
        return self._chance.sample(partitions, self._chance.randint(1, len(partitions)))


class Memory:
    """What a process has resident, minute by minute."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self._looks: list[tuple[float, int]] = []

    async def watch(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            status = await asyncio.to_thread(Path(f"/proc/{self._pid}/status").read_text)
            kilobytes = int(status.partition("VmRSS:")[2].split()[0])
            self._looks.append((time.monotonic() - self._began, kilobytes))
            await asyncio.sleep(5)

    def mean(self, since: float, until: float) -> float:
        """Kilobytes, between two times in seconds from the start."""
        return statistics.fmean(kilobytes for at, kilobytes in self._looks if since <= at < until)

    @property
    def seconds(self) -> float:
        """Of the last look."""
        return self._looks[-1][0]


@pytest.mark.timeout(longer(300, 3 * 3600))
async def test_random_faults_lose_and_reorder_nothing(make_proxied: MakeProxied) -> None:
    """Nothing is lost, first occurrences are in order, there is no dead letter; in the long form memory does not grow."""
    seed = int(os.environ.get("BRIDGE_SEED", "") or secrets.randbelow(1_000_000))
    print(f"\n  BRIDGE_SEED={seed}")  # noqa: T201 - the report
    proxied, chaos = await make_proxied(), Chaos(seed)
    proxied.arena.load(SECONDS, RATE, seed=seed)
    await proxied.published(100)
    proxied.on_produce, proxied.on_other = chaos.on_produce, chaos.on_other
    memory = Memory(proxied.arena.bridge.pid)
    watching = asyncio.create_task(memory.watch())
    await proxied.arena.loaded()
    watching.cancel()
    proxied.on_produce = proxied.on_other = None

    await proxied.finish(repeats=True)
    print(f"  {dict(proxied.proxy.done)}, {proxied.cost}")  # noqa: T201 - the report
    assert sum(proxied.proxy.done.values()) > 5
    if LONG:
        early, late = memory.mean(10 * MINUTE, 20 * MINUTE), memory.mean(memory.seconds - 10 * MINUTE, memory.seconds)
        print(f"  resident: {early:.0f} kB in minutes 10 to 20, {late:.0f} kB in the last ten")  # noqa: T201 - the report
        assert late <= GROWTH * early
