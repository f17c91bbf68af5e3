"""Records and the progress of a consumer group, written together or not at all.

Whenever the process dies, the transaction at hand is aborted by the next one with the same transactional id, and the group's
offsets are those of the last one that was committed; a reader with ``read_committed`` sees each record once.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bridge.config import Kafka
from bridge.errors import BridgeError, ReplayError
from bridge.operate.reading.client import TIMEOUT_SECONDS, Stuck, bounded
from bridge.operate.reading.errors import error_of
from bridge.operate.writing import CALL_SECONDS, TopicWriter

_ABORT_SECONDS: Final = 10.0
_TRANSACTION_MS: Final = 60_000
_FENCED: Final = {
    KafkaError._FENCED,  # noqa: SLF001 - its public codes
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_LOGIN: Final = {KafkaError.SASL_AUTHENTICATION_FAILED}
_WITHOUT: Final = "; if this Kafka has no transactions, --at-least-once writes without them"
# What clusters without transactions answer, and what the client makes of a request that is not offered.
_NO_TRANSACTIONS: Final = {
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
}


class Transactions(TopicWriter):
    """One transactional producer, from now on the only one with its id.

    Args:
        kafka: ``[kafka]``.
        transactional_id: whoever takes it up later fences this one.
        batch_bytes: of one batch at most.
        beginning: what is being done by beginning, for errors.
        fenced: what to say where another took the id over.
        remedy: what every other error ends with.
        timeout_seconds: how long brokers may be away.

    Raises:
        KafkaUnavailable, ReplayError: no transaction can be had; says why.
    """

    def __init__(
        self,
        kafka: Kafka,
        transactional_id: str,
        *,
        batch_bytes: int,
        beginning: str,
        fenced: str,
        remedy: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._fenced, self._open, self._begun = fenced, False, False
        more = {"transactional.id": transactional_id, "transaction.timeout.ms": _TRANSACTION_MS}
        super().__init__(kafka, more, batch_bytes=batch_bytes, remedy=remedy, timeout_seconds=timeout_seconds)
        try:
            self._until_done(lambda: self._producer.init_transactions(CALL_SECONDS), beginning)
        except BaseException:
            self._tokens.stop()
            raise
        self._begun = True

    def write(self, topic: str, records: Iterable[Mapping[str, Any]], doing: str) -> None:
        """Add records to the transaction at hand; see ``TopicWriter``."""
        self._begin(doing)
        super().write(topic, records, doing)

    def settle(self, doing: str) -> None:
        """Nothing counts without the rest of its transaction."""

    def commit(self, offsets: Sequence[TopicPartition], consumer: Consumer, doing: str) -> None:
        """Commit what was written, together with the group's offsets.

        Raises:
            KafkaUnavailable, ReplayError: it could not be; the transaction is aborted, nothing of it counts.
        """
        self._begin(doing)
        self._flush(doing)  # committing alone would not hear of what is refused
        group = consumer.consumer_group_metadata()
        self._until_done(lambda: self._producer.send_offsets_to_transaction(offsets, group, CALL_SECONDS), doing)
        self._until_done(lambda: self._producer.commit_transaction(CALL_SECONDS), doing)
        self._open = False

    def close(self) -> None:
        """Abort what is not committed, as far as Kafka is there; else it times out, or the next of this id aborts it."""
        self._tokens.stop()
        if self._open and not self._stuck:
            self._open = False
            with contextlib.suppress(KafkaException, Stuck):
                bounded(lambda: self._producer.abort_transaction(_ABORT_SECONDS), 2 * _ABORT_SECONDS)
                return
        super().close()

    def _begin(self, doing: str) -> None:
        if self._open:
            return
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._failed(error_of(error), doing) from error
        self._open = True

    def _failed(self, error: KafkaError, doing: str) -> BridgeError:
        code = (self._refusal or error).code()
        if code in _FENCED:
            return ReplayError(f"{doing}: {self._fenced}")
        failure = super()._failed(error, doing)
        # At the beginning a service may refuse by any code; the client's own are below that of an unknown error.
        refused = code in _NO_TRANSACTIONS or (not self._begun and code >= KafkaError.UNKNOWN and code not in _LOGIN)
        return type(failure)(f"{failure}{_WITHOUT}") if refused else failure
