"""When it is said that Kafka refuses what is sent."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.delivery.entry import Refusal
from bridge.health.verdict import HealthReport


def refused(refusals: list[Refusal], last_error: str = "") -> str:
    """What is said of a delivery whose lanes are refused, out of fifteen."""
    report: Any = HealthReport.__new__(HealthReport)
    report._delivery = SimpleNamespace(
        refusals=refusals,
        producer=SimpleNamespace(last_error=last_error),
        all_lanes=lambda: range(15),
        spool=object(),
    )
    said: str = report._refused_by_kafka()
    return said


@pytest.mark.parametrize("seconds", [0, 9])
def test_a_refusal_of_a_moment_is_not_told(seconds: float) -> None:
    """Brokers change places."""
    assert refused([Refusal("NotLeaderForPartitionError (6)", time.time() - seconds)]) == ""
    assert refused([]) == ""


def test_what_lasts_is_told_with_its_errors_and_its_beginning() -> None:
    """Each error once, the time of the first."""
    began = time.time() - 3600
    errors = ["PolicyViolationError (44)", "InvalidTimestampError (32)", "PolicyViolationError (44)"]
    said = refused([Refusal(error, began + number) for number, error in enumerate(errors)])
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(began))
    assert said == (
        f"Kafka answers, but has refused the batches of 3 of 15 lanes since {since} UTC: "
        "InvalidTimestampError (32), PolicyViolationError (44). Their reports are on disk, and the bridge retries."
    )


def test_a_kafka_that_does_not_answer_any_more_does_not_refuse() -> None:
    """What it refused before it went away says nothing of now."""
    assert refused([Refusal("PolicyViolationError (44)", time.time() - 3600)], last_error="no answer in time") == ""
