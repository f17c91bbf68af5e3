"""Something else goes wrong while a damaged file is salvaged: no whole row is lost, and the new file is not blamed."""

import asyncio
import errno
import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.spools import MIB, TIMEOUT_SECONDS, House, eventually, row, seqs, sqlite_error

from bridge.spool import checking, rebuild, writer
from bridge.spool.format import PAGE_BYTES
from bridge.spool.rebuild import Salvage
from bridge.spool.salvage import RawPages, WalFrames, raw_rows
from bridge.spool.spool import Spool

ROWS = 60


async def with_a_damaged_file(house: House) -> Path:
    """A closed spool with rows, without its header; the file."""
    spool = await house.open()
    await spool.append([row(1, seq, size=1_000) for seq in range(1, ROWS + 1)])
    await spool.set_meta("lanes", "layout")
    await spool.close(TIMEOUT_SECONDS)
    database = house.directory / "spool.db"
    overwrite(database, 0, bytes(100))
    return database


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def held_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have a salvage take a page a round, and stop at the first rows until the returned function is called."""
    monkeypatch.setattr(writer, "_READ_SECONDS", 0.0)
    monkeypatch.setattr(checking, "_TAKE_BYTES", 1)
    real, held = checking.Checking.work, [False, True]

    def work(self: checking.Checking, file: Any, until: float) -> int:
        written = real(self, file, until)
        held[0] = held[1] and file.ledger.rows > 0
        return written

    monkeypatch.setattr(checking.Checking, "work", work)
    monkeypatch.setattr(checking.Checking, "is_due", property(lambda _: not held[0]))
    return lambda: held.__setitem__(slice(None), [False, False])


async def part_of_it(spool: Spool) -> None:
    """Wait until some rows are taken over, and not all."""
    await eventually(lambda: spool.stats.rows > 0)
    assert spool.stats.salvaging
    assert spool.stats.rows < ROWS


async def interrupted(house: House, monkeypatch: pytest.MonkeyPatch) -> tuple[Spool, Callable[[], None]]:
    """A spool that has taken over a part of a damaged file, and what lets it go on."""
    await with_a_damaged_file(house)
    let_go = held_back(monkeypatch)
    spool = await house.open()
    await part_of_it(spool)
    return spool, let_go


async def test_a_damaged_file_that_cannot_be_read_for_a_while_is_salvaged_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is of that file: the new one is kept, and the salvage neither ends nor leaves a page out."""
    await with_a_damaged_file(house)
    monkeypatch.setattr(checking, "_RETRY_SECONDS", 0.01)
    real, failures = raw_rows, [OSError(errno.EIO, "provoked") for _ in range(3)]

    def failing(*arguments: Any) -> Any:
        for number, rows in enumerate(real(*arguments)):
            if number == 6 and failures:
                raise failures.pop()
            yield rows

    monkeypatch.setattr(rebuild, "raw_rows", failing)
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(1, ROWS + 1))
    assert not failures
    assert len(house.damaged()) == 1
    assert [event.kind for event in house.events] == ["damaged_file", *["failed"] * 3, "salvaged"]


async def test_a_bad_sector_in_the_wal_costs_what_is_on_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other frames are read, and the start succeeds."""
    spool = await house.open()
    for seq in range(1, ROWS + 1):
        await spool.append([row(1, seq, size=1_000)])
    wal = house.directory / "spool.db-wal"
    inode, bad, real = wal.stat().st_ino, range(80 * PAGE_BYTES, 81 * PAGE_BYTES), os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == inode and set(range(offset, offset + size, 512)) & set(bad):
            raise OSError(errno.EIO, "provoked")
        return real(fd, size, offset)

    whole = WalFrames(wal)
    monkeypatch.setattr(os, "pread", pread)
    frames = WalFrames(wal)
    assert not whole.lost
    assert frames.broken
    assert len(whole._data) == len(frames._data)
    assert len(frames.lost) > 10


async def test_a_second_damage_during_a_salvage_costs_nothing_that_is_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it takes the text that names the first file, and rows that had been taken over."""
    spool, let_go = await interrupted(house, monkeypatch)
    await spool.append([row(2, 1)])
    await spool.close(TIMEOUT_SECONDS)
    os.truncate(house.directory / "spool.db", PAGE_BYTES)
    let_go()
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(1, ROWS + 1))
    assert len(house.damaged()) == 2
    await spool.close(TIMEOUT_SECONDS)

    # And what is taken over is not salvaged again by a third.
    spool = await house.open()
    spool.delete_through(1, ROWS)
    await eventually(lambda: spool.stats.rows == 0)
    await spool.close(TIMEOUT_SECONDS)
    os.truncate(house.directory / "spool.db", PAGE_BYTES)
    spool = await house.open()
    assert await seqs(spool, 1) == []


async def test_reports_are_counted_once_when_a_salvage_of_the_start_begins_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the former process alone: not what was taken over twice, nor what this process appended."""
    spool, let_go = await interrupted(house, monkeypatch)
    await spool.append([row(1, 1_000), row(2, 1)])
    house.gate.commit_errors = [sqlite_error(sqlite3.SQLITE_IOERR_WRITE)]
    spool.delete_through(3, 1)
    await eventually(lambda: spool.stats.damaged_files == 2)
    let_go()
    assert await seqs(spool, 1) == [*range(1, ROWS + 1), 1_000]
    (event,) = [event for event in house.events if event.kind == "salvaged"]
    assert event.lanes == {1: 2 * ROWS}
    assert spool.stats.recovered_reports_at_start == 2 * ROWS


async def test_while_no_file_can_be_opened_reads_wait_and_the_thread_rests(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delete that waits does not put off the next attempt to open one."""
    spool = await house.open()
    await spool.append([row(1, 1)])
    rounds = 0
    real_round, real_exchange = writer.Writer._round, rebuild.exchange

    def counted(self: writer.Writer, ops: Any) -> None:
        nonlocal rounds
        rounds += 1
        real_round(self, ops)

    attempts = 0

    def fails(*arguments: Any) -> Path:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError(errno.EROFS, "provoked")
        return real_exchange(*arguments)

    monkeypatch.setattr(writer.Writer, "_round", counted)
    monkeypatch.setattr(writer, "exchange", fails)
    house.gate.commit_errors = [sqlite_error(sqlite3.SQLITE_IOERR_WRITE)]
    spool.delete_through(1, 0)
    spool.append([row(1, 2)]).add_done_callback(lambda done: done.exception())
    await eventually(lambda: attempts == 1)
    began = rounds
    reading = asyncio.wait_for(spool.read(1, 0, max_bytes=MIB), TIMEOUT_SECONDS)
    assert [each.seq for each in await reading] == [1]
    assert attempts == 3
    assert rounds - began < 100  # one after the other it would be hundreds of thousands


async def test_an_exchange_that_failed_between_its_steps_goes_on_with_the_same_folder(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and its WAL stay together: rows of the one go on in the other."""
    spool = await house.open()
    await spool.append([row(1, seq) for seq in range(1, 30)])
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)
    real, failures = Path.rename, [True]

    def rename(path: Path, target: Path) -> Path:
        if path.name == "spool.db" and failures:
            failures.pop()
            raise OSError(errno.EIO, "provoked")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    house.gate.commit_errors = [sqlite_error(sqlite3.SQLITE_IOERR_WRITE)]
    spool.append([row(1, 30)]).add_done_callback(lambda done: done.exception())
    await eventually(lambda: spool.stats.damaged_files == 1)
    assert await seqs(spool, 1) == list(range(1, 30))
    assert not failures
    (damaged,) = house.damaged()
    assert {"spool.db", "spool.db-wal"} <= {path.name for path in damaged.iterdir()}


@pytest.mark.parametrize("what", ["the layout", "the salvage"])
async def test_a_damaged_text_is_found_by_its_checksum(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It neither stops the start nor leads the salvage to another folder."""
    let_go = held_back(monkeypatch)
    database = await with_a_damaged_file(house)
    spool = await house.open()
    await part_of_it(spool)
    await spool.close(TIMEOUT_SECONDS)
    at = database.read_bytes().index({"the layout": b"layout", "the salvage": b"malformed"}[what])
    overwrite(database, at, b"M")
    let_go()
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(1, ROWS + 1))
    assert spool.get_meta("lanes") in ("layout", None)


async def test_a_freelist_that_contradicts_the_header_hides_no_row(house: House) -> None:
    """A pointer to a page in use would take its rows for deleted ones."""
    database = await with_a_damaged_file(house)
    pages = RawPages(database, WalFrames(house.directory / "none"))
    full = next(n for n in range(1, pages.count + 1) if b"1-30" in (pages.page(n) or b""))
    pages.close()
    overwrite(database, 0, b"SQLite format 3\0")
    overwrite(database, 32, struct.pack(">2I", full, 0))
    salvage = Salvage(house.directory, rebuild.Source("."))
    taken = set()
    while (piece := salvage.take(1.0, MIB)).pages:
        taken |= {each.seq for each in piece.queue}
    assert taken == set(range(1, ROWS + 1))


async def test_a_circular_chain_of_overflow_pages_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged length and pointer would otherwise fill the memory with the same pages."""
    spool = await house.open()
    await spool.append([row(1, 1, size=20_000)])
    await spool.close(TIMEOUT_SECONDS)
    database = house.directory / "spool.db"
    data = database.read_bytes()
    (second,) = [at for at in range(0, len(data), PAGE_BYTES) if data[at : at + 8] == data[at : at + 4] + b"vvvv"][:1]
    overwrite(database, second, struct.pack(">I", second // PAGE_BYTES + 1))
    leaf = PAGE_BYTES  # of the only row; its cell begins with the length, in 7 bits a byte
    cell = leaf + int.from_bytes(data[leaf + 8 : leaf + 10])
    first, middle, last = (byte & 0x7F for byte in data[cell : cell + 3])
    length = (first << 14 | middle << 7 | last) + 400 * (PAGE_BYTES - 4)
    overwrite(database, cell, bytes([length >> 14 | 0x80, length >> 7 & 0x7F | 0x80, length & 0x7F]))
    read = 0
    real = RawPages.page

    def page(self: RawPages, number: int) -> bytes | None:
        nonlocal read
        read += 1
        return real(self, number)

    monkeypatch.setattr(RawPages, "page", page)
    assert list(raw_rows(database, WalFrames(house.directory / "none")))
    assert read < 3 * len(data) // PAGE_BYTES
