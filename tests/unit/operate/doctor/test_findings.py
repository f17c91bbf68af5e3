"""The report: what it prints can be used as it is, and its exit code says whether something is to be done."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import config
from bridge.config import Topics
from bridge.operate.doctor.findings import Finding, Left, Outcome, Report
from bridge.operate.doctor.session import Session
from bridge.topics.spec import declared_topics

EVERY_KEY = {
    "kafka.idempotence": "false",
    "kafka.compression_type": "gzip",
    "kafka.max_request_bytes": 491_520,
    "kafka.max_batch_bytes": 490_496,
    "kafka.max_record_bytes": 490_496,
    "kafka.security_protocol": "SSL",
    "delivery.spool_after_ms": 1300,
    "topics.manage": "external",
}
GOOD = Finding("latency", Outcome.GOOD, "quick")
ADVISED = Finding(
    "sizes", Outcome.ADVICE, 'a "quoted" thing', "Why, in words that are long enough to wrap. " * 5, EVERY_KEY
)


def settings(*files: Path) -> config.Settings:
    """Of these files alone."""
    return config.load(files[0] if files else None, environment={}).settings


def test_the_toml_is_taken_by_the_bridge_as_it_is_printed(tmp_path: Path) -> None:
    """Each key gets its value, and nothing else changes."""
    report = Report([GOOD, ADVISED], EVERY_KEY, [])
    file = tmp_path / "advice.toml"
    file.write_text(report.toml)
    loaded = config.load(file, environment={})
    assert {value.key: value.value for value in loaded.values if value.source == str(file)} == EVERY_KEY
    assert report.toml.count("# Why, in words") == 3  # once in each section
    assert report.toml in "\n".join(report.text())
    assert report.json()["toml"] == report.toml


def test_the_advice_is_what_differs_from_the_configuration(tmp_path: Path) -> None:
    """With the printed TOML in force the same findings ask for nothing more."""
    session = Session(settings(), None)
    session.apply(EVERY_KEY)
    assert session.differing([GOOD, ADVISED]) == EVERY_KEY
    file = tmp_path / "advice.toml"
    file.write_text(Report([ADVISED], EVERY_KEY, []).toml)
    again = Session(settings(file), None)
    again.apply(EVERY_KEY)
    assert again.differing([GOOD, ADVISED]) == {}


def test_what_goes_into_topics_file_is_taken_as_it_is_printed(tmp_path: Path) -> None:
    """The replication, and settings that are left to the cluster."""
    left = {"replication_factor": 1, "config.min.insync.replicas": 1, "config.unclean.leader.election.enable": ""}
    both = Finding("topics", Outcome.BROKEN, "missing", set_topics={"status": left, "quarantine": left})
    file = tmp_path / "topics.toml"
    file.write_text(Report([both], {}, []).topics_toml)
    topics = msgspec.structs.replace(settings().topics, file=str(file))
    assert isinstance(topics, Topics)
    for topic in declared_topics(topics).values():
        assert topic.replication_factor == 1
        assert topic.config["min.insync.replicas"] == "1"
        assert "unclean.leader.election.enable" not in topic.config


@pytest.mark.parametrize(
    ("finding", "advice", "code"),
    [
        (GOOD, {}, 0),
        (Finding("transaction", Outcome.ADVICE, "refused", "use --at-least-once"), {}, 0),
        (ADVISED, EVERY_KEY, 1),
        (Finding("write", Outcome.BROKEN, "refused"), {}, 1),
        (Finding("write", Outcome.NOT_TRIED, "no topic"), {}, 1),
        (Finding("topics", Outcome.ADVICE, "fewer brokers", set_topics={"status": {"replication_factor": 1}}), {}, 1),
    ],
)
def test_the_exit_code_says_whether_something_is_to_be_done(
    finding: Finding, advice: dict[str, Any], code: int
) -> None:
    """Advice that no key can follow fails nothing."""
    report = Report([GOOD, finding], advice, [])
    assert report.exit_code == code == report.json()["exit_code"]
    assert ("Nothing has to be set" in report.text()[-1]) == (code == 0)
    assert msgspec.structs.replace(report, reached=False).exit_code == 3


def test_the_report_lists_what_is_left() -> None:
    """By kind and name, for people and for programs."""
    report = Report([GOOD], {}, [Left("topic", "chatapp-bridge-doctor-1", "Kafka does not delete it")])
    assert "left on Kafka: topic chatapp-bridge-doctor-1: Kafka does not delete it" in report.text()
    document = json.loads(msgspec.json.encode(report.json()))
    assert document["left"] == [{"kind": "topic", "name": "chatapp-bridge-doctor-1", "why": "Kafka does not delete it"}]
    assert document["checks"][0]["outcome"] == "good"
