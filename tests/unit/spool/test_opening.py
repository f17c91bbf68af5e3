"""A start takes as long whatever is on disk, and what runs behind it finds what a count of everything would have found."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from support.spools import MIB, TIMEOUT_SECONDS, House, eventually, insert_unindexed, row, seqs

from bridge.spool.file import PIECE_ROWS, SpoolFile, SpoolHooks
from bridge.spool.rows import EncodedRow, crc_of, encode_row


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A directory to spool in."""
    house = House(tmp_path / "spool")
    yield house
    await house.close()


def bytes_read() -> int:
    """By this process, of any file."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


async def test_a_start_reads_little_whatever_is_on_disk(house: House) -> None:
    """The first rows, the last ones, and the totals; not the rows between."""
    spool = await house.open(max_bytes=256 * MIB)
    for seq in range(1, 41):
        await spool.append([row(lane, seq, size=MIB // 4) for lane in range(3)])
    figures = spool.stats
    await spool.close(TIMEOUT_SECONDS)
    assert (house.directory / "spool.db").stat().st_size > 50 * MIB
    before = bytes_read()
    file, _ = SpoolFile.open(house.directory, SpoolHooks(), max_pages=1 << 20)
    read = bytes_read() - before
    file.close()
    assert (figures.lanes, figures.rows, figures.reports) == (file.ledger.lanes, file.ledger.rows, file.ledger.reports)
    assert read < MIB


async def test_a_row_that_the_index_lacks_is_found_behind_the_start(house: House) -> None:
    """No read comes to it by its lane. The file is exchanged, and the salvage, which reads the table, has it."""
    spool = await house.open()
    await spool.append([row(1, seq) for seq in range(1, 40)])
    await spool.close(TIMEOUT_SECONDS)
    hidden = encode_row(row(1, 40))
    insert_unindexed(house.directory, (1, 40, hidden.n, crc_of(1, 40, hidden.n, hidden.body), hidden.body))
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(1, 41))
    assert [event.kind for event in house.events] == ["failed", "damaged_file", "salvaged"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE totals SET last_seq = 20 WHERE lane = 1",
        "DELETE FROM totals WHERE lane = 1",
        "DELETE FROM totals WHERE lane = -1",
        "DELETE FROM totals",
    ],
)
async def test_totals_that_are_wrong_are_not_believed(house: House, damage: str) -> None:
    """A last seq that is too small would hide rows, and a missing one all of them."""
    spool = await house.open()
    await spool.append([row(lane, seq) for lane in (1, 2) for seq in range(1, 40)])
    await spool.close(TIMEOUT_SECONDS)
    with closing(sqlite3.connect(house.directory / "spool.db", isolation_level=None)) as database:
        database.execute(damage)
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(1, 40))
    assert [event.kind for event in house.events] == ["damaged_file", "salvaged"]


class Pieces(SpoolHooks):
    """Holds each piece of a read until let go."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def before_read(self) -> None:
        """Hold."""
        self.reached.release()
        assert self.go_on.acquire(timeout=TIMEOUT_SECONDS)


async def test_an_append_does_not_wait_for_a_read_to_end(house: House) -> None:
    """A long read is done in pieces: what comes meanwhile is stored between two of them."""
    pieces = Pieces()
    spool = await house.open(hooks=pieces)
    await spool.append([row(1, seq) for seq in range(1, 20 * PIECE_ROWS + 1)])
    reading = spool.read(1, 0, max_bytes=64 * MIB)
    await asyncio.to_thread(pieces.reached.acquire, timeout=TIMEOUT_SECONDS)
    append = spool.append([row(2, 1)])
    for _ in range(15):  # a round reads for a moment; whatever it gets to in it, an append comes before the last piece
        pieces.go_on.release()
        await asyncio.to_thread(pieces.reached.acquire, timeout=TIMEOUT_SECONDS)
        if (await asyncio.wait([append], timeout=0.05))[0]:
            break
    assert (append.done(), reading.done()) == (True, False)
    for _ in range(100):
        pieces.go_on.release()
    found = [each.seq for each in await reading]  # perhaps not all: a read that takes long gives what it has
    assert found == list(range(1, len(found) + 1))
    assert len(found) > PIECE_ROWS


async def test_reads_wait_for_the_salvage_and_appends_do_not(house: House) -> None:
    """What is new is stored behind what is being taken over, and read after it."""
    spool = await house.open()
    await spool.append([row(1, seq, size=3_000) for seq in range(1, 200)])
    await spool.close(TIMEOUT_SECONDS)
    with (house.directory / "spool.db").open("r+b") as database:
        database.write(bytes(4096))
    spool = await house.open()
    assert (spool.stats.salvaging, spool.stats.checked) == (True, False)
    reading = asyncio.ensure_future(spool.read(1, 0, max_bytes=64 * MIB))
    await spool.append([row(1, 1_000)])
    assert [each.seq for each in await reading] == [*range(1, 200), 1_000]
    assert spool.stats.checked


async def test_a_salvage_is_stopped_and_goes_on_where_it_was(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A close ends it in time; rows that were taken over and deleted since do not come back."""
    spool = await house.open()
    await spool.append([row(1, seq, size=3_000) for seq in range(1, 200)])
    await spool.close(TIMEOUT_SECONDS)
    with (house.directory / "spool.db").open("r+b") as database:
        database.write(bytes(4096))
    taken: list[EncodedRow] = []
    real = SpoolFile.take_over

    def slowly(self: SpoolFile, found: object) -> object:
        if len(taken) > 100:
            raise sqlite3.OperationalError("not now")
        taken.extend(found.queue)  # type: ignore[attr-defined]
        return real(self, found)  # type: ignore[arg-type]

    monkeypatch.setattr(SpoolFile, "take_over", slowly)
    monkeypatch.setattr("bridge.spool.checking._TAKE_BYTES", 30_000)
    spool = await house.open()
    await eventually(lambda: spool.stats.rows > 100)
    spool.delete_through(1, 50)
    await eventually(lambda: spool.stats.pending_deletes == 0)
    await spool.close(TIMEOUT_SECONDS)
    taken.clear()
    monkeypatch.setattr(SpoolFile, "take_over", real)
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(51, 200))
