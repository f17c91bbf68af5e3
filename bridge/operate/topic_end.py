"""Reads what is appended to a topic from now on, for `probe`: no group, no transactions, over the connections of ``wire.py``."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record import MemoryRecords

from bridge.config import Kafka
from bridge.errors import KafkaUnavailable, ProbeError
from bridge.kafka.admin import connected
from bridge.kafka.connection import client_arguments, reason
from bridge.kafka.errors import NONE, code_name
from bridge.kafka.wire import CONNECTION_FAILURES, Connection, connect

_CONNECT_SECONDS: Final = 8.0
_WAIT_MS: Final = 200
_FETCH_BYTES: Final = 1 << 20
_CONSUMER: Final = -1
_LATEST: Final = -1


class Found(NamedTuple):
    """A record's key, and where it is."""

    partition: int
    offset: int
    key: bytes | None


class TopicEnd:
    """The end of a topic. Its connections are replaced after each failure, so that it follows the leaders.

    Attributes:
        last_error: why the last attempt to read failed, in words; empty if it succeeded.
    """

    def __init__(self, settings: Kafka, topic: str) -> None:
        self._settings, self._topic = settings, topic
        self._leaders: dict[Connection, list[int]] = {}
        self._offsets: dict[int, int] = {}
        self.last_error = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def find_end(self) -> None:
        """Find where each partition ends now.

        Raises:
            ProbeError: the topic is not there.
            KafkaUnavailable, KafkaError, OSError, TimeoutError: not all leaders answered.
        """
        await self._connect()
        for connection, partitions in self._leaders.items():
            wanted = [(self._topic, [(partition, _LATEST) for partition in partitions])]
            answer = await connection.ask_aiokafka(OffsetRequest(_CONSUMER, 0, wanted))
            for _, found in answer.topics:
                for partition, code, _timestamp, offset in found:
                    self._check(partition, code)
                    self._offsets[partition] = offset

    async def read(self) -> list[Found]:
        """What was appended since the last call; waits a moment if there is nothing, or if a broker does not answer."""
        try:
            if not self._leaders:
                await self._connect()
            answers = await asyncio.gather(*(self._fetch(*leader) for leader in self._leaders.items()))
        except CONNECTION_FAILURES as error:
            self.last_error = reason(error)
            self._close()
            await asyncio.sleep(_WAIT_MS / 1000)
            return []
        self.last_error = ""
        return [record for answer in answers for record in answer]

    async def _connect(self) -> None:
        async with connected(self._settings) as admin:
            metadata = await admin.metadata([self._topic])
        ((_, _, _, partitions),) = metadata.topics
        if not partitions:
            raise ProbeError(
                f"there is no topic {self._topic}, or this client may not see it: `chatapp-bridge topics apply` makes it"
            )
        led: defaultdict[int, list[int]] = defaultdict(list)
        for _, partition, leader, *_ in partitions:
            led[leader].append(partition)
        addresses = {node: (host, port) for node, host, port, *_ in metadata.brokers}
        arguments = client_arguments(self._settings)
        for node, numbers in led.items():
            if node not in addresses:
                raise KafkaUnavailable(f"topic {self._topic}: partitions {numbers} have no leader")
            host, port = addresses[node]
            try:
                connection = await connect(host, port, arguments, _CONNECT_SECONDS)
            except CONNECTION_FAILURES as error:
                why = f"broker {node}, advertised as {host}:{port}: {reason(error)}"
                raise KafkaUnavailable(why) from error
            self._leaders[connection] = numbers

    async def _fetch(self, connection: Connection, partitions: Sequence[int]) -> list[Found]:
        wanted = [(self._topic, [(partition, self._offsets[partition], _FETCH_BYTES) for partition in partitions])]
        answer = await connection.ask_aiokafka(FetchRequest(_WAIT_MS, 1, _FETCH_BYTES, 0, wanted))
        found = []
        for _, of_topic in answer.topics:
            for partition, code, *_, data in of_topic:
                self._check(partition, code)
                found += [each for each in _records(partition, data or b"") if each.offset >= self._offsets[partition]]
        for record in found:
            self._offsets[record.partition] = record.offset + 1
        return found

    def _check(self, partition: int, code: int) -> None:
        if code != NONE:
            raise KafkaUnavailable(f"topic {self._topic}, partition {partition}: {code_name(code)}")

    def _close(self) -> None:
        for connection in self._leaders:
            with suppress(OSError):
                connection.abort("not used any more")
        self._leaders.clear()


def _records(partition: int, data: bytes) -> Iterator[Found]:
    batches: Any = MemoryRecords(data)
    while batches.has_next():
        for record in batches.next_batch():
            yield Found(partition, record.offset, record.key)
