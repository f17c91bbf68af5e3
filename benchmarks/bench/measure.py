"""One contestant beside the others on one cluster; one round of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.build import BuildError
from bench.contestants import Contestant, Place
from bench.figures import Sample
from bench.kafka import JVM, Broker
from bench.load import USUAL, Load, Style, push
from bench.service import HOST, Service, ServiceError, cpu_seconds, rss_mib
from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port

WARM_REPORTS, WARM_SECONDS = 10, 2.0
BROKER_PROPERTIES = {"num.network.threads": "3", "num.io.threads": "8"}


class Shape(NamedTuple):
    """Of a load.

    Attributes:
        leg: which part of the whole it is for.
        reports: in a callback.
        seconds: of a round.
        rate: callbacks/s; 0: the next when the last is answered.
        style: how its bodies are written.
    """

    leg: str
    reports: int
    seconds: float
    rate: float = 0.0
    style: Style = USUAL


class Stage:
    """A cluster, and the contestants on it."""

    def __init__(self, kafka: EmbeddedKafka, directory: Path) -> None:
        self.kafka, self.directory = kafka, directory
        self.broker = Broker(kafka.bootstrap_servers)
        self.running: list[Running] = []

    async def enter(self, contestant: Contestant, *, name: str = "", topic: str = "") -> "Running | None":
        """Build and start it; None, told, where it can't be had here."""
        name = name or contestant.name
        made = topic or f"bench-{name}"
        directory = self.directory / name
        directory.mkdir()
        port = Port()
        at = Place(port.number, self.kafka.bootstrap_servers, made, directory)
        try:
            command = await asyncio.to_thread(contestant.command, at)
            if not topic:
                await self.broker.create(made, len(self.kafka.nodes))
            service = Service(name, command.argv, command.environment, port.number, directory / "log")
            await service.start()
        except (BuildError, ServiceError) as error:
            print(f"{name} is left out: {error}", flush=True)
            return None
        running = Running(self, contestant, service, made)
        self.running.append(running)
        return running

    async def leave(self) -> None:
        """End all of them."""
        for each in self.running:
            await each.service.stop()
        self.running.clear()

    def kafka_cpu_seconds(self) -> float:
        """Of all brokers."""
        return sum(cpu_seconds(node.pid) for node in self.kafka.nodes if node.pid is not None)


class Running:
    """A contestant that takes callbacks."""

    def __init__(self, stage: Stage, contestant: Contestant, service: Service, topic: str) -> None:
        self.contestant, self.service, self.topic = contestant, service, topic
        self._stage = stage

    @property
    def url(self) -> str:
        """Where callbacks go."""
        return f"http://{HOST}:{self.service.port}{self.contestant.path}"

    async def warm(self, seconds: float, reports: int = WARM_REPORTS, style: Style = USUAL) -> None:
        """Push, and forget it; when this returns nothing of it is on its way any more."""
        before = await self._stage.broker.records(self.topic) if self.contestant.delivers else 0
        load = await push([self.url], reports, seconds, style=style)
        if self.contestant.delivers:
            expected = load.ok if self.contestant.whole else load.reports_ok
            await self._stage.broker.arrived(self.topic, before, expected)

    async def round(self, shape: Shape) -> Sample:
        """One round."""
        return await measure(self._stage, [self], shape)


class Meter:
    """What services and Kafka use from now on."""

    def __init__(self, stage: Stage, of: Sequence[Running]) -> None:
        self._stage, self._of = stage, of
        self._used, self._kafka_used = self._service_seconds(), stage.kafka_cpu_seconds()

    def _service_seconds(self) -> float:
        return sum(cpu_seconds(each.service.pid) for each in self._of)

    def sample(self, shape: Shape, load: Load, delivered: int | None, name: str = "") -> Sample:
        """A round's figures, at its end."""
        used, kafka_used = self._service_seconds() - self._used, self._stage.kafka_cpu_seconds() - self._kafka_used
        each_us, seconds = 1e6 / max(1, load.reports_ok), max(load.seconds, 1e-9)
        return Sample(
            contestant=name or self._of[0].contestant.name,
            leg=shape.leg,
            reports=shape.reports,
            rate=shape.rate,
            requests_per_second=load.ok / seconds,
            reports_per_second=load.reports_ok / seconds,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            p999_ms=load.p999_ms,
            cpu_us=used * each_us,
            kafka_cpu_us=kafka_used * each_us,
            load_cpu_us=load.cpu_seconds * each_us,
            rss_mib=sum(rss_mib(each.service.pid) for each in self._of),
            acknowledged=load.reports_ok,
            delivered=delivered,
            other=load.other,
            unsent=load.unsent,
        )


async def measure(stage: Stage, of: Sequence[Running], shape: Shape, *, name: str = "") -> Sample:
    """One round of one contestant, or of several replicas that share its topic."""
    first = of[0]
    before = await stage.broker.records(first.topic) if first.contestant.delivers else 0
    meter = Meter(stage, of)
    load = await push([each.url for each in of], shape.reports, shape.seconds, shape.rate, shape.style)
    delivered = None
    if first.contestant.delivers:
        share = shape.reports if first.contestant.whole else 1
        delivered = await stage.broker.arrived(first.topic, before, load.reports_ok // share) * share
    return meter.sample(shape, load, delivered, name)


@asynccontextmanager
async def stage(directory: Path, nodes: int = 1) -> AsyncIterator[Stage]:
    """A cluster of its own, taken down at the end with all that stood on it."""
    async with EmbeddedKafka(nodes, heap="1g", jvm_options=JVM, properties=BROKER_PROPERTIES) as kafka:
        made = Stage(kafka, directory)
        try:
            yield made
        finally:
            await made.leave()


async def rounds(of: list[Running], count: int, shape: Shape) -> list[Sample]:
    """Every contestant in turn, so many times, each time another one first; each is warmed for this size before."""
    for each in of:
        await each.warm(min(WARM_SECONDS, shape.seconds), shape.reports, shape.style)
    samples = []
    for number in range(count):
        first = number % len(of)
        for each in of[first:] + of[:first]:
            sample = await each.round(shape)
            samples.append(sample)
            tell(sample)
    return samples


def tell(of: Sample) -> None:
    """A line of a round, so that whoever waits sees something."""
    delivered = "-" if of.delivered is None else f"{of.delivered - of.acknowledged:+d}"
    rates = f"{of.requests_per_second:7,.0f} req/s {of.reports_per_second:9,.0f} reports/s"
    times = f"p50 {of.p50_ms:6.2f} p99 {of.p99_ms:6.2f} p99.9 {of.p999_ms:6.2f} ms"
    cpu = f"{of.cpu_us:6.1f} us (Kafka {of.kafka_cpu_us:5.1f}, load {of.load_cpu_us:4.1f})"
    who = f"{of.leg:7} {of.contestant:16} {of.reports:4}"
    print(f"{who} {rates}  {times}  {cpu} {of.rss_mib:4.0f} MiB  {delivered} {of.other or ''}", flush=True)
