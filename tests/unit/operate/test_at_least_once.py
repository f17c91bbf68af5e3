"""Writing without transactions: whether the producer may be idempotent, and that a note follows what it is about."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from bridge.config import load
from bridge.errors import ConnectionEnded, ReplayError, UnsupportedBroker
from bridge.operate import at_least_once, writing

REFUSED, UNKNOWN = 31, -1


@pytest.mark.parametrize(
    ("idempotence", "answers", "expected"),
    [
        ("auto", [0], True),
        ("auto", [UNKNOWN, REFUSED, 0], True),
        ("auto", [REFUSED] * 5, False),
        ("auto", [UnsupportedBroker("not offered")], False),
        ("auto", [ConnectionEnded("the broker hung up")], False),
        ("true", [], True),
        ("false", [], False),
    ],
    ids=str,
)
def test_it_is_idempotent_where_the_cluster_gives_a_producer_id(
    monkeypatch: pytest.MonkeyPatch, idempotence: str, answers: list[Any], *, expected: bool
) -> None:
    """Event Hubs refuses the first request at times; ApsaraMQ's cloud storage refuses all."""

    async def ask(_request: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(error_code=answer)

    @asynccontextmanager
    async def connected(_kafka: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(ask=ask)

    monkeypatch.setattr(at_least_once, "connected", connected)
    monkeypatch.setattr(at_least_once, "_AGAIN_SECONDS", 0.0)
    kafka = load(environment={}, assignments=[f"kafka.idempotence={idempotence}"]).settings.kafka
    assert at_least_once._is_idempotent(kafka) is expected
    assert answers == []


class Client:
    """A producer and a consumer whose calls are kept in their order.

    Attributes:
        calls: their names.
        refuses: what becomes of a record that is flushed.
        failures: what the next commits raise.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refuses: KafkaError | None = None
        self.failures: list[KafkaError] = []
        self.configuration: dict[str, Any] = {}

    def produce(self, _topic: str, **_record: Any) -> None:
        """As a producer's."""
        self.calls.append("produce")

    def poll(self, _seconds: float) -> None:
        """As a producer's."""

    def flush(self, _seconds: float) -> int:
        """As a producer's."""
        self.calls.append("flush")
        if self.refuses is not None:
            self.configuration["on_delivery"](self.refuses, None)
        return 0

    def commit(self, **_arguments: Any) -> list[TopicPartition]:
        """As a consumer's."""
        self.calls.append("commit")
        if self.failures:
            raise KafkaException(self.failures.pop(0))
        return [TopicPartition("topic", 0, 1)]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """In place of the library's."""
    client = Client()

    def make(_kind: Any, configuration: dict[str, Any]) -> Any:
        client.configuration = configuration
        return client

    monkeypatch.setattr(writing, "make", make)
    return client


def committed(client: Any) -> None:
    """Write a record, and note it."""
    kafka = load(environment={}, assignments=["kafka.idempotence=false"]).settings.kafka
    writer = at_least_once.AtLeastOnce(kafka, batch_bytes=1000)
    writer.write("topic", [{"value": b"1"}], "writing")
    writer.commit([TopicPartition("topic", 0, 1)], client, "committing")


def test_what_was_written_is_acknowledged_before_it_is_noted(client: Client) -> None:
    """One request at a time where sequence numbers don't keep the order; a coordinator that moves is waited for."""
    client.failures = [KafkaError(KafkaError.NOT_COORDINATOR), KafkaError(KafkaError._TRANSPORT)]
    committed(client)
    assert client.calls == ["produce", "flush", "commit", "commit", "commit"]
    assert (client.configuration["max.in.flight"], client.configuration["acks"]) == (1, "all")


def test_nothing_is_noted_behind_a_record_that_is_refused(client: Client) -> None:
    """The error is the record's."""
    client.refuses = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    with pytest.raises(ReplayError, match="larger than the topic takes"):
        committed(client)
    assert client.calls == ["produce", "flush"]


def test_a_group_that_may_not_be_used_is_not_waited_for(client: Client) -> None:
    """Its right is named."""
    client.failures = [KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)]
    with pytest.raises(ReplayError, match="may not use the consumer group"):
        committed(client)
    assert client.calls == ["produce", "flush", "commit"]
