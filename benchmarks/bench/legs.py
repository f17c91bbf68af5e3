"""The parts of the whole: each starts a Kafka of its own, measures, and takes everything down."""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.contestants import CONTESTANTS, Place
from bench.figures import Sample, Spread
from bench.load import LENIENT, PLAIN, USUAL, Style, push
from bench.measure import WARM_SECONDS, Meter, Running, Shape, Stage, measure, rounds, stage, tell
from bench.same import differences
from bench.service import HOST, LOOK_SECONDS, START_SECONDS, Service, ServiceError
from bridge.lab.embedded.ports import Port

# By the number of brokers. Each has its own compilers, and three at work on two cores hold up the rest.
BROKER_WARM_SECONDS = {1: 10.0, 3: 90.0}
OPEN_RATE, OPEN_REPORTS = 300.0, 10
OUTAGE_REPORTS, SICK_SECONDS, DRAIN_SECONDS = 100, 3.0, 30.0
SCALE_REPORTS, REPLICAS = 10, 3
STYLES = {"usual": USUAL, "plain": PLAIN, "lenient": LENIENT}
SOAK_REPORTS, SOAK_ROUND_SECONDS = 100, 10.0


@asynccontextmanager
async def staged(names: list[str], nodes: int = 1) -> AsyncIterator[tuple[Stage, list[Running]]]:
    """These contestants on a warm Kafka."""
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-bench-") as directory:
        async with stage(Path(directory), nodes) as here:
            entered = [await here.enter(CONTESTANTS[name]) for name in names]
            of = [each for each in entered if each is not None]
            if not of:
                sys.exit("there is nobody to measure")
            of = await same_as_claimed(here, of)
            await of[0].warm(BROKER_WARM_SECONDS[nodes])
            yield here, of


async def same_as_claimed(here: Stage, of: list[Running]) -> list[Running]:
    """Those that make the bridge's records, where they claim it; the others are told, and left out."""
    bridge = next((each for each in of if each.contestant.name == "bridge"), None)
    kept = []
    for peer in of:
        if bridge is not None and peer.contestant.same:
            different = await asyncio.to_thread(differences, bridge, peer, here.kafka.bootstrap_servers)
            if different:
                said = "\n".join(different[:4])
                print(
                    f"{peer.contestant.name} is left out, it makes other records than the bridge:\n{said}", flush=True
                )
                continue
            print(f"{peer.contestant.name} makes the same records as the bridge", flush=True)
        kept.append(peer)
    return kept


async def closed(names: list[str], sizes: list[int], count: int, seconds: float, style: Style = USUAL) -> list[Sample]:
    """32 connections, each with the next callback when the last is answered."""
    async with staged(names) as (_, of):
        shapes = [Shape("closed", size, seconds, style=style) for size in sizes]
        return [sample for shape in shapes for sample in await rounds(of, count, shape)]


async def lenient(sizes: list[int], count: int, seconds: float) -> list[Sample]:
    """The bridge under the usual load, under plain reports, and under bodies that all have to be read leniently, in turn."""
    samples = []
    async with staged(["bridge"]) as (here, of):
        for size in sizes:
            for style in STYLES.values():
                await of[0].warm(min(WARM_SECONDS, seconds), size, style)
            for _ in range(count):
                for name, style in STYLES.items():
                    sample = await measure(here, of, Shape("lenient", size, seconds, style=style), name=name)
                    tell(sample)
                    samples.append(sample)
    return samples


async def open_loop(names: list[str], count: int, seconds: float) -> list[Sample]:
    """300 callbacks/s of 10 reports, whatever the answers; on three brokers, each record on two when it is acknowledged."""
    async with staged(names, nodes=3) as (_, of):
        return await rounds(of, count, Shape("open", OPEN_REPORTS, seconds, OPEN_RATE))


async def outage(count: int, seconds: float) -> list[Sample]:
    """The bridge with Kafka well, and with Kafka stopped (SIGSTOP): all is journalled, and drained afterwards."""
    samples = []
    async with staged(["bridge"]) as (here, of):
        for _ in range(count):
            well = await measure(here, of, Shape("outage", OUTAGE_REPORTS, seconds), name="Kafka well")
            away = await _away(here, of, Shape("outage", OUTAGE_REPORTS, seconds))
            for sample in (well, away):
                tell(sample)
                samples.append(sample)
    return samples


async def _away(here: Stage, of: list[Running], shape: Shape) -> Sample:
    bridge, node = of[0], here.kafka.nodes[0]
    before = await here.broker.records(bridge.topic)
    node.pause()
    try:
        first = await push([bridge.url], shape.reports, SICK_SECONDS)
        meter = Meter(here, of)
        load = await push([bridge.url], shape.reports, shape.seconds)
        sample = meter.sample(shape, load, 0, "Kafka stopped")
    finally:
        node.resume()
    arrived = await here.broker.arrived(bridge.topic, before, first.reports_ok + load.reports_ok, DRAIN_SECONDS)
    # Where the first seconds are resent they come twice: more is no loss.
    return msgspec.structs.replace(sample, delivered=arrived - first.reports_ok)


async def scale(count: int, seconds: float) -> list[Sample]:
    """1, 2 and 3 bridges; the load spreads its connections over them."""
    topic, samples = "bench-scale", []
    async with staged(["bridge"]) as (here, _):
        await here.broker.create(topic, 1)
        replicas: list[Running] = []
        for number in range(1, REPLICAS + 1):
            made = await here.enter(CONTESTANTS["bridge"], name=f"bridge-{number}", topic=topic)
            if made is None:
                break
            replicas.append(made)
            await push([made.url], SCALE_REPORTS, 2.0)
        await here.broker.arrived(topic, 0, sys.maxsize)
        for _ in range(count):
            for number in range(1, len(replicas) + 1):
                shape = Shape("scale", SCALE_REPORTS, seconds)
                samples.append(await measure(here, replicas[:number], shape, name=f"{number} bridges"))
                tell(samples[-1])
    return samples


async def soak(million_reports: float) -> list[Sample]:
    """One bridge until it has published so many reports; memory after each ten seconds."""
    samples: list[Sample] = []
    async with staged(["bridge"]) as (here, of):
        while sum(sample.acknowledged for sample in samples) < million_reports * 1e6:
            samples.append(await measure(here, of, Shape("soak", SOAK_REPORTS, SOAK_ROUND_SECONDS)))
            tell(samples[-1])
    return samples


async def start_time(count: int) -> Spread:
    """Seconds from the start of the bridge's process to the first 200 of /readyz, Kafka being well."""
    found = []
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-bench-") as name:
        async with stage(Path(name)) as here:
            await here.broker.create("bench-start", 1)
            for number in range(count):
                directory = Path(name) / f"start-{number}"
                directory.mkdir()
                found.append(
                    await _one_start(Place(Port().number, here.kafka.bootstrap_servers, "bench-start", directory))
                )
                print(f"start   ready after {found[-1]:.2f} s", flush=True)
    return Spread.of(found)


async def _one_start(at: Place) -> float:
    argv, environment = CONTESTANTS["bridge"].command(at)
    admin = int(next(word.partition("=")[2] for word in argv if word.startswith("server.admin_port=")))
    service = Service("bridge", argv, environment, at.port, at.directory / "log")
    began = time.monotonic()
    try:
        await service.start()
        while not await _ready(admin):
            if time.monotonic() > began + START_SECONDS:
                raise ServiceError(f"the bridge is not ready:\n{service.log_tail()}")
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic() - began
    finally:
        await service.stop()


async def _ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in line
