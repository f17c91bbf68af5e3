"""Damage: never deleted, always counted, and no row is lost that is still whole, nor changed, nor invented."""

import asyncio
import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spools import eventually

from bridge.errors import SpoolFailed
from bridge.record import Record
from bridge.spool.file import SpoolHooks
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool
from bridge.spool.stats import SpoolEvent

MIB = 1 << 20
PAGE = 4096
SIZES = (50, 700, 3_900, 4_070, 9_000, 70_000)  # on a leaf with others, alone on it, on overflow pages


def row(lane: int, seq: int) -> SpoolRow:
    """A group whose content follows from lane and seq, of many sizes."""
    size = SIZES[(lane + seq) % len(SIZES)]
    return SpoolRow(lane, seq, 3, [Record("topic", None, bytes([seq % 256]) * size, [], 1_000 + seq)])


ROWS = {(lane, seq): row(lane, seq) for lane in range(3) for seq in range(1, 41)}


class Fault(SpoolHooks):
    """Raises once, after a commit."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def after_commit(self) -> None:
        """As an fsync that fails does."""
        error, self.error = self.error, None
        if error is not None:
            raise error


def io_error(code: int) -> sqlite3.Error:
    """What SQLite raises for an I/O error."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


async def open_spool(directory: Path, events: list[SpoolEvent] | None = None, **changes: Any) -> Spool:
    """A spool with much room."""
    on_event = events.append if events is not None else None
    return await Spool.open(directory, max_bytes=256 * MIB, min_free_bytes=0, on_event=on_event, **changes)


async def everything(spool: Spool) -> dict[tuple[int, int], SpoolRow]:
    """All rows of the three lanes."""
    found: dict[tuple[int, int], SpoolRow] = {}
    for lane in range(3):
        after = 0
        while rows := await spool.read(lane, after, max_bytes=100_000):
            found |= {(each.lane, each.seq): each for each in rows}
            after = rows[-1].seq
    return found


async def _make(directory: Path, copy_to: Path) -> None:
    spool = await open_spool(directory)
    for seq in range(1, 41):
        await spool.append([ROWS[lane, seq] for lane in range(3)])
    await spool.dead_letter([SpoolRow(9, 1, 5, [])], "refused")
    await spool.set_meta("lanes", "3")
    shutil.copytree(directory, copy_to)
    await spool.close(20)


@pytest.fixture(scope="session")
def made() -> tuple[Path, Path]:
    """A spool with `ROWS`, one dead letter and a meta entry: closed, and as a kill leaves it (all in its WAL)."""
    base = Path(tempfile.mkdtemp())
    asyncio.run(_make(base / "closed", base / "killed"))
    assert (base / "killed" / "spool.db-wal").stat().st_size > MIB
    assert not (base / "closed" / "spool.db-wal").exists()
    return base / "closed", base / "killed"


@pytest.fixture
def closed(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the closed one, to be damaged."""
    return Path(shutil.copytree(made[0], tmp_path / "spool"))


@pytest.fixture
def killed(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the killed one, to be damaged."""
    return Path(shutil.copytree(made[1], tmp_path / "spool"))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes in place; a negative offset counts from the end."""
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    """Flip the bits of one byte."""
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0xFF]))


def _header(path: Path) -> None:
    overwrite(path, 0, os.urandom(PAGE))


def _zeroes_at_the_front(path: Path) -> None:
    overwrite(path, 0, bytes(4 * PAGE))


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 20 * PAGE)


def _every_tenth_page(path: Path) -> None:
    for offset in range(PAGE * 5, path.stat().st_size, PAGE * 10):
        overwrite(path, offset, os.urandom(PAGE))


@pytest.mark.parametrize(
    ("damage", "at_least"),
    [(_header, 120), (_zeroes_at_the_front, 117), (_cut_short, 95), (_every_tenth_page, 60)],
)
async def test_a_damaged_file_is_moved_aside_as_it_is_and_its_whole_rows_live_on(
    closed: Path, damage: Callable[[Path], None], at_least: int
) -> None:
    """Byte for byte in ``damaged/``, counted, reported; what the CRCs prove is read from the new file, unchanged."""
    damage(closed / "spool.db")
    damaged = (closed / "spool.db").read_bytes()
    events: list[SpoolEvent] = []
    spool = await open_spool(closed, events)
    found = await everything(spool)
    stats = spool.stats
    await spool.append([SpoolRow(0, 1_000, 1, [])])
    await spool.close(20)
    events = [each for each in events if each.kind != "failed"]  # the check, or a read, found the damage
    assert [each.kind for each in events] == ["damaged_file", "salvaged"]
    moved_to = events[0].path
    assert moved_to is not None
    assert damaged == (moved_to / "spool.db").read_bytes()
    assert closed / "damaged" == moved_to.parent
    assert (len(found), 3 * len(found), 1) == (events[1].rows, events[1].reports, stats.damaged_files)
    assert events[1].reports == sum(events[1].lanes.values())
    assert found == {key: ROWS[key] for key in found}
    assert len(found) >= at_least
    assert 3 * len(found) == stats.reports


async def test_meta_and_dead_letters_are_taken_over(closed: Path) -> None:
    """A lost header costs neither the lane layout nor what was kept for good."""
    _header(closed / "spool.db")
    spool = await open_spool(closed)
    assert "3" == spool.get_meta("lanes")  # at once: a caller needs it before the rows are there
    await eventually(lambda: spool.stats.checked)
    (dead_letter,) = await spool.dead_letters(max_bytes=MIB)
    await spool.close(20)
    assert (9, 1, 5, "refused", True) == (
        dead_letter.lane,
        dead_letter.seq,
        dead_letter.n,
        dead_letter.reason,
        dead_letter.whole,
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_changes_invents_or_hides_a_row(data: st.DataObject, made: tuple[Path, Path]) -> None:
    """Wherever a byte flips, rows read are rows written, and what is gone is no more than stood on that page."""
    directory = Path(tempfile.mkdtemp()) / "spool"
    shutil.copytree(made[0], directory)
    size = (directory / "spool.db").stat().st_size
    flip(directory / "spool.db", data.draw(st.integers(0, size - 1)))

    async def check() -> None:
        spool = await open_spool(directory)
        found = await everything(spool)
        stats = spool.stats
        await spool.close(20)
        assert found == {key: ROWS[key] for key in found}
        # a leaf page of the table holds at most this many of the smallest rows; one of overflow a part of one
        assert len(found) >= len(ROWS) - 20
        if len(found) < len(ROWS):
            assert stats.damaged_files + stats.damaged_rows > 0

    asyncio.run(check())
    shutil.rmtree(directory.parent)


@pytest.mark.parametrize("offset", range(3_640, PAGE, 24))
async def test_no_flipped_byte_of_the_schema_costs_a_row(closed: Path, offset: int) -> None:
    """SQLite believes a table whose column has another name, or a text that is none: the bridge does not."""
    flip(closed / "spool.db", offset)
    spool = await open_spool(closed)
    assert await everything(spool) == ROWS
    assert 1 == spool.stats.damaged_files
    await spool.close(20)


async def test_a_column_of_another_name_is_damage(closed: Path) -> None:
    """Also one that nothing asks for before the first append."""
    data = (closed / "spool.db").read_bytes()
    overwrite(closed / "spool.db", data.index(b"crc INTEGER, body BLOB, PRIMARY"), b"b")
    spool = await open_spool(closed)
    assert await everything(spool) == ROWS
    assert 1 == spool.stats.damaged_files
    await spool.append([SpoolRow(0, 1_000, 1, [])])
    await spool.close(20)


@pytest.mark.parametrize("known_by", ["the freelist", "the owner, with the header lost"])
async def test_deleted_rows_do_not_come_back(tmp_path: Path, known_by: str) -> None:
    """Freed pages still hold them: they are told by the freelist, and by what the owner knows to be deleted."""
    fault = Fault()
    directory = tmp_path / "spool"
    spool = await open_spool(directory, hooks=fault)
    rows = [SpoolRow(0, seq, 1, row(0, 4).records) for seq in range(1, 200)]
    await spool.append(rows)
    spool.delete_through(0, 150)
    assert rows[150:152] == await spool.read(0, 0, max_bytes=20_000)
    if known_by == "the freelist":
        await spool.close(20)
        flip(directory / "spool.db", 100)  # the tree that lists the tables
        spool = await open_spool(directory, hooks=fault)
    else:
        await asyncio.to_thread(_lose_header, directory)
        fault.error = io_error(sqlite3.SQLITE_IOERR_FSYNC)
        with pytest.raises(SpoolFailed):
            await spool.append([SpoolRow(1, 1, 1, [])])
    assert 1 == spool.stats.damaged_files
    found = await everything(spool)
    assert {(0, seq) for seq in range(151, 200)} == {key for key in found if key[0] == 0}
    await spool.close(20)


def _lose_header(directory: Path) -> None:
    """Overwrite the first page in the file and the magic of the WAL that holds newer ones."""
    for path in (directory / "spool.db", directory / "spool.db-wal"):
        overwrite(path, 0, os.urandom(32))
    data = (directory / "spool.db-wal").read_bytes()
    for frame in range(32, len(data) - PAGE, PAGE + 24):
        if int.from_bytes(data[frame : frame + 4]) == 1:
            overwrite(directory / "spool.db-wal", frame + 24, os.urandom(100))


async def test_a_single_bad_row_is_dead_lettered_when_it_is_read(closed: Path) -> None:
    """It does not stop the rows behind it, is kept as it was with the reason, and can't be requeued."""
    on_overflow_pages = bytes([4]) * 4_000  # of the row of seq 4 in one of the lanes
    at = (closed / "spool.db").read_bytes().index(on_overflow_pages)
    flip(closed / "spool.db", at + 100)
    events: list[SpoolEvent] = []
    spool = await open_spool(closed, events)
    found = await everything(spool)
    assert len(ROWS) - 1 == len(found)
    (lost,) = set(ROWS) - set(found)
    stats = spool.stats
    assert (1, 0, 2, 8) == (stats.damaged_rows, stats.damaged_files, stats.dead_letter_rows, stats.dead_letter_reports)
    assert len(ROWS) - 1 == stats.rows
    _, bad = await spool.dead_letters(max_bytes=10 * MIB)
    assert (lost, "crc", False) == ((bad.lane, bad.seq), bad.reason, bad.whole)
    with pytest.raises(ValueError, match="damaged"):
        await spool.requeue(bad.id, 0, 10**6)
    await spool.close(20)
    assert ["damaged_row"] == [event.kind for event in events]


async def test_many_bad_rows_condemn_the_file(tmp_path: Path) -> None:
    """A hundred rows whose CRC is wrong: the file as a whole is exchanged, the good rows stay."""
    directory = tmp_path / "spool"
    spool = await open_spool(directory)
    await spool.append([SpoolRow(0, seq, 1, []) for seq in range(1, 301)])
    await spool.close(20)
    connection = sqlite3.connect(directory / "spool.db")
    connection.execute("UPDATE queue SET crc = crc + 1 WHERE seq % 2")
    connection.commit()
    connection.close()
    events: list[SpoolEvent] = []
    spool = await open_spool(directory, events)
    found = await everything(spool)
    assert {(0, seq) for seq in range(2, 301, 2)} == set(found)
    assert "damaged_file" in [event.kind for event in events]
    assert spool.stats.damaged_rows >= 100
    assert spool.stats.damaged_files == 1
    await spool.close(20)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE])
async def test_after_an_io_error_the_file_is_not_trusted_any_more(tmp_path: Path, code: int) -> None:
    """Its appends fail; it goes aside with its WAL untouched; earlier rows live on, deleted ones do not come back."""
    fault, events = Fault(), list[SpoolEvent]()
    directory = tmp_path / "spool"
    spool = await open_spool(directory, events, hooks=fault)
    for seq in range(1, 41):
        await spool.append([ROWS[lane, seq] for lane in range(3)])
    spool.delete_through(1, 35)
    assert [36] == [each.seq for each in await spool.read(1, 0, max_bytes=1)]
    fault.error = io_error(code)
    with pytest.raises(SpoolFailed):
        await spool.append([SpoolRow(2, 41, 1, [])])
    found = await everything(spool)
    found.pop((2, 41), None)  # what failed in its fsync alone may be there all the same
    assert {key: each for key, each in ROWS.items() if key[0] != 1 or key[1] > 35} == found
    await spool.append([SpoolRow(2, 42, 1, [])])
    (event,) = [each for each in events if each.kind == "damaged_file"]
    assert event.path is not None
    assert (event.path / "spool.db-wal").stat().st_size > MIB
    assert 1 == spool.stats.damaged_files
    assert spool.stats.writable
    await spool.close(20)


async def test_an_unmounted_answer_of_the_disk_is_no_damage(tmp_path: Path) -> None:
    """An error that says nothing of the file (no descriptor left, say) fails the append and leaves the file."""
    fault = Fault()
    spool = await open_spool(tmp_path / "spool", hooks=fault)
    fault.error = OSError(errno.EMFILE, "provoked")
    with pytest.raises(SpoolFailed):
        await spool.append([SpoolRow(0, 1, 1, [])])
    assert (0, 1) == (spool.stats.damaged_files, spool.stats.write_errors)
    await spool.close(20)


async def test_a_killed_spool_needs_no_salvage(killed: Path) -> None:
    """All of its rows stand in the WAL, which SQLite takes in."""
    spool = await open_spool(killed)
    assert await everything(spool) == ROWS
    assert 0 == spool.stats.damaged_files
    await spool.close(20)


async def test_a_broken_frame_in_the_wal_does_not_cost_what_stands_behind_it(killed: Path) -> None:
    """SQLite would silently drop every later commit."""
    size = (killed / "spool.db-wal").stat().st_size
    flip(killed / "spool.db-wal", 32 + 24 + 10 * (PAGE + 24) + 2_000)
    spool = await open_spool(killed)
    found = await everything(spool)
    assert 1 == spool.stats.damaged_files
    assert found == {key: ROWS[key] for key in found}
    assert len(found) >= len(ROWS) - 5
    moved = list((killed / "damaged").glob("*/spool.db-wal"))
    assert [size] == [each.stat().st_size for each in moved]
    await spool.close(20)


async def test_a_frame_of_zeroes_in_the_wal_does_not_cost_what_stands_behind_it(killed: Path) -> None:
    """Its salts are gone too, as those of a frame are that is left over from before the WAL was restarted."""
    overwrite(killed / "spool.db-wal", 32 + 10 * (PAGE + 24), bytes(PAGE + 24))
    spool = await open_spool(killed)
    found = await everything(spool)
    assert 1 == spool.stats.damaged_files
    assert found == {key: ROWS[key] for key in found}
    assert len(found) >= len(ROWS) - 5
    await spool.close(20)


async def test_a_wal_without_its_file_is_not_lost(killed: Path) -> None:
    """SQLite would delete it; its rows are taken over."""
    (killed / "spool.db").unlink()
    spool = await open_spool(killed)
    assert await everything(spool) == ROWS
    await spool.close(20)


async def test_an_unfinished_new_file_is_begun_again(closed: Path) -> None:
    """A kill while rows are being taken over leaves the old file in place, which is read again."""
    overwrite(closed / "spool.db", 0, bytes(100))
    (closed / "rebuild.partial").write_bytes(b"half")
    spool = await open_spool(closed)
    assert await everything(spool) == ROWS
    assert not (closed / "rebuild.partial").exists()
    await spool.close(20)
