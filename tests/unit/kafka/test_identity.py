"""Whether an answer is of the cluster that was known before: a topic has its former id or, without those, the cluster has."""

import pytest
import structlog.testing

from bridge.kafka.identity import Identity
from bridge.kafka.metadata import Metadata, Topic

MISSING, NOT_ALLOWED = 3, 29


def of(cluster_id: str, **topics: str | int) -> Metadata:
    """An answer: topics with their ids, an empty one if the broker gives none, or with an error code."""
    described = [
        Topic(name, said, "", {}) if isinstance(said, int) else Topic(name, 0, said, {})
        for name, said in topics.items()
    ]
    return Metadata(cluster_id, {}, described)


KNOWN = of("c1", status="s1", quarantine="q1")
SAME = [
    KNOWN,
    of("", status="s1", quarantine="q1"),
    of("c2", status="s1", quarantine=MISSING),
    of("c1", status="s1", quarantine=MISSING),
    of("c1", status="s1", quarantine=NOT_ALLOWED),
    # one topic alone was created again
    of("c1", status="s2", quarantine="q1"),
    # a broker that gives no topic ids
    of("c1", status="", quarantine=""),
    of("c1", status=""),
]
OTHER = [
    of("c2", status="", quarantine=""),
    of("c2", status="s2", quarantine="q2"),
    of("c1", status="s2", quarantine="q2"),
    of("c1", status="s2", quarantine=MISSING),
    of("c1", status=MISSING, other="o1"),
]
SHOWS_NOTHING = [
    of("c1"),
    of("c1", status=MISSING, quarantine=MISSING),
    of("c1", status=NOT_ALLOWED, quarantine=MISSING),
]


@pytest.fixture
def identity() -> Identity:
    """Of a cluster that is known."""
    identity = Identity()
    assert not identity.take(KNOWN)
    return identity


@pytest.mark.parametrize("metadata", SAME)
def test_the_same_cluster_is_recognised(identity: Identity, metadata: Metadata) -> None:
    """And its ids are kept: nothing that it shows makes the former ones count less."""
    assert identity.is_confirmed_by(metadata)
    assert not identity.take(metadata)
    assert identity.is_confirmed_by(KNOWN)
    assert not identity.is_confirmed_by(of("c1", status="s3", quarantine="q3"))


@pytest.mark.parametrize("metadata", OTHER)
def test_another_cluster_is_recognised(identity: Identity, metadata: Metadata) -> None:
    """Once: from then on it is the cluster, and the former one is another."""
    assert not identity.is_confirmed_by(metadata)
    with structlog.testing.capture_logs() as logs:
        assert identity.take(metadata)
        assert not identity.take(metadata)
    assert identity.is_confirmed_by(metadata)
    assert [line["event"] for line in logs] == ["cluster_changed"]
    assert (logs[0]["former_cluster_id"], logs[0]["cluster_id"]) == ("c1", metadata.cluster_id)
    assert logs[0]["former_topic_ids"] == KNOWN.topic_ids
    assert identity.changes == 1


@pytest.mark.parametrize("metadata", SHOWS_NOTHING)
def test_an_answer_without_a_topic_confirms_nothing_and_changes_nothing(identity: Identity, metadata: Metadata) -> None:
    """A recreated cluster lacks its topics at first, or nobody has given the rights to them yet."""
    assert not identity.is_confirmed_by(metadata)
    assert not identity.take(metadata)
    assert identity.is_confirmed_by(KNOWN)
    assert not identity.is_confirmed_by(OTHER[2])


def test_topics_that_come_one_after_another_in_a_recreated_cluster_prove_nothing_for_each_other(
    identity: Identity,
) -> None:
    """The second one has another id than in the former cluster, which is known of the whole cluster by then."""
    assert identity.take(of("c1", status=MISSING, quarantine="q2"))
    assert not identity.take(of("c1", status="s2", quarantine="q2"))
    assert identity.changes == 1


def test_a_topic_that_alone_was_created_again_is_logged_once(identity: Identity) -> None:
    """With both ids, and counted."""
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            assert not identity.take(of("c1", status="s2", quarantine="q1"))
    assert [(line["event"], line["topic"], line["former_id"], line["topic_id"]) for line in logs] == [
        ("topic_recreated", "status", "s1", "s2")
    ]
    assert identity.changes == 1


def test_a_broker_of_the_former_cluster_that_still_answers_is_another_cluster_again(identity: Identity) -> None:
    """Each answer counts: numbers of one never go to the other."""
    recreated = OTHER[2]
    assert [identity.take(each) for each in (recreated, KNOWN, KNOWN, recreated)] == [True, True, False, True]


def test_ids_that_were_unknown_make_no_other_cluster() -> None:
    """At the start, and where brokers are upgraded to a version that gives topic ids."""
    identity = Identity()
    answers = [of("", status=""), of("c1", status=""), of("c1", status="s1"), of("c1", status="s1", quarantine="q1")]
    assert [identity.is_confirmed_by(each) for each in answers] == [True] * 4
    assert [identity.take(each) for each in answers] == [False] * 4
    assert identity.changes == 0
