"""How ``replay`` and ``redrive`` write to a topic: what transactions and writing at least once have in common."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from bridge.config import Kafka
from bridge.errors import BridgeError, KafkaUnavailable, ReplayError
from bridge.operate.reading.client import Stuck, TokenKeeper, bounded, client_configuration, make
from bridge.operate.reading.errors import error_of, hopeless, in_words, more_telling

T = TypeVar("T")

BY_KEY: Final = -1
"""The partition of a record that its key places, where Java's clients and the bridge place it."""
CALL_SECONDS: Final = 5.0
"""Of one call of the library."""

_FLUSH_SECONDS: Final = 0.5
# Bounds of the library's queue: what is written and not yet acknowledged.
_QUEUED_KIB: Final = 16_384
_QUEUED_MESSAGES: Final = 20_000  # each holds about 2 KiB beside its bytes
_MOST_MESSAGE_BYTES: Final = 100_000_000


class TopicWriter:
    """Writes records, and then notes the progress as a consumer group's offsets; ``commit`` says how.

    Args:
        kafka: ``[kafka]``.
        more: of the producer's configuration.
        batch_bytes: of one batch at most.
        remedy: what every error ends with.
        timeout_seconds: how long brokers may be away.
    """

    def __init__(
        self, kafka: Kafka, more: Mapping[str, Any], *, batch_bytes: int, remedy: str, timeout_seconds: float
    ) -> None:
        self._timeout = timeout_seconds
        self._remedy = remedy
        self._refusal: KafkaError | None = None
        self._last: KafkaError | None = None
        self._stuck = False
        configuration = {
            **client_configuration(kafka),
            # Java's, so that a key is where every other producer would have put it.
            "partitioner": "murmur2_random",
            "compression.type": kafka.compression_type,
            "linger.ms": 20,
            "batch.size": batch_bytes,
            "message.max.bytes": _MOST_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": _QUEUED_KIB,
            "queue.buffering.max.messages": _QUEUED_MESSAGES,
            "delivery.report.only.error": True,
            "on_delivery": self._refused,
            "error_cb": self._on_error,
            **more,
        }
        self._producer: Final = make(Producer, configuration)
        self._tokens = TokenKeeper(configuration, self._producer)

    def write(self, topic: str, records: Iterable[Mapping[str, Any]], doing: str) -> None:
        """Take records, each as the arguments of ``Producer.produce`` beside the topic.

        Raises:
            KafkaUnavailable: nothing is acknowledged for as long as the timeout.
            ReplayError: Kafka takes no more of this.
        """
        for record in records:
            try:
                self._producer.produce(topic, **record)
            except BufferError:
                self._produce_when_possible(topic, record, doing)
            except KafkaException as error:
                raise self._failed(error_of(error), doing) from error
        self._producer.poll(0)

    def _produce_when_possible(self, topic: str, record: Mapping[str, Any], doing: str) -> None:
        def produce() -> None:
            try:
                self._producer.produce(topic, **record)
            except BufferError:
                self._producer.poll(0.1)
                raise KafkaException(_queue_full()) from None

        self._until_done(produce, doing)

    def settle(self, doing: str) -> None:
        """Wait until what is written next can't be on Kafka without what was written before.

        Raises:
            KafkaUnavailable, ReplayError: it could not be written.
        """
        raise NotImplementedError

    def commit(self, offsets: Sequence[TopicPartition], consumer: Consumer, doing: str) -> None:
        """Make what was written count, and note these offsets of the consumer's group with it, or behind it.

        Raises:
            KafkaUnavailable, ReplayError: it could not be.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Drop what is not acknowledged."""
        self._tokens.stop()
        if not self._stuck:
            self._producer.purge()

    def _flush(self, doing: str) -> None:
        """Wait until all is acknowledged or refused."""
        deadline = time.monotonic() + self._timeout
        left = self._unacknowledged(doing)
        while left and self._refusal is None:
            if time.monotonic() > deadline:
                raise self._failed(self._last or _queue_full(), doing)
            before, left = left, self._unacknowledged(doing)
            if left < before:
                deadline = time.monotonic() + self._timeout
        if self._refusal is not None:
            raise self._failed(self._refusal, doing)

    def _unacknowledged(self, doing: str) -> int:
        """How many records are not acknowledged after a moment."""
        try:
            return self._producer.flush(_FLUSH_SECONDS)  # type: ignore[no-any-return]
        except KafkaException as error:  # another process fenced this one
            raise self._failed(error_of(error), doing) from error

    def _until_done(self, call: Callable[[], T], doing: str) -> T:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return bounded(call, self._timeout + CALL_SECONDS)
            except Stuck:
                self._stuck = True
                raise KafkaUnavailable(
                    f"{doing}: the brokers left it without an answer; look at them{self._remedy}"
                ) from None
            except KafkaException as exception:
                error = error_of(exception)
                if self._last is not None and hopeless(self._last):
                    error = self._last
                elif self._passes(error) and not self._refusal and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise self._failed(error, doing) from exception

    def _passes(self, error: KafkaError) -> bool:
        """Whether trying again may help."""
        return error.retriable()  # type: ignore[no-any-return]

    def _failed(self, error: KafkaError, doing: str) -> BridgeError:
        """The error in words; of several, that of a record says most."""
        failure: BridgeError
        error = self._refusal or error
        code = error.code()
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            failure = ReplayError(f"{doing}: a record is larger than the topic takes; raise its max.message.bytes")
        elif code in {KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD}:
            look = "look at its message.timestamp.* and cleanup.policy"
            failure = ReplayError(f"{doing}: the topic refuses a record: {error.str()}; {look}")
        elif code == KafkaError._QUEUE_FULL:  # noqa: SLF001 - its public codes
            failure = KafkaUnavailable(
                f"{doing}: nothing was acknowledged for {self._timeout:g} s; look at its leaders and brokers"
            )
        else:
            failure = in_words(error, doing)
        return type(failure)(f"{failure}{self._remedy}")

    def _refused(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._refusal is None and error.code() != KafkaError._PURGE_QUEUE:  # noqa: SLF001
            self._refusal = error

    def _on_error(self, error: KafkaError) -> None:
        self._last = more_telling(self._last, error)


def _queue_full() -> KafkaError:
    return KafkaError(KafkaError._QUEUE_FULL, "nothing is acknowledged", retriable=True)  # noqa: SLF001
