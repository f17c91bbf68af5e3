"""What a real broker does with sequence numbers and epochs.

The rule of ``bridge/kafka/sequences.py``, and the model of a broker in the unit tests, rest on it.

``BRIDGE_TEST_BOOTSTRAP`` runs it against a broker of another version.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from support.topics import consume_all, create_topic

from bridge.kafka import messages
from bridge.kafka.batch import Batch, Numbers
from bridge.kafka.wire import Connection, connect
from bridge.record import Record

OUT_OF_ORDER, FENCED = 45, 47
NO_LEADER_YET = {3, 5, 6}
SECONDS = 10.0


@pytest.fixture
async def connection(kafka_bootstrap: str) -> AsyncIterator[Connection]:
    """To the broker."""
    host, _, port = kafka_bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    connection = await connect(host, int(port), {"client_id": "test", "security_protocol": "PLAINTEXT"}, SECONDS)
    yield connection
    connection.abort("done")


class Writer:
    """Writes batches with any numbers to one partition."""

    def __init__(self, connection: Connection, topic: str, producer_id: int) -> None:
        self._connection, self._topic, self._id = connection, topic, producer_id

    async def write(self, epoch: int, first: int, *values: str) -> int:
        """Write one batch and return the error code, 0 for none. A topic that is new has no leader for a moment."""
        async with asyncio.timeout(SECONDS):
            while (code := await self._write_once(epoch, first, *values)) in NO_LEADER_YET:
                pass
        return code

    async def _write_once(self, epoch: int, first: int, *values: str) -> int:
        batch = Batch(self._topic, 0, "lz4", 1 << 20)
        now = time.time_ns() // 1_000_000
        batch.extend([Record(self._topic, b"key", value.encode(), [], now) for value in values])
        batch.numbers = Numbers(self._id, epoch, first)
        version = messages.common_version(messages.PRODUCE, self._connection.versions)
        body = messages.produce_request([(self._topic, 0, batch.encoded())], 5_000)
        answer = messages.read_produce_answer(await self._connection.ask(messages.PRODUCE, version, *body), version)
        ((_, _, error),) = answer.partitions
        return 0 if error is None else error.code or 0


async def writer(connection: Connection, bootstrap: str) -> tuple[Writer, str]:
    """With a new producer id, on a new topic."""
    topic = await create_topic(bootstrap)
    version = messages.common_version(messages.INIT_PRODUCER_ID, connection.versions)
    for _ in range(50):
        body = messages.init_producer_id_request()
        given = messages.read_producer_id(await connection.ask(messages.INIT_PRODUCER_ID, version, body))
        if not given.code:
            return Writer(connection, topic, given.producer_id), topic
    raise AssertionError(given)


async def values_of(bootstrap: str, topic: str) -> list[str]:
    """What is in the log."""
    return [record.value.decode() for record in await consume_all(bootstrap, topic)]


async def test_a_batch_that_is_sent_again_is_there_once(connection: Connection, kafka_bootstrap: str) -> None:
    """Whether compressed alike or not; and a gap is refused."""
    write, topic = await writer(connection, kafka_bootstrap)
    assert await write.write(0, 0, "a", "b") == 0
    assert await write.write(0, 2, "c") == 0
    assert await write.write(0, 0, "a", "b") == 0
    assert await write.write(0, 2, "c") == 0
    assert await write.write(0, 4, "e") == OUT_OF_ORDER
    assert await write.write(0, 3, "d") == 0
    assert await values_of(kafka_bootstrap, topic) == ["a", "b", "c", "d"]


async def test_other_records_under_the_same_numbers_are_taken_for_a_repeat(
    connection: Connection, kafka_bootstrap: str
) -> None:
    """Which is why the rule is what it is: the broker says success, and they are lost."""
    write, topic = await writer(connection, kafka_bootstrap)
    assert await write.write(0, 0, "a") == 0
    assert await write.write(0, 0, "b") == 0
    assert await values_of(kafka_bootstrap, topic) == ["a"]


async def test_a_raised_epoch_begins_at_0_and_fences_the_one_before(
    connection: Connection, kafka_bootstrap: str
) -> None:
    """No new producer id is needed, and bytes of before that arrive late change nothing."""
    write, topic = await writer(connection, kafka_bootstrap)
    assert await write.write(0, 0, "a", "b") == 0
    assert await write.write(1, 1, "x") == OUT_OF_ORDER
    assert await write.write(1, 0, "a") == 0
    assert await write.write(0, 2, "late") == FENCED
    assert await write.write(1, 1, "b") == 0
    assert await write.write(7, 0, "c") == 0
    assert await values_of(kafka_bootstrap, topic) == ["a", "b", "a", "b", "c"]


async def test_a_broker_takes_any_first_number_of_a_producer_that_it_does_not_know(
    connection: Connection, kafka_bootstrap: str
) -> None:
    """So a topic that was made anew takes what was on its way."""
    write, topic = await writer(connection, kafka_bootstrap)
    assert await write.write(3, 17, "a") == 0
    assert await values_of(kafka_bootstrap, topic) == ["a"]


async def test_a_repeat_of_long_ago_is_refused(connection: Connection, kafka_bootstrap: str) -> None:
    """A broker keeps the numbers of a producer's last five batches; one before them is out of order, as a gap is."""
    write, topic = await writer(connection, kafka_bootstrap)
    for number in range(7):
        assert await write.write(0, number, str(number)) == 0
    assert await write.write(0, 0, "0") == OUT_OF_ORDER
    assert await values_of(kafka_bootstrap, topic) == [str(number) for number in range(7)]
