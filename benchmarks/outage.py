"""Measures an outage on this machine: ``python benchmarks/outage.py [--messages 330000] [--overload 15]``.

A real Kafka of one node is killed; the simulated provider then pushes whole campaigns, which all have to go to the spool; the
bridge is killed and started again; Kafka comes back, and the spool drains. Printed: the bridge's resident memory at each step,
reports/s journalled and drained, and the size of the spool.

With ``--overload SECONDS`` it also pushes an open loop of far more than can be stored, for so long, while Kafka is away: what was
answered, what was shed, and what memory came to. All of it shares this machine's cores.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from bridge.config import load
from bridge.lab.demo.process import HOST, Bridge
from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port
from bridge.lab.simulate.campaign import Mix
from bridge.lab.simulate.run import SimulateOptions, simulate
from bridge.topics import inspect as topics
from bridge.topics.spec import declared_topics

MIB = 1 << 20
REPORTS_EACH = 100
LOOK_SECONDS = 0.25
OVERLOAD_REPORTS_PER_SECOND = 60_000.0
OVERLOAD_REPORTS_EACH = 200
CONNECTIONS = 64


class Measured:
    """A bridge, and the most memory it was seen to take."""

    def __init__(self, bootstrap: str, directory: Path, ports: tuple[int, int]) -> None:
        self.url = f"http://{HOST}:{ports[0]}/callbacks/chatapp/status"
        self.spool = directory / "spool"
        settings = [
            f"kafka.bootstrap_servers={bootstrap}",
            f"spool.directory={self.spool}",
            f"server.host={HOST}",
            f"server.port={ports[0]}",
            f"server.admin_host={HOST}",
            f"server.admin_port={ports[1]}",
            "access.allow_unauthenticated=true",
            "topics.check=warn",
        ]
        self.bridge = Bridge(settings, os.environ, ports[1], directory / "bridge.log")
        self.most_mib = 0.0

    async def start(self) -> float:
        """Start it; seconds until it is ready."""
        began = time.monotonic()
        self.bridge.start()
        while not await self.bridge.ready():
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def watch(self) -> None:
        """Keep the most memory seen, for ever."""
        while True:
            self.most_mib = max(self.most_mib, self.mib())
            await asyncio.sleep(LOOK_SECONDS)

    def mib(self) -> float:
        """Resident memory now, MiB; 0 where it does not run."""
        pid = self.bridge.pid
        if pid is None:
            return 0.0
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def disk_mib(self) -> float:
        """Size of the spool's files, MiB."""
        return sum(file.stat().st_size for file in self.spool.rglob("*") if file.is_file()) / MIB

    async def waiting(self) -> int:
        """Reports that wait, by the bridge's own account; -1 where it does not answer."""
        reading = await self.bridge.read()
        return -1 if reading is None else reading.waiting


async def _push(measured: Measured, messages: int) -> None:
    options = SimulateOptions(
        url=measured.url, messages=messages, size=(REPORTS_EACH, REPORTS_EACH), mix=Mix.usual(), connections=CONNECTIONS
    )
    summary = await simulate(options)
    rate = summary.reports / summary.duration_seconds
    print(f"journalled     {summary.reports:,} reports, {rate:,.0f}/s, answers {summary.answers}")
    print(f"  memory       {measured.mib():.0f} MiB, the spool {measured.disk_mib():,.0f} MiB")


async def _overload(measured: Measured, seconds: float) -> None:
    measured.most_mib = 0.0
    options = SimulateOptions(
        url=measured.url,
        duration_seconds=seconds,
        rate=OVERLOAD_REPORTS_PER_SECOND,
        size=(OVERLOAD_REPORTS_EACH, OVERLOAD_REPORTS_EACH),
        mix=Mix.usual(),
        retry_scale=0.05,
    )
    summary = await simulate(options)
    print(f"overload       {OVERLOAD_REPORTS_PER_SECOND:,.0f} reports/s offered for {seconds:.0f} s, an open loop")
    print(f"  answers      {summary.answers}, late {summary.late_answers}")
    print(f"  memory       at most {measured.most_mib:.0f} MiB")


async def _drain(measured: Measured) -> None:
    before, began = await measured.waiting(), time.monotonic()
    while await measured.waiting() != 0:
        await asyncio.sleep(LOOK_SECONDS)
    took = time.monotonic() - began
    print(f"drained        {before:,} reports, {before / took:,.0f}/s, Kafka's own start included")
    print(f"  memory       {measured.mib():.0f} MiB, at most {measured.most_mib:.0f} MiB")
    while measured.disk_mib() > measured.mib():
        await asyncio.sleep(LOOK_SECONDS)
    print(f"  the spool    {measured.disk_mib():.0f} MiB")


async def _measure(messages: int, overload_seconds: float) -> None:
    port, admin_port = Port(), Port()
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedKafka(nodes=1) as kafka:
            measured = Measured(kafka.bootstrap_servers, Path(name), (port.number, admin_port.number))
            await kafka.kill_all()
            print(f"started        in {await measured.start():.2f} s, {measured.mib():.0f} MiB")
            watcher = asyncio.create_task(measured.watch())
            try:
                await _push(measured, messages)
                if overload_seconds:
                    await _overload(measured, overload_seconds)
                await measured.bridge.kill()
                measured.most_mib = 0.0
                print(f"started again  in {await measured.start():.2f} s, {measured.mib():.0f} MiB")
                await kafka.start()
                await make_topics(kafka)
                await _drain(measured)
            finally:
                watcher.cancel()
                await measured.bridge.stop()


async def make_topics(kafka: EmbeddedKafka) -> None:
    """Both topics as they are declared, as one node can give them."""
    settings = load(assignments=[f"kafka.bootstrap_servers={kafka.bootstrap_servers}"]).settings
    declared = [topic.lowered_to(1) for topic in declared_topics(settings.topics).values()]
    async with topics.admin_client(settings.kafka) as client:
        await topics.create(client, declared)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=330_000, help="about three reports each")
    parser.add_argument("--overload", type=float, default=0.0, metavar="SECONDS", help="also push far too much")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.messages, arguments.overload))


if __name__ == "__main__":
    main()
