"""What 1,000 reports/s take: ``python benchmarks/sizing.py [--rate 1000] [--seconds 30] [--outage 60000]``.

For callbacks of 1, 10 and 100 reports: the bytes that a report takes in Kafka's log (in one replica, compressed as it is kept),
the bytes that it takes in the spool while Kafka is away, both reckoned to an hour, and the bridge's memory. A real Kafka of one
node, the bridge as it ships with JSON. The simulated provider pushes at a constant rate; to the spool, whose bytes don't depend
on it, as fast as it can. What was not answered 200 at once is told.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from outage import MIB, Measured, make_topics

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port
from bridge.lab.simulate.campaign import Mix
from bridge.lab.simulate.ledger import Summary
from bridge.lab.simulate.run import SimulateOptions, simulate

SIZES = (1, 10, 100)
REPORTS_A_MESSAGE = 2.5
GIB = 1 << 30
HOUR_SECONDS = 3600


def _log_bytes(kafka: EmbeddedKafka) -> int:
    """Of the records of both topics."""
    return sum(file.stat().st_size for file in kafka.node(1).directory.glob("data/chatapp.*/*.log"))


async def _measure(size: int, rate: float, seconds: float, outage: int) -> None:
    port, admin_port = Port(), Port()
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedKafka(nodes=1) as kafka:
            await make_topics(kafka)
            measured = Measured(kafka.bootstrap_servers, Path(name), (port.number, admin_port.number))
            await measured.start()
            watcher = asyncio.create_task(measured.watch())
            sizes, mix = (size, size), Mix.usual()
            try:
                healthy = await simulate(
                    SimulateOptions(url=measured.url, rate=rate, duration_seconds=seconds, size=sizes, mix=mix)
                )
                published, most = _log_bytes(kafka), measured.most_mib
                await kafka.kill_all()
                messages = int(outage / REPORTS_A_MESSAGE)
                away = await simulate(SimulateOptions(url=measured.url, messages=messages, size=sizes, mix=mix))
                spooled = measured.disk_mib() * MIB
            finally:
                watcher.cancel()
                await measured.bridge.stop()
    per_hour = rate * HOUR_SECONDS / GIB
    log, spool = published / healthy.reports, spooled / away.reports
    print(
        f"{size:8} {log:15,.0f} {log * per_hour:12.2f} {spool:14,.0f} {spool * per_hour:12.2f} {most:9.0f} "
        f"{measured.most_mib:7.0f}   {_told(healthy)}; {_told(away)}",
        flush=True,
    )


def _told(summary: Summary) -> str:
    """How many callbacks were not answered 200 at once."""
    return f"{summary.pushes - summary.acknowledged_first:,} of {summary.pushes:,}"


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=1000.0, help="reports/s")
    parser.add_argument("--seconds", type=float, default=30.0, help="of that rate, with Kafka")
    parser.add_argument("--outage", type=int, default=60_000, help="reports to spool, about")
    arguments = parser.parse_args()
    print(f"{arguments.rate:,.0f} reports/s")
    print("reports/   on Kafka, bytes       GiB/   spool, bytes        GiB/    MiB RSS,    in an   not 200 at once,")
    print(
        "callback          a report       hour       a report        hour     at most   outage   healthy; outage",
        flush=True,
    )
    for size in SIZES:
        asyncio.run(_measure(size, arguments.rate, arguments.seconds, arguments.outage))


if __name__ == "__main__":
    main()
