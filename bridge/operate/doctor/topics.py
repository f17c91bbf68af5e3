"""The topics: those of the bridge as they are, and the one for the test records."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiokafka.protocol.admin import CreateTopicsRequest

from bridge.errors import BridgeError, ConfigurationError, TopicsError
from bridge.kafka.admin import ANSWER_MS, Admin, connected
from bridge.kafka.errors import NONE, code_name
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.session import TOPIC, Session
from bridge.topics.inspect import Finding as Inspected
from bridge.topics.inspect import inspect
from bridge.topics.spec import DeclaredTopic, declared_topics

_LARGEST: Final = "max.message.bytes"
_NO_LEADER: Final = 5
_SHOWN_SECONDS, _AGAIN_SECONDS = 10.0, 0.2
# One partition on each broker, so that each is written to; no more than this many.
_MOST_PARTITIONS: Final = 12


# --- the bridge's topics ----------------------------------------------------------------------------------------------


async def declared(session: Session) -> Finding:
    """Both topics of the bridge are there, as declared."""
    name = "topics"
    topics = declared_topics(session.settings.topics)
    try:
        async with connected(session.settings.kafka) as admin:
            found = await inspect(admin, list(topics.values()))
    except TopicsError as error:
        why = "Without the right DescribeConfigs the bridge works, but can't warn of weak topics."
        return Finding(name, Outcome.ADVICE, str(error), why)
    session.largest_status = _largest_status(found[0])
    missing = [each.topic.name for each in found if not each.exists]
    weaker = [line for each in found if each.exists for line in each.weaker]
    hidden = [f"{each.topic.name}, {setting.what}" for each in found for setting in each.not_shown]
    session.topics_as_declared = not (missing or weaker or hidden)
    facts = {"missing": missing, "weaker": weaker, "not_shown": hidden}
    if missing:
        return _missing(session, missing, facts)
    if weaker:
        why = "`chatapp-bridge topics plan` shows what can be changed. What stays weaker can cost records."
        return Finding(name, Outcome.ADVICE, "; ".join(weaker), why, facts=facts)
    if hidden:
        seen = f"both are there; Kafka does not show {len(hidden)} of their settings: {'; '.join(hidden)}"
        return Finding(name, Outcome.GOOD, seen, "Compare these settings where the topics are managed.", facts=facts)
    return Finding(name, Outcome.GOOD, "both are there, and nothing is weaker than declared", facts=facts)


def _missing(session: Session, missing: list[str], facts: Mapping[str, Any]) -> Finding:
    seen = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, or this user may not describe them"
    lowered = {}
    for table, topic in zip(("status", "quarantine"), declared_topics(session.settings.topics).values(), strict=True):
        brokers = len(session.brokers)
        if topic.replication_factor > brokers > 0:
            less = topic.lowered_to(brokers)
            lowered[table] = {
                "replication_factor": less.replication_factor,
                "config.min.insync.replicas": int(less.config["min.insync.replicas"]),
            }
    why = "`chatapp-bridge topics apply` makes them."
    if lowered:
        why += f" {len(session.brokers)} broker(s) can't hold as many replicas as are declared."
    return Finding("topics", Outcome.ADVICE, seen, why, set_topics=lowered, facts=facts)


def _largest_status(found: Inspected) -> int | None:
    if not found.exists or any(setting.what == _LARGEST for setting in found.not_shown):
        return None
    shown = {difference.what: difference.found for difference in found.differences}
    return int(shown.get(_LARGEST, found.topic.config.get(_LARGEST, "0"))) or None


# --- the topic for the test records -----------------------------------------------------------------------------------


class _RefusedError(BridgeError):
    """Kafka does not create a topic."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code_name(code)}{f': {message}' if message else ''}")
        self.code = code


async def prepare(session: Session) -> Finding:
    """A topic can be made as the bridge's are declared; the test records go to it, or to the one that is named."""
    async with connected(session.settings.kafka) as admin:
        if session.named is not None:
            return await _use_named(session, admin)
        return await _make(session, admin)


async def _use_named(session: Session, admin: Admin) -> Finding:
    name, topic = "test topic", session.named or ""
    if topic in {session.settings.topics.status, session.settings.topics.quarantine}:
        raise ConfigurationError(
            f"--topic: {topic} is a topic of the bridge, and no consumer can read test records; name another one"
        )
    await _find_leaders(session, admin, topic)
    if not session.leaders:
        return Finding(name, Outcome.BROKEN, f"there is no topic {topic}, or this user may not describe it")
    session.topic = topic
    return Finding(name, Outcome.GOOD, f"{topic} is there; the test records stay in it until they expire")


async def _make(session: Session, admin: Admin) -> Finding:
    """Make a topic with the declared settings; if Kafka refuses that, without them."""
    name, status = "test topic", next(iter(declared_topics(session.settings.topics).values()))
    brokers = max(1, len(session.brokers))
    lowered = status.lowered_to(brokers)
    largest = max(topic.max_message_bytes for topic in declared_topics(session.settings.topics).values())
    config = {**lowered.config, **({_LARGEST: str(largest)} if _LARGEST in lowered.config else {})}
    wanted = DeclaredTopic(session.name, min(brokers, _MOST_PARTITIONS), lowered.replication_factor, config)
    try:
        await _create(session, admin, wanted)
    except _RefusedError as refused:
        return await _make_without_settings(session, admin, wanted, refused)
    if not await _shown(session, admin):
        seen = f"Kafka accepted the creation of {session.name}, but does not show the topic"
        return Finding(name, Outcome.BROKEN, seen, _named_why(session))
    return Finding(name, Outcome.GOOD, f"{session.name} was made with the settings that are declared")


async def _make_without_settings(
    session: Session, admin: Admin, wanted: DeclaredTopic, refused: _RefusedError
) -> Finding:
    name = "test topic"
    plain = msgspec.structs.replace(wanted, config={})
    try:
        await _create(session, admin, plain)
    except _RefusedError:
        outcome = Outcome.GOOD if session.topics_as_declared else Outcome.ADVICE
        seen = f"Kafka does not let this user create a topic: {refused}"
        return Finding(name, outcome, seen, _named_why(session))
    culprits = [option for option in wanted.config if not await _validates(admin, wanted, option)]
    if not await _shown(session, admin):
        seen = f"Kafka accepted the creation of {session.name}, but does not show the topic"
        return Finding(name, Outcome.BROKEN, seen, _named_why(session))
    seen = f"Kafka refuses a topic with the declared settings: {refused}"
    left = {f"config.{option}": "" for option in culprits}
    why = "These settings have to be left to the cluster." if left else "It accepts one without them."
    return Finding(
        name, Outcome.ADVICE, seen, why, set_topics={"status": left, "quarantine": left} if left else {},
        facts={"refused_settings": culprits},
    )  # fmt: skip


def _named_why(session: Session) -> str:
    text = "For the checks that write, name a topic of yours that no consumer reads: --topic NAME."
    if not session.topics_as_declared:
        text = f"Make the bridge's topics where Kafka's are managed. {text}"
    return text


async def _create(session: Session, admin: Admin, topic: DeclaredTopic) -> None:
    session.leave(TOPIC, topic.name, "it was not confirmed that Kafka has deleted it")
    refused = await _order(admin, topic, validate_only=False)
    if refused is not None:
        session.removed(TOPIC, topic.name)
        raise refused
    session.made = True


async def _validates(admin: Admin, topic: DeclaredTopic, option: str) -> bool:
    one = msgspec.structs.replace(topic, name=f"{topic.name}-setting", config={option: topic.config[option]})
    return await _order(admin, one, validate_only=True) is None


async def _order(admin: Admin, topic: DeclaredTopic, *, validate_only: bool) -> _RefusedError | None:
    wanted: list[Any] = [(topic.name, topic.partitions, topic.replication_factor, [], list(topic.config.items()))]
    answer = await admin.order(CreateTopicsRequest(wanted, ANSWER_MS, validate_only))
    for _, code, *message in answer.topic_errors:
        if code:
            return _RefusedError(code, (message[0] if message else "") or "")
    return None


async def _shown(session: Session, admin: Admin) -> bool:
    """Wait until the cluster shows the new topic with its leaders."""
    session.topic = session.name
    try:
        async with asyncio.timeout(_SHOWN_SECONDS):
            while True:
                await _find_leaders(session, admin, session.name)
                if session.leaders and all(node in session.brokers for node in session.leaders.values()):
                    return True
                await asyncio.sleep(_AGAIN_SECONDS)
    except TimeoutError:
        session.leaders = {}
        return False


async def _find_leaders(session: Session, admin: Admin, topic: str) -> None:
    for code, _, _, partitions in (await admin.metadata([topic])).topics:
        if code in {NONE, _NO_LEADER}:
            session.leaders = {partition: leader for _, partition, leader, *_ in partitions}
