"""The embedded Kafka is a real one: it can be hurt and comes back whole, and it leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from conftest import MakeTopic
from support.brokers import running
from support.signals import ctrl_c_heeded
from support.topics import consume_all, create_topic, until

from bridge.errors import EmbeddedError
from bridge.lab.embedded import EmbeddedKafka, Node, run_java
from bridge.lab.embedded.download import ensure_libraries
from bridge.lab.embedded.java import startup_archive
from bridge.lab.embedded.lock import read_lock

SOON_SECONDS = 60.0

# A program that starts a Kafka, tells its process, and waits to be killed.
PARENT = """
import asyncio
from bridge.lab.embedded import EmbeddedKafka

async def main():
    async with EmbeddedKafka() as kafka:
        print(kafka.nodes[0].pid, kafka.directory, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def _one_node() -> Iterator[EmbeddedKafka]:
    with running(EmbeddedKafka()) as kafka:
        yield kafka


@pytest.fixture
async def kafka(_one_node: EmbeddedKafka) -> AsyncIterator[EmbeddedKafka]:
    """One node, up again after each test."""
    yield _one_node
    await _one_node.heal()


async def produce(bootstrap: str, topic: str, *values: bytes) -> None:
    """Produce values, acknowledged by all replicas."""
    async with (
        asyncio.timeout(SOON_SECONDS),
        AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer,
    ):
        for value in values:
            await producer.send_and_wait(topic, value)


async def values_of(bootstrap: str, topic: str) -> list[bytes]:
    """The values in the topic."""
    return [record.value for record in await consume_all(bootstrap, topic)]


def lives(pid: int) -> bool:
    """Whether there is such a process; one that ended and was not yet waited for does not live."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def start_parent(temporary: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A program that runs a broker, its temporary files below ``temporary``; and the broker's process."""
    environment = os.environ | {"TMPDIR": str(temporary)}
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=pipe, stderr=null, env=environment)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline().split()[0])


def names_in(directory: Path) -> set[str]:
    """What lies in a directory."""
    return {each.name for each in directory.iterdir()}


def mapped_by(pid: int) -> str:
    """The files that a process has mapped into its memory, among other things."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")


def pid_of(node: Node) -> int:
    """The process of a node that runs."""
    assert node.pid is not None
    return node.pid


async def test_takes_and_gives_records(kafka: EmbeddedKafka) -> None:
    """What is produced is consumed."""
    topic = await create_topic(kafka.bootstrap_servers, partitions=3)

    await produce(kafka.bootstrap_servers, topic, b"one", b"two")

    assert sorted(await values_of(kafka.bootstrap_servers, topic)) == [b"one", b"two"]


async def test_records_and_address_outlive_kill_9(kafka: EmbeddedKafka) -> None:
    """After SIGKILL and a start the node has what it acknowledged, where it was before."""
    topic = await create_topic(kafka.bootstrap_servers)
    before = kafka.bootstrap_servers
    await produce(before, topic, b"kept")
    killed = pid_of(kafka.nodes[0])

    await kafka.nodes[0].kill()
    assert not lives(killed)
    assert await kafka.nodes[0].view() is None
    await kafka.nodes[0].start()

    assert kafka.bootstrap_servers == before
    assert pid_of(kafka.nodes[0]) != killed
    assert await values_of(before, topic) == [b"kept"]


async def test_stops_and_starts_in_good_order(kafka: EmbeddedKafka) -> None:
    """SIGTERM ends it, and records and address are there after the next start."""
    topic = await create_topic(kafka.bootstrap_servers)
    before = kafka.bootstrap_servers
    await produce(before, topic, b"kept")
    stopped = pid_of(kafka.nodes[0])

    await kafka.stop()
    assert not lives(stopped)
    await kafka.start()

    assert await values_of(before, topic) == [b"kept"]


async def test_can_come_back_at_another_address(kafka: EmbeddedKafka) -> None:
    """Told so, it starts on other ports, tells clients of them, and has its records."""
    topic = await create_topic(kafka.bootstrap_servers)
    before = kafka.bootstrap_servers
    await produce(before, topic, b"kept")

    await kafka.nodes[0].restart(new_address=True)

    assert kafka.bootstrap_servers != before
    assert await values_of(kafka.bootstrap_servers, topic) == [b"kept"]


async def test_paused_it_says_nothing_and_resumed_it_answers(kafka: EmbeddedKafka) -> None:
    """SIGSTOP leaves it connected and mute; SIGCONT brings it back with nothing lost."""
    topic = await create_topic(kafka.bootstrap_servers)
    node = kafka.nodes[0]

    node.pause()
    assert node.running
    assert node.paused
    assert await node.view() is None
    node.resume()

    await node.wait_ready()
    await produce(kafka.bootstrap_servers, topic, b"after")
    assert await values_of(kafka.bootstrap_servers, topic) == [b"after"]


async def test_a_terminal_s_ctrl_c_does_not_reach_it(kafka: EmbeddedKafka) -> None:
    """It has a session and a process group of its own."""
    pid = pid_of(kafka.nodes[0])

    assert os.getsid(pid) == pid
    assert os.getpgid(pid) != os.getpgid(0)


async def test_kafkas_own_tools_run_beside_it(kafka: EmbeddedKafka) -> None:
    """The console consumer, the performance producer and the group command work on the same class path."""
    topic = await create_topic(kafka.bootstrap_servers)
    server = ["--bootstrap-server", kafka.bootstrap_servers]
    load = ["--topic", topic, "--num-records", "5", "--record-size", "10", "--throughput", "-1"]
    load += ["--producer-props", f"bootstrap.servers={kafka.bootstrap_servers}"]
    read = [*server, "--topic", topic, "--group", "tools", "--from-beginning", "--max-messages", "5"]

    produced = await run_java("org.apache.kafka.tools.ProducerPerformance", load)
    consumed = await run_java("org.apache.kafka.tools.consumer.ConsoleConsumer", read)
    groups = await run_java(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        [*server, "--describe", "--group", "tools"],
    )

    assert b"5 records sent" in produced.stdout
    assert len(consumed.stdout.splitlines()) == 5
    assert topic.encode() in groups.stdout


async def test_topics_are_not_made_by_producing(kafka: EmbeddedKafka) -> None:
    """Automatic creation is off unless asked for."""
    listed = await run_java(
        "org.apache.kafka.tools.TopicCommand",
        ["--bootstrap-server", kafka.bootstrap_servers, "--describe", "--topic", "nobody-made-this"],
        check=False,
    )

    assert listed.returncode != 0
    view = await kafka.nodes[0].view()
    assert view is not None
    assert "nobody-made-this" not in {each.topic for each in view.partitions}


async def test_closed_it_leaves_no_process_and_no_files() -> None:
    """At the end of the block Java is gone, and so is the directory."""
    async with EmbeddedKafka() as kafka:
        pid = pid_of(kafka.nodes[0])
        assert kafka.nodes[0].log_file.exists()

    assert not lives(pid)
    assert not kafka.directory.exists()


async def test_killed_parent_leaves_no_java(tmp_path: Path) -> None:
    """When the program that started it dies of SIGKILL, the kernel ends the broker."""
    parent, pid = await asyncio.to_thread(start_parent, tmp_path)
    try:
        assert lives(pid)
    finally:
        parent.kill()
        parent.communicate()

    async with asyncio.timeout(SOON_SECONDS):
        await until(lambda: asyncio.to_thread(lambda: not lives(pid)))


async def test_interrupted_parent_cleans_up(tmp_path: Path) -> None:
    """Ctrl-C in the program ends the broker and removes its directory."""
    with ctrl_c_heeded():
        parent, pid = await asyncio.to_thread(start_parent, tmp_path)
    try:
        parent.send_signal(signal.SIGINT)
        await asyncio.to_thread(parent.communicate, timeout=SOON_SECONDS)
    finally:
        parent.kill()
        parent.communicate()

    assert not lives(pid)
    assert names_in(tmp_path) == set()


async def test_kept_data_is_taken_up_by_the_next_one(tmp_path: Path) -> None:
    """Another instance finds the records in a directory that was kept; what else lies there stays."""
    (tmp_path / "other").touch()
    async with EmbeddedKafka(directory=tmp_path, keep=True) as first:
        topic = await create_topic(first.bootstrap_servers)
        await produce(first.bootstrap_servers, topic, b"kept")
    async with EmbeddedKafka(directory=tmp_path) as second:
        assert await values_of(second.bootstrap_servers, topic) == [b"kept"]
        assert second.cluster_id == first.cluster_id

    assert names_in(tmp_path) == {"other"}


async def test_wrong_setting_is_told_in_the_brokers_words() -> None:
    """A broker that refuses to start is an error with the end of its log, and nothing is left."""
    kafka = EmbeddedKafka(properties={"log.retention.ms": "soon"})

    with pytest.raises(EmbeddedError, match=r"log\.retention\.ms"):
        await kafka.__aenter__()

    assert not kafka.directory.exists()


async def test_broker_that_ends_while_it_starts_is_told() -> None:
    """A node that comes to grief after its data was laid out is told at once, not after the whole wait."""
    async with EmbeddedKafka() as kafka:
        await kafka.stop()
        kafka.nodes[0].properties["authorizer.class.name"] = "no.such.Authorizer"

        with pytest.raises(EmbeddedError, match=r"no\.such\.Authorizer"):
            await kafka.start()


async def test_listeners_for_clients_may_be_secured() -> None:
    """With SASL on its listener a client needs the password, and the nodes still find each other."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required user_bridge='right';"
    async with EmbeddedKafka(
        listeners={"SECURED": "SASL_PLAINTEXT", "PLAIN": "PLAINTEXT"},
        properties={
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secured.plain.sasl.jaas.config": login,
        },
    ) as kafka:
        topic = await create_topic(kafka.bootstrap("PLAIN"))
        stranger, known = (
            AIOKafkaProducer(
                bootstrap_servers=kafka.bootstrap_servers,
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="PLAIN",
                sasl_plain_username="bridge",
                sasl_plain_password=password,
            )
            for password in ("wrong", "right")
        )
        with pytest.raises(KafkaError):
            await stranger.start()
        await stranger.stop()
        async with known:
            await known.send_and_wait(topic, b"known")

        assert await values_of(kafka.bootstrap("PLAIN"), topic) == [b"known"]


async def test_starts_are_made_faster_once(kafka: EmbeddedKafka) -> None:
    """The first start on a machine leaves an archive that the JVMs of later ones map."""
    archive = startup_archive(ensure_libraries())

    await kafka.nodes[0].restart()

    assert str(archive) in mapped_by(pid_of(kafka.nodes[0]))


async def test_spoiled_archive_only_makes_starts_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker starts all the same when the archive is no archive."""
    jars = ensure_libraries().directory
    (tmp_path / jars.name).symlink_to(jars)
    monkeypatch.setenv("BRIDGE_EMBEDDED_CACHE", str(tmp_path))
    startup_archive(ensure_libraries()).write_bytes(b"spoiled")

    async with EmbeddedKafka() as kafka:
        view = await kafka.nodes[0].view()

    assert view is not None
    assert view.brokers == {1}


async def test_three_nodes_are_one_cluster(cluster: EmbeddedKafka, cluster_topic: MakeTopic) -> None:
    """Each knows all three, and a topic lies on all of them."""
    topic = await cluster_topic(partitions=3)

    views = [await node.view() for node in cluster.nodes]

    assert [view and view.brokers for view in views] == [frozenset({1, 2, 3})] * 3
    found = [each for view in views if view for each in view.partitions if each.topic == topic]
    assert len(found) == 9
    assert {frozenset(each.replicas) for each in found} == {frozenset({1, 2, 3})}


async def test_another_leader_is_elected_when_one_is_killed(cluster: EmbeddedKafka, cluster_topic: MakeTopic) -> None:
    """A killed leader's partition is led by another, loses nothing, and takes more."""
    topic = await cluster_topic()
    await produce(cluster.bootstrap_servers, topic, b"before")
    dead = cluster.node(await leader_of(cluster, topic))

    await dead.kill()

    async def moved() -> bool:
        return await leader_of(cluster, topic) not in {-1, dead.id}

    async with asyncio.timeout(SOON_SECONDS):
        await until(moved)
    await produce(cluster.bootstrap_servers, topic, b"after")
    assert await values_of(cluster.bootstrap_servers, topic) == [b"before", b"after"]


async def test_healing_brings_every_replica_back(cluster: EmbeddedKafka, cluster_topic: MakeTopic) -> None:
    """One node dead and one mute: after healing all three hold everything."""
    topic = await cluster_topic()
    await cluster.nodes[0].kill()
    cluster.nodes[1].pause()

    await cluster.heal()

    await produce(cluster.bootstrap_servers, topic, b"all")
    await cluster.wait_in_sync()
    assert [node.paused for node in cluster.nodes] == [False] * 3
    assert await leader_of(cluster, topic) in {1, 2, 3}


async def leader_of(cluster: EmbeddedKafka, topic: str) -> int:
    """The leader of the topic's first partition, as the first node that answers sees it; -1 for none."""
    for node in cluster.nodes:
        if node.running and not node.paused and (view := await node.view()):
            return next((each.leader for each in view.partitions if each.topic == topic), -1)
    return -1


def test_kafkas_parts_are_of_one_version() -> None:
    """Nothing that a resolver found beside Kafka has changed a part of Kafka itself."""
    parts = {each.version for each in read_lock() if each.group == "org.apache.kafka"}

    assert parts == {"4.1.0"}
