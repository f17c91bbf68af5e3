"""Measures replay on this machine: ``python benchmarks/replay.py [--records 1000000]``.

One topic of 12 partitions on a real Kafka of one node is filled with events as the bridge writes them, in JSON, and one with the
same in Avro. Then each way of reading the first is timed, one after the other, over the same range, from the start of the
process to its end: Kafka's own console consumer on Java, kcat where there is one, and `replay` into a file, with filters, from
Avro, and into a topic. Printed for each: records read a second, and how many times the console consumer's that is; and the
largest resident memory of `replay`. All of it shares this machine's cores with the broker.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer
from confluent_kafka import admin as administration

from bridge.encode.avro import compile_writer
from bridge.encode.headers import CallbackHeaders
from bridge.encode.json import encode_event
from bridge.lab.embedded import EmbeddedKafka, spawn_java
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.report.event import StatusEvent
from bridge.report.report import Report, read_body
from bridge.schemas import written_schema

MIB = 1 << 20
PARTITIONS = 12
REPORTS_EACH = 10
LOOK_SECONDS = 0.02
CONSOLE = "org.apache.kafka.tools.consumer.ConsoleConsumer"
JSON, AVRO, TARGET = "events.json", "events.avro", "target"


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=1_000_000, help="in each topic (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of each way; the best one counts (default: %(default)s)")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.records, arguments.rounds))


async def _measure(records: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with EmbeddedKafka(nodes=1) as kafka:
            bytes_each = await asyncio.to_thread(_fill, kafka.bootstrap_servers, records)
            print(f"{records:,} records in {PARTITIONS} partitions, {bytes_each:,} bytes of JSON each", flush=True)
            print(f"{'':36}{'seconds':>9}{'records/s':>12}{'ratio':>8}{'MiB':>7}")
            bench = Bench(kafka.bootstrap_servers, Path(name), records, rounds)
            await bench.run()


class Bench:
    """Times one way after the other, and prints each."""

    def __init__(self, bootstrap: str, directory: Path, records: int, rounds: int) -> None:
        self._bootstrap, self._directory, self._records, self._rounds = bootstrap, directory, records, rounds
        self._console = 0.0

    async def run(self) -> None:
        """All of them."""
        java = [
            *("--bootstrap-server", self._bootstrap, "--topic", JSON, "--from-beginning"),
            *("--max-messages", str(self._records), "--timeout-ms", "60000"),
        ]

        async def console(out: Path) -> "subprocess.Popen[bytes]":
            with out.open("wb") as file:
                return await spawn_java(CONSOLE, java, stdout=file)

        await self._time("console consumer (Java), values", console, lines=True)
        if kcat := shutil.which("kcat"):
            words = [kcat, "-b", self._bootstrap, "-C", "-t", JSON, "-o", "beginning", "-e", "-q"]
            await self._time("kcat, values", self._command(words), lines=True)
            await self._time("kcat -J", self._command([*words, "-J"]), lines=True)
        await self._time("replay, JSON to NDJSON", self._replay(JSON, "--to-file", "-"), lines=True)
        await self._time("replay, the same into a synced file", self._replay(JSON), lines=True)
        await self._time("replay --status FAILED", self._replay(JSON, "--status", "FAILED"))
        await self._time("replay --error-category OPT_OUT", self._replay(JSON, "--error-category", "OPT_OUT"))
        await self._time("replay --from (a time), all of it", self._replay(JSON, "--from", "-30d"), lines=True)
        await self._time("replay, Avro to NDJSON", self._replay(AVRO), lines=True)
        await self._time("replay to a topic, exactly once", self._replay(JSON, "--to-topic", TARGET))

    def _replay(self, topic: str, *words: str) -> Callable[[Path], Any]:
        settings = {"kafka.bootstrap_servers": self._bootstrap, "topics.status": topic}
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]

        async def start(out: Path) -> Any:
            command = [sys.executable, "-m", "bridge", "replay", *words, *pairs, "--execute"]
            if "--to-file" in words:
                return await self._command(command)(out)
            sink = [] if "--to-topic" in words else ["--to-file", str(out)]
            return await self._command([*command, *sink])()

        return start

    def _command(self, words: Sequence[str]) -> Callable[..., Any]:
        async def start(out: Path | None = None) -> "subprocess.Popen[bytes]":
            if out is None:
                return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603, ASYNC220
            with out.open("wb") as file:
                return subprocess.Popen(words, stdout=file, stderr=subprocess.DEVNULL)  # noqa: S603, ASYNC220

        return start

    async def _time(self, what: str, start: Callable[[Path], Any], *, lines: bool = False) -> None:
        best, mib = 0.0, 0.0
        for number in range(self._rounds):
            out = self._directory / f"out-{number}"
            began = time.monotonic()
            process = await start(out)
            used = await asyncio.to_thread(_wait, process)
            seconds = time.monotonic() - began
            mib = max(mib, used)
            best = max(best, self._records / seconds)
            if lines:
                found = await asyncio.to_thread(_count_lines, out)
                assert found == self._records, f"{what}: {found:,} lines"  # noqa: S101 - a figure of something else is none
            for file in self._directory.glob("out-*"):
                file.unlink()
        self._console = self._console or best
        shown = f"{mib:7.0f}" if what.startswith("replay") else ""
        print(f"{what:36}{self._records / best:9.1f}{best:12,.0f}{best / self._console:8.2f}{shown}", flush=True)


def _wait(process: "subprocess.Popen[bytes]") -> float:
    """Wait for the end; the most resident memory seen, MiB. What wait4 says would include this process's before the exec."""
    most = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        except OSError:
            found = []
        most = max([most, *(int(line.split()[1]) for line in found)])
        time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}")
    return most / 1024


def _count_lines(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        while block := file.read(MIB):
            count += block.count(b"\n")
    return count


def _fill(bootstrap: str, records: int) -> int:
    """Write the same events into both topics; mean size of a value in JSON, bytes."""
    admin: Any = administration.AdminClient({"bootstrap.servers": bootstrap})
    new: Any = administration.NewTopic
    config = {"segment.bytes": str(128 * MIB)}
    for future in admin.create_topics(
        [new(name, PARTITIONS, 1, config=config) for name in (JSON, AVRO, TARGET)]
    ).values():
        future.result()
    settings = {"linger.ms": 20, "compression.type": "lz4", "partitioner": "murmur2_random"}
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 200_000, **settings})
    schema = written_schema()
    in_avro = compile_writer(msgspec.json.decode(schema.text), b"\xc3\x01" + schema.fingerprint)
    total = 0

    def put(topic: str, event: StatusEvent, value: bytes, headers: Any) -> None:
        while True:
            try:
                producer.produce(topic, value, event.message_id.encode(), timestamp=event.received_at, headers=headers)
            except BufferError:
                producer.poll(0.1)
            else:
                return

    for event, headers in _events(records):
        value = encode_event(event)
        total += len(value)
        put(JSON, event, value, headers)
        put(AVRO, event, in_avro(event), headers)
        producer.poll(0)
    producer.flush()
    return total // records


def _events(records: int) -> Any:
    """Events with their headers, as the bridge makes them of a campaign."""
    options = CampaignOptions(
        messages=None,
        max_reports=records,
        seed=1,
        run="bench",
        size=(REPORTS_EACH, REPORTS_EACH),
        reports_per_second=1e9,
        mix=Mix.usual(),
    )
    for number, push in enumerate(Campaign(options).pushes()):
        now = time.time_ns() // 1_000_000
        items = [item for item in read_body(push.body, now) if isinstance(item, Report)]
        of = CallbackHeaders(
            source=b"/callbacks/chatapp/status",
            content_type=b"application/json",
            callback_id=f"0123456789abcdef-{number}",
            received_at_ms=now,
            total=len(items),
            traceparent=None,
        )
        for position, item in enumerate(items, 1):
            yield item.event, of.of_event(item.event, item.event.message_id.encode(), position)


if __name__ == "__main__":
    main()
