"""The broker's side: topics, how much is on them."""

import asyncio
import time
from typing import Any

from confluent_kafka import TopicPartition, admin

PARTITIONS = 12
# What was measured need not be kept: a long run would fill the disk.
CONFIG = {"segment.bytes": str(64 << 20), "retention.bytes": str(128 << 20)}
LOOK_SECONDS, STILL_SECONDS, REPEATS_SECONDS = 0.05, 3.0, 0.3
# The collector and both compilers that brokers run with; the embedded one is set up to start quickly.
JVM = ("-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:TieredStopAtLevel=4")


class Broker:
    """Asks a cluster, by its addresses."""

    def __init__(self, bootstrap: str) -> None:
        self._admin: Any = admin.AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})

    async def create(self, topic: str, nodes: int, partitions: int = PARTITIONS) -> None:
        """A topic on so many nodes, of which two have to have what is acknowledged where there are three."""
        config = CONFIG | {"min.insync.replicas": "2" if nodes == 3 else "1"}
        made = self._admin.create_topics([admin.NewTopic(topic, partitions, nodes, config=config)])
        await asyncio.to_thread(made[topic].result)

    async def records(self, topic: str) -> int:
        """How many were ever written to it."""
        latest = admin.OffsetSpec.latest()
        asked = self._admin.list_offsets({TopicPartition(topic, number): latest for number in range(PARTITIONS)})
        return await asyncio.to_thread(lambda: sum(each.result().offset for each in asked.values()))

    async def arrived(self, topic: str, before: int, expected: int, still_seconds: float = STILL_SECONDS) -> int:
        """Records since ``before``, when no more come: a moment after all that were expected, or after none for so long."""
        seen, changed = -1, time.monotonic()
        while True:
            now = await self.records(topic) - before
            if now != seen:
                seen, changed = now, time.monotonic()
            still = time.monotonic() - changed
            if still > (REPEATS_SECONDS if seen >= expected else still_seconds):
                return seen
            await asyncio.sleep(LOOK_SECONDS)
