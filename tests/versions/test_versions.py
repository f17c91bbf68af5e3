"""The bridge and its commands with other versions of Apache Kafka: ``make test-versions``.

Each version runs every test here, with the programs as users run them, and what is on the topics is what counts.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from support import brokers
from support.arena import Arena
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import body, report
from support.replaying import delete_before, event, lines_of, make_topic, put_event, read_all, write
from support.segments import read_topic
from support.topics import consume_all, create_topic, unique_name, until
from support.versions import VERSIONS, kafka_of

from bridge.consume import Decoder
from bridge.kafka.partition import partition_for
from bridge.lab.embedded import EmbeddedKafka

MECHANISM = "SCRAM-SHA-512"
COMMAND_SECONDS = 90.0
RATE = 300.0
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_CODEC_BITS = 7
PARTITIONS = 3


@pytest.fixture(scope="module", params=VERSIONS)
def kafka(request: pytest.FixtureRequest) -> Iterator[EmbeddedKafka]:
    """One broker of each version in turn; its listener SCRAM wants a login."""
    listeners = {"CLIENT": "PLAINTEXT", "SCRAM": "SASL_PLAINTEXT"}
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    properties = {
        "sasl.enabled.mechanisms": MECHANISM,
        f"listener.name.scram.{MECHANISM.lower()}.sasl.jaas.config": login,
    }
    with brokers.running(kafka_of(request.param, listeners=listeners, properties=properties)) as server:
        yield server


@pytest.fixture
def version(request: pytest.FixtureRequest, kafka: EmbeddedKafka) -> str:
    """Of that broker."""
    assert kafka.nodes[0].running
    return str(request.node.callspec.params["kafka"])


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


async def command(bootstrap: str, *words: str | Path, **settings: Any) -> Ended:
    """Run ``chatapp-bridge`` as a process; it must not end with a traceback."""
    pairs = {"kafka.bootstrap_servers": bootstrap, **{key.replace("__", "."): text for key, text in settings.items()}}
    assignments = [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "faulthandler", "-m", "bridge", *map(str, words), *assignments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    ended = Ended(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in ended.err, ended
    return ended


async def done(bootstrap: str, *words: str | Path, **settings: Any) -> str:
    """Run it; it must end with 0. Its output."""
    ended = await command(bootstrap, *words, **settings)
    assert ended.code == 0, ended
    return ended.out


async def applied(kafka: EmbeddedKafka) -> tuple[str, str]:
    """Both topics, as ``topics apply`` makes them."""
    names = unique_name("status"), unique_name("quarantine")
    words = {"topics__status": names[0], "topics__quarantine": names[1]}
    bootstrap = kafka.bootstrap_servers
    assert f"{names[0]}: created" in await done(bootstrap, "topics", "apply", "--single-broker", **words)
    await done(bootstrap, "topics", "plan", "--single-broker", **words)
    return names


def arena(kafka: EmbeddedKafka, directory: Path, topics: tuple[str, str], **settings: Any) -> Arena:
    """A bridge whose every report is checked."""
    places = [node.directory / "data" for node in kafka.nodes]
    return Arena(kafka.bootstrap_servers, directory, topics, settings, log_dirs=places)


async def test_an_outage_loses_nothing_and_the_audit_agrees(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """The broker is killed under load and comes back with its disk; keys are in order, and no batch is there twice."""
    topics = await applied(kafka)
    names = {"topics__status": topics[0], "topics__quarantine": topics[1]}
    bootstrap = kafka.bootstrap_servers
    async with arena(kafka, tmp_path, topics) as hurt:
        hurt.load(seconds=4, reports_per_second=RATE)
        await hurt.until(lambda scrape: scrape.total("reports_published") > RATE / 2)
        await kafka.kill_all()
        await hurt.until(lambda scrape: scrape.waiting > RATE / 2)
        await kafka.start()
        verdict = await hurt.verdict()
        assert verdict.log is not None
        assert verdict.log.unsequenced == 0
        assert "producer_id_given" in hurt.bridge.log()
        await found_healthy(bootstrap, hurt.bridge, names)
    found = json.loads(await done(bootstrap, "audit", "--format", "json", "--settle-seconds", "0", **names))
    assert (found["not_whole"], found["out_of_order"], found["foreign"]) == (0, 0, 0), found
    assert found["ordered_keys"] > 0
    # What the simulated provider sends that nobody can decode stays in the quarantine, and is looked at.
    assert "looked at" in (await command(bootstrap, "redrive", "--execute", **names)).out


async def found_healthy(bootstrap: str, bridge: BridgeProcess, names: dict[str, str]) -> None:
    """What an operator asks about a deployment that works: each such command has to be content with it."""
    await done(bootstrap, "probe", "--url", bridge.url, access__path_secrets=SECRET, **names)
    report = json.loads(await done(bootstrap, "doctor", "--format", "json", **names))
    assert {check["outcome"] for check in report["checks"] if check["name"] != "topics"} == {"good"}, report
    assert [left["kind"] for left in report["left"]] == ["transactional id"]


async def test_a_spool_that_was_left_is_drained(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """The bridge stops while the broker is down; ``spool drain`` publishes what it left, in Avro, once and in order."""
    topics = await applied(kafka)
    names = {"topics__status": topics[0], "topics__quarantine": topics[1]}
    settings = {"events.format": "avro"}
    async with arena(kafka, tmp_path, topics, **settings) as hurt:
        await kafka.kill_all()
        hurt.load(seconds=1, reports_per_second=RATE)
        await hurt.loaded()
        assert (await hurt.bridge.stop()).code == 0
        await kafka.start()
        spool = tmp_path / "spool"
        said = await done(kafka.bootstrap_servers, "spool", "drain", "--directory", spool, "--timeout", "60", **names)
        assert "nothing waits any more" in said
        status = await consume_all(kafka.bootstrap_servers, topics[0])
        await hurt.bridge.start()
        verdict = await hurt.verdict()
    assert len(status) == verdict.checked.found + verdict.checked.repeats
    decoder = Decoder()
    assert {decoder.decode(each.value).event_id.encode() for each in status} == {
        dict(e.headers)["ce_id"] for e in status
    }


async def test_replay_to_a_file_and_to_a_topic(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """What is replayed is what is there, once; also from a time that is younger than some partitions' records."""
    bootstrap = kafka.bootstrap_servers
    topic, target = [await asyncio.to_thread(make_topic, bootstrap, PARTITIONS) for _ in range(2)]
    now = int(time.time() * 1000)
    events = [event(f"m-{n}") for n in range(300)]
    old, young = now - 7_200_000, now - 60_000
    places = [partition_for(each.message_id.encode(), PARTITIONS) for each in events]
    puts = [put_event(e, partition=p, time_ms=young if p == 0 else old) for e, p in zip(events, places, strict=True)]
    await asyncio.to_thread(write, bootstrap, topic, puts)
    everything = Counter(each.event_id.encode() for each in events)
    lately = Counter(each.event_id.encode() for each, place in zip(events, places, strict=True) if place == 0)

    file = tmp_path / "events.ndjson"
    await done(bootstrap, "replay", "--from", "-1h", "--to-file", file, "--execute", topics__status=topic)
    assert Counter(line["headers"]["ce_id"].encode() for line in lines_of(file)) == lately

    words = ("replay", "--from", "earliest", "--to-topic", target, "--execute")
    await done(bootstrap, *words, topics__status=topic)
    there = await asyncio.to_thread(read_all, bootstrap, target, PARTITIONS)
    assert Counter(dict(each.headers)["ce_id"] for each in there) == everything
    assert [each.partition for each in there] == [partition_for(each.key or b"", PARTITIONS) for each in there]


async def test_records_behind_deleted_ones_are_found_by_time(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """Brokers say of such a partition that none is that young; Kafka 2 can't say either which one is the youngest."""
    bootstrap = kafka.bootstrap_servers
    topic = await asyncio.to_thread(make_topic, bootstrap, 2, {"segment.bytes": "1048576"})
    now = int(time.time() * 1000)
    old, young = now - 7_200_000, now - 60_000
    padding = os.urandom(700_000)
    for partition, times in enumerate([(old, young, old, old, old, young), (young, young, young, old, old, old)]):
        puts = [
            put_event(event(f"m-{n}"), partition=partition, time_ms=at, value=padding) for n, at in enumerate(times)
        ]
        await asyncio.to_thread(write, bootstrap, topic, puts)
    await asyncio.to_thread(delete_before, bootstrap, topic, {0: 2, 1: 3})
    file = tmp_path / "events.ndjson"
    await done(bootstrap, "replay", "--from", "-1h", "--to-file", file, "--execute", topics__status=topic)
    assert [(line["partition"], line["offset"]) for line in lines_of(file)] == [(0, 5)]


async def test_a_group_is_shown_and_moved(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """With its lag; to a time that some partitions have nothing younger than; and back."""
    bootstrap = kafka.bootstrap_servers
    topic, group = await asyncio.to_thread(make_topic, bootstrap, 2), unique_name("billing")
    now = int(time.time() * 1000)
    puts = [put_event(event(f"m-{n}"), partition=n % 2, time_ms=now - (n % 2) * 7_200_000) for n in range(20)]
    await asyncio.to_thread(write, bootstrap, topic, puts)
    with closing(consumer(bootstrap, group)) as one:
        await asyncio.to_thread(one.commit, offsets=[TopicPartition(topic, 0, 4)], asynchronous=False)
    said = await done(bootstrap, "replay", "groups", "show", group, topics__status=topic)
    assert "empty, 0 members" in said
    assert f"{topic}: 16 behind" in said
    undo = tmp_path / "undo.json"
    reset = ("replay", "groups", "reset", group, "--execute")
    moved = await done(bootstrap, *reset, "--to-time", "-1h", "--undo-file", undo, topics__status=topic)
    assert "Moved." in moved
    assert await committed(bootstrap, group, topic) == [0, 10]
    await done(bootstrap, *reset, "--undo", undo, "--undo-file", tmp_path / "again.json", topics__status=topic)
    assert await committed(bootstrap, group, topic) == [4, None]
    assert "there is none" in (await command(bootstrap, "replay", "groups", "show", "nobody")).err


def consumer(bootstrap: str, group: str) -> Consumer:
    """One that commits only what it is told to."""
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 0}
    return Consumer(settings)


async def committed(bootstrap: str, group: str, topic: str) -> list[int | None]:
    """What the group has, by partition."""
    with closing(consumer(bootstrap, group)) as one:
        places = await asyncio.to_thread(one.committed, [TopicPartition(topic, p) for p in range(2)], 30)
    return [place.offset if place.offset >= 0 else None for place in places]


async def test_every_compression(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """Each codec that may be configured is the one in the log, of the bridge and of replay, and is read back."""
    bootstrap, data = kafka.bootstrap_servers, kafka.nodes[0].directory / "data"

    async def published(codec: str, number: int) -> None:
        topics = await create_topic(bootstrap), await create_topic(bootstrap)
        async with BridgeProcess(bootstrap, tmp_path / codec, {"kafka.compression_type": codec}, topics) as bridge:
            answer = await bridge.post(body(*(report(f"m-{codec}-{n}") for n in range(50))))
            assert answer.status == 200
        assert len(await consume_all(bootstrap, topics[0])) == 50
        assert codecs(data, topics[0]) == {number}
        target = await create_topic(bootstrap)
        words = ("replay", "--from", "earliest", "--to-topic", target, "--execute")
        await done(bootstrap, *words, topics__status=topics[0], kafka__compression_type=codec)
        assert len(await asyncio.to_thread(read_all, bootstrap, target)) == 50
        assert codecs(data, target) == {number}

    await asyncio.gather(*(published(codec, number) for codec, number in CODECS.items()))


def codecs(data: Path, topic: str) -> set[int]:
    """Of all batches in the log but the markers of transactions."""
    batches = [batch for log in read_topic([data], topic).values() for batch in log]
    return {batch.attributes & _CODEC_BITS for batch in batches if not batch.attributes & 0x20}


async def test_a_login_by_password(kafka: EmbeddedKafka, version: str, tmp_path: Path) -> None:
    """The bridge and a command log in by SCRAM; with a wrong password a command says so."""
    if version.startswith("2.6"):
        pytest.skip("no client can make a user of Kafka before 2.7")
    admin: Any = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    upsertion = UserScramCredentialUpsertion("bridge", info, b"not-a-secret")
    for future in admin.alter_user_scram_credentials([upsertion]).values():
        await asyncio.to_thread(future.result, 30)
    topics = await create_topic(kafka.bootstrap_servers), await create_topic(kafka.bootstrap_servers)
    bootstrap = kafka.bootstrap("SCRAM")
    login = {
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_mechanism": MECHANISM,
        "kafka.sasl_plain_username": "bridge",
        "kafka.sasl_plain_password": "not-a-secret",
    }
    async with BridgeProcess(bootstrap, tmp_path, login, topics) as bridge:
        assert (await bridge.post(body(report("m-1")))).status == 200
    assert len(await consume_all(kafka.bootstrap_servers, topics[0])) == 1
    words = {key.replace(".", "__"): text for key, text in login.items()} | {"topics__status": topics[0]}
    words["topics__quarantine"] = topics[1]
    assert "m-1" in await done(bootstrap, "replay", "--from", "earliest", "--to-file", "-", "--execute", **words)
    wrong = await command(bootstrap, "topics", "check", **{**words, "kafka__sasl_plain_password": "wrong"})
    assert wrong.code == 1
    assert "refuses the login" in wrong.err


async def test_a_topic_in_a_format_without_headers(kafka: EmbeddedKafka, version: str, tmp_path: Path) -> None:
    """What such a topic can't hold waits on disk, the log names the setting, and it goes out when that is raised."""
    if not version.startswith("2."):
        pytest.skip("Kafka 3 and newer write no older format")
    bootstrap, setting = kafka.bootstrap_servers, "message.format.version"
    topics = await create_topic(bootstrap, config={setting: "0.10.2"}), await create_topic(bootstrap)
    async with BridgeProcess(bootstrap, tmp_path, topics=topics) as bridge:
        assert (await bridge.post(body(report("m-1")))).status == 200
        async with asyncio.timeout(30):
            await until(lambda: asyncio.to_thread(lambda: "message_format_not_supported" in bridge.log()))
        entry = ConfigEntry(setting, "0.11.0", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topics[0], incremental_configs=[entry])
        admin: Any = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        for future in admin.incremental_alter_configs([resource]).values():
            await asyncio.to_thread(future.result, 30)
        async with asyncio.timeout(60):
            while not await consume_all(bootstrap, topics[0]):
                pass
        assert bridge.log().count("message_format_not_supported") == 1
