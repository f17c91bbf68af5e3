"""A bridge that starts on a spool that is not empty: damaged, or too large to be looked at before callbacks come."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import MakeTopic
from support.bridge_process import BridgeProcess, balance
from support.callbacks import body, eventually, report
from support.spools import MIB
from support.topics import consume_all

from bridge.delivery.layout import placed
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

LANES, KEYS = {"status": 12, "quarantine": 3}, 40


async def fill(directory: Path, topics: tuple[str, str], rows: int) -> None:
    """What a bridge left: ``rows`` reports of `KEYS` messages, numbered within each."""
    spool = await Spool.open(directory, max_bytes=512 * MIB, min_free_bytes=0)
    layout = list(zip(topics, LANES.values(), strict=True))
    await spool.set_meta("lanes", msgspec.json.encode(layout).decode())
    stored = []
    for number in range(rows):
        key = b"message-%d" % (number % KEYS)
        value = msgspec.json.encode({"number": number // KEYS, "filler": "x" * 500})
        record = Record(topics[0], key, value, [("ce_id", b"old-%d" % number)], 1_790_000_000_000 + number)
        stored.append(SpoolRow(placed(record, LANES["status"]), number + 1, 1, [record]))
    await spool.append(stored)
    await spool.close(30)


def damage_header(directory: Path) -> None:
    """Nothing but the rows explains the file any more."""
    with (directory / "spool.db").open("r+b") as database:
        database.write(bytes(4096))


def damage_nothing(directory: Path) -> None:
    """As it was closed."""
    with sqlite3.connect(directory / "spool.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("damage", [damage_header, damage_nothing])
async def test_callbacks_are_taken_at_once_and_published_behind_what_is_on_disk(
    damage: Callable[[Path], None], kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """While the rows of a damaged file are taken over, too: each key's old reports come first; the balance holds."""
    topics = (await topic(partitions=4), await topic(partitions=2))
    rows = 60_000
    await fill(tmp_path / "spool", topics, rows)
    damage(tmp_path / "spool")
    settings = {"spool.directory": tmp_path / "spool", "log.level": "info"}
    async with BridgeProcess(kafka_bootstrap, tmp_path, settings, topics, wait="live") as bridge:
        answers = [await bridge.post(body(report(f"message-{number}"))) for number in range(KEYS)]
        assert [answer.status for answer in answers] == [200] * KEYS

        async def all_is_published() -> bool:
            found = await bridge.metrics()
            return (found["chatapp_bridge_spool_checked"], found["chatapp_bridge_reports_waiting"]) == (1, 0)

        await eventually(all_is_published, 60)
        found = balance(await bridge.metrics())
        assert (found.taken, found.accounted) == (rows + KEYS, rows + KEYS)
        log = [json.loads(line) for line in bridge.log().splitlines()]
    events = [line["kind"] for line in log if line["event"] == "spool"]
    assert [kind for kind in events if kind != "checking"] == (
        ["damaged_file", "salvaged"] if damage is damage_header else []
    )
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for record in await consume_all(kafka_bootstrap, topics[0]):
        by_key[record.key].append(json.loads(record.value).get("number", 1 << 30))
    per_key = [*range(rows // KEYS), 1 << 30]
    assert dict(by_key) == {b"message-%d" % number: per_key for number in range(KEYS)}
