"""Questions to the cluster whose answers are unusual."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.config import load
from bridge.operate.reading.inspector import ClusterInspector


def test_a_setting_without_a_value_is_as_one_that_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some services answer null: who computes with a retention must not get the text None."""
    answer: Future[Any] = Future()
    answer.set_result({"retention.ms": SimpleNamespace(value=None), "max.message.bytes": SimpleNamespace(value="1000")})
    kafka = load(environment={}, assignments=["kafka.bootstrap_servers=127.0.0.1:1"]).settings.kafka
    with ClusterInspector(kafka, 1.0) as inspector:
        answering = SimpleNamespace(describe_configs=lambda resources, **_: {resources[0]: answer})
        monkeypatch.setattr(inspector, "admin", answering)
        assert inspector.topic_configuration("status") == {"max.message.bytes": "1000"}
