"""What the spool promises its callers: durability, order, bounds, isolation of failures, honest figures."""

import asyncio
import errno
import sqlite3
import stat
from collections.abc import Awaitable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.spools import MIB, TIMEOUT_SECONDS, Gate, House, eventually, row, seqs, sqlite_error

from bridge.errors import SpoolBusy, SpoolFailed, SpoolFull
from bridge.spool.reader import open_read_only
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool
from bridge.spool.stats import SpoolStats


async def test_a_resolved_append_is_in_the_file(house: House) -> None:
    """Another connection, that knows nothing of the writer, sees exactly what was appended."""
    spool = await house.open()
    rows = [row(lane, seq) for lane in (0, 5) for seq in range(1, 40)]
    await spool.append(rows)
    with open_read_only(house.directory) as reader:
        found = [each for lane in (0, 5) for each in reader.read(lane, 0, max_bytes=MIB)[0]]
    assert rows == found


async def test_rows_survive_a_close_with_their_figures(house: House) -> None:
    """Stats are bookkeeping: counted anew from the file they are the same."""
    spool = await house.open()
    await asyncio.gather(*(spool.append([row(lane, seq, n=seq % 3)]) for lane in range(4) for seq in range(5, 50)))
    spool.delete_through(2, 20)
    spool.delete_through(3, 1_000)
    await seqs(spool, 2)
    before = spool.stats
    await spool.close(TIMEOUT_SECONDS)
    after = (await house.open()).stats
    assert (before.lanes, before.rows, before.reports, before.bytes, before.oldest_at_ms) == (
        after.lanes,
        after.rows,
        after.reports,
        after.bytes,
        after.oldest_at_ms,
    )
    assert after.recovered_reports_at_start == before.reports > 0
    assert sorted(after.lanes) == [0, 1, 2]


async def test_reads_are_in_order_bounded_and_never_empty_for_nothing(house: House) -> None:
    """By seq whatever the order of appending; within ``max_bytes`` unless a single row is larger."""
    spool = await house.open()
    for seq in (3, 1, 2, 9):
        await spool.append([row(1, seq, size=5_000)])
    assert [each.seq for each in await spool.read(1, 0, max_bytes=1)] == [1]
    assert [each.seq for each in await spool.read(1, 1, max_bytes=21_000)] == [2, 3]
    assert await seqs(spool, 1) == [1, 2, 3, 9]
    assert await spool.read(1, 9, max_bytes=MIB) == []
    assert await spool.read(7, 0, max_bytes=MIB) == []


async def test_what_waits_for_a_commit_is_one_transaction(house: House) -> None:
    """A hundred appends while one commit runs: one more commit, one call into the loop."""
    spool = await house.open()
    held = await house.hold(spool)
    futures = [spool.append([row(1, seq)]) for seq in range(100)]
    commits = spool.stats.commits
    house.gate.open.set()
    await asyncio.gather(held, *futures)
    assert commits + 2 == spool.stats.commits


@pytest.mark.parametrize(("code", "kind"), [(sqlite3.SQLITE_FULL, SpoolFull), (sqlite3.SQLITE_CANTOPEN, SpoolFailed)])
async def test_a_failed_commit_fails_all_of_it_and_nothing_else(house: House, code: int, kind: type[Exception]) -> None:
    """Every append of that transaction fails with the right error, none of its rows is stored; the next works."""
    spool = await house.open()
    held = await house.hold(spool)
    futures = [spool.append([row(1, seq), row(2, seq)]) for seq in range(10)]
    house.gate.commit_errors = [None, sqlite_error(code)]
    house.gate.open.set()
    await held
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [kind] * 10 == [type(outcome) for outcome in outcomes]
    assert (await seqs(spool, 1), await seqs(spool, 2)) == ([], [])
    assert spool.stats.write_errors == 1
    await eventually(lambda: spool.stats.writable)
    await spool.append([row(3, 1)])
    assert await seqs(spool, 3) == [1]


async def test_appends_are_refused_at_once_at_the_bound_and_taken_after_deletes(house: House) -> None:
    """`max_bytes` bounds the disk in use; a refusal costs no commit; a delete makes room again."""
    spool = await house.open(max_bytes=4 * MIB)
    seq = 0
    error: BaseException | None = None
    while error is None:
        seq += 1
        error = (await asyncio.gather(spool.append([row(1, seq, size=40_000, n=1)]), return_exceptions=True))[0]
    assert isinstance(error, SpoolFull)
    assert seq > 20
    assert sum(path.stat().st_size for path in house.directory.iterdir()) <= 4 * MIB
    commits = spool.stats.commits
    refused = spool.append([row(1, seq, size=400_000)])
    assert refused.done()
    assert isinstance(refused.exception(), SpoolFull)
    assert commits == spool.stats.commits
    spool.delete_through(1, seq)
    await eventually(lambda: spool.stats.rows == 0)
    await spool.append([row(1, seq, size=40_000)])


async def test_free_space_of_the_file_system_is_left(house: House) -> None:
    """Below `min_free_bytes` appends are refused and it is not writable; deletes go on; with room it works again."""
    spool = await house.open(min_free_bytes=10 * MIB)
    await spool.append([row(1, 1)])
    house.gate.free = 10 * MIB
    await eventually(lambda: not spool.stats.writable)
    with pytest.raises(SpoolFull):
        await spool.append([row(1, 2)])
    spool.delete_through(1, 1)
    await eventually(lambda: spool.stats.rows == 0)
    house.gate.free = None
    await eventually(lambda: spool.stats.writable)
    await spool.append([row(1, 2)])


async def test_a_delete_cancels_an_append_that_waits(house: House) -> None:
    """A row acknowledged before its insert is executed never appears, and its append is answered."""
    spool = await house.open()
    held = await house.hold(spool)
    futures = [spool.append([row(1, 1), row(2, 1)]), spool.append([row(1, 2)])]
    spool.delete_through(1, 2)
    futures.append(spool.append([row(1, 3)]))
    house.gate.open.set()
    await asyncio.gather(held, *futures)
    assert (await seqs(spool, 1), await seqs(spool, 2)) == ([3], [1])


async def test_an_append_behind_a_large_delete_is_not_taken_with_it(house: House) -> None:
    """A delete that takes several commits ends where it was called, whatever is appended meanwhile."""
    spool = await house.open()
    await spool.append([row(1, seq) for seq in range(2_000)])
    held = await house.hold(spool)
    spool.delete_through(1, 5_000)
    late = spool.append([row(1, 1_999), row(1, 3_000)])
    house.gate.open.set()
    await asyncio.gather(held, late)
    await eventually(lambda: spool.stats.pending_deletes == 0)
    assert [1_999, 3_000] == await seqs(spool, 1)


async def test_a_failed_delete_is_tried_until_it_succeeds(house: House) -> None:
    """Nobody has to ask again; meanwhile the rows are not shown and the stats say so."""
    spool = await house.open()
    await spool.append([row(1, 1), row(1, 2)])
    house.gate.delete_errors = [sqlite_error(sqlite3.SQLITE_FULL) for _ in range(5)]
    spool.delete_through(1, 1)
    await eventually(lambda: spool.stats.pending_deletes == 1)
    assert await seqs(spool, 1) == [2]
    await eventually(lambda: spool.stats.pending_deletes == 0)
    assert spool.stats.write_errors == 5
    assert spool.stats.rows == 1


_OPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("delete"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("dead_letters"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(0, 30)),
        st.tuples(st.just("settle"), st.just(0), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=_OPS)
def test_appends_and_deletes_take_effect_in_the_order_of_the_calls(
    ops: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is grouped into one commit, and whenever it is closed and opened again, it is as a set would be.

    Reads see what the calls before them made of it, and the figures are those of what is there.
    """
    asyncio.run(_follow_the_model(ops, tmp_path_factory.mktemp("spool")))


async def _follow_the_model(ops: list[tuple[str, int, int]], directory: Path) -> None:
    spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
    model: set[tuple[int, int]] = set()
    dead_letter = 0
    answers: list[tuple[asyncio.Future[None], bool]] = []
    for op, lane, seq in ops:
        if op == "append":
            answers.append((spool.append([row(lane, seq)]), (lane, seq) not in model))
            model.add((lane, seq))
        elif op == "delete":
            spool.delete_through(lane, seq)
            model = {each for each in model if each[0] != lane or each[1] > seq}
        elif op == "dead_letters":
            answers.append((spool.dead_letter([row(lane, seq)], "refused"), True))
            model.discard((lane, seq))
            dead_letter += 1
        elif op == "read":
            rows = await spool.read(lane, seq, max_bytes=MIB)
            assert rows == [row(lane, each) for each in range(seq + 1, 31) if (lane, each) in model]
        elif op == "reopen":
            await spool.close(TIMEOUT_SECONDS)
            spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
            assert (len(model), 2 * len(model)) == (spool.stats.rows, spool.stats.recovered_reports_at_start)
        else:
            await asyncio.wait([future for future, _ in answers] or [asyncio.ensure_future(asyncio.sleep(0))])
    found = {(lane, seq) for lane in range(3) for seq in await seqs(spool, lane)}
    stats = spool.stats
    await spool.close(TIMEOUT_SECONDS)
    assert model == found
    refused = [fresh for future, fresh in answers if isinstance(future.exception(), ValueError)]
    assert not any(refused)  # only what was there already
    assert all(isinstance(future.exception(), ValueError | None) for future, _ in answers)
    assert (len(model), 2 * len(model), dead_letter) == (stats.rows, stats.reports, stats.dead_letter_rows)
    with open_read_only(directory) as reader:
        counted = reader.stats()
    assert (stats.lanes, stats.rows, stats.bytes) == (counted.lanes, counted.rows, counted.bytes)


async def test_a_seq_appended_twice_fails_by_itself(house: House) -> None:
    """The others of the same transaction are stored."""
    spool = await house.open()
    held = await house.hold(spool)
    futures = [spool.append([row(1, seq)]) for seq in (1, 2, 1, 3)]
    house.gate.open.set()
    outcomes = await asyncio.gather(held, *futures, return_exceptions=True)
    assert [type(None), type(None), type(None), ValueError, type(None)] == [type(each) for each in outcomes]
    assert await seqs(spool, 1) == [1, 2, 3]


async def test_one_owner_a_directory(house: House) -> None:
    """A second owner is told at once, with the directory's name; after a close the next may come."""
    spool = await house.open()
    with pytest.raises(SpoolBusy, match=str(house.directory)):
        await house.open()
    await spool.close(TIMEOUT_SECONDS)
    await house.open()


async def test_nobody_else_can_read_it(house: House) -> None:
    """Directories 0700, files 0600, also those of SQLite."""
    spool = await house.open()
    await spool.append([row(1, 1)])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in house.directory.iterdir()}
    assert {"format", "owner.lock", "ballast", "spool.db", "spool.db-wal", "spool.db-shm"} == set(modes)
    assert {0o600} == set(modes.values())
    assert stat.S_IMODE(house.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(house.directory.parent.stat().st_mode) == 0o700


async def test_meta_is_kept(house: House) -> None:
    """The caller's texts are there at the next start, the last of each key."""
    spool = await house.open()
    assert spool.get_meta("lanes") is None
    await spool.set_meta("lanes", "3")
    await spool.set_meta("lanes", "5")
    assert spool.get_meta("lanes") == "5"
    await spool.close(TIMEOUT_SECONDS)
    assert (await house.open()).get_meta("lanes") == "5"


async def test_a_dead_letter_leaves_the_queue_and_can_come_back(house: House) -> None:
    """In one transaction, counted on both sides, with its reason; a part of a group leaves the group queued."""
    spool = await house.open()
    await spool.append([row(1, 1), row(1, 2)])
    part = SpoolRow(1, 2, 1, row(1, 2).records[:1])
    await spool.dead_letter([row(1, 1), part], "refused for good")
    assert await seqs(spool, 1) == [2]
    assert (spool.stats.dead_letter_rows, spool.stats.dead_letter_reports) == (2, 3)
    first, second = await spool.dead_letters(max_bytes=MIB)
    assert ("refused for good", row(1, 1).records, True) == (first.reason, first.records(), first.whole)
    assert part.records == second.records()
    await spool.requeue(first.id, 1, 7)
    assert await seqs(spool, 1) == [2, 7]
    assert row(1, 1).records == (await spool.read(1, 2, max_bytes=MIB))[0].records
    assert (spool.stats.dead_letter_rows, spool.stats.dead_letter_reports, spool.stats.reports) == (1, 1, 4)
    with pytest.raises(KeyError):
        await spool.requeue(first.id, 1, 8)
    with pytest.raises(ValueError, match="in the spool already"):
        await spool.requeue(second.id, 1, 7)
    assert [second.id] == [each.id for each in await spool.dead_letters(first.id, max_bytes=1)]


async def test_what_waits_is_known_by_its_age(house: House) -> None:
    """`oldest_waiting_seconds` is that of the oldest append not answered yet, 0 without one."""
    spool = await house.open()
    assert spool.oldest_waiting_seconds == 0.0
    held = await house.hold(spool)
    first = spool.oldest_waiting_seconds
    later = spool.append([row(1, 1)])
    await eventually(lambda: spool.oldest_waiting_seconds > first > 0.0)
    house.gate.open.set()
    await asyncio.gather(held, later)
    assert spool.oldest_waiting_seconds == 0.0


async def test_a_close_is_bounded_when_the_disk_hangs(house: House) -> None:
    """It returns after its timeout, and everything that waits is told."""
    spool = await house.open()
    held = await house.hold(spool)
    asked = spool.read(1, 0, max_bytes=1)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await spool.close(0.05)
    assert isinstance(held.exception(), SpoolFailed)
    assert isinstance(asked.exception(), SpoolFailed)
    with pytest.raises(SpoolFailed):
        await spool.append([row(1, 2)])
    with pytest.raises(SpoolFailed):
        await spool.read(1, 0, max_bytes=1)


async def test_a_close_stores_what_is_queued(house: House) -> None:
    """Appends before a close are answered by it; nothing of them is lost."""
    spool = await house.open()
    futures = [spool.append([row(1, seq)]) for seq in range(1, 200)]
    await spool.close(TIMEOUT_SECONDS)
    assert [future.result() for future in futures] == [None] * 199
    assert list(range(1, 200)) == await seqs(await house.open(), 1)


async def test_a_caller_that_gave_up_disturbs_nobody(house: House) -> None:
    """A cancelled append is stored with the others of its transaction, which are answered."""
    spool = await house.open()
    held = await house.hold(spool)
    given_up, other = spool.append([row(1, 1)]), spool.append([row(1, 2)])
    given_up.cancel()
    house.gate.open.set()
    await asyncio.gather(held, other)
    assert await seqs(spool, 1) == [1, 2]


async def test_the_wal_stays_bounded_under_constant_load(house: House) -> None:
    """Checkpoints happen between commits, without a pause in the load."""
    spool = await house.open(max_bytes=256 * MIB)
    wal = house.directory / "spool.db-wal"
    largest = 0
    for seq in range(150):
        await spool.append([row(1, seq, size=100_000, n=4)])
        spool.delete_through(1, seq - 2)
        largest = max(largest, wal.stat().st_size)
    assert 8 * MIB < largest <= 24 * MIB


async def test_an_empty_spool_is_near_nothing_on_disk(house: House) -> None:
    """After much has been in it, and although a few rows are left, the file shrinks by itself."""
    spool = await house.open(max_bytes=256 * MIB)
    for seq in range(40):
        await spool.append([row(1, seq * 100 + each, size=4_000) for each in range(100)])
    await spool.append([row(2, 1)])
    await eventually(lambda: spool.stats.file_bytes > 30 * MIB)
    spool.delete_through(1, 10**6)
    await eventually(lambda: spool.stats.file_bytes < MIB)
    assert (await seqs(spool, 1), await seqs(spool, 2)) == ([], [1])


async def test_a_bug_in_the_thread_is_answered_and_survived(house: House) -> None:
    """Whatever it raises, callers are told, and the next append works."""
    spool = await house.open()
    house.gate.commit_errors = [AssertionError("provoked")]
    with pytest.raises(SpoolFailed, match="provoked"):
        await spool.append([row(1, 1)])
    await spool.append([row(1, 2)])
    assert await seqs(spool, 1) == [2]


async def _outcome(awaitable: Awaitable[None]) -> type[BaseException] | None:
    try:
        await awaitable
    except Exception as error:  # noqa: BLE001 - its type is the result
        return type(error)
    return None


async def test_an_unwritable_place_is_an_error_of_the_spool(tmp_path: Path) -> None:
    """The open fails as a SpoolError, not with something of the operating system."""
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    opening = Spool.open(blocked / "spool", max_bytes=64 * MIB, min_free_bytes=0)

    async def attempt() -> None:
        await opening

    assert SpoolFailed is await _outcome(attempt())


async def test_an_unopenable_file_is_tried_again(house: House) -> None:
    """After a damage whose exchange fails, appends are refused, and taken again when the disk is well."""
    spool = await house.open()
    await spool.append([row(1, 1)])
    failing = [OSError(errno.EIO, "provoked")]

    class Hooks(Gate):
        def before_open(self) -> None:
            if failing:
                raise failing.pop()

    house.gate.before_open = Hooks.before_open.__get__(house.gate)  # type: ignore[method-assign]
    house.gate.commit_errors = [sqlite_error(sqlite3.SQLITE_IOERR_FSYNC)]
    assert SpoolFailed is await _outcome(spool.append([row(1, 2)]))
    assert not spool.stats.writable
    await eventually(lambda: spool.stats.writable)
    assert await seqs(spool, 1) == [1]
    assert "recovered" in [event.kind for event in house.events]


async def test_stats_of_a_closed_loop_do_not_hold_rows() -> None:
    """Stats name lanes, never rows: a lane's figures are of fixed size."""
    assert {"rows", "reports", "bytes", "first_seq", "last_seq", "oldest_at_ms"} == set(
        SpoolStats.__annotations__["lanes"].__args__[1].__struct_fields__
    )
