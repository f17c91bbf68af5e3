"""A consumer group on Kafka that feeds one of the teams.

Offsets are committed after a batch is in the team's table, so a crash between the two means repeats, never gaps; the
teams drop repeats.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from bridge.demo.consumers import Consumer

_POLL_MS = 200
_STOP_SECONDS = 2.0
_READ_SECONDS = 60.0


class Group:
    """One group with one member.

    Args:
        consumer: the team.
        group_id: its name on Kafka.
        topic: what it follows, from the beginning.
        arguments: aiokafka's, for connecting.

    Attributes:
        assigned: whether Kafka gave it partitions to read.
    """

    def __init__(self, consumer: Consumer, group_id: str, topic: str, arguments: Mapping[str, Any]) -> None:
        self.consumer = consumer
        self.group_id = group_id
        self.assigned = False
        self._topic = topic
        self._arguments = {**arguments, "client_id": group_id}
        # the offset behind the last record taken, by partition
        self._reached: dict[int, int] = {}
        self._started_over: Consumer | None = None

    @property
    def records(self) -> int:
        """How far it has read, over all partitions."""
        return sum(self._reached.values())

    def start_over(self, consumer: Consumer) -> None:
        """Go back to the beginning of the topic with an empty table, before the next batch."""
        self._started_over = consumer

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """Whether it has taken every record before these offsets, by partition."""
        return self._started_over is None and all(self._reached.get(place, 0) >= end for place, end in ends.items())

    async def run(self) -> None:
        """Follow the topic until cancelled, through any outage of Kafka."""
        while True:
            await self._follow()

    async def _follow(self) -> None:
        """One member, until its client has lost the task that keeps it told of the cluster, which aiokafka does not mend."""
        client = AIOKafkaConsumer(
            self._topic,
            group_id=self.group_id,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **self._arguments,
        )
        try:
            await client.start()
            # aiokafka has no public word on it; without this task a consumer stands still once brokers have gone
            told = client._client._sync_task  # noqa: SLF001
            while not told.done():
                await self._go_back(client)
                batches = await client.getmany(timeout_ms=_POLL_MS)
                self.assigned = bool(client.assignment())
                for place, records in batches.items():
                    self._take(place, records)
                if batches:
                    # Where this fails, the next commit covers it; until then a crash means repeats.
                    with contextlib.suppress(KafkaError):
                        await client.commit()
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.stop(), _STOP_SECONDS)

    async def _go_back(self, client: AIOKafkaConsumer) -> None:
        """Reset the group's offsets by the client's own means; the empty table takes over only then."""
        if self._started_over is None or not client.assignment():
            return
        await client.seek_to_beginning()
        with contextlib.suppress(KafkaError):
            await client.commit()
        self.consumer, self._started_over = self._started_over, None
        self._reached = {}

    def _take(self, place: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            self.consumer.receive(header(record, "ce_id"), record.value)
        self._reached[place.partition] = records[-1].offset + 1


def header(record: ConsumerRecord, name: str) -> str:
    """The text of a record's header; KeyError where there is none."""
    return dict(record.headers)[name].decode()  # type: ignore[no-any-return]


async def read_topic(topic: str, arguments: Mapping[str, Any]) -> list[ConsumerRecord]:
    """Every record that the topic holds now, read from the beginning, with no group.

    Raises:
        TimeoutError: its end, as it was at first, is not reached within a minute.
    """
    reader = AIOKafkaConsumer(topic, auto_offset_reset="earliest", **{**arguments, "client_id": "chatapp-demo-reader"})
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(_READ_SECONDS), reader:
        ends = await reader.end_offsets(reader.assignment())
        while any([await reader.position(place) < end for place, end in ends.items()]):
            batches = await reader.getmany(timeout_ms=_POLL_MS)
            records += [record for batch in batches.values() for record in batch]
    return records
