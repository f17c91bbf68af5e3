"""``chatapp-bridge spool``, as far as it needs no Kafka: what it shows, copies, checks and requeues."""

import asyncio
import base64
import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.spools import MIB, TIMEOUT_SECONDS, House, insert_unindexed, row

from bridge.cli import main
from bridge.delivery.layout import LAYOUT_KEY, Layout, placed
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

LAYOUT = [("status", 3), ("quarantine", 2)]
PERSONAL = "4915112345678"
_PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def record(number: int, topic: str = "status", value: bytes | None = None) -> Record:
    """A record with personal data in it."""
    text = f'{{"to": "{PERSONAL}", "number": {number}}}'.encode() if value is None else value
    return Record(topic, f"message-{number}".encode(), text, [("ce_id", b"x")], 1_700_000_000_000 + number)


async def _made(directory: Path) -> None:
    spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
    await spool.set_meta(LAYOUT_KEY, Layout(LAYOUT).text)
    await spool.append([SpoolRow(2, seq, 2, [record(seq), record(seq + 100)]) for seq in (1, 2)])
    await spool.append([SpoolRow(1 << 16, 1, 1, [record(7, "quarantine", b"\xff\x00")])])
    await spool.dead_letter([SpoolRow(0, 0, 1, [record(50)])], "InvalidTimestampError")
    await spool.close(10)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A spool of two topics with a dead letter, closed."""
    asyncio.run(_made(tmp_path / "spool"))
    return tmp_path / "spool"


def damage(directory: Path, what: bytes) -> None:
    """Flip a bit of the first place where that stands."""
    database = directory / "spool.db"
    data = bytearray(database.read_bytes())
    data[data.index(what)] ^= 1
    database.write_bytes(data)


def run(*arguments: str | Path) -> int:
    """One command."""
    return main(["spool", *map(str, arguments)])


def test_lanes_are_numbered_on_disk_as_they_always_were() -> None:
    """A spool outlives the bridge that wrote it: each lane keeps its number, and the layout its place and form."""
    layout = Layout(LAYOUT)
    assert [layout.number_of("status", 2), layout.number_of("quarantine", 1)] == [2, 65_537]
    assert [layout.name_of(2), layout.name_of(65_537), layout.name_of(131_072)] == [
        ("status", 2),
        ("quarantine", 1),
        ("?", 0),
    ]
    assert (LAYOUT_KEY, layout.text) == ("lanes", '[["status",3],["quarantine",2]]')
    assert Layout.parse(layout.text).topics == LAYOUT


def test_show_counts_by_topic_and_lane_and_prints_no_personal_data(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For machines and for people the same figures; neither keys nor values."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert run("show", "--json", "--directory", directory) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert (found["rows"], found["reports"], found["oldest_at"]) == (3, 5, "2023-11-14T22:13:20+00:00")
    assert [(each["topic"], each["lanes"], each["reports"]) for each in found["topics"]] == [
        ("status", 1, 4),
        ("quarantine", 1, 1),
    ]
    assert [(each["topic"], each["lane"], each["rows"]) for each in found["lanes"]] == [
        ("status", 2, 2),
        ("quarantine", 0, 1),
    ]
    assert [(each["reason"], each["rows"], each["ids"]) for each in found["dead_letters"]] == [
        ("InvalidTimestampError", 1, [1])
    ]
    assert run("show", "--directory", directory) == 0
    table = capsys.readouterr().out
    assert "5 reports wait in 3 rows" in table
    assert "InvalidTimestampError" in table
    assert PERSONAL not in text + table
    assert "message-" not in text + table
    assert before == {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_directory_is_that_of_the_configuration_unless_given(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--set spool.directory` does what `--directory` does."""
    assert run("show", "--json", "--set", f"spool.directory={directory}") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3


def test_export_gives_every_record_back_byte_for_byte(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, as lines like those of `replay`, with the row's place; it says on stderr that this is personal data."""
    assert run("export", "--directory", directory) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["key"] for line in lines] == [f"message-{number}" for number in (1, 101, 2, 102, 7)]
    assert record(1).value in out.encode()
    assert lines[0] == {
        "topic": "status",
        "timestamp": 1_700_000_000_001,
        "key": "message-1",
        "headers": {"ce_id": "x"},
        "value": {"to": PERSONAL, "number": 1},
        "lane": 2,
        "seq": 1,
    }
    assert base64.b64decode(lines[-1]["value_base64"]) == b"\xff\x00"
    assert (lines[-1]["topic"], lines[-1]["lane"], lines[-1]["value"]) == ("quarantine", 0, None)
    assert "personal data" in err
    assert "1 values could not be decoded" in err


def test_export_writes_a_file_that_is_its_owners_and_new(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0600, with `--dead-letters` the dead letters too; what exists is not overwritten."""
    target = tmp_path / "out.ndjson"
    assert run("export", "--dead-letters", "--output", target, "--directory", directory) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    (dead,) = [line for line in lines if "dead_letter" in line]
    assert (dead["dead_letter"]["id"], dead["dead_letter"]["reason"]) == (1, "InvalidTimestampError")
    assert (dead["key"], dead["lane"], dead["seq"]) == ("message-50", 0, 0)
    assert len(lines) == 6
    capsys.readouterr()
    assert run("export", "--output", target, "--directory", directory) == 2
    assert len(target.read_text().splitlines()) == 6
    out, err = capsys.readouterr()
    assert (out, f"{target} is there already; give another name, or remove it" in err) == ("", True)


def test_verify_finds_a_flipped_bit(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 and a count while all is whole; 1 and the place, without any content, where a row is not."""
    assert run("verify", "--directory", directory) == 0
    assert "4 rows are whole, 0 are damaged" in capsys.readouterr().out
    damage(directory, b"message-102")
    assert run("verify", "--directory", directory) == 1
    out = capsys.readouterr().out
    assert "damaged: topic status, lane 2, seq 2: crc" in out
    assert "3 rows are whole, 1 are damaged" in out
    assert PERSONAL not in out
    assert run("export", "--directory", directory) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_verify_finds_a_flipped_bit_in_dead_letters(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a row is named by its id, and is not requeued."""
    damage(directory, b"message-50")
    assert run("verify", "--directory", directory) == 1
    assert "dead letter 1 of" in capsys.readouterr().out
    assert run("export", "--dead-letters", "--directory", directory) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["topic"], line["value"], line["dead_letter"]["id"]) == (None, None, 1)
    assert b"essage-50" in base64.b64decode(line["damaged_base64"])
    assert run("requeue", "--all", "--directory", directory) == 1
    assert run("show", "--json", "--directory", directory) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["dead_letters"][0]["rows"] == 1


def test_a_file_that_is_no_database_is_said_to_be_damaged(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, with exit code 1, and nothing is touched."""
    (directory / "spool.db").write_bytes(b"garbage" * 1000)
    assert run("verify", "--directory", directory) == 1
    assert "damaged" in capsys.readouterr().err
    assert (directory / "spool.db").read_bytes() == b"garbage" * 1000


def test_verify_finds_a_row_that_the_index_lacks(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No reader comes to such a row by its lane, so a bridge would never publish it."""
    with sqlite3.connect(directory / "spool.db") as database:
        (row,) = database.execute("SELECT lane, seq + 5, n, crc, body FROM queue WHERE seq = 1 LIMIT 1").fetchall()
    insert_unindexed(directory, row)
    assert run("verify", "--directory", directory) == 1
    assert "the queue's index lacks rows of its table" in capsys.readouterr().err


def test_requeue_puts_rows_behind_their_keys_lane(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lane is that of the key, the seq behind the last; what is not there is said and makes it fail."""
    lane = placed(record(50), 3)
    assert run("requeue", "1", "77", "--directory", directory) == 1
    assert "row 77: there is no such dead letter" in capsys.readouterr().err
    assert run("show", "--json", "--directory", directory) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["dead_letters"], found["rows"]) == ([], 4)
    (given,) = [each for each in found["lanes"] if each["number"] == lane and each["first_seq"] is not None]
    assert given["last_seq"] > (2 if lane == 2 else 0)


@pytest.mark.parametrize("arguments", [(), ("1", "--all")])
def test_requeue_wants_to_know_what(directory: Path, arguments: tuple[str, ...]) -> None:
    """Ids or all, not both and not neither: wrong usage."""
    assert run("requeue", *arguments, "--directory", directory) == 2


@pytest.mark.parametrize("action", ["show", "export", "verify", "drain", "requeue --all"])
def test_where_there_is_no_spool_none_is_made(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, a sentence with the directory, nothing created."""
    assert run(*action.split(), "--directory", tmp_path / "none") == 1
    assert f"{tmp_path / 'none'}: there is no spool here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


async def test_beside_an_owner_it_reads_and_owns_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading actions see what was just stored; the owning ones are refused, and say why."""
    house = House(tmp_path / "spool")
    spool = await house.open()
    await spool.append([row(1, 1)])
    for action in ("show", "export", "verify"):
        assert await asyncio.to_thread(run, action, "--directory", house.directory) == 0
    for action in ("drain", "requeue --all"):
        assert await asyncio.to_thread(run, *action.split(), "--directory", house.directory) == 1
        assert "a bridge runs on it" in capsys.readouterr().err
    await house.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from support.spools import MIB, row
from bridge.spool.spool import Spool

async def write():
    spool = await Spool.open(Path(sys.argv[1]), max_bytes=64 * MIB, min_free_bytes=0)
    stopped = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    seq = 0
    while not stopped.done():
        seq += 1
        await spool.append([row(lane, seq) for lane in range(4)])
        if seq > 50:
            for lane in range(4):
                spool.delete_through(lane, seq - 50)
        if seq == 60:
            print("writing", flush=True)
    await spool.close(10)

asyncio.run(write())
"""


def test_beside_a_bridge_that_commits_all_the_time_nothing_is_called_damaged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is of one moment; the output says that there was more than one."""
    monkeypatch.setattr("bridge.spool.reader._CHECK_ROWS", 60)  # a whole pass takes more than one transaction
    tests = Path(__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, tmp_path], env={**os.environ, "PYTHONPATH": str(tests)}, **_PIPES
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        for _ in range(40):
            assert [run(action, "--directory", tmp_path) for action in ("show", "verify", "export")] == [0, 0, 0]
        assert run("show", "--json", "--directory", tmp_path) == 0
    finally:
        writer.communicate(timeout=TIMEOUT_SECONDS)
    out, err = capfd.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert not found["empty"]
    assert "a bridge was writing to the spool meanwhile" in err
    assert run("show", "--json", "--directory", tmp_path) == 0
    assert not json.loads(capfd.readouterr().out)["changed_meanwhile"]


@pytest.mark.parametrize("action", ["show", "export", "verify", "drain", "requeue --all"])
def test_a_newer_spool_is_refused(directory: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By every action, with the versions."""
    (directory / "format").write_text("2\n")
    assert run(*action.split(), "--directory", directory) == 1
    assert "format 2" in capsys.readouterr().err
