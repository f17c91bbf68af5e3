"""The topics as declared, and what counts as weaker than that."""

import pytest

from bridge.config import load
from bridge.deliver.topics import DeclaredTopic, Difference, Finding, _differences, declared_topics

DECLARED = declared_topics(load(environment={}).settings.topics)
STATUS, QUARANTINE = DECLARED.values()


def test_both_topics_are_declared_under_their_configured_names() -> None:
    """The tables of topics.toml are named for the keys of [topics]: a topic of another name is declared alike."""
    renamed = declared_topics(
        load(environment={}, assignments=["topics.status=s", "topics.quarantine=q"]).settings.topics
    )

    assert ["chatapp.status.v1", "chatapp.status.quarantine.v1"] == list(DECLARED)
    assert ["s", "q"] == [topic.name for topic in renamed.values()]
    assert [STATUS.config, QUARANTINE.config] == [topic.config for topic in renamed.values()]


def test_what_is_declared_loses_nothing() -> None:
    """Three replicas of which two must have each record, no unclean leader, nothing compacted away."""
    for topic in DECLARED.values():
        assert (topic.replication_factor, topic.config["min.insync.replicas"]) == (3, "2")
        assert topic.config["unclean.leader.election.enable"] == "false"
        assert topic.config["cleanup.policy"] == "delete"


def test_the_quarantine_takes_records_as_large_as_a_body() -> None:
    """A whole body that can't be understood, and its headers, fit into one record."""
    body_bytes = load(environment={}).settings.limits.body_bytes

    assert int(QUARANTINE.config["max.message.bytes"]) > body_bytes + 65_536


@pytest.mark.parametrize(("brokers", "replication", "in_sync"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 3, 2)])
def test_a_small_cluster_is_asked_for_what_it_can_give(brokers: int, replication: int, in_sync: int) -> None:
    """For --dev: no more replicas than brokers, and one broker may always be away where there are two; all else stays."""
    lowered = STATUS.lowered_to(brokers)

    assert (lowered.replication_factor, lowered.config["min.insync.replicas"]) == (replication, str(in_sync))
    assert lowered.partitions == STATUS.partitions
    others = STATUS.config.keys() - {"min.insync.replicas"}
    assert {key: lowered.config[key] for key in others} == {key: STATUS.config[key] for key in others}


def found(*, partitions: int = 12, replicas: int = 3, **config: str) -> dict[str, bool]:
    """What differs on a topic that is as declared but for this, and whether that is weaker."""
    actual = {**STATUS.config, **{key.replace("_", "."): value for key, value in config.items()}}
    described = [{"replicas": list(range(replicas))} for _ in range(partitions)]
    return {each.what: each.weaker for each in _differences(STATUS, described, actual)}


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({}, {}),
        ({"partitions": 11}, {"partitions": True}),
        ({"partitions": 13}, {"partitions": False}),
        ({"replicas": 2}, {"replication_factor": True}),
        ({"replicas": 4}, {"replication_factor": False}),
        ({"min_insync_replicas": "1"}, {"min.insync.replicas": True}),
        ({"min_insync_replicas": "3"}, {"min.insync.replicas": False}),
        ({"retention_ms": "604800000"}, {"retention.ms": True}),
        ({"retention_ms": "-1"}, {"retention.ms": False}),
        ({"max_message_bytes": "1000"}, {"max.message.bytes": True}),
        ({"cleanup_policy": "compact,delete"}, {"cleanup.policy": True}),
        ({"unclean_leader_election_enable": "true"}, {"unclean.leader.election.enable": True}),
        ({"compression_type": "zstd"}, {"compression.type": False}),
        ({"message_timestamp_type": "LogAppendTime"}, {"message.timestamp.type": False}),
    ],
)
def test_weaker_is_what_can_cost_records_or_their_order(
    differences: dict[str, object], expected: dict[str, bool]
) -> None:
    """Fewer replicas, partitions, days or bytes, compaction, unclean leaders; stronger or merely other is no weakness."""
    assert found(**differences) == expected  # type: ignore[arg-type]


def test_the_worst_replicated_partition_counts() -> None:
    """A topic is as weak as the weakest of its partitions."""
    described = [{"replicas": [1, 2, 3]}] * 11 + [{"replicas": [1]}]

    assert [str(each) for each in _differences(STATUS, described, STATUS.config)] == [
        "replication_factor: declared 3, found 1"
    ]


def test_a_missing_topic_is_a_weakness_and_a_merely_different_one_is_none() -> None:
    """Whoever is warned hears of what can cost records, and of that only."""
    topic = DeclaredTopic("name", 1, 1, {})
    weak, other = Difference("retention.ms", "2", "1", weaker=True), Difference("x", "1", "2", weaker=False)

    assert Finding(topic, exists=False, differences=[]).weaker == ["topic name is missing"]
    assert Finding(topic, exists=True, differences=[weak, other]).weaker == [
        "topic name, retention.ms: declared 2, found 1"
    ]
