"""Kafka's own ``ProducerPerformance`` with what the bridge wrote: how fast the same bytes go without a callback around them."""

import asyncio
import re
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from bench.figures import Spread
from bench.kafka import JVM, PARTITIONS, Broker
from bench.legs import staged
from bench.load import push
from bench.results import Produced
from bridge.lab.embedded import spawn_java

MAIN = "org.apache.kafka.tools.ProducerPerformance"
COMPRESSIONS = ("none", "lz4", "snappy", "zstd")
# As its users would: batches are filled, nothing is lost.
PROPERTIES = {
    "acks": "all",
    "enable.idempotence": "true",
    "linger.ms": "10",
    "batch.size": "262144",
    "buffer.memory": "134217728",
}
PAYLOADS, READ_SECONDS = 20_000, 20.0
_sent = re.compile(rb"(\d+) records sent, ([\d.]+) records/sec")


async def produce(count: int, records: int) -> list[Produced]:
    """Records/s and CPU of each compression."""
    async with staged(["bridge"]) as (here, of):
        bootstrap = here.kafka.bootstrap_servers
        await push([of[0].url], 10, 2.0)
        payloads = await asyncio.to_thread(_payloads, bootstrap, of[0].topic)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "payloads"
            file.write_bytes(b"\n".join(payloads))
            found = []
            for compression in COMPRESSIONS:
                await Broker(bootstrap).create(f"produce-{compression}", 1)
                runs = [await _run(bootstrap, compression, records, file) for _ in range(count)]
                rates, cpu = zip(*runs, strict=True)
                size = sum(map(len, payloads)) // len(payloads)
                found.append(Produced(compression, Spread.of(rates), Spread.of(cpu), size))
            return found


async def _run(bootstrap: str, compression: str, records: int, payloads: Path) -> tuple[float, float]:
    properties = PROPERTIES | {"bootstrap.servers": bootstrap, "compression.type": compression}
    arguments = ["--topic", f"produce-{compression}", "--num-records", str(records), "--throughput", "-1"]
    arguments += ["--payload-file", str(payloads)]
    arguments += ["--producer-props", *(f"{name}={value}" for name, value in properties.items())]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = await spawn_java(MAIN, arguments, jvm_options=JVM, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await asyncio.to_thread(process.communicate)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    sent = _sent.findall(out)
    if process.returncode or not sent or int(sent[-1][0]) != records:
        raise RuntimeError(f"ProducerPerformance failed: {(out + err).decode(errors='replace')[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rate = float(sent[-1][1])
    print(f"produce {compression:6} {rate:10,.0f} records/s  {1e6 * cpu / records:6.1f} us", flush=True)
    return rate, 1e6 * cpu / records


def _payloads(bootstrap: str, topic: str) -> list[bytes]:
    """Key, value and headers of the bridge's records, as the bytes of one payload each."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "payloads", "enable.auto.commit": False}
    consumer = Consumer(settings)
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        return [_payload(message) for message in consumer.consume(PAYLOADS, READ_SECONDS)]
    finally:
        consumer.close()


def _payload(message: Any) -> bytes:
    headers = b"".join(name.encode() + value for name, value in message.headers())
    return bytes(message.key() + message.value() + headers).replace(b"\n", b" ")
