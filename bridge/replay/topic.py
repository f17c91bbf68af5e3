"""A topic as the sink of a replay, exactly once: records and progress go in the same transactions.

The progress is the offsets of a consumer group that belongs to the run, and that nobody joins. Whenever the process dies, the
transaction at hand is aborted by the next one with the same transactional id, and the offsets are those of the last one that
was committed; a reader with ``read_committed`` sees each record once.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from bridge.config import Kafka
from bridge.deliver.partition import partition_for
from bridge.errors import KafkaAway, ReplayError
from bridge.replay.client import (
    PATIENCE_SECONDS,
    Stuck,
    bounded,
    client_configuration,
    error_of,
    hopeless,
    in_words,
    make,
    more_telling,
)
from bridge.replay.state import State, group_of, to_offsets

T = TypeVar("T")

REPLAY_HEADER: Final = "bridge_replay"
"""Marks a record as replayed; its value is the run's id."""

_CALL_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 0.5
_ABORT_SECONDS: Final = 10.0
_TRANSACTION_MS: Final = 60_000
# Bounds of the library's queue: what is written and not yet acknowledged.
_QUEUED_KIB: Final = 32_768
_QUEUED_MESSAGES: Final = 50_000
_MOST_MESSAGE_BYTES: Final = 100_000_000
_BATCH_BYTES: Final = 1_000_000
# How many bytes of a value place it where there is no key, as the bridge has it.
_PLACING_BYTES: Final = 64
_BY_KEY: Final = -1
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
        patience_seconds: how long brokers may be away.

    Raises:
        KafkaAway, ReplayError: no transaction can be had; says why.
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
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._alike = partitions == source_partitions
        self._patience = patience_seconds
        self._mark = (REPLAY_HEADER, run_id.encode())
        self._refusal: KafkaError | None = None
        self._open = self._stuck = False
        self._group: Any = None
        configuration = {
            **client_configuration(kafka),
            "transactional.id": group_of(kafka.client_id, run_id),
            "transaction.timeout.ms": _TRANSACTION_MS,
            # Java's, so that a key is where every other producer would have put it.
            "partitioner": "murmur2_random",
            "compression.type": kafka.compression_type,
            "linger.ms": 20,
            "batch.size": max(1, min(_BATCH_BYTES, max_message_bytes)),
            "message.max.bytes": _MOST_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": _QUEUED_KIB,
            "queue.buffering.max.messages": _QUEUED_MESSAGES,
            "delivery.report.only.error": True,
            "on_delivery": self._refused,
            "error_cb": self._heard,
        }
        self._last: KafkaError | None = None
        self._producer: Final = make(Producer, configuration)
        self._patiently(lambda: self._producer.init_transactions(_CALL_SECONDS), "taking up the run's transactions")

    def attend(self, consumer: Consumer) -> None:
        """Say whose group the progress belongs to."""
        self._group = consumer.consumer_group_metadata()

    def write(self, messages: Sequence[Message]) -> None:
        """Add the messages to the transaction at hand.

        Raises:
            KafkaAway: nothing is acknowledged for as long as the patience lasts.
            ReplayError: Kafka takes no more of this run.
        """
        if not messages:
            return
        self._begin()
        for message in messages:
            headers: list[Any] = message.headers() or []
            kind, time_ms = message.timestamp()
            arguments: dict[str, Any] = {
                "value": message.value(),
                "key": message.key(),
                "partition": self._place(message),
                "timestamp": 0 if kind == _NO_TIME else time_ms,
                "headers": [*headers, self._mark],
            }
            try:
                self._producer.produce(self._topic, **arguments)
            except BufferError:
                self._produce_patiently(arguments)
            except KafkaException as error:
                raise self._failed(error_of(error), f"writing to topic {self._topic}") from error
        self._producer.poll(0)

    def _place(self, message: Message) -> int:
        """The partition: by the key; of a record without one, where it was, or where its bytes put it."""
        if message.key() is not None:
            return _BY_KEY
        if self._alike:
            return message.partition()  # type: ignore[no-any-return]
        return partition_for((message.value() or b"")[:_PLACING_BYTES], self._partitions)

    def _produce_patiently(self, arguments: dict[str, Any]) -> None:
        def produce() -> None:
            try:
                self._producer.produce(self._topic, **arguments)
            except BufferError:
                self._producer.poll(0.1)
                raise KafkaException(_unacknowledged()) from None

        self._patiently(produce, f"writing to topic {self._topic}")

    def commit(self, state: State, *, wait: bool = True) -> None:  # noqa: ARG002 - a transaction is waited for
        """Commit what was written, together with how far the run came.

        Raises:
            KafkaAway, ReplayError: it could not be; the transaction is aborted, nothing of it counts.
        """
        self._begin()
        doing = f"committing what was written to topic {self._topic}"
        offsets = to_offsets(state)
        self._flush(doing)
        self._patiently(lambda: self._producer.send_offsets_to_transaction(offsets, self._group, _CALL_SECONDS), doing)
        self._patiently(lambda: self._producer.commit_transaction(_CALL_SECONDS), doing)
        self._open = False

    def _flush(self, doing: str) -> None:
        """Wait until all is acknowledged or refused; committing alone would not hear of what is refused."""
        deadline = time.monotonic() + self._patience
        left = self._producer.flush(_FLUSH_SECONDS)
        while left and self._refusal is None:
            if time.monotonic() > deadline:
                raise self._failed(self._last or _unacknowledged(), doing)
            before, left = left, self._producer.flush(_FLUSH_SECONDS)
            if left < before:
                deadline = time.monotonic() + self._patience
        if self._refusal is not None:
            raise self._failed(self._refusal, doing)

    def close(self) -> None:
        """Abort what is not committed, as far as Kafka is there; else it times out, or the next of this run aborts it."""
        if self._stuck:
            return
        if self._open:
            self._open = False
            with contextlib.suppress(KafkaException, Stuck):
                bounded(lambda: self._producer.abort_transaction(_ABORT_SECONDS), 2 * _ABORT_SECONDS)
                return
        self._producer.purge()

    def _begin(self) -> None:
        if self._open:
            return
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._failed(error_of(error), f"writing to topic {self._topic}") from error
        self._open = True

    def _patiently(self, call: Callable[[], T], doing: str) -> T:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return bounded(call, self._patience + _CALL_SECONDS)
            except Stuck:
                self._stuck = True
                raise KafkaAway(f"{doing}: the brokers left it without an answer; look at them") from None
            except KafkaException as exception:
                error = error_of(exception)
                if self._last is not None and hopeless(self._last):
                    error = self._last
                elif error.retriable() and not self._refusal and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise self._failed(error, doing) from exception

    def _failed(self, error: KafkaError, doing: str) -> ReplayError:
        """The error in words; of several, that of a record says most."""
        error = self._refusal or error
        code = error.code()
        if code in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001
            return ReplayError(f"{doing}: another process has taken this run over, or it stood still for too long")
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return ReplayError(f"{doing}: a record is larger than the topic takes; raise its max.message.bytes")
        if code in {KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD}:
            return ReplayError(
                f"{doing}: the topic refuses a record: {error.str()}; look at its message.timestamp.* and cleanup.policy"
            )
        if code == KafkaError._QUEUE_FULL:  # noqa: SLF001
            return KafkaAway(
                f"{doing}: nothing was acknowledged for {self._patience:g} s; look at its leaders and brokers"
            )
        return in_words(error, doing)

    def _refused(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._refusal is None and error.code() != KafkaError._PURGE_QUEUE:  # noqa: SLF001
            self._refusal = error

    def _heard(self, error: KafkaError) -> None:
        self._last = more_telling(self._last, error)


def _unacknowledged() -> KafkaError:
    return KafkaError(KafkaError._QUEUE_FULL, "nothing is acknowledged", retriable=True)  # noqa: SLF001
