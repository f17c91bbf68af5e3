"""What a report costs inside of the bridge, without a server and without a Kafka: ``python benchmarks/parts.py``.

32 callbacks at once go through the real encoder, lanes, batches and requests; a stand-in for the broker takes what is sent and
acknowledges it a millisecond later. Prints microseconds of processor time a report by part, the least of the rounds. What a
running bridge takes beyond that is its server's, and the network's.
"""

import argparse
import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import uvloop

from bridge.config import Settings, load
from bridge.delivery.delivery import Delivery
from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.kafka.batch import Batch
from bridge.kafka.cluster import ProducerId
from bridge.kafka.link import Link
from bridge.kafka.messages import PRODUCE, string
from bridge.kafka.metadata import Broker
from bridge.kafka.producer import Producer
from bridge.kafka.wire import Connection
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix

PARTITIONS, CONNECTIONS, DISTINCT = 12, 32, 200
ROUND_TRIP_SECONDS = 0.001
RECEIVED_AT_MS = 1_764_000_000_123


class Cost(NamedTuple):
    """Microseconds a report."""

    encoding: float
    lanes: float
    building: float

    @property
    def all(self) -> float:
        """Of all parts."""
        return sum(self)


class Acknowledging(Producer):
    """The producer, with a broker that acknowledges each request a millisecond later, whatever is in it."""

    def __init__(self, settings: Settings, topics: list[str]) -> None:
        super().__init__(settings.kafka, topics, 1e9, lambda _: None)
        self.building_seconds = 0.0
        self.cluster.brokers = {1: Broker("none", 1)}
        self.cluster._leaders = {topic: dict.fromkeys(range(PARTITIONS), 1) for topic in topics}  # noqa: SLF001
        self.cluster.answered_at = float("inf")
        self.sequences.use(ProducerId(1, 0))
        write = self.rounds._write  # noqa: SLF001 - what is measured apart

        def timed(link: Link, request: list[Batch]) -> None:
            began = time.thread_time()
            write(link, request)
            self.building_seconds += time.thread_time() - began

        self.rounds._write = timed  # type: ignore[method-assign]  # noqa: SLF001

    async def open(self, node: int) -> Connection:  # noqa: ARG002 - there is one
        """To nobody."""
        return Acknowledged(self)


class Acknowledged(Connection):
    """A connection whose every request is acknowledged."""

    def __init__(self, producer: Acknowledging) -> None:
        super().__init__("parts")
        self._producer = producer
        self.versions = {PRODUCE: (3, 8)}

    def send(self, api_key: int, version: int, body: Sequence[bytes], on_answer: Callable[[bytes], None]) -> None:
        """Answered soon."""
        del api_key, version
        flight = next(link.flight for link in self._producer.rounds.links() if link.connection is self and link.flight)
        self._loop.call_later(ROUND_TRIP_SECONDS, on_answer, answer_to(list(flight.batches)))
        b"".join(body)


def answer_to(partitions: list[tuple[str, int]]) -> bytes:
    """Success for each, as Produce 8 says it; all are of one topic."""
    topic = string(partitions[0][0])
    each = b"".join(struct.pack(">ihqqqih", number, 0, 0, -1, 0, 0, -1) for _, number in partitions)
    return struct.pack(">i", 1) + topic + struct.pack(">i", len(partitions)) + each + struct.pack(">i", 0)


class NoIds:
    """JSON needs no ids of schemas."""

    ready = True

    def start(self) -> None:
        """Nothing to look up."""

    async def stop(self) -> None:
        """Nothing to end."""

    def prefix(self, _topic: str, _schema: bytes) -> bytes | None:
        """Of no schema."""
        return None


async def cost(reports: int, callbacks: int, mix: Mix) -> Cost:
    """One round of so many callbacks."""
    settings = load(
        environment={},
        assignments=["access.allow_unauthenticated=true", "spool.enabled=false"],
    ).settings
    topics = settings.topics
    options = CampaignOptions(
        messages=None, max_reports=DISTINCT * reports, size=(reports, reports), mix=mix, reports_per_second=1e9
    )
    bodies = [push.body for push in Campaign(options).pushes()]
    encoder = RecordEncoder(
        topics.status, topics.quarantine, "/", settings.kafka.max_record_bytes, value_format("json", registry=False)
    )
    delivery = Delivery(settings, NoIds())
    layout = await delivery._layout()  # noqa: SLF001 - start() would connect
    delivery.producer = producer = Acknowledging(settings, [topic for topic, _ in layout.topics])
    delivery.counters.published = {topic: 0 for topic, _ in layout.topics}
    delivery._make_lanes(layout)  # noqa: SLF001
    loop, encoding = asyncio.get_running_loop(), 0.0

    async def client(number: int) -> None:
        nonlocal encoding
        for each in range(number, callbacks, CONNECTIONS):
            began = time.thread_time()
            made = encoder.encode_body(
                bodies[each % DISTINCT], callback_id="c-1", received_at_ms=RECEIVED_AT_MS, traceparent=None
            )
            encoding += time.thread_time() - began
            delivery.admit()
            await delivery.submit(made.records, loop.time() + settings.delivery.ack_deadline_seconds).outcome

    began = time.thread_time()
    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    spent = time.thread_time() - began
    await asyncio.gather(*(lane.stop() for lane in delivery.all_lanes()))
    parts = (encoding, spent - encoding - producer.building_seconds, producer.building_seconds)
    return Cost(*(part * 1e6 / (callbacks * reports) for part in parts))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="no report has text beyond plain ASCII; else a third has")
    options = parser.parse_args()
    mix = Mix.plain() if options.plain else Mix.usual()
    print(
        "| reports a callback | encoding | lanes | building requests | all, us a report |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    for reports in (1, 10, 100, 1000):
        callbacks = max(320, 20_000 // reports)
        found = []
        for _ in range(options.rounds):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found.append(runner.run(cost(reports, callbacks, mix)))
        least = min(found, key=lambda each: each.all)
        print(f"| {reports} | {least.encoding:.2f} | {least.lanes:.2f} | {least.building:.2f} | {least.all:.2f} |")


if __name__ == "__main__":
    main()
