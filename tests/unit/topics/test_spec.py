"""The topics as declared, and what counts as weaker than that."""

from pathlib import Path

import pytest

from bridge.config import data_directory, load
from bridge.errors import ConfigurationError
from bridge.topics.inspect import Difference, Finding, _differences, not_shown
from bridge.topics.spec import DeclaredTopic, declared_topics

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


def test_a_record_is_taken_however_old_it_is() -> None:
    """Both bounds on timestamps are open: what waited in a spool, or met a wrong clock, is no reason to refuse it."""
    for topic in DECLARED.values():
        for bound in ("before", "after"):
            assert int(topic.config[f"message.timestamp.{bound}.max.ms"]) == 2**63 - 1


def test_the_quarantine_takes_records_as_large_as_a_body() -> None:
    """A whole body that can't be understood, and its headers, fit into one record."""
    body_bytes = load(environment={}).settings.limits.body_bytes

    assert int(QUARANTINE.config["max.message.bytes"]) > body_bytes + 65_536


@pytest.mark.parametrize(("brokers", "replication", "in_sync"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 3, 2)])
def test_a_small_cluster_is_asked_for_what_it_can_give(brokers: int, replication: int, in_sync: int) -> None:
    """For --single-broker: no more replicas than brokers, and one of two brokers may always be away; all else stays."""
    lowered = STATUS.lowered_to(brokers)

    assert (lowered.replication_factor, lowered.config["min.insync.replicas"]) == (replication, str(in_sync))
    assert lowered.partitions == STATUS.partitions
    others = STATUS.config.keys() - {"min.insync.replicas"}
    assert {key: lowered.config[key] for key in others} == {key: STATUS.config[key] for key in others}


# --- a file of the deployment's own ---------------------------------------------------------------------------------------


def own(path: Path, text: str) -> dict[str, DeclaredTopic]:
    """What is declared with this over the package's."""
    path.write_text(text)
    return declared_topics(load(environment={}, assignments=[f"topics.file={path}"]).settings.topics)


def test_a_file_of_ones_own_overrides_key_by_key(tmp_path: Path) -> None:
    """Only what it names is other; an empty text leaves a setting to the cluster."""
    status, quarantine = own(
        tmp_path / "own.toml",
        'status.partitions = 24\n[status.config]\n"retention.ms" = -1\n"segment.ms" = 3600000\n"compression.type" = ""\n',
    ).values()

    assert quarantine == QUARANTINE
    assert (status.partitions, status.replication_factor) == (24, 3)
    expected = {**STATUS.config, "retention.ms": "-1", "segment.ms": "3600000"}
    del expected["compression.type"]
    assert expected == status.config


def test_the_replication_may_be_left_to_the_cluster(tmp_path: Path) -> None:
    """As where a service fixes it: it is neither asked for nor compared; the other settings are."""
    status, quarantine = own(tmp_path / "own.toml", '[status]\nreplication_factor = ""\n').values()

    assert (status.replication_factor, quarantine) == (None, QUARANTINE)
    assert _differences(status, [{"replicas": [1]}] * 12, STATUS.config) == []
    lowered = status.lowered_to(1)
    assert (lowered.replication_factor, lowered.config["min.insync.replicas"]) == (None, "1")


def test_of_topics_that_others_manage_only_what_ones_own_file_names_is_expected(tmp_path: Path) -> None:
    """``topics.toml`` is a recommendation to the owner; all is declared as before, for the lanes and the sizes."""
    (tmp_path / "own.toml").write_text('status.partitions = 24\n[status.config]\n"retention.ms" = 1\n')
    assignments = [f"topics.file={tmp_path / 'own.toml'}", "topics.manage=external"]
    status, quarantine = declared_topics(load(environment={}, assignments=assignments).settings.topics).values()

    assert (status.partitions, quarantine.config) == (24, QUARANTINE.config)
    assert [status.expects(what) for what in ("partitions", "retention.ms", "replication_factor")] == [
        True,
        True,
        False,
    ]
    assert quarantine.external
    assert not quarantine.expects("partitions")
    assert not STATUS.external
    assert STATUS.expects("partitions")


def test_a_size_left_to_the_cluster_is_the_brokers_default(tmp_path: Path) -> None:
    """What the service reckons with where a topic declares none."""
    status = own(tmp_path / "own.toml", '[status.config]\n"max.message.bytes" = ""\n')["chatapp.status.v1"]

    assert status.max_message_bytes == 1_048_588


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[statsu]\npartitions = 1", "statsu: there is no such table; there are status and quarantine"),
        ("status = 3", "status: there is no such table"),
        ("[status]\npartition = 1", "status.partition: there is no such key; near it are partitions"),
        ("[status]\npartitions = 0", "status.partitions = 0: expected `int` >= 1"),
        ("[status]\npartitions = 1001", "status.partitions = 1001: expected `int` <= 1000"),
        ('[status]\npartitions = "12"', 'status.partitions = "12": expected `int`'),
        ("[status]\nreplication_factor = true", "status.replication_factor = true: expected `int`"),
        ("[status]\nconfig = 1", "status.config: it is no table"),
        (
            '[status.config]\n"retention.mss" = 1',
            'status.config."retention.mss": there is no such key; near it are retention.ms',
        ),
        ('[status.config]\n"retention.ms" = "soon"', 'status.config."retention.ms" = "soon": expected `int`'),
        ('[status.config]\n"retention.ms" = -2', 'status.config."retention.ms" = -2: expected `int` >= -1'),
        ('[status.config]\n"cleanup.policy" = "compact"', "compaction would remove events of a key"),
        ('[status.config]\n"compression.type" = "brotli"', 'status.config."compression.type" = "brotli": invalid enum'),
        ('[quarantine.config]\n"unclean.leader.election.enable" = "no"', "expected `bool`"),
        ('[quarantine.config]\n"min.insync.replicas" = 4', "more than quarantine.replication_factor (3)"),
        ("[status]\nreplication_factor = 1", "more than status.replication_factor (1)"),
        ("[status", "is no TOML"),
    ],
)
def test_what_is_wrong_in_it_is_named_with_the_file_and_the_key(tmp_path: Path, text: str, words: str) -> None:
    """A typing error in a name, a value of another kind, a number out of range, a contradiction: no start."""
    with pytest.raises(ConfigurationError) as refused:
        own(tmp_path / "own.toml", text)

    assert str(refused.value).startswith("topics.file: ")
    assert str(tmp_path / "own.toml") in str(refused.value)
    assert words in str(refused.value)


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    """Nobody should have to start four times."""
    with pytest.raises(ConfigurationError) as refused:
        own(
            tmp_path / "own.toml",
            '[status]\npartitions = 0\nx = 1\n[quarantine.config]\n"y.z" = 1\n"retention.ms" = "s"\n',
        )

    assert len(str(refused.value).splitlines()) == 5


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the key that names it."""
    topics = load(environment={}, assignments=[f"topics.file={tmp_path / 'none'}"]).settings.topics
    with pytest.raises(ConfigurationError, match=r"topics\.file: can't read .*none: No such file.*; mount it"):
        declared_topics(topics)


def test_the_package_s_own_file_holds_itself_to_the_same(tmp_path: Path) -> None:
    """topics.toml, given as one's own, is taken as it is."""
    assert own(tmp_path / "own.toml", (data_directory("config") / "topics.toml").read_text()) == DECLARED


# --- as they are ----------------------------------------------------------------------------------------------------------


def found(*, partitions: int = 12, replicas: int = 3, **config: str | None) -> dict[str, bool]:
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
        ({"message_timestamp_before_max_ms": "3600000"}, {"message.timestamp.before.max.ms": True}),
        ({"message_timestamp_after_max_ms": "3600000"}, {"message.timestamp.after.max.ms": True}),
        ({"retention_ms": ""}, {"retention.ms": False}),
        ({"retention_ms": None}, {}),
    ],
)
def test_weaker_is_what_can_cost_records_or_their_order(
    differences: dict[str, object], expected: dict[str, bool]
) -> None:
    """Fewer replicas, partitions, days or bytes, compaction, unclean leaders; stronger or merely other is no weakness."""
    assert found(**differences) == expected  # type: ignore[arg-type]


def test_what_kafka_does_not_show_is_said_and_is_not_weaker() -> None:
    """An older broker does not list a setting; a service lists it without a value: neither can be judged."""
    actual: dict[str, str | None] = {**STATUS.config, "retention.ms": None}
    del actual["message.timestamp.before.max.ms"]
    described = [{"replicas": [1, 2, 3]}] * 12

    assert _differences(STATUS, described, actual) == []
    hidden = not_shown(STATUS, actual, described)
    assert [str(each) for each in hidden] == [
        "retention.ms: declared 3024000000, Kafka shows it without a value",
        f"message.timestamp.before.max.ms: declared {2**63 - 1}, Kafka does not show it",
    ]
    assert Finding(STATUS, exists=True, differences=[], not_shown=hidden).weaker == []


@pytest.mark.parametrize("replicas", [[], None])
def test_replicas_that_are_not_shown_are_unknown(replicas: list[int] | None) -> None:
    """As where a service stores the records by other means."""
    described = [{"replicas": replicas}] * 12

    assert _differences(STATUS, described, STATUS.config) == []
    assert [each.what for each in not_shown(STATUS, STATUS.config, described)] == ["replication_factor"]


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

    assert Finding(topic, exists=False, differences=[]).weaker == [
        "topic name is missing, or this user may not describe it"
    ]
    assert Finding(topic, exists=True, differences=[weak, other]).weaker == [
        "topic name, retention.ms: declared 2, found 1"
    ]
