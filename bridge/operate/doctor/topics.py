"""The topics: those of the bridge as they are, and the one for the test records."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiokafka.protocol.admin import CreateTopicsRequest

from bridge.errors import BridgeError, ConfigurationError, ConnectionEnded, TopicsError, UnsupportedBroker
from bridge.kafka.admin import ANSWER_MS, Admin, connected
from bridge.kafka.connection import reason
from bridge.kafka.errors import NONE, code_name
from bridge.operate import console
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.session import TOPIC, Session
from bridge.topics.inspect import Finding as Inspected
from bridge.topics.inspect import creation, inspect, of_this_kafka
from bridge.topics.spec import DeclaredTopic, declared_topics

_TOPICS, _TEST_TOPIC = "topics", "test topic"
_TABLES: Final = ("status", "quarantine")
_LARGEST: Final = "max.message.bytes"
_NO_LEADER: Final = 5
# UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT, TOPIC_ALREADY_EXISTS: by an order of this run, whose names are new.
_MAY_BE_MADE: Final = {-1, 7, 36}
_SHOWN_SECONDS, _AGAIN_SECONDS = 10.0, 0.2
# One partition on each broker, so that each is written to; no more than this many.
_MOST_PARTITIONS: Final = 12


# --- the bridge's topics ----------------------------------------------------------------------------------------------


async def declared(session: Session) -> Finding:
    """Both topics of the bridge are there, as declared."""
    topics = list(declared_topics(session.settings.topics).values())
    try:
        async with connected(session.settings.kafka) as admin:
            found = await inspect(admin, topics)
    except TopicsError as error:
        why = "Without the right DescribeConfigs the bridge works, but can't warn of weak topics."
        return Finding(_TOPICS, Outcome.ADVICE, str(error), why)
    except (ConnectionEnded, UnsupportedBroker) as error:
        return await _without_settings(session, error)
    session.largest_status = _largest_status(found[0])
    missing = [each.topic.name for each in found if not each.exists]
    weaker = [line for each in found if each.exists for line in each.weaker]
    hidden = [f"{each.topic.name}, {setting.what}" for each in found for setting in each.not_shown]
    left = [line for each in found for line in each.left_to_owner]
    session.topics_as_declared = not (missing or weaker or hidden)
    facts = {"missing": missing, "weaker": weaker, "not_shown": hidden, "left_to_owner": left}
    if missing:
        return _missing(session, missing, facts)
    if weaker:
        why = "`chatapp-bridge topics plan` shows what can be changed. What stays weaker can cost records."
        return Finding(_TOPICS, Outcome.ADVICE, "; ".join(weaker), why, facts=facts)
    notes = [f"weaker than recommended, as their owner decided: {'; '.join(left)}"] if left else []
    notes += [f"Kafka does not show {len(hidden)} of their settings: {'; '.join(hidden)}"] if hidden else []
    if notes:
        seen, why = "; ".join(["both are there", *notes]), "Compare these settings where the topics are managed."
        return Finding(_TOPICS, Outcome.GOOD, seen, why, facts=facts)
    return Finding(_TOPICS, Outcome.GOOD, "both are there, and nothing is weaker than declared", facts=facts)


async def _without_settings(session: Session, error: BridgeError) -> Finding:
    """Kafka hangs up on a question, or does not offer it: only topics that others manage can do without the settings."""
    external = msgspec.structs.replace(session.settings.topics, manage="external")
    async with connected(session.settings.kafka) as admin:
        found = await inspect(admin, list(declared_topics(external).values()))
    missing = [each.topic.name for each in found if not each.exists]
    if missing:
        return _missing(session, missing, {"missing": missing})
    why = "The bridge can't judge or change topics whose settings it can't see. Compare them where the topics are managed."
    seen = f"both are there, but Kafka does not show their settings: {reason(error)}"
    return Finding(_TOPICS, Outcome.ADVICE, seen, why, {"topics.manage": "external"})


def _missing(session: Session, missing: list[str], facts: Mapping[str, Any]) -> Finding:
    seen = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, or this user may not describe them"
    if session.settings.topics.manage == "external":
        return Finding(_TOPICS, Outcome.BROKEN, seen, "Make them where the topics are managed.", facts=facts)
    brokers, lowered = len(session.brokers), {}
    for table, topic in zip(_TABLES, declared_topics(session.settings.topics).values(), strict=True):
        if (topic.replication_factor or 0) > brokers > 0:
            insync = int(topic.lowered_to(brokers).config["min.insync.replicas"])
            lowered[table] = {"replication_factor": brokers, "config.min.insync.replicas": insync}
    why = "`chatapp-bridge topics apply` makes them."
    if lowered:
        why += f" {brokers} broker(s) can't hold as many replicas as are declared."
    return Finding(_TOPICS, Outcome.BROKEN, seen, why, set_topics=lowered, facts=facts)


def _largest_status(found: Inspected) -> int | None:
    if not found.exists or any(setting.what == _LARGEST for setting in found.not_shown):
        return None
    shown = {difference.what: difference.found for difference in found.differences}
    largest = shown.get(_LARGEST, found.topic.config.get(_LARGEST, ""))
    return int(largest) if largest.isdecimal() else None


# --- the topic for the test records -----------------------------------------------------------------------------------


class _RefusedError(BridgeError):
    """Kafka does not create a topic; the message says why. ``doubtful``: it may have made it all the same."""

    def __init__(self, why: str, *, doubtful: bool = False) -> None:
        super().__init__(why)
        self.doubtful = doubtful


async def prepare(session: Session) -> Finding:
    """A topic can be made as the bridge's are declared; the test records go to it, or to the one that is named."""
    async with connected(session.settings.kafka) as admin:
        if session.named is not None:
            return await _use_named(session, admin)
        return await _make(session, admin)


async def _use_named(session: Session, admin: Admin) -> Finding:
    topic = session.named or ""
    if topic in {session.settings.topics.status, session.settings.topics.quarantine}:
        raise ConfigurationError(
            f"--topic: {topic} is a topic of the bridge, and no consumer can read test records; name another one"
        )
    await _find_leaders(session, admin, topic)
    if not session.leaders:
        return Finding(_TEST_TOPIC, Outcome.BROKEN, f"there is no topic {topic}, or this user may not describe it")
    session.topic = topic
    seen = f"{topic} is there; the test records stay in it until they expire"
    if not session.creates:
        return Finding(_TEST_TOPIC, Outcome.GOOD, seen)
    wanted = await _wanted(session, admin)
    for attempt in _attempts(wanted):
        refused = await _order(admin, attempt, validate_only=True)
        if refused is None:
            return await _made(session, admin, wanted, attempt, seen)
    return _not_made(session, f"{seen}; Kafka would not let this user create a topic: {refused}")


async def _wanted(session: Session, admin: Admin) -> DeclaredTopic:
    """The test topic as `topics apply` would make the bridge's; its records may be as large as those of the quarantine."""
    status, quarantine = declared_topics(session.settings.topics).values()
    brokers = max(1, len(session.brokers))
    topic = status.lowered_to(brokers)
    largest = {_LARGEST: str(max(status.max_message_bytes, quarantine.max_message_bytes))}
    config = {**topic.config, **largest} if _LARGEST in topic.config else topic.config
    partitions = min(brokers, _MOST_PARTITIONS)
    topic = msgspec.structs.replace(topic, name=session.name, partitions=partitions, config=config)
    try:
        return await of_this_kafka(admin, topic)
    except (ConnectionEnded, UnsupportedBroker):
        return topic


def _attempts(wanted: DeclaredTopic) -> list[DeclaredTopic]:
    """As declared; then without settings; then with the replication that a service may insist on."""
    plain = msgspec.structs.replace(wanted, config={})
    others = [msgspec.structs.replace(plain, replication_factor=factor) for factor in (None, 1)]
    return [wanted, plain, *(other for other in others if other.replication_factor != wanted.replication_factor)]


async def _make(session: Session, admin: Admin) -> Finding:
    wanted, doubtful = await _wanted(session, admin), False
    console.say(f"doctor: makes topic {session.name}")  # for whoever kills it
    for attempt in _attempts(wanted):
        session.leave(TOPIC, session.name, "it was not confirmed that Kafka has deleted it")
        refused = await _order(admin, attempt, validate_only=False)
        if refused is not None and refused.doubtful:
            await _find_leaders(session, admin, session.name)
        if refused is None or session.leaders:
            session.made = True
            if await _shown(session, admin):
                return await _made(session, admin, wanted, attempt, f"{session.name} was made")
            seen = f"Kafka accepted the creation of {session.name}, but does not show the topic"
            return _not_made(session, f"{seen}; {_NAME_ONE}")
        doubtful = doubtful or refused.doubtful
        if not doubtful:
            session.removed(TOPIC, session.name)
    return _not_made(session, f"Kafka does not let this user create a topic: {refused}; {_NAME_ONE}")


async def _made(session: Session, admin: Admin, wanted: DeclaredTopic, made: DeclaredTopic, seen: str) -> Finding:
    """What has to be left to the cluster, because Kafka refused a topic that was as declared."""
    if made == wanted or not session.creates:
        return Finding(_TEST_TOPIC, Outcome.GOOD, seen)
    left: dict[str, Any] = {}
    if made.replication_factor != wanted.replication_factor:
        left["replication_factor"] = made.replication_factor or ""
    one = msgspec.structs.replace(made, name=f"{session.name}-setting")
    for option, value in wanted.config.items():
        tried = msgspec.structs.replace(one, config={option: value})
        if await _order(admin, tried, validate_only=True) is not None:
            left[f"config.{option}"] = ""
    seen += (
        f", but not as the bridge's topics are declared: Kafka refuses {', '.join(left) or 'some settings together'}"
    )
    why = 'What is "" in topics.file is left to the cluster.' if left else ""
    return Finding(_TEST_TOPIC, Outcome.ADVICE, seen, why, set_topics=dict.fromkeys(_TABLES, left) if left else {})


def _not_made(session: Session, seen: str) -> Finding:
    if not session.creates:
        return Finding(_TEST_TOPIC, Outcome.GOOD, seen)
    why = "Make and change the bridge's topics where Kafka's topics are managed: this user can't."
    return Finding(_TEST_TOPIC, Outcome.ADVICE, seen, why, {"topics.manage": "external"})


_NAME_ONE = "for the checks that write, name a topic of yours that no consumer reads: --topic NAME"


async def _order(admin: Admin, topic: DeclaredTopic, *, validate_only: bool) -> _RefusedError | None:
    """Create a topic, or only ask whether Kafka would; why not."""
    try:
        answer = await admin.order(CreateTopicsRequest([creation(topic, topic.config)], ANSWER_MS, validate_only))
    except UnsupportedBroker as error:
        return _RefusedError(str(error))
    except ConnectionEnded:
        return _RefusedError("the broker closed the connection", doubtful=True)
    for _, code, *message in answer.topic_errors:
        if code:
            why = ": ".join((code_name(code), *(text for text in message if text)))
            return _RefusedError(why, doubtful=code in _MAY_BE_MADE)
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
