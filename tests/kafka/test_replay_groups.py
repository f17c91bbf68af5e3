"""A team's consumer group: shown, moved while it is stopped, and moved back."""

import argparse
import asyncio
import json
import os
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka.protocol.group import JoinGroupRequest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from support.replaying import Put, arguments, delete_before, make_topic, write
from support.signals import ctrl_c_heeded
from support.topics import unique_name

from bridge import cli
from bridge.config import load
from bridge.kafka.admin import connected

NOON_MS = 1_764_072_000_000  # 2025-11-25T12:00:00Z
Groups = Callable[..., int]


@pytest.fixture
def groups(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Groups:
    """Runs ``replay groups`` on a topic, here, in a directory of the test's own; gives the exit code."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_") and "__" in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(topic: str, *words: str) -> int:
        return cli.main(arguments(kafka_bootstrap, topic, ["replay", "groups", *words]))

    return run


def consumer(bootstrap: str, group: str, protocol: str = "classic") -> Consumer:
    """One that commits only what it is told to."""
    return Consumer(
        {
            "log_level": 0,
            "group.protocol": protocol,
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "client.id": "billing-1",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )


def commit(bootstrap: str, group: str, topic: str, offsets: dict[int, int]) -> None:
    """As a team's consumer did, before it was stopped."""
    with closing(consumer(bootstrap, group)) as one:
        one.commit(offsets=[TopicPartition(topic, *each) for each in offsets.items()], asynchronous=False)


def committed(bootstrap: str, group: str, topic: str, partitions: int) -> dict[int, int | None]:
    """What the group has, by partition."""
    with closing(consumer(bootstrap, group)) as one:
        places = one.committed([TopicPartition(topic, partition) for partition in range(partitions)], 30)
    return {place.partition: place.offset if place.offset >= 0 else None for place in places}


def filled(bootstrap: str) -> str:
    """A topic of three partitions; in each ten records, a minute apart from noon on."""
    topic = make_topic(bootstrap, 3)
    write(bootstrap, topic, [Put(b"1", b"k", p, NOON_MS + n * 60_000) for p in range(3) for n in range(10)])
    return topic


@pytest.fixture
def running(kafka_bootstrap: str) -> Iterator[Callable[..., Callable[[], None]]]:
    """Starts a consumer of a group on a topic, which stays until the test ends, or until what is given is called."""
    stops = []

    def run(group: str, topic: str, protocol: str = "classic") -> Callable[[], None]:
        assigned, done = threading.Event(), threading.Event()

        def consume() -> None:
            one = consumer(kafka_bootstrap, group, protocol)
            one.subscribe([topic], on_assign=lambda *_: assigned.set())
            while not done.is_set():
                one.poll(0.1)
            one.close()

        thread = threading.Thread(target=consume)
        thread.start()

        def stop() -> None:
            done.set()
            thread.join()

        stops.append(stop)
        assert assigned.wait(30)
        return stop

    yield run
    for stop in stops:
        stop()


def test_show_tells_offsets_lag_and_the_time_of_what_comes_next(
    kafka_bootstrap: str, groups: Groups, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a stopped group; also where it has no offset, one that expired, or one at the end."""
    topic, group = filled(kafka_bootstrap), unique_name("billing")
    commit(kafka_bootstrap, group, topic, {0: 4, 1: 10})
    assert groups(topic, "show", group) == 0
    said = capfd.readouterr().out
    assert f"group {group}: empty, 0 members" in said
    assert f"{topic}: 16 behind" in said
    rows = [re.split(r"  +", line.strip()) for line in said.splitlines()]
    assert ["0", "4", "10", "6", "2025-11-25T12:04:00Z"] in rows
    assert ["1", "10", "10", "0", "at the end"] in rows
    assert ["2", "none", "10", "10", "its auto.offset.reset decides"] in rows
    delete_before(kafka_bootstrap, topic, {0: 7})
    assert groups(topic, "show", group, "--topic", topic) == 0
    assert "expired: oldest is 7" in capfd.readouterr().out
    assert groups(topic, "show", unique_name("nobody")) == 1
    assert "there is none" in capfd.readouterr().err


def test_show_and_reset_of_a_running_group(
    kafka_bootstrap: str, groups: Groups, running: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its members are named; it is not moved."""
    topic, group = filled(kafka_bootstrap), unique_name("billing")
    running(group, topic)
    assert groups(topic, "show", group) == 0
    said = capfd.readouterr().out
    assert "1 member" in said
    assert said.count("billing-1 at ") == 3
    assert groups(topic, "reset", group, "--to-earliest", "--execute") == 1
    assert "stop its consumers first" in capfd.readouterr().err
    assert committed(kafka_bootstrap, group, topic, 3) == dict.fromkeys(range(3))


def test_a_group_of_the_new_protocol_is_moved_only_while_nobody_is_in_it(
    kafka_bootstrap: str, groups: Groups, running: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """KIP-848: the request that describes groups calls it dead, with no members, while it reads."""
    topic, group = filled(kafka_bootstrap), unique_name("billing")
    stop = running(group, topic, "consumer")
    assert groups(topic, "show", group) == 0
    said = capfd.readouterr().out
    assert re.search(
        f"group {group}: (stable|in a state .*), of the consumer protocol .KIP-848., members not known", said
    )
    assert f"{topic}: 30 behind" in said
    for words in (["--to-earliest"], ["--to-latest", "--execute"]):
        assert groups(topic, "reset", group, *words) == 1
        refused = capfd.readouterr()
        assert "members not known; stop its consumers first" in refused.err
        assert refused.out == ""

    stop()
    assert groups(topic, "show", group) == 0
    assert f"group {group}: empty, 0 members" in capfd.readouterr().out
    undo = Path("undo.json")
    assert groups(topic, "reset", group, "--to-latest", "--undo-file", str(undo), "--execute") == 0
    assert f"group {group}: empty, without members; topic {topic}" in capfd.readouterr().out
    assert committed(kafka_bootstrap, group, topic, 3) == dict.fromkeys(range(3), 10)
    assert groups(topic, "reset", group, "--undo", str(undo), "--execute") == 0
    assert committed(kafka_bootstrap, group, topic, 3) == dict.fromkeys(range(3))


def test_a_group_that_consumers_do_not_form_is_said_to_be_one(
    kafka_bootstrap: str, groups: Groups, capfd: pytest.CaptureFixture[str]
) -> None:
    """As Kafka Connect's workers, which use the same requests; at once, and nothing is moved or saved."""
    topic, group = filled(kafka_bootstrap), unique_name("workers")
    kafka = load(environment={}, assignments=[f"kafka.bootstrap_servers={kafka_bootstrap}"]).settings.kafka

    async def join() -> None:
        async with connected(kafka) as admin:
            member = ""
            for _ in range(2):  # the first answer names the member
                request = JoinGroupRequest(group, 30_000, 30_000, member, "", "connect", [("x", b"")])
                member = (await admin.ask(request)).member_id

    asyncio.run(join())
    for words in (["show", group], ["reset", group, "--to-earliest", "--execute"]):
        assert groups(topic, *words) == 1
        assert f"group {group} is not a consumer group (its protocol is connect)" in capfd.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_group_of_a_kind_that_this_client_does_not_know_is_not_called_dead(
    kafka_bootstrap: str, groups: Groups, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A share group (KIP-932): Kafka lists it, and to the questions about consumer groups it is dead."""
    listed = [argparse.Namespace(protocol_type="")]
    monkeypatch.setattr(AdminClient, "list_groups", lambda _admin, group, **_: listed if group == "sharers" else [])
    for words in (["show", "sharers"], ["reset", "sharers", "--to-earliest", "--execute"]):
        assert groups(filled(kafka_bootstrap), *words) == 1
        assert "group sharers is not a consumer group (it may be a share group)" in capfd.readouterr().err


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_consumer_that_joins_after_the_check_keeps_its_group_where_it_is(
    kafka_bootstrap: str,
    groups: Groups,
    running: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    protocol: str,
) -> None:
    """Kafka refuses the move, by either protocol, which is said as what it is."""
    topic, group = filled(kafka_bootstrap), unique_name("billing")
    running(group, topic, protocol)
    monkeypatch.setattr("bridge.operate.replay.groups._Group.in_use", False)
    assert groups(topic, "reset", group, "--to-latest", "--execute") == 1
    assert "somebody joined it meanwhile" in capfd.readouterr().err
    assert committed(kafka_bootstrap, group, topic, 3) == dict.fromkeys(range(3))


def test_reset_shows_its_plan_moves_and_moves_back(
    kafka_bootstrap: str, groups: Groups, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it had is on disk and printed; the way back restores it, partitions without an offset included."""
    topic, group = filled(kafka_bootstrap), unique_name("billing")
    other = filled(kafka_bootstrap)
    had = {0: 9, 1: 10, 2: None}
    commit(kafka_bootstrap, group, topic, {0: 9, 1: 10})
    commit(kafka_bootstrap, group, other, {0: 5})
    words = ("reset", group, "--to-time", "2025-11-25T20:03:00+08:00")
    assert groups(topic, *words) == 0
    said = capfd.readouterr().out
    assert "reads up to 13 records again" in said
    assert "nothing was changed" in said
    assert committed(kafka_bootstrap, group, topic, 3) == had
    assert list(tmp_path.iterdir()) == []
    undo = tmp_path / "undo.json"
    assert groups(topic, *words, "--undo-file", str(undo), "--execute") == 0
    said = capfd.readouterr().out
    assert '{"0": 9, "1": 10, "2": null}' in said
    assert f"--undo {undo} --execute" in said
    assert json.loads(undo.read_text())["offsets"] == {"0": 9, "1": 10, "2": None}
    assert committed(kafka_bootstrap, group, topic, 3) == {0: 3, 1: 3, 2: 3}
    assert groups(topic, *words, "--undo-file", str(undo), "--execute") == 0
    assert "already" in capfd.readouterr().out
    assert groups(topic, "reset", group, "--to-latest", "--undo-file", str(undo), "--execute") == 1
    assert "nothing was changed" in capfd.readouterr().err
    assert groups(topic, "reset", group, "--undo", str(undo), "--execute") == 0
    assert committed(kafka_bootstrap, group, topic, 3) == had
    assert committed(kafka_bootstrap, group, other, 3) == {0: 5, 1: None, 2: None}
    assert len(list(tmp_path.glob(f"{group}-*.undo.json"))) == 1
    assert groups(topic, "reset", "another", "--undo", str(undo), "--execute") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--to-earliest"], {0: 6, 1: 0, 2: 0}),
        (["--to-latest"], {0: 10, 1: 10, 2: 10}),
        (["--to-offset", "4"], {0: 6, 1: 4, 2: 4}),
        (["--to-offset", "1:3,2:99"], {0: None, 1: 3, 2: 10}),
        (["--to-time", "2001-01-01T00:00:00Z"], {0: 6, 1: 0, 2: 0}),
        (["--to-time", "now"], {0: 10, 1: 10, 2: 10}),
    ],
)
def test_a_group_without_offsets_gets_some(
    kafka_bootstrap: str, groups: Groups, words: list[str], expected: dict[int, int | None]
) -> None:
    """A new team's, before its first start: what lies outside of the topic is brought to its nearest end."""
    topic, group = filled(kafka_bootstrap), unique_name("new-team")
    delete_before(kafka_bootstrap, topic, {0: 6})
    assert groups(topic, "reset", group, *words, "--execute") == 0
    assert committed(kafka_bootstrap, group, topic, 3) == expected


def test_what_was_lost_when_an_undo_was_cut_short_comes_back(
    kafka_bootstrap: str, groups: Groups, tmp_path: Path
) -> None:
    """Offsets of other topics, too: between taking the group away and making it anew the process may have died."""
    topic, other, group = filled(kafka_bootstrap), filled(kafka_bootstrap), unique_name("team")
    commit(kafka_bootstrap, group, topic, {0: 9})
    commit(kafka_bootstrap, group, other, {1: 5})
    undo = tmp_path / "undo.json"
    assert groups(topic, "reset", group, "--to-earliest", "--undo-file", str(undo), "--execute") == 0
    # Kept: one that is collected answers nothing.
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.delete_consumer_groups([group])[group].result()
    assert groups(topic, "reset", group, "--undo", str(undo), "--execute") == 0
    assert committed(kafka_bootstrap, group, topic, 3) == {0: 9, 1: None, 2: None}
    assert committed(kafka_bootstrap, group, other, 3) == {0: None, 1: 5, 2: None}


def test_a_group_needs_a_name_and_the_way_back_can_be_pasted(
    kafka_bootstrap: str, groups: Groups, capfd: pytest.CaptureFixture[str]
) -> None:
    """Words of a shell, whatever the group is called."""
    topic = filled(kafka_bootstrap)
    with pytest.raises(SystemExit, match="2"):
        groups(topic, "show", "")
    group = unique_name("a team's")
    assert groups(topic, "reset", group, "--to-earliest", "--execute") == 0
    (way,) = re.findall(r"The way back: (.*)", capfd.readouterr().out)
    assert shlex.split(way)[4] == group


def test_ctrl_c_ends_it_with_words(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a traceback, and SIGTERM likewise; what it was about can be looked at."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        monkeypatch.setattr("bridge.operate.replay.groups.reset", lambda _, number=number: signal.raise_signal(number))
        with ctrl_c_heeded():
            assert groups("topic", "reset", "team", "--to-earliest") == code
