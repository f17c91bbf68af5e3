"""Records first, and the progress of a consumer group when all of them are acknowledged: for clusters without transactions.

Whenever the process dies, the group's offsets are those of the last note, and what was written after it is written again. So
nothing is lost, and a repeat is the same record once more. Nothing keeps a second process from writing as well.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from aiokafka.protocol.transaction import InitProducerIdRequest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bridge.config import Kafka
from bridge.kafka.admin import connected
from bridge.kafka.errors import NONE
from bridge.kafka.wire import CONNECTION_FAILURES
from bridge.operate.reading.client import TIMEOUT_SECONDS
from bridge.operate.reading.errors import hopeless
from bridge.operate.writing import TopicWriter

# Some services refuse the first request for a producer id, and not the next ones.
_TRIES, _AGAIN_SECONDS = 5, 0.3
# One request at a time keeps the order of a key's records, also where one is sent again.
_PLAIN: Final = {"enable.idempotence": False, "acks": "all", "max.in.flight": 1}
_IDEMPOTENT: Final = {"enable.idempotence": True}
# The group's coordinator moves, or is not known yet.
_PASSING: Final = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN,
}


class AtLeastOnce(TopicWriter):
    """A producer without transactions: idempotent where the cluster gives a producer id.

    Args:
        kafka: ``[kafka]``.
        batch_bytes: of one batch at most.
        remedy: what every error ends with.
        timeout_seconds: how long brokers may be away.
    """

    def __init__(
        self, kafka: Kafka, *, batch_bytes: int, remedy: str = "", timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self.idempotent: Final = _is_idempotent(kafka)
        # A record waits as long as there is progress; ``_flush`` has the limit.
        more = {**(_IDEMPOTENT if self.idempotent else _PLAIN), "message.timeout.ms": 0}
        super().__init__(kafka, more, batch_bytes=batch_bytes, remedy=remedy, timeout_seconds=timeout_seconds)

    def settle(self, doing: str) -> None:
        """Wait until all that was written is acknowledged."""
        self._flush(doing)

    def commit(self, offsets: Sequence[TopicPartition], consumer: Consumer, doing: str) -> None:
        """Wait until all that was written is acknowledged, and note the group's offsets then.

        Raises:
            KafkaUnavailable, ReplayError: it could not be; what is acknowledged stays.
        """
        self._flush(doing)

        def note() -> None:
            for place in consumer.commit(offsets=list(offsets), asynchronous=False) or ():
                if place.error is not None:
                    raise KafkaException(place.error)

        self._until_done(note, doing)

    def _passes(self, error: KafkaError) -> bool:
        # The library's own codes are below 0: a broker that is away, a coordinator that is not known.
        return super()._passes(error) or (not hopeless(error) and (error.code() < 0 or error.code() in _PASSING))


def _is_idempotent(kafka: Kafka) -> bool:
    """Whether the producer may be idempotent: as configured, or as the cluster answers."""
    return kafka.idempotence == "true" or (kafka.idempotence == "auto" and asyncio.run(_gives_producer_id(kafka)))


async def _gives_producer_id(kafka: Kafka) -> bool:
    try:
        async with connected(kafka) as admin:
            for _ in range(_TRIES):
                if (await admin.ask(InitProducerIdRequest(None, -1))).error_code == NONE:
                    return True
                await asyncio.sleep(_AGAIN_SECONDS)
    except CONNECTION_FAILURES:
        pass  # a service that does not offer the request, or hangs up on it
    return False
