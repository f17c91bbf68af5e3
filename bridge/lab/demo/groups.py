"""A consumer group on Kafka that feeds one of the teams.

Offsets are committed after a batch is in the team's table, so a crash between the two means repeats, never gaps; the
teams drop repeats. The client is librdkafka's, which finds its way back after any outage by itself.
"""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from confluent_kafka import Consumer as Client

from bridge.headers import CE_ID
from bridge.lab.demo.consumers import Consumer

_POLL_SECONDS = 0.2
_POLL_RECORDS = 500
_READ_SECONDS = 60.0

# What a client says of a Kafka that was killed on purpose is no news.
_silent = logging.getLogger(__name__)
_silent.setLevel(logging.CRITICAL + 1)


class Group:
    """One group with one member.

    Args:
        consumer: the team.
        group_id: its name on Kafka.
        topic: what it follows, from the beginning.
        arguments: librdkafka's, for connecting.

    Attributes:
        assigned: whether Kafka gave it partitions to read.
    """

    def __init__(self, consumer: Consumer, group_id: str, topic: str, arguments: Mapping[str, Any]) -> None:
        self.consumer = consumer
        self.group_id = group_id
        self.assigned = False
        self._topic = topic
        self._arguments = {
            **arguments,
            "client.id": group_id,
            "group.id": group_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 500,
        }
        # the offset behind the last record taken, by partition
        self._reached: dict[int, int] = {}

    @property
    def records(self) -> int:
        """How far it has read, over all partitions."""
        return sum(self._reached.values())

    def start_over(self, consumer: Consumer) -> None:
        """Begin anew with that table, wherever its offsets are then; only while it does not run."""
        self.consumer = consumer
        self.assigned = False
        self._reached = {}

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """Whether it has taken every record before these offsets, by partition."""
        return all(self._reached.get(place, 0) >= end for place, end in ends.items())

    async def run(self) -> None:
        """Follow the topic until cancelled, through any outage of Kafka."""
        loop = asyncio.get_running_loop()
        client = Client(self._arguments, logger=_silent)
        # The client's calls wait, so they have a thread of their own.
        with ThreadPoolExecutor(1, self.group_id) as thread:
            try:
                client.subscribe([self._topic])
                while True:
                    await loop.run_in_executor(thread, self._turn, client)
            finally:
                thread.submit(client.close)

    def _turn(self, client: Client) -> None:
        """Take what there is, and commit."""
        records = [message for message in client.consume(_POLL_RECORDS, _POLL_SECONDS) if message.error() is None]
        self.assigned = bool(client.assignment())
        for record in records:
            headers: Any = record.headers()
            self.consumer.receive(dict(headers)[CE_ID].decode(), record.value() or b"")
            self._reached[record.partition() or 0] = (record.offset() or 0) + 1
        if records:
            # Where it fails, the next commit covers it; until then a crash means repeats.
            client.commit(asynchronous=True)


def header(record: ConsumerRecord, name: str) -> str:
    """The text of a record's header; KeyError where there is none."""
    return dict(record.headers)[name].decode()  # type: ignore[no-any-return]


async def read_topic(topic: str, arguments: Mapping[str, Any]) -> list[ConsumerRecord]:
    """Every record that the topic holds now, read from the beginning, with no group.

    Args:
        topic: its name.
        arguments: aiokafka's, for connecting.

    Raises:
        TimeoutError: its end, as it was at first, is not reached within a minute.
    """
    reader = AIOKafkaConsumer(topic, auto_offset_reset="earliest", **{**arguments, "client_id": "chatapp-demo-reader"})
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(_READ_SECONDS), reader:
        ends = await reader.end_offsets(reader.assignment())
        while any([await reader.position(place) < end for place, end in ends.items()]):
            batches = await reader.getmany(timeout_ms=int(_POLL_SECONDS * 1000))
            records += [record for batch in batches.values() for record in batch]
    return records
