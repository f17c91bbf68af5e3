"""The running look at the topics: it outlives any answer, and says once what it could not see."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from bridge.config import Settings, load
from bridge.errors import ConfigurationError, TopicsError
from bridge.topics import check
from bridge.topics.check import TopicsCheck
from bridge.topics.inspect import Difference, Finding, NotShown
from bridge.topics.spec import DeclaredTopic

NAME = "chatapp.status.v1"
EXTERNAL_ONE_REPLICA = Finding(
    DeclaredTopic(NAME, 1, 3, {}, frozenset()),
    True,
    [Difference("replication_factor", "3", "1", weaker=True, expected=False)],
)
HIDDEN = Finding(DeclaredTopic(NAME, 1, 1, {"retention.ms": "1"}), True, [], not_shown=[NotShown("retention.ms", "1")])


def look(monkeypatch: pytest.MonkeyPatch, *answers: Finding | Exception) -> tuple[TopicsCheck, list[tuple[str, str]]]:
    """Let the check get these answers, one after the other: how it is then, and its log's events with what they are about."""
    coming = list(answers)

    async def inspect_all(_settings: Settings) -> dict[str, Finding]:
        if not coming:
            raise asyncio.CancelledError
        answer = coming.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {NAME: answer}

    async def run() -> TopicsCheck:
        looking = TopicsCheck(load(environment={}).settings)
        with pytest.raises(asyncio.CancelledError):
            await looking.run()
        return looking

    monkeypatch.setattr(check, "inspect_all", inspect_all)
    monkeypatch.setattr(asyncio, "sleep", _at_once(asyncio.sleep))
    with capture_logs() as lines:
        looking = asyncio.run(run())
    return looking, [(line["event"], line.get("what") or line.get("reason", "")) for line in lines]


def _at_once(sleep: Callable[..., object]) -> Callable[[float], object]:
    return lambda _seconds: sleep(0)


def test_what_kafka_does_not_show_is_logged_once_and_is_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each look the same is hidden; when it is hidden again later it is said again."""
    seen = Finding(HIDDEN.topic, True, [])
    looking, logged = look(monkeypatch, HIDDEN, HIDDEN, seen, HIDDEN)
    line = ("topic_setting_not_shown", f"topic {NAME}, retention.ms: declared 1, Kafka does not show it")
    assert (looking.weak, logged) == ({NAME: []}, [line, line])
    assert looking.checked_at > 0


def test_an_answer_that_nobody_understands_does_not_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, once, and the next look counts."""
    strange = AttributeError("'NoneType' object has no attribute 'lstrip'")
    looking, logged = look(monkeypatch, strange, strange, Finding(HIDDEN.topic, False, []))
    assert [event for event, _ in logged] == ["topics_unchecked", "topic_drift_detected"]
    assert "NoneType" in logged[0][1]
    assert len(looking.weak[NAME]) == 1


def test_what_the_owner_of_a_topic_decided_is_logged_once_and_is_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """``topics.manage = "external"``: one replica may stand on storage that is durable by other means."""
    looking, logged = look(monkeypatch, EXTERNAL_ONE_REPLICA, EXTERNAL_ONE_REPLICA)
    assert logged == [("topic_setting_external", f"topic {NAME}, replication_factor: declared 3, found 1")]
    assert looking.weak == {NAME: []}


def test_a_missing_topic_that_others_manage_keeps_the_bridge_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """So ``refuse`` has a meaning for them, too; the words send the operator to the owner."""

    async def inspect_all(_settings: Settings) -> dict[str, Finding]:
        return {NAME: Finding(EXTERNAL_ONE_REPLICA.topic, False, [])}

    async def start() -> None:
        settings = load(environment={}, assignments=["topics.manage=external"]).settings
        await TopicsCheck(settings).refuse_weak(asyncio.Event())

    monkeypatch.setattr(check, "inspect_all", inspect_all)
    with pytest.raises(TopicsError, match=r"is missing.*ask the owner of the topics"):
        asyncio.run(start())


@pytest.mark.parametrize(
    ("answer", "logged"),
    [
        (HIDDEN, []),
        (EXTERNAL_ONE_REPLICA, []),
        (TypeError("'NoneType' object is not iterable"), ["topics_unchecked"]),
        (TopicsError("no Kafka answers"), ["topics_unchecked"]),
    ],
)
def test_what_nobody_knows_does_not_keep_the_bridge_from_starting(
    monkeypatch: pytest.MonkeyPatch, answer: Finding | Exception, logged: list[str]
) -> None:
    """``topics.check = refuse`` is for what is known to be weaker."""

    async def inspect_all(_settings: Settings) -> dict[str, Finding]:
        if isinstance(answer, Exception):
            raise answer
        return {NAME: answer}

    async def start() -> None:
        await TopicsCheck(load(environment={}).settings).refuse_weak(asyncio.Event())

    monkeypatch.setattr(check, "inspect_all", inspect_all)
    with capture_logs() as lines:
        asyncio.run(start())
    assert [line["event"] for line in lines] == logged


def test_a_secret_that_cannot_be_read_keeps_the_bridge_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is not Kafka's answer, but a wrong configuration."""

    async def inspect_all(_settings: Settings) -> dict[str, Finding]:
        raise ConfigurationError("kafka.ssl_cafile")

    async def start() -> None:
        await TopicsCheck(load(environment={}).settings).refuse_weak(asyncio.Event())

    monkeypatch.setattr(check, "inspect_all", inspect_all)
    with pytest.raises(ConfigurationError):
        asyncio.run(start())
