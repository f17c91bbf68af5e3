"""The running bridge tells of topics that are weaker than declared: each thing that can cost records, on a real Kafka."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from conftest import MakeTopic
from support.arena import admin
from support.bridge_process import BridgeProcess
from support.callbacks import SUCCESS, body, eventually, report
from support.topics import unique_name

from bridge.topics.inspect import missing

SAFE = {
    "min.insync.replicas": "1",
    "retention.ms": "3024000000",
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "unclean.leader.election.enable": "false",
    "message.timestamp.after.max.ms": "9223372036854775807",
}
WEAK = {
    "min.insync.replicas": "1",
    "retention.ms": "60000",
    "cleanup.policy": "compact,delete",
    "max.message.bytes": "1000000",
    "unclean.leader.election.enable": "true",
    "message.timestamp.before.max.ms": "86400000",
    "message.timestamp.after.max.ms": "3600000",
}
TOLD = {
    "min.insync.replicas: declared 2, found 1",
    "replication_factor: declared 3, found 1",
    "partitions: declared 12, found 3",
    "retention.ms: declared 3024000000, found 60000",
    "cleanup.policy: declared delete, found compact,delete",
    "max.message.bytes: declared 1048588, found 1000000",
    "unclean.leader.election.enable: declared false, found true",
    "message.timestamp.before.max.ms: declared 9223372036854775807, found 86400000",
    "message.timestamp.after.max.ms: declared 9223372036854775807, found 3600000",
}

MENDED = ("retention.ms", "cleanup.policy", "max.message.bytes", "unclean.leader.election.enable", "timestamp")


async def weak(bridge: BridgeProcess, topic: str, count: int) -> bool:
    """Whether so many things are told of the topic by the metric."""
    metrics = await bridge.metrics()
    return metrics[f'chatapp_bridge_topic_settings_drift{{topic="{topic}"}}'] == count


async def set_config(client: AIOKafkaAdminClient, topic: str, config: dict[str, str]) -> None:
    """Give a topic these settings and no others."""
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])


async def test_each_weakness_is_logged_once_and_counted_until_it_is_mended(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """Nine on one topic, the other missing; mended they clear, and what weakens later appears. Callbacks are taken."""
    names = await topic(partitions=3, config=WEAK), unique_name("missing")
    unclean = {"unclean.leader.election.enable": "true"}
    async with BridgeProcess(kafka_bootstrap, tmp_path, {"topics.check_seconds": 1}, topics=names) as bridge:
        assert (await bridge.post(body(report("m")))).body == SUCCESS
        await eventually(partial(weak, bridge, names[0], len(TOLD)))
        assert await weak(bridge, names[1], 1)
        async with admin(kafka_bootstrap) as client:
            await set_config(client, names[0], SAFE)
            await eventually(partial(weak, bridge, names[0], 3))
            await set_config(client, names[0], {**SAFE, **unclean})
            await eventually(partial(weak, bridge, names[0], 4))
        events = [json.loads(line) for line in bridge.log().splitlines()]
    logged = Counter(event["what"] for event in events if event["event"] == "topic_drift_detected")
    again = f"topic {names[0]}, unclean.leader.election.enable: declared false, found true"
    expected = {f"topic {names[0]}, {line}": 1 for line in TOLD} | {missing(names[1]): 1, again: 2}
    assert expected == logged
    assert {line for line in TOLD if any(word in line for word in MENDED)} == {
        event["what"].removeprefix(f"topic {names[0]}, ")
        for event in events
        if event["event"] == "topic_drift_resolved"
    }


async def test_a_topic_that_goes_was_not_mended(kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path) -> None:
    """What was weak of it is not said to be mended while it is away; that it is back is said."""
    names = await topic(partitions=3, config=WEAK), await topic()
    settings = {"topics.check_seconds": 1}

    async def said(bridge: BridgeProcess, event: str, what: str) -> bool:
        lines = map(json.loads, bridge.log().splitlines())
        return any(line["event"] == event and line["what"] == what for line in lines if "what" in line)

    async with BridgeProcess(kafka_bootstrap, tmp_path, settings, names) as bridge, admin(kafka_bootstrap) as client:
        await eventually(partial(weak, bridge, names[0], len(TOLD)))
        await client.delete_topics([names[0]])
        await eventually(partial(weak, bridge, names[0], 1))
        assert "topic_drift_resolved" not in bridge.log()
        await topic(names[0])
        await eventually(partial(said, bridge, "topic_drift_resolved", missing(names[0])))


async def test_a_start_is_refused_where_that_is_asked_for(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """``topics.check = refuse``: one line with everything, exit code 1; it starts where ``topics.file`` declares less."""
    names = await topic(partitions=3, config=SAFE), await topic(config={"max.message.bytes": "9437184"})
    settings = {"topics.check": "refuse", "topics.check_seconds": 1}
    refused = BridgeProcess(kafka_bootstrap, tmp_path / "refused", settings, topics=names, wait="no")
    async with refused:
        assert await refused.ended() == 1
        said = refused.log()
    assert f"topic {names[0]}, replication_factor: declared 3, found 1" in said
    assert f"topic {names[1]}, retention.ms: declared 7776000000, found 604800000" in said
    assert "chatapp-bridge topics plan" in said

    own = tmp_path / "own.toml"
    own.write_text(
        "status.partitions = 3\nstatus.replication_factor = 1\nstatus.config.'min.insync.replicas' = 1\n"
        "quarantine.partitions = 1\nquarantine.replication_factor = 1\nquarantine.config.'min.insync.replicas' = 1\n"
        "quarantine.config.'retention.ms' = 604800000\n"
        "quarantine.config.'message.timestamp.after.max.ms' = 3600000\n"
    )
    async with BridgeProcess(kafka_bootstrap, tmp_path, {**settings, "topics.file": own}, topics=names) as bridge:
        assert (await bridge.post(body(report("m")))).body == SUCCESS
        metrics = await bridge.metrics()
        assert metrics['chatapp_bridge_lanes{state="healthy"}'] == 4
        await eventually(partial(weak, bridge, names[0], 0))
