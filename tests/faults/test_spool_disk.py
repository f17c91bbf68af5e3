"""What the spool keeps when the disk or the process does not: full, failing, stalling, damaged, killed.

Everything here happens to a real file by the real SQLite. What only root can have (a file system of its own, truly full)
is in the long form; a limit on the size of files gives the short form a disk that refuses writes.
"""

import asyncio
import errno
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from support.spools import MIB, TIMEOUT_SECONDS, Gate, House, eventually, row, seqs, sqlite_error

from bridge.errors import SpoolBusy, SpoolFailed, SpoolFull, SpoolTooNew
from bridge.spool.file import SpoolFile, SpoolHooks
from bridge.spool.reader import open_read_only
from bridge.spool.rebuild import Salvage, exchange
from bridge.spool.spool import Spool

LONG = os.environ.get("BRIDGE_LONG") == "1"
ROOT = Path(__file__).parents[2]
PAGE = 4096


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A directory to spool in."""
    house = House(tmp_path / "spool")
    yield house
    await house.close()


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, byte for byte."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def left_behind(house: House, target: Path) -> Path:
    """The directory as ``kill -9`` would leave it, as a copy: the owner can't be killed within this process."""
    shutil.copytree(house.directory, target)
    return target


async def everything(directory: Path) -> tuple[Spool, House, dict[int, list[int]]]:
    """Open a directory and read all of it."""
    house = House(directory)
    spool = await house.open()
    await eventually(lambda: spool.stats.checked)
    return spool, house, {lane: await seqs(spool, lane) for lane in list(spool.stats.lanes)}


# ── full ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_WITH_LIMIT = """
import asyncio, resource, sys
from pathlib import Path
from support.spools import MIB, House, eventually, row, seqs
from bridge.errors import SpoolFull

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    house = House(Path(sys.argv[1]))
    spool = await house.open(max_bytes=256 * MIB)
    limit(20 * MIB)
    stored, seq = [], 0
    while True:
        seq += 1
        try:
            await spool.append([row(1, seq * 10 + each, size=5_000) for each in range(10)])
        except SpoolFull as error:
            break
        stored += [seq * 10 + each for each in range(10)]
    assert stored, "nothing was stored"
    assert not house.damaged(), [str(event) for event in house.events]
    assert await seqs(spool, 1) == stored
    await eventually(lambda: not spool.stats.writable)
    half = stored[len(stored) // 2]
    spool.delete_through(1, half)
    await eventually(lambda: spool.stats.pending_deletes == 0)
    assert await seqs(spool, 1) == [each for each in stored if each > half]
    spool.delete_through(1, stored[-1])
    await eventually(lambda: spool.stats.pending_deletes == 0 and spool.stats.rows == 0)
    limit(resource.RLIM_INFINITY)
    await eventually(lambda: spool.stats.writable)
    await spool.append([row(1, 10**6)])
    assert await seqs(spool, 1) == [10**6]
    await eventually(lambda: spool.stats.file_bytes < MIB)
    await house.close()
    assert {"full", "recovered"} == {event.kind for event in house.events}, house.events

asyncio.run(main())
"""


def run_program(program: str, *arguments: str | Path) -> None:
    """Run Python in a process of its own; what it writes is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_at_a_limit_of_file_size_appends_are_refused_and_deletes_go_on(tmp_path: Path) -> None:
    """Nothing stored is lost or hidden, deletes complete, and with room again appends are taken and the file shrinks."""
    run_program(_WITH_LIMIT, tmp_path / "spool")


@contextmanager
def tiny_disk(directory: Path, size_mib: int) -> Iterator[Path]:
    """A file system of that size."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


if LONG and os.geteuid() == 0:

    @pytest.mark.parametrize("left", ["by the bridge itself", "by somebody else"])
    @pytest.mark.parametrize("size_mib", [40, 80])
    async def test_on_a_full_disk_all_can_be_drained_without_anybodys_help(
        tmp_path: Path, size_mib: int, left: str
    ) -> None:
        """The disk stays full throughout: the spool is emptied all the same, and nothing stored is lost on the way."""
        with tiny_disk(tmp_path / "disk", size_mib) as disk:
            house = House(disk / "spool")
            spool = await house.open(max_bytes=256 * MIB)
            stored = await _fill(spool, 30 if left == "by somebody else" else 10**6)
            if left == "by somebody else":
                await asyncio.to_thread(_occupy, disk / "foreign")
                stored += await _fill(spool, 10**6, stored[-1] + 1)
            assert house.damaged() == []
            assert await seqs(spool, 1) == stored
            for upto in range(0, len(stored), 100):
                spool.delete_through(1, stored[upto])
            spool.delete_through(1, stored[-1])
            await eventually(lambda: spool.stats.rows == 0 and spool.stats.pending_deletes == 0)
            (disk / "foreign").unlink(missing_ok=True)
            await eventually(lambda: spool.stats.writable)
            await spool.append([row(1, 10**7)])
            assert await seqs(spool, 1) == [10**7]
            assert house.damaged() == []
            await house.close()

    async def test_a_spool_on_a_full_disk_can_be_opened(tmp_path: Path) -> None:
        """A start finds the disk full: what is stored is read and deleted; appends are refused."""
        with tiny_disk(tmp_path / "disk", 60) as disk:
            house = House(disk / "spool")
            spool = await house.open()
            stored = await _fill(spool, 200)
            await spool.close(TIMEOUT_SECONDS)
            _occupy(disk / "foreign")
            spool = await house.open()
            assert await seqs(spool, 1) == stored
            spool.delete_through(1, stored[-1])
            await eventually(lambda: spool.stats.rows == 0 and spool.stats.pending_deletes == 0)
            with pytest.raises(SpoolFull):
                await spool.append([row(1, 10**7)])
            await house.close()


async def _fill(spool: Spool, times: int, first: int = 1) -> list[int]:
    """Append until it is full; the seqs that were stored."""
    stored: list[int] = []
    for start in range(first, first + 10 * times, 10):
        chunk = list(range(start, start + 10))
        try:
            await spool.append([row(1, seq, size=5_000) for seq in chunk])
        except SpoolFull:
            break
        stored += chunk
    return stored


def _occupy(path: Path) -> None:
    """Somebody else takes every block that is left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, PAGE):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


async def test_the_ballast_is_freed_on_a_full_disk_and_made_again(house: House) -> None:
    """That is what deletes and checkpoints live on; while it does not stand no append is taken."""
    spool = await house.open()
    await spool.append([row(1, 1)])
    ballast = house.directory / "ballast"
    assert ballast.stat().st_size > 0
    house.gate.free = 0
    house.gate.commit_errors = [sqlite_error(sqlite3.SQLITE_FULL)]
    with pytest.raises(SpoolFull):
        await spool.append([row(1, 2)])
    assert not await asyncio.to_thread(ballast.exists)
    with pytest.raises(SpoolFull):
        await spool.append([row(1, 2)])
    house.gate.free = None
    await eventually(lambda: spool.stats.writable)
    assert ballast.stat().st_size > 0
    assert [event.kind for event in house.events] == ["full", "recovered"]


async def test_a_reader_that_never_ends_does_not_make_it_pass_its_bound(house: House) -> None:
    """The WAL can't be restarted while somebody reads: appends are refused before the disk holds more than allowed."""
    spool = await house.open(max_bytes=16 * MIB)
    await spool.append([row(1, 0)])
    reader = sqlite3.connect(f"file:{house.directory / 'spool.db'}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM queue").fetchone()
    with suppress(SpoolFull):
        for seq in range(1, 2_000):
            await spool.append([row(1, seq, size=20_000)])
            spool.delete_through(1, seq)
    taken = sum(path.stat().st_size for path in house.directory.iterdir())
    assert taken <= 16 * MIB + MIB // 2
    reader.close()
    await eventually(lambda: spool.stats.writable)
    await spool.append([row(2, 1)])


# ── failing and stalling ─────────────────────────────────────────────────────────────────────────────────────────────


class Eio(Gate):
    """Fails the fsync of the commits and checkpoints it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[OSError | sqlite3.Error | None] = []
        self.checkpoints: list[OSError] = []

    def after_commit(self) -> None:
        """Fail if told to."""
        error = self.after.pop(0) if self.after else None
        if error is not None:
            raise error

    def before_checkpoint(self) -> None:
        """Fail if told to."""
        if self.checkpoints:
            raise self.checkpoints.pop()


@pytest.mark.parametrize(
    "failure", [OSError(errno.EIO, "provoked"), sqlite_error(sqlite3.SQLITE_IOERR_FSYNC)], ids=["EIO", "SQLite"]
)
async def test_after_a_failed_fsync_the_file_is_not_trusted_any_more(
    house: House, failure: OSError | sqlite3.Error
) -> None:
    """It is moved aside with its -wal as it was, counted and reported; all that was promised is in the new file."""
    hooks = Eio()
    spool = await house.open(hooks=hooks)
    await spool.append([row(1, seq) for seq in range(1, 20)])
    spool.delete_through(1, 4)
    await spool.dead_letter([row(2, 1)], "refused")
    await spool.set_meta("lanes", "3")
    before = contents(house.directory)
    hooks.after = [failure]
    with pytest.raises(SpoolFailed):
        await spool.append([row(1, 20)])
    (damaged,) = house.damaged()
    assert {path.name for path in damaged.iterdir()} >= {"spool.db", "spool.db-wal"}
    assert (damaged / "spool.db").read_bytes() == before["spool.db"]
    assert (damaged / "spool.db-wal").read_bytes().startswith(before["spool.db-wal"])
    assert spool.stats.damaged_files == 1
    assert [event.path for event in house.events if event.kind == "damaged_file"] == [damaged]
    await spool.append([row(1, 21)])
    assert await seqs(spool, 1) == [*range(5, 20), 21]
    assert spool.get_meta("lanes") == "3"
    assert [each.records() for each in await spool.dead_letters(max_bytes=MIB)] == [row(2, 1).records]
    assert (spool.stats.rows, spool.stats.dead_letter_rows) == (16, 1)


async def test_a_checkpoint_that_fails_moves_the_file_aside(house: House) -> None:
    """Its fsync is no better than a commit's."""
    hooks = Eio()
    spool = await house.open(hooks=hooks)
    hooks.checkpoints = [OSError(errno.EIO, "provoked")]
    stored: list[int] = []
    while hooks.checkpoints:
        stored.append(len(stored) + 1)
        await spool.append([row(1, stored[-1], size=200_000)])
    await eventually(lambda: spool.stats.damaged_files == 1)
    assert await seqs(spool, 1) == stored


async def test_a_checkpoint_without_room_is_tried_until_it_has_it(house: House) -> None:
    """Nobody has to write for it: as long as it is undone every delete would take more room."""
    hooks = Eio()
    spool = await house.open(hooks=hooks)
    hooks.checkpoints = [OSError(errno.ENOSPC, "provoked") for _ in range(4)]
    seq = 0
    while len(hooks.checkpoints) == 4:
        seq += 1
        await spool.append([row(1, seq, size=200_000)])
    await eventually(lambda: not hooks.checkpoints)
    assert await seqs(spool, 1) == list(range(1, seq + 1))
    assert house.damaged() == []


async def test_a_stalled_fsync_is_seen_and_ends_well(house: House) -> None:
    """Nothing resolves while it stalls, the age of what waits grows, the loop goes on; afterwards all is stored."""
    spool = await house.open()
    held = await house.hold(spool)
    later = [spool.append([row(1, seq)]) for seq in range(1, 50)]
    ages = []
    for _ in range(3):
        age = spool.oldest_waiting_seconds
        await eventually(lambda age=age: spool.oldest_waiting_seconds >= age + 0.02)  # type: ignore[misc]
        ages.append(spool.oldest_waiting_seconds)
    assert ages == sorted(ages)
    assert not any(future.done() for future in (held, *later))
    house.gate.open.set()
    await asyncio.gather(held, *later)
    assert spool.oldest_waiting_seconds == 0.0
    assert await seqs(spool, 1) == list(range(1, 50))


async def test_a_delete_survives_whatever_else_fails_in_its_round(house: House) -> None:
    """The disk can't even be asked for its room: the delete is done when it can."""
    spool = await house.open()
    await spool.append([row(1, 1), row(1, 2)])
    failing = False

    def scarce_or_fail(actual: int) -> int:  # noqa: ARG001 - the hook's name for it
        if failing:
            raise OSError(errno.EIO, "provoked")
        return MIB  # so little that it is looked at in every round

    house.gate.free_bytes = scarce_or_fail  # type: ignore[method-assign]
    await eventually(lambda: spool.stats.free_bytes == MIB)
    failing = True
    spool.delete_through(1, 1)
    await eventually(lambda: spool.stats.write_errors >= 2)
    failing = False
    await eventually(lambda: spool.stats.rows == 1)
    assert await seqs(spool, 1) == [2]


async def test_a_close_finishes_large_deletes(house: House) -> None:
    """What was acknowledged before the close is not found again after it, however much it is."""
    spool = await house.open()
    await spool.append([row(lane, seq, size=10) for lane in range(2) for seq in range(3_000)])
    spool.delete_through(0, 2_999)
    spool.delete_through(1, 2_000)
    await spool.close(TIMEOUT_SECONDS)
    spool = await house.open()
    assert await seqs(spool, 1) == list(range(2_001, 3_000))
    assert spool.stats.rows == 999


async def test_the_fsync_comes_before_the_promise(house: House) -> None:
    """No future is resolved between the start of a commit and its end."""
    resolved: list[int] = []
    seen: list[tuple[str, int]] = []

    class Order(Gate):
        def before_commit(self) -> None:
            seen.append(("before", len(resolved)))

        def after_commit(self) -> None:
            seen.append(("after", len(resolved)))

    spool = await house.open(hooks=Order())
    for seq in range(20):
        future = spool.append([row(1, seq)])
        future.add_done_callback(lambda _, seq=seq: resolved.append(seq))  # type: ignore[misc]
        await future
    assert seen == [(when, seq) for seq in range(20) for when in ("before", "after")]


_PROMISES = """
import asyncio, os, sys
from pathlib import Path
from support.spools import House, row

async def main():
    house = House(Path(sys.argv[1]))
    spool = await house.open()
    os.write(1, b"begin\\n")
    for seq in range(1, 21):
        await spool.append([row(1, seq)])
        os.write(1, b"promised %d\\n" % seq)
    os.write(1, b"end\\n")
    await house.close()

asyncio.run(main())
"""

if shutil.which("strace"):

    def test_the_kernel_saw_the_fsync_before_the_promise(tmp_path: Path) -> None:
        """Between two promises the WAL is synced, as strace sees it; no promise comes without."""
        trace = tmp_path / "trace"
        traced = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(trace)]
        done = subprocess.run(
            [*traced, sys.executable, "-c", _PROMISES, str(tmp_path / "spool")],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        synced, promises = False, 0
        for line in trace.read_text().partition('"begin')[2].splitlines():
            if re.search(r"f(data)?sync\(\d+<[^>]*spool\.db-wal>(\)\s+= 0| <unfinished)", line):
                synced = True
            elif '"promised' in line:
                assert synced, f"promised without: {line}"
                synced = False
                promises += 1
        assert promises == 20


# ── damaged ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def closed_spool(house: House, rows: int = 60, size: int = 300) -> dict[int, list[int]]:
    """A spool that was filled and closed: one file, no -wal."""
    spool = await house.open()
    await spool.append([row(lane, seq, size=size) for lane in (0, 1) for seq in range(1, rows + 1)])
    await spool.set_meta("lanes", "x")
    await spool.close(TIMEOUT_SECONDS)
    return {lane: list(range(1, rows + 1)) for lane in (0, 1)}


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


async def test_a_flipped_bit_in_a_row_costs_that_row_alone_and_it_is_kept(house: House) -> None:
    """`integrity_check` finds nothing; the read makes the row a dead letter as it is, reports it, and goes on behind it."""
    stored = await closed_spool(house)
    database = house.directory / "spool.db"
    data = database.read_bytes()
    flip(database, data.index(b"vvv", data.index(b"1-30")) + 1, 3)
    assert sqlite3.connect(database).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    spool = await house.open()
    assert await seqs(spool, 1) == [seq for seq in stored[1] if seq != 30]
    (dead_letter,) = await spool.dead_letters(max_bytes=MIB)
    assert (dead_letter.lane, dead_letter.seq, dead_letter.n, dead_letter.whole, dead_letter.reason) == (
        1,
        30,
        2,
        False,
        "crc",
    )
    assert len(dead_letter.body) > 600
    assert (spool.stats.damaged_rows, spool.stats.dead_letter_rows, spool.stats.rows) == (1, 1, 119)
    assert [(event.kind, event.rows, event.reports) for event in house.events] == [("damaged_row", 1, 2)]
    with pytest.raises(ValueError, match="damaged"):
        await spool.requeue(dead_letter.id, 1, 1_000)


@pytest.mark.parametrize("offset", range(100) if LONG else [*range(0, 100, 4), 18, 19, 45, 57])
async def test_no_flipped_bit_in_the_header_costs_a_row(house: House, offset: int) -> None:
    """Whatever SQLite makes of it: it can be opened, and every row is there."""
    stored = await closed_spool(house, 10)
    flip(house.directory / "spool.db", offset, offset % 8)
    spool = await house.open()
    assert {lane: await seqs(spool, lane) for lane in (0, 1)} == stored
    await spool.append([row(2, 1)])


@pytest.mark.parametrize("seed", range(200 if LONG else 15))
async def test_a_flipped_bit_anywhere_costs_a_page_at_most_and_never_silently(house: House, seed: int) -> None:
    """Rows of one page may be damaged, of no other; nothing is invented; what is missing was reported."""
    stored = await closed_spool(house)
    database = house.directory / "spool.db"
    chance = random.Random(seed)  # noqa: S311 - a test's dice
    flip(database, chance.randrange(database.stat().st_size), chance.randrange(8))
    spool = await house.open()
    found: dict[int, list[int]] = {}
    for lane in (0, 1):
        after, found[lane] = 0, []
        while rows := await spool.read(lane, after, max_bytes=3_000):
            assert rows == [row(lane, each.seq, size=300) for each in rows]
            found[lane] += [each.seq for each in rows]
            after = rows[-1].seq
    missing = [(lane, seq) for lane in (0, 1) for seq in stored[lane] if seq not in found[lane]]
    assert len(missing) <= PAGE // 600
    assert not missing or house.events
    await spool.append([row(2, 1)])


@pytest.mark.parametrize("cut", ["within a frame", "at a frame", "to its header", "to nothing"])
async def test_a_truncated_wal_costs_what_was_cut_and_nothing_before(house: House, tmp_path: Path, cut: str) -> None:
    """What stands before the cut is there, in whole transactions and in order."""
    spool = await house.open()
    for seq in range(1, 30):
        await spool.append([row(1, seq * 2), row(1, seq * 2 + 1)])
    directory = left_behind(house, tmp_path / "left")
    wal = directory / "spool.db-wal"
    frames = (wal.stat().st_size - 32) // (PAGE + 24)
    length = {
        "within a frame": 32 + (frames // 2) * (PAGE + 24) + 1_000,
        "at a frame": 32 + (frames // 2) * (PAGE + 24),
        "to its header": 32,
        "to nothing": 0,
    }[cut]
    os.truncate(wal, length)
    _, other, found = await everything(directory)
    kept = found.get(1, [])
    assert kept == [seq for seq in range(2, 60) if seq <= len(kept) + 1]
    assert len(kept) % 2 == 0
    assert (len(kept) > 10) == (length > 32)
    await other.close()


async def test_a_flipped_bit_in_the_wal_loses_no_other_row(house: House, tmp_path: Path) -> None:
    """SQLite would drop all that follows without a word; here it is found, and the file is moved aside and reported."""
    spool = await house.open()
    for seq in range(1, 30):
        await spool.append([row(1, seq)])
    directory = left_behind(house, tmp_path / "left")
    wal = directory / "spool.db-wal"
    data = wal.read_bytes()
    flip(wal, data.index(b"1-7\xc4") + 20)
    _, other, found = await everything(directory)
    assert found == {1: list(range(1, 30))}  # the row stands, undamaged, in later images of its page
    assert [event.kind for event in other.events] == ["damaged_file", "salvaged"]
    (damaged,) = other.damaged()
    assert (damaged / "spool.db-wal").read_bytes() == wal_with_flip(data)
    await other.close()


def wal_with_flip(data: bytes) -> bytes:
    """What `test_a_flipped_bit_in_the_wal_loses_no_other_row` made of it."""
    flipped = bytearray(data)
    flipped[data.index(b"1-7\xc4") + 20] ^= 1
    return bytes(flipped)


async def test_a_wal_of_another_file_is_not_applied(house: House, tmp_path: Path) -> None:
    """Lying beside a file it does not belong to, it is moved aside with it; the rows of both are kept."""
    spool = await house.open()
    await spool.append([row(1, seq) for seq in range(1, 30)])
    old = left_behind(house, tmp_path / "old")
    other = House(tmp_path / "new")
    fresh = await other.open()
    await fresh.append([row(2, seq) for seq in range(1, 30)])
    await fresh.close(TIMEOUT_SECONDS)
    shutil.copyfile(old / "spool.db-wal", other.directory / "spool.db-wal")
    fresh = await other.open()
    assert {1: list(range(1, 30)), 2: list(range(1, 30))} == {lane: await seqs(fresh, lane) for lane in (1, 2)}
    assert [event.kind for event in other.events] == ["damaged_file", "salvaged"]
    await other.close()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 500, os.urandom(3 * PAGE)])
async def test_what_is_no_database_is_dead_lettered(house: House, content: bytes) -> None:
    """Never deleted: its bytes are kept, and a new file is begun. An empty file holds nothing to keep."""
    await closed_spool(house, 3)
    (house.directory / "spool.db").write_bytes(content)
    spool = await house.open()
    await spool.append([row(1, 1)])
    kept = [(each / "spool.db").read_bytes() for each in house.damaged()]
    assert kept == ([content] if content else [])


@pytest.mark.parametrize("step", ["created in part", "created", "-wal moved", "all moved", "taken over in part"])
async def test_an_exchange_that_was_interrupted_is_finished(
    house: House, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies while a damaged file is exchanged loses nothing, whenever it dies."""
    spool = await house.open()
    await spool.append([row(1, seq, size=3_000) for seq in range(1, 30)])
    directory = left_behind(house, tmp_path / "left")
    renames = {"created in part": 0, "created": 1, "-wal moved": 2, "all moved": 4}.get(step, 5)
    with monkeypatch.context() as patch:
        real = Path.rename

        def rename(path: Path, target: Path) -> Path:
            nonlocal renames
            if renames == 0:
                raise KeyboardInterrupt
            renames -= 1
            return real(path, target)

        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt) if renames < 5 else nullcontext():
            exchange(directory, "malformed")
    if step == "taken over in part":
        file, _ = SpoolFile.open(directory, SpoolHooks(), max_pages=1_000)
        salvage = Salvage(directory, file.sources.files[0])
        while not file.ledger.rows:
            file.take_over(salvage.take(0.0, 1))
        assert file.ledger.rows < 29
        file.close()
    _, other, found = await everything(directory)
    assert found == {1: list(range(1, 30))}
    assert {path.name for path in directory.iterdir()} >= {"spool.db", "format", "owner.lock"}
    assert not (directory / "rebuild.db").exists()
    assert not (directory / "rebuild.partial").exists()
    await other.close()


# ── owners and versions ──────────────────────────────────────────────────────────────────────────────────────────────

_OWNER = """
import asyncio, sys
from pathlib import Path
from support.spools import House, row

async def main():
    house = House(Path(sys.argv[1]))
    try:
        spool = await house.open()
    except Exception as error:
        print(type(error).__name__, flush=True)
        return
    await spool.append([row(1, 1)])
    print("owner", flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


async def program(source: str, *arguments: str | Path) -> asyncio.subprocess.Process:
    """Start Python with a program, its lines to be read."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        source,
        *map(str, arguments),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line it prints; empty at its end."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), TIMEOUT_SECONDS)).decode().strip()


async def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """While the owner lives nobody else opens it, and a killed owner leaves no lock behind."""
    house = House(tmp_path / "spool")
    owner = await program(_OWNER, house.directory)
    assert await line_of(owner) == "owner"
    with pytest.raises(SpoolBusy):
        await house.open()
    second = await program(_OWNER, house.directory)
    assert await line_of(second) == "SpoolBusy"
    await second.wait()
    owner.kill()
    await owner.wait()
    spool = await house.open()
    assert await seqs(spool, 1) == [1]
    await house.close()


async def test_a_spool_is_marked_with_its_format(house: House) -> None:
    """When it is made, in the directory and in the file's header; a later start changes neither."""
    for _ in range(2):
        await house.open()
        await house.close()
        assert (house.directory / "format").read_bytes() == b"1\n"
        assert (house.directory / "spool.db").read_bytes()[60:64] == (1).to_bytes(4)


@pytest.mark.parametrize("where", ["marker", "header"])
@pytest.mark.parametrize("wal", [True, False], ids=["with a -wal left", "closed"])
async def test_a_newer_format_is_refused_and_not_a_byte_is_touched(
    house: House, tmp_path: Path, where: str, wal: bool
) -> None:
    """By an owner as by a reader; the message says what to do."""
    spool = await house.open()
    await spool.append([row(1, seq) for seq in range(1, 30)])
    if not wal:
        await spool.close(TIMEOUT_SECONDS)
    directory = left_behind(house, tmp_path / "left")
    if where == "marker":
        (directory / "format").write_text("2\n")
    else:
        (directory / "format").unlink()
        data = bytearray((directory / "spool.db").read_bytes())
        data[60:64] = (2).to_bytes(4)
        (directory / "spool.db").write_bytes(data)
    before = contents(directory)
    stats = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    with pytest.raises(SpoolTooNew, match="format 2"):
        await House(directory).open()
    with pytest.raises(SpoolTooNew, match="format 2"):
        open_read_only(directory)
    assert contents(directory) == before
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == stats


# ── killed ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_VICTIM = """
import asyncio, os, sys
from pathlib import Path
from support.spools import MIB, House, row

async def main():
    house = House(Path(sys.argv[1]))
    spool = await house.open(max_bytes=64 * MIB)
    seqs = {lane: (spool.stats.lanes[lane].last_seq if lane in spool.stats.lanes else int(sys.argv[2])) for lane in range(4)}

    async def lane(number):
        while True:
            seqs[number] += 1
            first = seqs[number]
            seqs[number] += 1
            await spool.append([row(number, seq, size=(first * 37) % 9000) for seq in (first, first + 1)])
            os.write(1, b"+ %d %d\\n" % (number, first))
            if first % 10 < 2:
                spool.delete_through(number, first - 51)
                os.write(1, b"- %d %d\\n" % (number, first - 51))

    await asyncio.gather(*map(lane, range(4)))

asyncio.run(main())
"""


@pytest.mark.parametrize("round_", range(30 if LONG else 10))
async def test_kill_minus_nine_loses_nothing_promised_and_halves_nothing(tmp_path: Path, round_: int) -> None:
    """Killed at any moment, again and again on one directory: every promised row is there, whole, with its twin.

    What an append had not been answered for may be there or not, but wholly: its two rows both or neither.
    """
    chance = random.Random(round_)  # noqa: S311 - a test's dice
    directory = tmp_path / "spool"
    promised: dict[int, set[int]] = {lane: set() for lane in range(4)}
    deleted = dict.fromkeys(range(4), -1)
    for life in range(2):
        victim = await program(_VICTIM, directory, str(life * 10**6))
        assert victim.stdout is not None
        for _ in range(chance.randrange(1, 400)):
            text = (await asyncio.wait_for(victim.stdout.readline(), TIMEOUT_SECONDS)).decode()
            _take_down(text, promised, deleted)
        if chance.random() < 0.5:
            os.kill(victim.pid, signal.SIGSTOP)  # at a moment that no line gives away
        victim.kill()
        for text in (await victim.stdout.read()).decode().splitlines(keepends=True):
            _take_down(text, promised, deleted)
        await victim.wait()
        spool, house, found = await everything(directory)
        for lane in range(4):
            there = found.get(lane, [])
            assert there == sorted(set(there))
            assert promised[lane] - {seq for seq in promised[lane] if seq <= deleted[lane]} <= set(there)
            assert (spool.stats.damaged_rows, spool.stats.damaged_files) == (0, 0)
            assert {seq + 1 if seq % 2 else seq - 1 for seq in there} == set(there)  # each with its twin
            rows = [each for seq in there for each in await spool.read(lane, seq - 1, max_bytes=1)]
            assert rows == [row(lane, seq, size=_size(seq)) for seq in there]
        await house.close()


def _take_down(text: str, promised: dict[int, set[int]], deleted: dict[int, int]) -> None:
    """One line of a victim; what was cut off in the middle was not said."""
    if text.endswith("\n"):
        sign, lane, seq = text.split()
        if sign == "+":
            promised[int(lane)] |= {int(seq), int(seq) + 1}
        else:
            deleted[int(lane)] = max(deleted[int(lane)], int(seq))


def _size(seq: int) -> int:
    """Of a row's value: both rows of a pair have the size of the first."""
    return ((seq if seq % 2 else seq - 1) * 37) % 9000
