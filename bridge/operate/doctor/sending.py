"""One test batch at a time, encoded and sent as the bridge does it, and what became of it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.errors import ConnectionEnded
from bridge.kafka import messages
from bridge.kafka.admin import connected
from bridge.kafka.batch import Batch, Codec
from bridge.kafka.errors import CLOSED, TIMED_OUT, ProduceError
from bridge.operate.doctor.session import Session, now_ms
from bridge.record import Record

ANSWER_SECONDS: Final = 10.0
_NO_LIMIT: Final = 1 << 30
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
_MOST_THROTTLE_SECONDS: Final = 5.0


class Sent(NamedTuple):
    """What became of a batch."""

    error: ProduceError | None
    seconds: float

    @property
    def lost(self) -> bool:
        """Whether the connection was closed, or no answer came."""
        return self.error is not None and self.error.code is None

    @property
    def why(self) -> str:
        """Why it was not acknowledged, in words; empty if it was."""
        if self.error == CLOSED:
            return "the broker closed the connection"
        if self.error == TIMED_OUT:
            return f"no answer within {ANSWER_SECONDS:g} s"
        return self.error.text if self.error is not None else ""


def records_of(session: Session, *values: bytes) -> list[Record]:
    """Test records with these values."""
    return [Record(session.topic, session.key(), value, [], now_ms()) for value in values]


async def send(session: Session, partition: int, records: Sequence[Record], codec: Codec) -> Sent:
    """Send one batch, and wait for the answer.

    Raises:
        KafkaUnavailable, KafkaError, OSError, TimeoutError: no connection to the partition's leader can be opened.
    """
    batch = Batch(session.topic, partition, codec, _NO_LIMIT)
    batch.extend(records)
    session.sequences.give(batch)
    connection = await session.connection(session.leaders[partition])
    version = messages.common_version(messages.PRODUCE, connection.versions)
    timeout_ms = session.settings.kafka.request_timeout_ms
    body = messages.produce_request([(batch.topic, partition, batch.encoded())], timeout_ms)
    began, throttle = time.perf_counter(), 0.0
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = messages.read_produce_answer(await connection.ask(messages.PRODUCE, version, *body), version)
        (error,) = [error for _, _, error in answer.partitions] or [CLOSED]
        throttle = answer.throttle_seconds
    except TimeoutError:
        connection.abort("no answer in time")
        error = TIMED_OUT
    except ConnectionEnded:
        error = CLOSED
    sent = Sent(error, time.perf_counter() - began)
    if error is None:
        session.sequences.acknowledged(batch)
    elif not error.not_appended:
        session.sequences.raise_epoch(batch)
    await asyncio.sleep(min(throttle, _MOST_THROTTLE_SECONDS))
    return sent


async def send_patiently(session: Session, partition: int, records: Sequence[Record], codec: Codec) -> Sent:
    """Send one batch; send it again while the partition's leader, or its replicas, are not there yet."""
    for pause in _PAUSES:
        sent = await send(session, partition, records, codec)
        if sent.error is None or sent.error.code is None or not sent.error.of_the_leader:
            return sent
        await asyncio.sleep(pause)
        async with connected(session.settings.kafka) as admin:
            for _, _, _, partitions in (await admin.metadata([session.topic])).topics:
                session.leaders |= {number: leader for _, number, leader, *_ in partitions}
    return await send(session, partition, records, codec)
