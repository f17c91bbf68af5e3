"""What is said where a cluster has no transactions."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from bridge.config import load
from bridge.errors import BridgeError
from bridge.operate import writing
from bridge.operate.transactions import Transactions

FLAG = "if this Kafka has no transactions, --at-least-once writes without them"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, True),
        (KafkaError.UNSUPPORTED_VERSION, True),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, True),
        (KafkaError._UNSUPPORTED_FEATURE, True),
        (KafkaError.UNKNOWN, True),
        (KafkaError.COORDINATOR_NOT_AVAILABLE, True),
        (KafkaError.SASL_AUTHENTICATION_FAILED, False),
        (KafkaError._TRANSPORT, False),
        (KafkaError._FENCED, False),
    ],
)
def test_the_way_to_do_without_is_named(monkeypatch: pytest.MonkeyPatch, code: int, *, named: bool) -> None:
    """Whatever the code of the refusal is; not where the cluster is away, or the login or another process is the cause."""

    def init_transactions(_seconds: float) -> None:
        raise KafkaException(KafkaError(code))

    producer = SimpleNamespace(init_transactions=init_transactions)
    monkeypatch.setattr(writing, "make", lambda *_: producer)
    kafka = load(environment={}).settings.kafka
    with pytest.raises(BridgeError) as failed:
        Transactions(kafka, "an-id", batch_bytes=1000, beginning="beginning", fenced="another took it over")
    assert (FLAG in str(failed.value)) is named
