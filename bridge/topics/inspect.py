"""The topics as they are on Kafka, and how they differ from what is declared.

Creating is idempotent. Looking asks for the declared topics alone, and never creates them.
"""

import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DescribeConfigsRequest,
)

from bridge.config import Kafka, Settings
from bridge.errors import KafkaUnavailable, TopicsError, UnsupportedBroker
from bridge.kafka.admin import ANSWER_MS, Admin, connected
from bridge.kafka.connection import reason
from bridge.kafka.errors import NONE, code_name
from bridge.kafka.wire import CONNECTION_FAILURES
from bridge.topics.refusals import EXTERNAL_REMEDY, INVALID_REPLICATION_FACTOR, remedy
from bridge.topics.spec import DeclaredTopic, declared_topics

# NONE, TOPIC_ALREADY_EXISTS.
_CREATED = {NONE, 36}
# As a topic's replication factor; Kafka 2.4 and newer.
_BROKERS_DEFAULT = -1
_INVALID_CONFIG = 40
# Every version of Apache Kafka says so of a setting that is newer than the version.
_UNKNOWN_SETTING = re.compile(r"Unknown topic config name: (\S+)")
# Unknown, or this user may not describe it.
_NOT_THERE = {3, 29}
# A topic that is being created has no leader at first, and may have no partitions yet.
_NO_LEADER = 5
_CONFIG_OF_A_TOPIC = 2


def missing(topic: str) -> str:
    """The line of one that Kafka does not tell of; it tells nobody of a topic that they may not describe."""
    return f"topic {topic} is missing, or this user may not describe it"


class Difference(msgspec.Struct, frozen=True):
    """One thing that is other than declared.

    ``weaker``: it can cost records or their order. ``expected``: false if that is the decision of the topic's owner.
    """

    what: str
    declared: str
    found: str
    weaker: bool
    expected: bool = True

    def __str__(self) -> str:
        return f"{self.what}: declared {self.declared}, found {self.found}"


class NotShown(msgspec.Struct, frozen=True):
    """A declared setting whose value Kafka does not tell: it is older than the setting, or hides it."""

    what: str
    declared: str
    why: str = "Kafka does not show it"

    def __str__(self) -> str:
        return f"{self.what}: declared {self.declared}, {self.why}"


class Finding(msgspec.Struct, frozen=True):
    """How one topic is, beside what is declared."""

    topic: DeclaredTopic
    exists: bool
    # empty where it is missing
    differences: list[Difference]
    # of the partition with the fewest; 0 where it is missing
    replication: int = 0
    # declared settings that Kafka does not show: nobody knows whether they are as declared
    not_shown: Sequence[NotShown] = ()

    @property
    def weaker(self) -> list[str]:
        """What can cost records or their order, a line each."""
        if not self.exists:
            return [missing(self.topic.name)]
        return [f"topic {self.topic.name}, {each}" for each in self.differences if each.weaker and each.expected]

    @property
    def left_to_owner(self) -> list[str]:
        """What is weaker than recommended, as the owner of the topic decided, a line each."""
        return [f"topic {self.topic.name}, {each}" for each in self.differences if each.weaker and not each.expected]


@asynccontextmanager
async def admin_client(kafka: Kafka) -> AsyncIterator[Admin]:
    """A connection for questions about topics, closed at the end.

    Raises:
        TopicsError: no broker answers.
    """
    reached = False
    try:
        async with connected(kafka) as admin:
            reached = True
            yield admin
    except (KafkaUnavailable, KafkaError, OSError, TimeoutError) as error:
        if reached and isinstance(error, UnsupportedBroker):
            raise TopicsError(f"{error}{EXTERNAL_REMEDY}") from error
        if reached:
            raise TopicsError(f"Kafka did not answer what it was asked: {reason(error)}; try again") from error
        servers = ", ".join(kafka.bootstrap_servers)
        raise TopicsError(f"no Kafka answers at {servers}; is kafka.bootstrap_servers right? ({error})") from error


async def inspect(client: Admin, declared: Sequence[DeclaredTopic]) -> list[Finding]:
    """Compare each declared topic with the one on Kafka."""
    there = await partitions_of(client, [topic.name for topic in declared])
    findings = []
    for topic in declared:
        if topic.name not in there:
            findings.append(Finding(topic, False, []))
            continue
        partitions = there[topic.name]
        try:
            actual = await _actual_config(client, topic)
            hidden = not_shown(topic, actual, partitions)
        except CONNECTION_FAILURES as error:
            if not topic.external:
                raise
            # Kafka has just said that the topic is there, which is what counts of a topic that others manage.
            why = f"Kafka does not show them: {reason(error)}"
            actual, hidden = {}, [NotShown("all settings", "in topics.toml", why)]
        differences = _differences(topic, partitions, actual)
        findings.append(Finding(topic, True, differences, _replication(partitions), hidden))
    return findings


async def inspect_all(settings: Settings) -> dict[str, Finding]:
    """How each declared topic is, by its name.

    Raises:
        TopicsError: no Kafka answers, or it doesn't tell.
        ConfigurationError: a mounted secret or certificate can't be used.
    """
    async with admin_client(settings.kafka) as client:
        findings = await inspect(client, list(declared_topics(settings.topics).values()))
    return {finding.topic.name: finding for finding in findings}


async def partitions_of(client: Admin, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The partitions of those of the topics that are there and that this user may describe, by the topic's name.

    Raises:
        TopicsError: Kafka can't tell whether a topic is there.
    """
    there = {}
    for topic in (await client.metadata(names)).to_object()["topics"]:
        name, code, partitions = topic["topic"], topic["error_code"], topic["partitions"]
        if code not in {NONE, _NO_LEADER, *_NOT_THERE}:
            raise TopicsError(f"Kafka does not describe topic {name}: {code_name(code)}; try again")
        if code not in _NOT_THERE and partitions:
            there[name] = partitions
    return there


async def brokers(client: Admin) -> int:
    """Number of brokers in the cluster."""
    return len((await client.metadata([])).brokers)


async def create(client: Admin, topics: Sequence[DeclaredTopic]) -> list[DeclaredTopic]:
    """Create ``topics``, without the settings that are newer than this Kafka; one that exists already is fine.

    Returns:
        the topics as they were created.

    Raises:
        TopicsError: Kafka refused; names the topic, its reason, and what to do.
    """
    topics = [await of_this_kafka(client, topic) for topic in topics]
    if not topics:
        return []
    by_name = {topic.name: topic for topic in topics}
    response = await client.order(CreateTopicsRequest([creation(t, t.config) for t in topics], ANSWER_MS, False))
    for name, code, message, *_ in response.topic_errors:
        if code not in _CREATED:
            reason = message or code_name(code)
            topic = by_name[name]
            todo = await remedy(code, reason, topic.config, partial(_is_refused, client, topic))
            if code == INVALID_REPLICATION_FACTOR and topic.replication_factor is None:
                todo = (
                    "; Kafka before 2.4 decides no replication: declare replication_factor as a number in topics.file"
                )
            raise TopicsError(f"topic {name} could not be created: {reason}{todo}")
    return topics


async def of_this_kafka(client: Admin, topic: DeclaredTopic) -> DeclaredTopic:
    """The topic without the settings that Kafka does not know; of several it names one at a time. Nothing is created."""
    while True:
        response = await client.order(
            CreateTopicsRequest([creation(topic, topic.config)], ANSWER_MS, validate_only=True)
        )
        ((_, code, message, *_),) = response.topic_errors
        unknown = _UNKNOWN_SETTING.fullmatch(message or "") if code == _INVALID_CONFIG else None
        if unknown is None or unknown[1] not in topic.config:
            return topic
        kept = {option: value for option, value in topic.config.items() if option != unknown[1]}
        topic = msgspec.structs.replace(topic, config=kept)


def creation(topic: DeclaredTopic, config: Mapping[str, str]) -> Any:
    """A topic with these settings, as CreateTopicsRequest takes it."""
    replication = topic.replication_factor or _BROKERS_DEFAULT
    return (topic.name, topic.partitions, replication, [], list(config.items()))


async def _is_refused(client: Admin, topic: DeclaredTopic, config: Mapping[str, str]) -> bool:
    """Whether Kafka would refuse the topic with these settings; nothing is created."""
    try:
        response = await client.order(CreateTopicsRequest([creation(topic, config)], ANSWER_MS, validate_only=True))
    except CONNECTION_FAILURES:
        return False
    return any(code not in _CREATED for _, code, *_ in response.topic_errors)


async def add_partitions(client: Admin, counts: dict[str, int]) -> None:
    """Raise topics to these numbers of partitions.

    Raises:
        TopicsError: Kafka refused; names the topic and its reason.
    """
    if not counts:
        return
    wanted: list[Any] = [(name, (count, None)) for name, count in counts.items()]
    response = await client.order(CreatePartitionsRequest(wanted, ANSWER_MS, False))
    for name, code, message in response.topic_errors:
        if code:
            raise TopicsError(f"topic {name} got no more partitions: {message or code_name(code)}{EXTERNAL_REMEDY}")


async def delete(client: Admin, names: Sequence[str]) -> None:
    """Delete topics, whether they are there or not."""
    await client.order(DeleteTopicsRequest(list(names), ANSWER_MS))


async def _actual_config(client: Admin, topic: DeclaredTopic) -> dict[str, str | None]:
    """What Kafka shows of the declared settings; None for one that it shows without a value."""
    response = await client.ask(DescribeConfigsRequest([(_CONFIG_OF_A_TOPIC, topic.name, list(topic.config))]))
    actual: dict[str, str | None] = {}
    for code, message, _type, name, entries in response.resources or ():
        if code:
            raise TopicsError(f"the settings of topic {name} can't be read: {message or code_name(code)}")
        actual.update({entry[0]: entry[1] for entry in entries or ()})
    return actual


def _replication(partitions: Sequence[dict[str, Any]]) -> int:
    """A topic is as weak as the weakest of its partitions; 0 where a service shows no replicas."""
    return min(len(partition["replicas"] or ()) for partition in partitions)


def not_shown(
    topic: DeclaredTopic, actual: Mapping[str, str | None], partitions: Sequence[dict[str, Any]]
) -> list[NotShown]:
    """The declared settings that ``actual`` has no value of, and the replication where no replicas are shown."""
    replication = topic.replication_factor
    hidden = [NotShown("replication_factor", str(replication))] if replication and not _replication(partitions) else []
    return hidden + [
        NotShown(option, value, *(["Kafka shows it without a value"] if option in actual else []))
        for option, value in topic.config.items()
        if actual.get(option) is None
    ]


def _differences(
    topic: DeclaredTopic, partitions: Sequence[dict[str, Any]], actual: Mapping[str, str | None]
) -> list[Difference]:
    declared, replication = topic.replication_factor, _replication(partitions)
    pairs = [
        ("partitions", str(topic.partitions), str(len(partitions))),
        *([("replication_factor", str(declared), str(replication))] if declared and replication else []),
        *(
            (option, value, found)
            for option, value in topic.config.items()
            if (found := actual.get(option)) is not None
        ),
    ]
    return [Difference(*pair, is_weaker(*pair), topic.expects(pair[0])) for pair in pairs if pair[1] != pair[2]]


# Of these more is safer; -1 is without a bound.
_MORE_IS_SAFER = frozenset(
    {
        "partitions",
        "replication_factor",
        "min.insync.replicas",
        "retention.ms",
        "retention.bytes",
        "max.message.bytes",
        "message.timestamp.before.max.ms",
        "message.timestamp.after.max.ms",
    }
)


def is_weaker(what: str, declared: str, found: str) -> bool:
    """Whether ``found`` can cost records, or their order, that ``declared`` would keep."""
    if what == "cleanup.policy":
        return "compact" in found and "compact" not in declared
    if what == "unclean.leader.election.enable":
        return found == "true" and declared != "true"
    return what in _MORE_IS_SAFER and _amount(found) < _amount(declared)


def _amount(text: str) -> float:
    """How much it is; what is not a number is neither more nor less than anything."""
    if not text.lstrip("-").isdigit():
        return math.nan
    return math.inf if int(text) < 0 else int(text)
