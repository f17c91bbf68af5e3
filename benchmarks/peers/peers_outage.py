"""What each answer is worth: ``PYTHONPATH=benchmarks .venv/bin/python benchmarks/peers/peers_outage.py [--kill-services]``.

One Kafka; the bridge and its peers, each with a topic and a simulated provider of its own, all at once and slowly. Kafka is
killed in the middle (SIGKILL) and started again; with ``--kill-services`` so is each service, half-way through the outage. At
the end every report of a callback that was answered 200 has to be on its topic. Printed: a table in Markdown.
"""

import argparse
import asyncio
import contextlib
import math
import os
import signal
import statistics
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from bench.contestants import CONTESTANTS, Contestant, Place
from bench.service import Service, ServiceError

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import HOST, Port
from bridge.lab.simulate.campaign import Mix
from bridge.lab.simulate.ledger import Attempt, Ledger
from bridge.lab.simulate.run import SimulateOptions, simulate
from bridge.report.report import Report, read_body

PARTITIONS = 12
QUARANTINE = "chatapp.status.quarantine.v1"
CALLBACKS_PER_SECOND = 20.0
REPORTS = 10
LEAD_SECONDS, OUTAGE_SECONDS, TAIL_SECONDS = 15.0, 20.0, 25.0
LOAD_SECONDS = LEAD_SECONDS + OUTAGE_SECONDS + TAIL_SECONDS
# The provider's first repetitions come after a minute, its second after five more, which is not waited for.
RETRY_SECONDS = 75.0
QUIET_SECONDS, MOST_QUIET_SECONDS = 12, 90


# One of each; Avro is the same bridge.
ALL = {name: each for name, each in CONTESTANTS.items() if each.delivers and name != "bridge-avro"}


class Running:
    """A contestant, its topic, its provider's ledger."""

    def __init__(self, contestant: Contestant, bootstrap: str, directory: Path) -> None:
        self.name, self.topic = contestant.name, f"outage.{contestant.name}"
        self.ledger = Ledger()
        port, own = Port().number, directory / contestant.name
        own.mkdir()
        self._url = f"http://{HOST}:{port}{contestant.path}"
        command = contestant.command(Place(port, bootstrap, self.topic, own))
        self._service = Service(contestant.name, command.argv, command.environment, port, own / "log")

    async def start(self) -> None:
        """Start it; wait until it listens."""
        await self._service.start()

    async def again(self) -> None:
        """SIGKILL, and starts until one succeeds, as a supervisor would: some do not start without Kafka."""
        os.kill(self._service.pid, signal.SIGKILL)
        await self._service.stop()
        while True:
            try:
                await self._service.start()
            except ServiceError:
                await asyncio.sleep(1)
            else:
                return

    async def stop(self) -> None:
        """SIGTERM."""
        await self._service.stop()

    async def push(self) -> None:
        """The whole campaign, first repetitions included."""
        options = SimulateOptions(
            url=self._url,
            callback_rate=CALLBACKS_PER_SECOND,
            size=(REPORTS, REPORTS),
            duration_seconds=LOAD_SECONDS,
            mix=Mix.usual(),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOAD_SECONDS + RETRY_SECONDS):
                await simulate(options, ledger=self.ledger)


async def _read(bootstrap: str, topic: str) -> Counter[str]:
    """How often each event is on a topic, when nothing more arrives there."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        ends = await _settled(lambda: consumer.end_offsets(partitions))
        consumer.assign(partitions)
        seen: Counter[str] = Counter()
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    seen.update(_events(dict(record.headers), record.value))
        return seen
    finally:
        await consumer.stop()


async def _settled(ends: Callable[[], Awaitable[dict[TopicPartition, int]]]) -> dict[TopicPartition, int]:
    last, quiet, waited = await ends(), 0, 0
    while quiet < QUIET_SECONDS and waited < MOST_QUIET_SECONDS:
        await asyncio.sleep(1)
        now = await ends()
        quiet, waited, last = (quiet + 1 if now == last else 0), waited + 1, now
    return last


def _events(headers: dict[str, bytes], value: bytes) -> list[str]:
    """The ids of the events in a record: one, or those of a whole body."""
    if "ce_id" in headers:
        return [headers["ce_id"].decode()]
    return [item.event.event_id for item in read_body(value, 0) if isinstance(item, Report)]


def _row(running: Running, seen: Counter[str], down: tuple[float, float]) -> str:
    entries = list(running.ledger.entries.values())
    promised = {report.event_id for entry in entries if entry.promised_at < math.inf for report in entry.reports}
    firsts = [attempt for entry in entries for attempt in entry.attempts[:1] if down[0] <= attempt.sent_at < down[1]]
    answers = Counter(_answer(attempt) for attempt in firsts)
    said = ", ".join(f"{count} x {answer}" for answer, count in answers.most_common())
    times = [attempt.ended_at - attempt.sent_at for attempt in firsts] or [math.nan]
    late = sum(entry.promised_at - entry.sent_at > LEAD_SECONDS for entry in entries if entry.promised_at < math.inf)
    never = sum(entry.promised_at == math.inf for entry in entries)
    lost = sum(event not in seen for event in promised)
    repeats = seen.total() - len(seen)
    figures = (
        f"{len(promised):,} | {lost:,} | {repeats:,} | {said} | {statistics.median(times):.2f} s, {max(times):.2f} s"
    )
    return f"| {running.name} | {figures} | {late:,} | {never:,} |"


def _answer(attempt: Attempt) -> str:
    if attempt.status is None:
        return attempt.error or "none"
    return f"{attempt.status} with a wrong body" if attempt.error == "body" else str(attempt.status)


async def _hurt(kafka: EmbeddedKafka, services: list[Running], kill_services: bool) -> tuple[float, float]:
    """The outage, in the middle of the load; when it began and ended, in the loop's time, which is the ledger's."""
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(LEAD_SECONDS)
    began = clock()
    await kafka.kill_all()
    await asyncio.sleep(OUTAGE_SECONDS / 2)
    again = asyncio.gather(*(each.again() for each in services if kill_services))
    await asyncio.sleep(max(0.0, began + OUTAGE_SECONDS - clock()))
    ended = clock()
    await kafka.start()
    await again
    return began, ended


async def _measure(names: list[str], kill_services: bool, directory: Path) -> None:
    async with EmbeddedKafka() as kafka:
        bootstrap = kafka.bootstrap_servers
        services = [Running(ALL[name], bootstrap, directory) for name in names]
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        topics = [QUARANTINE, *(each.topic for each in services)]
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics])
        await admin.close()
        try:
            for each in services:
                await each.start()
            pushing = asyncio.gather(*(each.push() for each in services))
            down = await _hurt(kafka, services, kill_services)
            await pushing
            read = await asyncio.gather(*(_read(bootstrap, each.topic) for each in services))
        finally:
            await asyncio.gather(*(each.stop() for each in services))
    callbacks, seconds = CALLBACKS_PER_SECOND * LOAD_SECONDS, down[1] - down[0]
    print(f"{callbacks:.0f} callbacks of {REPORTS} reports each; Kafka down for {seconds:.0f} s\n")
    print("| | reports promised | of them lost | repeats | answers in the outage | time to answer, median and most"
          " | callbacks taken at a repetition | never taken |")  # fmt: skip
    print("| --- | ---: | ---: | ---: | --- | --- | ---: | ---: |")
    for each, seen in zip(services, read, strict=True):
        print(_row(each, seen, down))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ALL), metavar="NAME,…", help="contestants (default: all)")
    parser.add_argument(
        "--kill-services", action="store_true", help="kill each service too, half-way through the outage"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-outage-") as directory:
        uvloop.run(_measure(options.only.split(","), options.kill_services, Path(directory)))


if __name__ == "__main__":
    main()
