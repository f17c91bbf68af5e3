"""What ``topics apply`` would do, and what it leaves with which reason."""

import msgspec
import pytest

from bridge.config import load
from bridge.topics.inspect import Difference, Finding, NotShown, is_weaker
from bridge.topics.plan import CREATE, EXTERNAL, Allowed, Step, plan
from bridge.topics.spec import DeclaredTopic, declared_topics

STATUS: DeclaredTopic = declared_topics(load(environment={}).settings.topics)["chatapp.status.v1"]


def steps(what: str, declared: str, found: str, *, replication: int = 3, **allowed: bool) -> list[Step]:
    """The plan for a topic that differs in this."""
    difference = Difference(what, declared, found, weaker=is_weaker(what, declared, found))
    finding = Finding(STATUS, exists=True, differences=[difference], replication=replication)
    return plan([finding], Allowed(**allowed))


def test_what_is_missing_is_created_and_what_is_as_declared_needs_nothing() -> None:
    """One step, whatever its settings; none."""
    assert [CREATE] == [step.what for step in plan([Finding(STATUS, exists=False, differences=[])], Allowed())]
    assert plan([Finding(STATUS, exists=True, differences=[], replication=3)], Allowed()) == []


@pytest.mark.parametrize(
    ("what", "declared", "found"),
    [
        ("retention.ms", "2", "1"),
        ("retention.ms", "-1", "1"),
        ("min.insync.replicas", "2", "1"),
        ("max.message.bytes", "2", "1"),
        ("message.timestamp.after.max.ms", "9223372036854775807", "3600000"),
        ("cleanup.policy", "delete", "compact,delete"),
        ("unclean.leader.election.enable", "false", "true"),
        ("compression.type", "producer", "zstd"),
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("segment.ms", "1", "2"),
    ],
)
def test_what_makes_safer_or_is_merely_other_is_done_without_a_word(what: str, declared: str, found: str) -> None:
    """Nothing can be lost by it."""
    (step,) = steps(what, declared, found)

    assert (step.refused, step.remark) == ("", "")


@pytest.mark.parametrize(
    ("what", "declared", "found", "words"),
    [
        ("retention.ms", "1", "2", "would be deleted"),
        ("retention.ms", "1", "-1", "would be deleted"),
        ("retention.bytes", "1", "-1", "would be deleted"),
        ("min.insync.replicas", "1", "2", "could be lost"),
        ("max.message.bytes", "1", "2", "would be refused"),
        ("message.timestamp.before.max.ms", "1", "2", "would be refused"),
        ("message.timestamp.after.max.ms", "1", "2", "would be refused"),
        ("cleanup.policy", "delete", "compact", "would be deleted"),
        ("unclean.leader.election.enable", "true", "false", "could be lost"),
    ],
)
def test_what_weakens_is_left_unless_told(what: str, declared: str, found: str, words: str) -> None:
    """And says what it costs, both ways."""
    (left,) = steps(what, declared, found)
    (done,) = steps(what, declared, found, weaker=True)

    assert words in left.refused
    assert "--allow-weaker" in left.refused
    assert (done.refused, words in done.remark) == ("", True)


def test_what_kafka_does_not_show_is_left() -> None:
    """Setting it might be refused, with everything else of the topic; it is no weakness either."""
    hidden = NotShown("retention.ms", "1", "Kafka shows it without a value")
    (step,) = plan([Finding(STATUS, exists=True, differences=[], replication=3, not_shown=[hidden])], Allowed())

    assert (step.what, step.found, step.declared, step.weaker) == ("retention.ms", "unknown", "1", False)
    assert step.refused == "Kafka shows it without a value"


def test_topics_that_others_manage_are_left_as_they_are() -> None:
    """Whatever is allowed: a missing topic is an error, and so is what ``topics.file`` expects; the rest is their decision."""
    external = msgspec.structs.replace(STATUS, expected=frozenset({"retention.ms"}))
    differences = [
        Difference("retention.ms", "2", "1", weaker=True),
        Difference("replication_factor", "3", "1", weaker=True, expected=False),
    ]
    everything = Allowed(add_partitions=True, weaker=True)
    expected, decided = plan([Finding(external, True, differences)], everything)
    (missing,) = plan([Finding(external, False, [])], everything)

    assert {step.refused for step in (expected, decided, missing)} == {EXTERNAL}
    assert (missing.weaker, expected.weaker, decided.weaker) == (True, True, False)


def test_partitions_are_added_only_when_told_and_never_taken() -> None:
    """Keys move when they are added, which is said."""
    (left,), (done,) = steps("partitions", "12", "3"), steps("partitions", "12", "3", add_partitions=True)
    (never,) = steps("partitions", "3", "12", add_partitions=True, weaker=True)

    assert "needs --add-partitions: keys move" in left.refused
    assert (done.refused, "keys move" in done.remark) == ("", True)
    assert "can't be taken away" in never.refused


@pytest.mark.parametrize(("declared", "found"), [("3", "1"), ("1", "3")])
def test_the_replication_factor_is_shown_with_the_tool_that_changes_it(declared: str, found: str) -> None:
    """It moves data between brokers: nothing for a side effect."""
    (step,) = steps("replication_factor", declared, found, add_partitions=True, weaker=True)

    assert "kafka-reassign-partitions" in step.refused


def test_more_replicas_in_sync_than_there_are_replicas_would_stop_all_writing() -> None:
    """Raising min.insync.replicas to 2 where there is one replica is no safety but an outage."""
    (step,) = steps("min.insync.replicas", "2", "1", replication=1)

    assert "nothing could be written any more, with 1 replicas" in step.refused
