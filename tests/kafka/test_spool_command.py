"""``chatapp-bridge spool`` with a real Kafka: an orphaned spool is drained, a running bridge is looked at."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from conftest import MakeTopic
from support.bridge_process import BridgeProcess
from support.callbacks import body, report
from support.spools import MIB
from support.topics import consume_all

from bridge.delivery.layout import placed
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

LANES, ROWS = 5, 400
NOWHERE = "127.0.0.1:1"


def record(topic: str, number: int) -> Record:
    """One of many of a few keys."""
    key = b"key-%d" % (number % 23)
    return Record(topic, key, b"%d" % number, [("ce_id", b"%d" % number)], 1_700_000_000_000)


async def orphan(directory: Path, topics: tuple[str, str], rows: int = ROWS) -> list[Record]:
    """What a bridge left behind that never comes back: records of two topics in their lanes."""
    spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
    await spool.set_meta("lanes", msgspec.json.encode([(topic, LANES) for topic in topics]).decode())
    records = [record(topics[number % 10 == 0], number) for number in range(rows)]
    stored = []
    for number, each in enumerate(records):
        lane = (topics.index(each.topic) << 16) + placed(each, LANES)
        stored.append(SpoolRow(lane, number + 1, 1, [each]))
    await spool.append(stored)
    await spool.close(10)
    return records


async def command(*arguments: str | Path) -> tuple[int, str, str]:
    """Run it as a process: its exit code, output, and complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge",
        "spool",
        *map(str, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")},
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def by_key(records: list[Record]) -> dict[tuple[str, bytes | None], list[bytes]]:
    """The values of each topic's keys, in order."""
    found: dict[tuple[str, bytes | None], list[bytes]] = defaultdict(list)
    for each in records:
        found[each.topic, each.key].append(each.value)
    return dict(found)


async def test_an_orphaned_spool_is_drained_whole_and_in_order(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """Every record once, each key's in order, to both topics; the spool is empty afterwards; no HTTP is served for it."""
    topics = (await topic(partitions=3), await topic())
    directory = tmp_path / "spool"
    records = await orphan(directory, topics)
    kafka = ("--set", f"kafka.bootstrap_servers={kafka_bootstrap}")
    names = ("--set", f"topics.status={topics[0]}", "--set", f"topics.quarantine={topics[1]}")
    code, out, err = await command("drain", "--directory", directory, *kafka, *names, "--timeout", "60")
    assert (code, err.count("Traceback")) == (0, 0), err
    assert f"{ROWS} of {ROWS} published" in out
    consumed = [each for name in topics for each in await consume_all(kafka_bootstrap, name)]
    published = [Record(each.topic, each.key, each.value, list(each.headers), each.timestamp) for each in consumed]
    assert by_key(published) == by_key(records)
    assert sorted(map(repr, published)) == sorted(map(repr, records))
    code, out, _ = await command("show", "--json", "--directory", directory)
    assert (code, json.loads(out)["rows"], json.loads(out)["empty"]) == (0, 0, True)
    code, out, _ = await command("drain", "--directory", directory, *kafka, *names, "--timeout", "60")
    assert (code, "0 of 0 published" in out) == (0, True)


async def test_a_spool_of_other_topics_than_the_configured_is_drained_to_its_own(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """Where it goes is said by the records, not by the configuration of whoever drains it."""
    topics = (await topic(partitions=2), await topic())
    records = await orphan(tmp_path / "spool", topics, 50)
    code, _, err = await command(
        "drain",
        "--directory",
        tmp_path / "spool",
        "--set",
        f"kafka.bootstrap_servers={kafka_bootstrap}",
        "--timeout",
        "60",
    )
    assert code == 0, err
    consumed = [each for name in topics for each in await consume_all(kafka_bootstrap, name)]
    assert sorted(each.value for each in consumed) == sorted(each.value for each in records)


async def test_without_kafka_a_drain_gives_up_in_time_and_loses_nothing(tmp_path: Path) -> None:
    """Exit code 1, what is left is said, and all of it is still there."""
    await orphan(tmp_path / "spool", ("one", "two"), 50)
    code, _, err = await command(
        "drain", "--directory", tmp_path / "spool", "--set", f"kafka.bootstrap_servers={NOWHERE}", "--timeout", "1"
    )
    assert code == 1
    assert "50 reports are left" in err
    code, out, _ = await command("verify", "--directory", tmp_path / "spool")
    assert code == 0
    assert "50 rows are whole" in out


async def test_a_drain_that_makes_dead_letters_fails(kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path) -> None:
    """Kafka takes no record of these topics: exit code 1, the error by name and number, all of it still in the spool."""
    small = {"max.message.bytes": "20"}
    topics = (await topic(config=small), await topic(config=small))
    directory, count = tmp_path / "spool", 40
    await orphan(directory, topics, count)
    code, out, err = await command(
        "drain", "--directory", directory, "--set", f"kafka.bootstrap_servers={kafka_bootstrap}", "--timeout", "40"
    )
    assert (code, err.count("Traceback")) == (1, 0), out + err
    assert f"0 of {count} published" in out
    assert re.search(r"last error of Kafka: .*\b10\b", out + err)
    assert "do not delete the volume" in err
    code, out, _ = await command("show", "--json", "--directory", directory)
    found = json.loads(out)
    assert (code, found["empty"]) == (0, False)
    assert found["reports"] + sum(group["reports"] for group in found["dead_letters"]) == count


async def test_a_drain_that_kafka_refuses_for_now_names_the_error(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """A compacted topic takes no record without a key: what is left is said, and why, and it is left."""
    compacted = await topic(config={"cleanup.policy": "compact"})
    directory, count = tmp_path / "spool", 20
    spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
    await spool.set_meta("lanes", msgspec.json.encode([(compacted, 1)]).decode())
    records = [Record(compacted, None, b"%d" % number, [], 1_700_000_000_000) for number in range(count)]
    await spool.append([SpoolRow(0, number + 1, 1, [each]) for number, each in enumerate(records)])
    await spool.close(10)
    code, out, err = await command(
        "drain", "--directory", directory, "--set", f"kafka.bootstrap_servers={kafka_bootstrap}", "--timeout", "4"
    )
    assert (code, err.count("Traceback")) == (1, 0), out + err
    assert re.search(rf"^0 of {count} published; last error of Kafka: \w+", out, re.MULTILINE)
    assert re.search(rf"not done in 4 s: {count} reports are left, and stay there; last error of Kafka: \w+", err)
    code, out, _ = await command("show", "--json", "--directory", directory)
    assert (code, json.loads(out)["reports"]) == (0, count)


async def test_what_was_dead_lettered_is_requeued_and_published(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """Behind what waits, in the lane of its key."""
    topics = (await topic(partitions=3), await topic())
    directory = tmp_path / "spool"
    records = await orphan(directory, topics, 30)
    spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
    late = record(topics[0], 23 * 100 + 1)
    await spool.dead_letter([SpoolRow(0, 0, 1, [late])], "PolicyViolationError")
    await spool.close(10)
    code, out, _ = await command("requeue", "--all", "--directory", directory)
    assert (code, out.startswith("1 rows wait again")) == (0, True)
    code, _, err = await command(
        "drain", "--directory", directory, "--set", f"kafka.bootstrap_servers={kafka_bootstrap}", "--timeout", "60"
    )
    assert code == 0, err
    consumed = [each for name in topics for each in await consume_all(kafka_bootstrap, name)]
    published = [Record(each.topic, each.key, each.value, list(each.headers), each.timestamp) for each in consumed]
    assert by_key(published) == by_key([*records, late])


async def test_beside_a_running_bridge_it_can_be_looked_at_and_not_be_drained(tmp_path: Path) -> None:
    """What a bridge has just answered 200 for is shown; a drain is refused and says what to do."""
    async with BridgeProcess(NOWHERE, tmp_path) as bridge:
        answer = await bridge.post(body(report("one"), report("two")))
        assert answer.status == 200
        directory = tmp_path / "spool"
        code, out, _ = await command("show", "--json", "--directory", directory)
        assert (code, json.loads(out)["reports"]) == (0, 2)
        code, out, _ = await command("show", "--directory", directory)
        assert (code, "2 reports wait" in out) == (0, True)
        for action in (("drain",), ("requeue", "--all")):
            code, _, err = await command(*action, "--directory", directory)
            assert (code, "a bridge runs on it; stop that first" in err) == (1, True)
        answer = await bridge.post(body(report("three")))
        assert answer.status == 200


@pytest.mark.parametrize("arguments", [("drain", "--timeout", "soon"), ("show", "--set", "spool.directory="), ()])
async def test_wrong_usage_is_told_apart(arguments: tuple[str, ...]) -> None:
    """Exit code 2."""
    assert (await command(*arguments))[0] == 2
