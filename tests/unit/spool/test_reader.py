"""Reading a spool without owning it: every row is seen, in order, and nothing is written."""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.spools import MIB, TIMEOUT_SECONDS, House, row

from bridge.errors import SpoolFailed
from bridge.spool.reader import judge_rows, open_read_only
from bridge.spool.rows import crc_of, encode_body

_READER = """
import json, sys
from pathlib import Path
from bridge.spool.reader import open_read_only

directory, owner = Path(sys.argv[1]), sys.argv[2]
# What readers of an owner at work share with it: each notes there how far it reads.
noted = "spool.db-shm" if owner == "at work" else ""
content = lambda: {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != noted}
before = content()
with open_read_only(directory) as reader:
    rows, _ = reader.read(1, -1, max_bytes=1 << 20)
    reasons = [row.reason for row in reader.dead_letters(max_bytes=1 << 20)]
    print(json.dumps([reader.stats().rows, [row.seq for row in rows], reader.meta(), reasons]))
assert content() == before
"""


@pytest.mark.parametrize("owner", ["at work", "gone", "killed", "killed, and its -shm lost"])
async def test_a_reader_in_another_process_changes_nothing(house: House, tmp_path: Path, owner: str) -> None:
    """It sees every row, beside an owner or without one, and not a byte in the directory is another afterwards."""
    spool = await house.open()
    await spool.append([row(1, seq) for seq in range(50)])
    await spool.dead_letter([row(2, 1)], "refused")
    await spool.set_meta("lanes", "3")
    directory = house.directory
    if owner == "gone":
        await spool.close(TIMEOUT_SECONDS)
    elif owner.startswith("killed"):
        directory = tmp_path / "left"
        shutil.copytree(house.directory, directory)
        if owner.endswith("lost"):
            (directory / "spool.db-shm").unlink()
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _READER, str(directory), owner), stdout=subprocess.PIPE
    )
    out, _ = await reader.communicate()
    assert reader.returncode == 0
    assert [50, list(range(50)), {"lanes": "3"}, ["refused"]] == json.loads(out)


async def test_a_reader_notices_an_owner_that_comes(house: House) -> None:
    """What it opened without an owner does not stay what it was."""
    spool = await house.open()
    await spool.append([row(1, 1)])
    await spool.close(TIMEOUT_SECONDS)
    with open_read_only(house.directory) as reader:
        assert reader.stats().rows == 1
        later = await house.open()
        await later.append([row(1, 2)])
        assert reader.stats().rows == 2
        await later.close(TIMEOUT_SECONDS)
        assert [each.seq for each in reader.read(1, 0, max_bytes=MIB)[0]] == [1, 2]


async def test_a_reader_needs_a_spool(tmp_path: Path) -> None:
    """Where there is none it says so, and makes none."""
    with pytest.raises(SpoolFailed, match=str(tmp_path)):
        open_read_only(tmp_path)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - an empty directory


def test_rows_out_of_order_are_damage() -> None:
    """An index that leads backwards would have a drain go round for ever."""
    body = encode_body([])
    fetched = [(seq, 1, crc_of(0, seq, 1, body), body) for seq in (6, 7, 5)]
    with pytest.raises(sqlite3.DatabaseError, match="seq 5 stands behind 7"):
        judge_rows(0, 5, list[tuple[int, object, object, object]](fetched), MIB)
