"""The topic for the test records, by what Kafka answers to its creation; and settings that Kafka shows in odd ways."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bridge.config import load
from bridge.errors import ConnectionEnded
from bridge.operate.doctor import topics
from bridge.operate.doctor.findings import Outcome
from bridge.operate.doctor.session import TOPIC, Session
from bridge.topics.inspect import Difference, NotShown
from bridge.topics.inspect import Finding as Inspected
from bridge.topics.spec import declared_topics

SETTINGS = load(None, environment={}).settings


class _Cluster:
    """Answers each creation with the code, and makes the topic or not."""

    def __init__(self, code: int | Exception, *, makes: bool) -> None:
        self._code, self._makes, self._made = code, makes, False

    async def order(self, request: Any) -> Any:
        self._made |= self._makes and not request.validate_only
        if isinstance(self._code, Exception):
            raise self._code
        return SimpleNamespace(topic_errors=[("name", self._code, None)])

    async def metadata(self, names: list[str]) -> Any:
        partitions: list[Any] = [(0, 0, 1, [], [])] if self._made else []
        return SimpleNamespace(topics=[(0 if self._made else 3, names[0], False, partitions)])


async def made(code: int | Exception, *, makes: bool) -> tuple[Outcome, Session]:
    """What becomes of the test topic."""
    session = Session(SETTINGS, None)
    session.brokers = {1: ("one", 9092)}
    cluster: Any = _Cluster(code, makes=makes)
    finding = await topics._make(session, cluster)
    return finding.outcome, session


@pytest.mark.parametrize("code", [-1, 7, 36, ConnectionEnded("the broker hung up")])
async def test_a_topic_that_is_made_against_the_answer_is_used_and_listed(code: int | Exception) -> None:
    """So it is removed at the end."""
    _, session = await made(code, makes=True)
    assert session.made
    assert session.leaders == {0: 1}
    assert (TOPIC, session.name) in session.left


@pytest.mark.parametrize(("code", "listed"), [(44, False), (31, False), (-1, True), (7, True)])
async def test_a_topic_that_may_still_be_made_is_listed(code: int, *, listed: bool) -> None:
    """A definite refusal makes none."""
    outcome, session = await made(code, makes=False)
    assert (outcome, session.made) == (Outcome.ADVICE, False)
    assert ((TOPIC, session.name) in session.left) is listed


@pytest.mark.parametrize(("shown", "largest"), [("200000", 200_000), ("", None), ("unlimited", None)])
def test_a_largest_message_that_is_no_number_is_unknown(shown: str, largest: int | None) -> None:
    """No traceback."""
    (status, _) = declared_topics(SETTINGS.topics).values()
    difference = Difference("max.message.bytes", "1048588", shown, weaker=False)
    assert topics._largest_status(Inspected(status, True, [difference])) == largest


@pytest.mark.parametrize("there", [True, False])
async def test_topics_whose_settings_kafka_does_not_show_are_left_to_others(
    monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """Kafka hangs up on the question about them; a topic that is missing is named all the same."""

    class Connected:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    async def inspect(_: object, declared: list[Any]) -> list[Inspected]:
        if not declared[0].external:
            raise ConnectionEnded("the broker hung up")
        hidden = [NotShown("all settings", "in topics.toml")]
        return [Inspected(topic, there, [], not_shown=hidden) for topic in declared]

    monkeypatch.setattr(topics, "connected", lambda _: Connected())
    monkeypatch.setattr(topics, "inspect", inspect)
    finding = await topics.declared(Session(msgspec.structs.replace(SETTINGS), None))
    assert finding.outcome is (Outcome.ADVICE if there else Outcome.BROKEN)
    assert finding.set == ({"topics.manage": "external"} if there else {})
    assert "the broker hung up" in finding.seen or not there
