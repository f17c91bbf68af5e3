"""``topics apply`` and ``topics check`` on real clusters: what is declared is made, once, and nothing else is touched."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from conftest import MakeTopic
from support.kafka_frames import METADATA, Request
from support.kafka_proxy import KafkaProxy
from support.topics import unique_name

from bridge.cli import main
from bridge.config import Topics, load
from bridge.errors import ProbeError, TopicsError
from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port
from bridge.operate import probe
from bridge.topics.inspect import admin_client, create, delete, inspect, partitions_of
from bridge.topics.spec import SETTINGS, DeclaredTopic, declared_topics


class Names:
    """Two topics that nobody else has, and the command's arguments that name them."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.status, self.quarantine = unique_name("status"), unique_name("quarantine")
        self.own: Path | str = ""
        self.manage = "bridge"
        self.declared = declared_topics(Topics(self.status, self.quarantine, "bridge", "", "warn", 60))

    @property
    def assignments(self) -> list[str]:
        """The configuration that names them."""
        keys = {
            "kafka.bootstrap_servers": self.bootstrap,
            "topics.status": self.status,
            "topics.quarantine": self.quarantine,
            "topics.file": self.own,
            "topics.manage": self.manage,
        }
        return [f"{key}={value}" for key, value in keys.items()]

    async def run(self, *command: str) -> int:
        """Run ``chatapp-bridge topics …``; its exit code."""
        arguments = [part for assignment in self.assignments for part in ("--set", assignment)]
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
    """What it can't give is said of each topic, and nothing made; --single-broker lowers just that, and it is made once."""
    names = Names(kafka_bootstrap)

    for command in ("plan", "apply"):
        assert await names.run(command) == 1
        said = capsys.readouterr()
        for name in (names.status, names.quarantine):
            assert f"{name}: this cluster has 1 broker(s)" in said.out
        assert "replication_factor 3 -> 1, min.insync.replicas 2 -> 1" in said.out
        assert "nothing was changed; use a larger cluster" in said.err
        assert "--single-broker, or in the chart topicsJob.singleBroker=true" in said.err
    assert await names.run("plan", "--single-broker") == 1
    assert f"{names.status}: to create (12 partitions, replication 1)" in capsys.readouterr().out
    assert await described(kafka_bootstrap, names.status, names.quarantine) == {}

    for outcome in ("created", "as declared"):
        assert await names.run("apply", "--single-broker") == 0
        assert f"{names.status}: {outcome} (12 partitions, replication 1)" in capsys.readouterr().out
    assert await names.run("plan", "--single-broker") == 0
    made = await described(kafka_bootstrap, names.status, names.quarantine)
    for name, topic in names.declared.items():
        assert_is(topic.lowered_to(1), made[name])


async def test_what_exists_is_brought_to_what_is_declared_and_nothing_else_of_it_is_touched(
    kafka_bootstrap: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that topics.toml doesn't name survives; partitions come only when told; plan says the same, and does nothing."""
    names = Names(kafka_bootstrap)
    undeclared = {"segment.bytes": "1048576", "flush.messages": "7"}
    await topic(
        names.status,
        partitions=2,
        config={"retention.ms": "60000", "cleanup.policy": "compact,delete", "max.message.bytes": "9000", **undeclared},
    )
    before = await described(kafka_bootstrap, names.status, names.quarantine)
    assert await names.run("check") == 1
    said = capsys.readouterr().out
    assert f"{names.status}: differs from what is declared" in said
    for line in (
        "partitions: declared 12, found 2 (weaker)",
        "retention.ms: declared 3024000000, found 60000 (weaker)",
        "cleanup.policy: declared delete, found compact,delete (weaker)",
    ):
        assert f"  {line}\n" in said
    lines = (
        "  retention.ms: 60000 -> 3024000000\n",
        "  cleanup.policy: compact,delete -> delete\n",
        "  max.message.bytes: 9000 -> 1048588\n",
        "  partitions: stays 2 (declared 12): needs --add-partitions: keys move to other partitions",
    )
    for command, header in (("plan", "to change"), ("apply", "changed")):
        assert before == await described(kafka_bootstrap, names.status, names.quarantine)
        assert await names.run(command, "--single-broker") == 1
        said = capsys.readouterr().out
        assert f"{names.status}: {header}\n" in said
        assert [line for line in lines if line not in said] == []
    assert await names.run("apply", "--single-broker") == 1
    assert f"{names.status}: left as it is\n" in capsys.readouterr().out

    assert await names.run("plan", "--single-broker", "--add-partitions") == 1
    assert "  partitions: 2 -> 12; keys move" in capsys.readouterr().out
    assert await names.run("apply", "--single-broker", "--add-partitions") == 0
    capsys.readouterr()
    assert await names.run("plan", "--single-broker") == 0
    after = await described(kafka_bootstrap, names.status, names.quarantine)
    for name, declared in names.declared.items():
        assert_is(declared.lowered_to(1), after[name])
    settings = after[names.status][2]
    assert undeclared == {key: settings[key] for key in undeclared}


async def test_nothing_is_weakened_unasked(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shorter retention, smaller records, fewer partitions: left, with words, and no failure; done when told, but the last."""
    names = Names(kafka_bootstrap)
    await topic(names.status, partitions=20, config={"retention.ms": "-1", "max.message.bytes": "2000000"})
    names.own = tmp_path / "topics.toml"
    names.own.write_text('[status.config]\n"max.message.bytes" = 1500000\n')

    assert await names.run("apply", "--single-broker") == 0
    said = capsys.readouterr().out
    assert await names.run("plan", "--single-broker") == 0
    assert await names.run("check") == 1
    capsys.readouterr()
    assert "  retention.ms: stays -1 (declared 3024000000): records that are kept now would be deleted: needs" in said
    assert (
        "  max.message.bytes: stays 2000000 (declared 1500000): records that are taken now would be refused: " in said
    )
    refused = "  partitions: stays 20 (declared 12): partitions can't be taken away"
    assert refused in said
    settings = (await described(kafka_bootstrap, names.status))[names.status][2]
    assert (settings["retention.ms"], settings["max.message.bytes"]) == ("-1", "2000000")

    for command, code in (("plan", 1), ("apply", 0)):
        capsys.readouterr()
        assert await names.run(command, "--single-broker", "--allow-weaker", "--add-partitions") == code
    said = capsys.readouterr().out
    assert "  retention.ms: -1 -> 3024000000; records that are kept now would be deleted\n" in said
    assert refused in said
    partitions, _, settings = (await described(kafka_bootstrap, names.status))[names.status]
    assert (partitions, settings["retention.ms"], settings["max.message.bytes"]) == (20, "3024000000", "1500000")


async def test_topics_that_others_manage_are_looked_at_and_never_changed(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing topic is an error, one replica and a short retention are their decision, until ``topics.file`` expects more."""
    names = Names(kafka_bootstrap)
    names.manage = "external"
    await topic(names.status, partitions=2, config={"retention.ms": "60000"})
    for command in (["check"], ["plan"], ["apply", "--add-partitions", "--allow-weaker"]):
        assert await names.run(*command) == 1
        assert f"{names.quarantine}: missing (3 partitions, replication 3)" in capsys.readouterr().out

    await topic(names.quarantine)
    before = await described(kafka_bootstrap, names.status, names.quarantine)
    for command in (["check"], ["plan"], ["apply", "--add-partitions", "--allow-weaker"]):
        assert await names.run(*command) == 0
    said = capsys.readouterr().out
    assert "  retention.ms: declared 3024000000, found 60000 (weaker), as the topic's owner decided\n" in said
    assert 'nothing is created or changed here: topics.manage is "external"' in said
    assert f"{names.status}: left as it is\n" in said
    names.own = tmp_path / "topics.toml"
    names.own.write_text('[status.config]\n"retention.ms" = 3024000000\n')
    for each in ("check", "plan", "apply"):
        assert await names.run(each) == 1
    assert before == await described(kafka_bootstrap, names.status, names.quarantine)


async def test_the_replication_is_left_to_the_cluster_where_that_is_declared(
    kafka_bootstrap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No broker is counted for it, and the cluster gives what it has."""
    names = Names(kafka_bootstrap)
    names.own = tmp_path / "topics.toml"
    left = 'replication_factor = ""\nconfig."min.insync.replicas" = 1\n'
    names.own.write_text(f"[status]\n{left}[quarantine]\n{left}")
    assert await names.run("apply") == 0
    assert f"{names.status}: created (12 partitions, replication as the cluster decides)" in capsys.readouterr().out
    assert await names.run("check") == 0
    assert (await described(kafka_bootstrap, names.status))[names.status][1] == {1}


async def test_several_at_once_make_the_topics_once(kafka_bootstrap: str) -> None:
    """Two releases' hooks, say: each finds the topics as declared afterwards."""
    names = Names(kafka_bootstrap)

    assert await asyncio.gather(*(names.run("apply", "--single-broker") for _ in range(3))) == [0, 0, 0]
    made = await described(kafka_bootstrap, names.status, names.quarantine)
    for name, topic in names.declared.items():
        assert_is(topic.lowered_to(1), made[name])


async def test_the_settings_that_may_be_declared_are_those_of_a_broker(kafka_bootstrap: str, topic: MakeTopic) -> None:
    """Kafka 4.1's, each with what it holds there unless told: none is missing in our table, and none is made up."""
    name = await topic()

    settings = (await described(kafka_bootstrap, name))[name][2]
    assert set(SETTINGS) == set(settings)


async def test_a_topic_that_kafka_refuses_is_named_with_its_reason(kafka_bootstrap: str) -> None:
    """Whatever the broker says is passed on, with the topic's name."""
    settings = load(environment={}, assignments=[f"kafka.bootstrap_servers={kafka_bootstrap}"]).settings
    refused = DeclaredTopic(unique_name(), 1, 1, {"retention.ms": "soon"})
    async with admin_client(settings.kafka) as client:
        with pytest.raises(TopicsError, match=f"topic {refused.name} could not be created: .*soon") as refusal:
            await create(client, [refused])
        assert 'write "retention.ms" = "" under the topic' in str(refusal.value)


async def test_a_setting_that_kafka_refuses_is_found_where_its_words_do_not_name_it(
    kafka_bootstrap: str,
    topic: MakeTopic,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is tried alone, without a change; the line that leaves it to the cluster is said."""
    names = Names(kafka_bootstrap)
    names.own = tmp_path / "topics.toml"
    await topic(names.status)
    names.own.write_text('[status.config]\n"compression.zstd.level" = 999\n"segment.ms" = 3600000\n')
    monkeypatch.setattr("bridge.topics.refusals.settings_in", lambda _reason, _config: [])
    assert await names.run("apply", "--single-broker") == 1
    assert 'write "compression.zstd.level" = "" under' in capsys.readouterr().err
    assert (await described(kafka_bootstrap, names.status))[names.status][2]["segment.ms"] != "3600000"


async def test_topics_are_deleted_by_name(kafka_bootstrap: str, topic: MakeTopic) -> None:
    """As the demo does with its own on a Kafka that is not its own; one that is not there is no failure."""
    settings = load(environment={}, assignments=[f"kafka.bootstrap_servers={kafka_bootstrap}"]).settings
    gone, kept = await topic(), await topic()
    async with admin_client(settings.kafka) as client:
        await delete(client, [gone, unique_name()])
        async with asyncio.timeout(30):
            while set(await partitions_of(client, [gone, kept])) != {kept}:  # noqa: ASYNC110 - it is of the broker
                await asyncio.sleep(0.1)


async def test_a_setting_that_the_broker_does_not_know_is_not_called_weaker(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    """As with a Kafka older than the setting: it is said that nobody can see it, and a new topic goes without."""
    settings = load(environment={}, assignments=[f"kafka.bootstrap_servers={kafka_bootstrap}"]).settings
    name, unknown = await topic(), "message.timestamp.sideways.max.ms"
    there, new = (
        DeclaredTopic(each, 1, 1, {unknown: "1", "retention.ms": "604800000"}) for each in (name, unique_name())
    )
    async with admin_client(settings.kafka) as client:
        (finding,) = await inspect(client, [there])
        (created,) = await create(client, [new])
        async with asyncio.timeout(10):
            while not (made := (await inspect(client, [new]))[0]).exists:  # noqa: ASYNC110 - a broker's state
                await asyncio.sleep(0.1)
    assert created.config == {"retention.ms": "604800000"}
    assert (made.differences, made.weaker) == ([], [])
    assert (finding.differences, finding.weaker) == ([], [])
    assert [str(each) for each in finding.not_shown] == [f"{unknown}: declared 1, Kafka does not show it"]


async def test_looking_asks_for_the_declared_topics_alone_and_creates_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also on a broker that creates what it is asked for. Where the topics of others are many, their list is long."""
    seen: list[Request] = []
    async with EmbeddedKafka(auto_create_topics=True) as kafka, KafkaProxy([kafka.nodes[0].port]) as proxy:
        proxy.script = seen.append
        names = Names(proxy.bootstrap_servers)
        for command in (["check"], ["plan", "--single-broker"]):
            assert await names.run(*command) == 1
            assert f"{names.status}: " in capsys.readouterr().out
        settings = load(environment={}, assignments=names.assignments).settings
        with pytest.raises(ProbeError, match=f"there is no topic {names.status}"):
            await probe.run(settings, "http://127.0.0.1:1/", 30)
        assert await described(kafka.bootstrap_servers, names.status, names.quarantine) == {}

    asked = [request for request in seen if request.api_key == METADATA]
    assert {(names.status, names.quarantine), (names.status,), ()} == {
        request.topics if request.topics is None else tuple(request.topics) for request in asked
    }
    assert [request for request in asked if request.topics and request.may_create] == []


async def test_an_unreachable_kafka_is_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, where it was looked for, which key says so; no traceback."""
    port = Port()
    try:
        for command in ("plan", "apply", "check"):
            assert await Names(port.address).run(command) == 1
            said = capsys.readouterr()
            assert f"chatapp-bridge: no Kafka answers at {port.address}; is kafka.bootstrap_servers right?" in said.err
            assert "Traceback" not in said.err
            assert said.out == ""
    finally:
        port.release()
