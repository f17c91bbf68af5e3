"""``topics apply`` and ``topics check`` on real clusters: what is declared is made, once, and nothing else is touched."""

import asyncio
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from conftest import MakeTopic
from support.topics import unique_name

from bridge.cli import main
from bridge.config import Topics, load
from bridge.deliver.topics import DeclaredTopic, admin_client, create, declared_topics
from bridge.embedded import EmbeddedKafka
from bridge.embedded.ports import Port
from bridge.errors import TopicsError


class Names:
    """Two topics that nobody else has, and the command's arguments that name them."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.status, self.quarantine = unique_name("status"), unique_name("quarantine")
        self.declared = declared_topics(Topics(self.status, self.quarantine, "warn"))

    async def run(self, *command: str) -> int:
        """Run ``chatapp-bridge topics …``; its exit code."""
        keys = {
            "kafka.bootstrap_servers": self.bootstrap,
            "topics.status": self.status,
            "topics.quarantine": self.quarantine,
        }
        arguments = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
        return await asyncio.to_thread(main, ["topics", *command, *arguments])


async def described(bootstrap: str, *names: str) -> dict[str, tuple[int, set[int], dict[str, str]]]:
    """Those of the topics that exist: number of partitions, replicas of each, and the settings of the topic's own."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        there = [topic for topic in await client.describe_topics() if topic["topic"] in names]
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic["topic"]) for topic in there]
        answers = await client.describe_configs(resources) if resources else []
        settings: dict[str, dict[str, Any]] = {
            resource[3]: {entry[0]: entry[1] for entry in resource[4]}
            for answer in answers
            for resource in answer.resources
        }
    finally:
        await client.close()
    return {
        topic["topic"]: (
            len(topic["partitions"]),
            {len(partition["replicas"]) for partition in topic["partitions"]},
            settings[topic["topic"]],
        )
        for topic in there
    }


def assert_is(topic: DeclaredTopic, actual: tuple[int, set[int], dict[str, str]]) -> None:
    """What the cluster says is what is declared, in every respect that is declared."""
    partitions, replicas, settings = actual
    assert (topic.partitions, {topic.replication_factor}) == (partitions, replicas)
    assert topic.config == {key: settings[key] for key in topic.config}


async def test_three_nodes_get_both_topics_as_declared_and_once(
    cluster: EmbeddedKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    """Partitions, replicas and every setting, as an admin client reads them back; again changes nothing; check agrees."""
    names = Names(cluster.bootstrap_servers)
    assert await names.run("check") == 1
    assert f"{names.status}: missing (12 partitions, replication 3)" in capsys.readouterr().out
    assert await described(cluster.bootstrap_servers, names.status, names.quarantine) == {}

    assert await names.run("apply") == 0
    said = capsys.readouterr().out
    assert f"{names.status}: created (12 partitions, replication 3)" in said
    assert f"{names.quarantine}: created (3 partitions, replication 3)" in said
    # Every node is asked in turn until it knows: a broker hears of a new topic in its own time.
    async with asyncio.timeout(20):
        while len(made := await described(cluster.bootstrap_servers, names.status, names.quarantine)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    for name, topic in names.declared.items():
        assert_is(topic, made[name])

    for command in ("apply", "check"):
        assert await names.run(command) == 0
        assert [f"{names.status}: as declared", f"{names.quarantine}: as declared"] == [
            line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()
        ]
    assert made == await described(cluster.bootstrap_servers, names.status, names.quarantine)


async def test_one_broker_gets_nothing_unless_told_that_less_will_do(
    kafka_bootstrap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it can't give is said of each topic, and nothing made; with --dev just that is lowered, and it is made once."""
    names = Names(kafka_bootstrap)

    assert await names.run("apply") == 1
    said = capsys.readouterr().out
    for name in (names.status, names.quarantine):
        assert f"{name}: this cluster has 1 broker(s)" in said
    assert "replication_factor 3 -> 1, min.insync.replicas 2 -> 1" in said
    assert "nothing was created" in said
    assert await described(kafka_bootstrap, names.status, names.quarantine) == {}

    for outcome in ("created", "as declared"):
        assert await names.run("apply", "--dev") == 0
        assert f"{names.status}: {outcome} (12 partitions, replication 1)" in capsys.readouterr().out
    made = await described(kafka_bootstrap, names.status, names.quarantine)
    for name, topic in names.declared.items():
        assert_is(topic.lowered_to(1), made[name])


async def test_what_exists_is_shown_and_never_changed(
    kafka_bootstrap: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    """A topic that is other than declared stays as it is, each difference is named, the other is made, the exit code is 1."""
    names = Names(kafka_bootstrap)
    await topic(names.status, partitions=2, config={"retention.ms": "60000"})
    before = await described(kafka_bootstrap, names.status)

    for command in (("apply", "--dev"), ("check",)):
        assert await names.run(*command) == 1
        said = capsys.readouterr().out
        assert f"{names.status}: exists, and differs from what is declared; nothing was changed" in said
        assert "  partitions: declared 12, found 2" in said
        assert "  retention.ms: declared 3024000000, found 60000" in said
    after = await described(kafka_bootstrap, names.status, names.quarantine)
    assert before[names.status] == after.pop(names.status)
    assert list(after) == [names.quarantine]


async def test_a_topic_that_kafka_refuses_is_named_with_its_reason(kafka_bootstrap: str) -> None:
    """Whatever the broker says is passed on, with the topic's name."""
    settings = load(environment={}, assignments=[f"kafka.bootstrap_servers={kafka_bootstrap}"]).settings
    refused = DeclaredTopic(unique_name(), 1, 1, {"retention.ms": "soon"})
    async with admin_client(settings.kafka) as client:
        with pytest.raises(TopicsError, match=f"topic {refused.name} could not be created: .*soon"):
            await create(client, [refused])


async def test_an_unreachable_kafka_is_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, where it was looked for, which key says so; no traceback."""
    port = Port()
    try:
        for command in ("apply", "check"):
            assert await Names(port.address).run(command) == 1
            said = capsys.readouterr()
            assert f"chatapp-bridge: no Kafka answers at {port.address}; is kafka.bootstrap_servers right?" in said.err
            assert "Traceback" not in said.err
            assert said.out == ""
    finally:
        port.release()
