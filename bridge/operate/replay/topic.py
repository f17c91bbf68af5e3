"""A topic as the sink of a replay, exactly once: records and progress go in the same transactions.

The progress is the offsets of a consumer group that belongs to the run, and that nobody joins.
"""

from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import Consumer, Message

from bridge.config import Kafka
from bridge.headers import REPLAY
from bridge.kafka.partition import partition_for
from bridge.operate.reading.client import PATIENCE_SECONDS
from bridge.operate.replay.state import State, group_of, to_offsets
from bridge.operate.transactions import BY_KEY, Transactions

"""Marks a record as replayed; its value is the run's id."""

_BATCH_BYTES: Final = 1_000_000
# How many bytes of a value place it where there is no key, as the bridge has it.
_PLACING_BYTES: Final = 64
_NO_TIME: Final = 0


class TopicSink:
    """Writes to a topic in transactions; one at a time for each run.

    Args:
        kafka: ``[kafka]``.
        run_id: of which the transactional id is made.
        topic: to write to; it is there.
        partitions: how many it has.
        source_partitions: how many the topic has that is read.
        max_message_bytes: the topic's largest batch.
        timeout_seconds: how long brokers may be away.

    Raises:
        KafkaUnavailable, ReplayError: no transaction can be had; says why.
    """

    def __init__(
        self,
        kafka: Kafka,
        run_id: str,
        topic: str,
        *,
        partitions: int,
        source_partitions: int,
        max_message_bytes: int = _BATCH_BYTES,
        timeout_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._alike = partitions == source_partitions
        self._mark = (REPLAY, run_id.encode())
        self._group: Any = None
        self._transactions = Transactions(
            kafka,
            group_of(kafka.client_id, run_id),
            batch_bytes=max(1, min(_BATCH_BYTES, max_message_bytes)),
            beginning="taking up the run's transactions",
            fenced="another process has taken this run over, or it stood still for too long",
            timeout_seconds=timeout_seconds,
        )

    def attend(self, consumer: Consumer) -> None:
        """Say whose group the progress belongs to."""
        self._group = consumer.consumer_group_metadata()

    def write(self, messages: Sequence[Message]) -> None:
        """Add the messages to the transaction at hand.

        Raises:
            KafkaUnavailable: nothing is acknowledged for as long as the patience lasts.
            ReplayError: Kafka takes no more of this run.
        """
        if messages:
            self._transactions.write(self._topic, map(self._copy, messages), f"writing to topic {self._topic}")

    def _copy(self, message: Message) -> dict[str, Any]:
        kind, time_ms = message.timestamp()
        return {
            "value": message.value(),
            "key": message.key(),
            "partition": self._place(message),
            "timestamp": 0 if kind == _NO_TIME else time_ms,
            "headers": [*(message.headers() or []), self._mark],
        }

    def _place(self, message: Message) -> int:
        """The partition: by the key; of a record without one, where it was, or where its bytes put it."""
        if message.key() is not None:
            return BY_KEY
        if self._alike:
            return message.partition()  # type: ignore[no-any-return]
        return partition_for((message.value() or b"")[:_PLACING_BYTES], self._partitions)

    def commit(self, state: State, *, wait: bool = True) -> None:  # noqa: ARG002 - a transaction is waited for
        """Commit what was written, together with how far the run came.

        Raises:
            KafkaUnavailable, ReplayError: it could not be; the transaction is aborted, nothing of it counts.
        """
        self._transactions.commit(to_offsets(state), self._group, f"committing what was written to topic {self._topic}")

    def close(self) -> None:
        """Abort what is not committed, as far as Kafka is there; else it times out, or the next of this run aborts it."""
        self._transactions.close()
