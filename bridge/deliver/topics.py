"""The topics: as declared in ``topics.toml``, as they are on Kafka, and how the two differ.

Creating is idempotent, and nothing that exists is changed or removed. Looking never creates: all topics are asked for, none by
name.
"""

import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from bridge.config import Kafka, Settings, Topics, data_directory
from bridge.deliver.connection import Client, client_arguments
from bridge.errors import KafkaUnreachable, TopicsError

_TOPIC_ALREADY_EXISTS = 36
# Longer than the producers': a cluster creates a topic in its own time.
_ADMIN_TIMEOUT_MS = 15_000


class DeclaredTopic(msgspec.Struct, frozen=True):
    """A table of ``topics.toml``, under the name it has in ``[topics]``."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]

    def lowered_to(self, brokers: int) -> "DeclaredTopic":
        """As much of it as a cluster of ``brokers`` can give: for a developer's machine."""
        replication = min(self.replication_factor, brokers)
        isr = min(int(self.config.get("min.insync.replicas", "1")), max(1, replication - 1))
        config = {**self.config, "min.insync.replicas": str(isr)}
        return msgspec.structs.replace(self, replication_factor=replication, config=config)


class Difference(msgspec.Struct, frozen=True):
    """One thing that is other than declared; ``weaker``: it can cost records or their order."""

    what: str
    declared: str
    found: str
    weaker: bool

    def __str__(self) -> str:
        return f"{self.what}: declared {self.declared}, found {self.found}"


class Finding(msgspec.Struct, frozen=True):
    """How one topic is, beside what is declared."""

    topic: DeclaredTopic
    exists: bool
    # empty where it is missing
    differences: list[Difference]

    @property
    def weaker(self) -> list[str]:
        """What can cost records or their order, a line each."""
        if not self.exists:
            return [f"topic {self.topic.name} is missing"]
        return [f"topic {self.topic.name}, {difference}" for difference in self.differences if difference.weaker]


def declared_topics(topics: Topics) -> dict[str, DeclaredTopic]:
    """The declared topics by name, in the order of the lanes: status, quarantine."""
    document = tomllib.loads((data_directory("config") / "topics.toml").read_text())
    found = {}
    for key, name in (("status", topics.status), ("quarantine", topics.quarantine)):
        table = document[key]
        config = {option: _text(value) for option, value in table["config"].items()}
        found[name] = DeclaredTopic(name, table["partitions"], table["replication_factor"], config)
    return found


@asynccontextmanager
async def admin_client(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, closed at the end.

    Raises:
        TopicsError: no broker answers.
    """
    client = AIOKafkaAdminClient(request_timeout_ms=_ADMIN_TIMEOUT_MS, **client_arguments(kafka))
    Client.take(client._client)  # noqa: SLF001 - it says why it can't begin
    try:
        try:
            await client.start()
        except KafkaUnreachable as error:
            servers = ", ".join(kafka.bootstrap_servers)
            raise TopicsError(f"no Kafka answers at {servers}; is kafka.bootstrap_servers right? ({error})") from error
        yield client
    except KafkaError as error:
        raise TopicsError(f"Kafka did not answer what it was asked: {error!r}; try again") from error
    finally:
        await client.close()


async def inspect(client: AIOKafkaAdminClient, declared: Sequence[DeclaredTopic]) -> list[Finding]:
    """Compare each declared topic with the one on Kafka."""
    described = {topic["topic"]: topic for topic in await client.describe_topics()}
    findings = []
    for topic in declared:
        if topic.name not in described:
            findings.append(Finding(topic, False, []))
            continue
        partitions = described[topic.name]["partitions"]
        actual = await _actual_config(client, topic)
        findings.append(Finding(topic, True, _differences(topic, partitions, actual)))
    return findings


async def weaknesses(settings: Settings) -> list[str]:
    """What is missing or weaker than declared, a line each.

    Raises:
        TopicsError: no Kafka answers, or it doesn't tell.
    """
    async with admin_client(settings.kafka) as client:
        findings = await inspect(client, list(declared_topics(settings.topics).values()))
    return [weakness for finding in findings for weakness in finding.weaker]


async def brokers(client: AIOKafkaAdminClient) -> int:
    """Number of brokers in the cluster."""
    return len((await client.describe_cluster())["brokers"])


async def create(client: AIOKafkaAdminClient, topics: Sequence[DeclaredTopic]) -> None:
    """Create ``topics``; one that has come into being meanwhile is fine.

    Raises:
        TopicsError: Kafka refused; names the topic, its reason, and what to do.
    """
    response = await client.create_topics(
        [NewTopic(t.name, t.partitions, t.replication_factor, topic_configs=t.config) for t in topics]
    )
    for name, code, message, *_ in response.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):
            raise TopicsError(f"topic {name} could not be created: {message or for_code(code).__name__}")


async def _actual_config(client: AIOKafkaAdminClient, topic: DeclaredTopic) -> dict[str, str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=dict.fromkeys(topic.config))
    actual = {}
    for response in await client.describe_configs([resource]):
        for code, message, _type, name, entries in response.resources:
            if code:
                raise TopicsError(f"the settings of topic {name} can't be read: {message or for_code(code).__name__}")
            actual.update({entry[0]: entry[1] for entry in entries})
    return actual


def _differences(
    topic: DeclaredTopic, partitions: Sequence[dict[str, Any]], actual: dict[str, str]
) -> list[Difference]:
    replication = min(len(partition["replicas"]) for partition in partitions)
    pairs = [
        ("partitions", str(topic.partitions), str(len(partitions))),
        ("replication_factor", str(topic.replication_factor), str(replication)),
        *((option, value, actual.get(option, "nothing")) for option, value in topic.config.items()),
    ]
    return [Difference(*pair, _is_weaker(*pair)) for pair in pairs if pair[1] != pair[2]]


def _is_weaker(what: str, declared: str, found: str) -> bool:
    if what == "cleanup.policy":
        return "compact" in found
    if what == "unclean.leader.election.enable":
        return found == "true"
    if what == "retention.ms" and found == "-1":  # kept for ever
        return False
    return declared.lstrip("-").isdigit() and (not found.lstrip("-").isdigit() or int(found) < int(declared))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
