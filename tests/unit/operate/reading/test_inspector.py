"""Questions to the cluster whose answers are unusual."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from bridge.config import load
from bridge.errors import KafkaUnavailable
from bridge.operate.reading import inspector as reading_inspector
from bridge.operate.reading.inspector import ClusterInspector


def test_a_setting_without_a_value_is_as_one_that_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some services answer null: who computes with a retention must not get the text None."""
    answer: Future[Any] = Future()
    answer.set_result(
        {
            "retention.ms": SimpleNamespace(value=None),
            "max.message.bytes": SimpleNamespace(value="1000"),
            "segment.ms": SimpleNamespace(value=""),
        }
    )
    kafka = load(environment={}, assignments=["kafka.bootstrap_servers=127.0.0.1:1"]).settings.kafka
    with ClusterInspector(kafka, 1.0) as inspector:
        answering = SimpleNamespace(describe_configs=lambda resources, **_: {resources[0]: answer})
        monkeypatch.setattr(inspector, "admin", answering)
        assert inspector.topic_configuration("status") == {"max.message.bytes": "1000"}


@pytest.mark.parametrize("others_answered", [True, False])
def test_settings_that_are_never_answered_hold_up_nothing(
    monkeypatch: pytest.MonkeyPatch, *, others_answered: bool
) -> None:
    """Some services hang up on this question alone. Brokers that are away are waited for."""
    asked: list[str] = []

    def describe(resources: list[Any], **_: Any) -> dict[Any, Future[Any]]:
        asked.append("settings")
        answer: Future[Any] = Future()
        answer.set_exception(KafkaException(KafkaError(KafkaError._TRANSPORT)))
        return {resources[0]: answer}

    def partitions(topic: str) -> list[int]:
        asked.append(topic)
        if not others_answered:
            raise KafkaUnavailable("no broker")
        return [0]

    kafka = load(environment={}, assignments=["kafka.bootstrap_servers=127.0.0.1:1"]).settings.kafka
    monkeypatch.setattr(reading_inspector, "_SETTINGS_SECONDS", 0.0)
    monkeypatch.setattr(reading_inspector, "_AGAIN_SECONDS", 0.0)
    with ClusterInspector(kafka, 60.0) as inspector:
        monkeypatch.setattr(inspector, "admin", SimpleNamespace(describe_configs=describe, poll=lambda _: 0))
        monkeypatch.setattr(inspector, "partitions", partitions)
        if others_answered:
            assert inspector.topic_configuration("status") == inspector.topic_configuration("status") == {}
            assert asked.count("status") == 2
        else:
            with pytest.raises(KafkaUnavailable, match="no broker"):
                inspector.topic_configuration("status")


def test_an_answer_about_offsets_that_was_lost_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Librdkafka gives it as a success with an offset that is none: a topic of records would be an empty one."""
    answers = [OFFSET_INVALID, 7]

    def ask(places: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(offset=answers.pop(0)))
        return dict.fromkeys(places, answer)

    kafka = load(environment={}, assignments=["kafka.bootstrap_servers=127.0.0.1:1"]).settings.kafka
    monkeypatch.setattr(reading_inspector, "_AGAIN_SECONDS", 0.0)
    with ClusterInspector(kafka, 60.0) as inspector:
        monkeypatch.setattr(inspector, "admin", SimpleNamespace(list_offsets=ask, poll=lambda _: 0))
        monkeypatch.setattr(
            inspector, "_consumer", SimpleNamespace(poll=lambda _: None, close=inspector._consumer.close)
        )
        assert inspector.list_offsets("status", {0: None}) == {0: 7}
    assert answers == []


def test_a_broker_that_can_t_describe_a_group_is_not_asked_for_its_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Librdkafka crashes there; one that does not know the group is asked, as it may be of the new protocol."""
    asked: list[str] = []
    refusals = [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.GROUP_ID_NOT_FOUND]
    place = TopicPartition("status", 0, 7)

    def describe(groups: list[str], **_: Any) -> dict[str, Future[Any]]:
        asked.append("describe")
        answer: Future[Any] = Future()
        answer.set_exception(KafkaException(KafkaError(refusals.pop(0))))
        return {groups[0]: answer}

    def offsets(groups: list[Any], **_: Any) -> dict[str, Future[Any]]:
        asked.append("offsets")
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(topic_partitions=[place]))
        return {groups[0].group_id: answer}

    kafka = load(environment={}, assignments=["kafka.bootstrap_servers=127.0.0.1:1"]).settings.kafka
    with ClusterInspector(kafka, 60.0) as inspector:
        answering = SimpleNamespace(
            describe_consumer_groups=describe, list_consumer_group_offsets=offsets, poll=lambda _: 0
        )
        monkeypatch.setattr(inspector, "admin", answering)
        assert inspector.group_offsets("billing") == [place]
    assert asked == ["describe", "describe", "describe", "offsets"]
