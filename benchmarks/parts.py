"""What a report costs inside of the bridge, without a server and without a Kafka: ``python benchmarks/parts.py``.

32 callbacks at once go through the real encoder, lanes and batches; a stand-in for the producer builds what lanes send and
acknowledges it a millisecond later. Prints microseconds of processor time a report by part, the least of the rounds. What a
running bridge takes beyond that is its server's and aiokafka's.
"""

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import uvloop

from bridge.config import Settings, load
from bridge.delivery.delivery import Delivery
from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.kafka.batch import Batch
from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix

if TYPE_CHECKING:
    from bridge.kafka.producers import Producers

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


class Acknowledging:
    """Stands for ``Producers`` and its producer: one request at a time is on its way, with whatever was sent before it."""

    ready, dead = True, False

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._compression = settings.kafka.compression_type
        self._sent: list[tuple[Batch, asyncio.Future[None]]] = []
        self._turns: list[asyncio.Future[None]] = []
        self._flying = False
        self.building_seconds = 0.0

    def pick(self, *, degraded: bool) -> "Acknowledging":  # noqa: ARG002 - without a spool it makes no difference
        """The one there is."""
        return self

    def isolate(self, _producer: Any) -> None:
        """There is no other."""

    def abandon(self, _producer: Any) -> None:
        """It is never too late."""

    def partitions(self, _topic: str) -> int:
        """Of every topic."""
        return PARTITIONS

    def has_leader(self, _topic: str, _partition: int) -> bool:
        """Always."""
        return True

    def open_batch(self) -> Batch:
        """As a producer's."""
        return Batch(self._compression, 1 << 20)

    def turn(self, _topic: str, _partition: int) -> "asyncio.Future[None] | None":
        """Done when what is on its way is acknowledged."""
        if not self._flying:
            return None
        self._turns.append(self._loop.create_future())
        return self._turns[-1]

    def send(self, _topic: str, _partition: int, batch: Batch) -> "asyncio.Future[None]":
        """With all that is sent in this turn of the loop."""
        if not self._sent:
            self._loop.call_soon(self._request)
        self._sent.append((batch, self._loop.create_future()))
        return self._sent[-1][1]

    def _request(self) -> None:
        sent, self._sent, self._flying = self._sent, [], True
        began = time.thread_time()
        for batch, _ in sent:
            batch._build()  # noqa: SLF001 - as aiokafka's sender does
        self.building_seconds += time.thread_time() - began
        self._loop.call_later(ROUND_TRIP_SECONDS, self._answer, [future for _, future in sent])

    def _answer(self, futures: "list[asyncio.Future[None]]") -> None:
        for future in futures:
            future.set_result(None)
        # Those whose batches are acknowledged go on first.
        self._loop.call_soon(self._loop.call_soon, self._loop.call_soon, self._release)

    def _release(self) -> None:
        turns, self._turns, self._flying = self._turns, [], False
        for turn in turns:
            turn.set_result(None)


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
    delivery, producer = Delivery(settings, NoIds()), Acknowledging(settings)
    delivery.producers = cast("Producers", producer)
    layout = await delivery._layout()  # noqa: SLF001 - start() would connect
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
        "| reports a callback | encoding | lanes | building batches | all, us a report |\n| ---: | ---: | ---: | ---: | ---: |"
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
