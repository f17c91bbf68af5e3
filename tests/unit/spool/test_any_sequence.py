"""Any sequence of operations, deaths, failures and damages, against a model of the rows that were promised.

Always: a row is read as it was written, in its lane's order, and no row is invented. Without damage what is read is what
was promised. With damage only rows that had a byte on the damaged page, or in the part that was cut off, may be lost.
"""

import asyncio
import errno
import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.spools import MIB, TIMEOUT_SECONDS, eventually, sqlite_error

from bridge.errors import SpoolError
from bridge.record import Record
from bridge.spool import checking, room, writer
from bridge.spool.file import SpoolHooks
from bridge.spool.rows import DeadLetter, SpoolRow, encode_body
from bridge.spool.spool import Spool

LONG = os.environ.get("BRIDGE_LONG") == "1"
PAGE = 4096
LANES = 3
SIZES = (1, 1, 1, 10, 60, 150)
"""Tags in a row: on a leaf with others, alone on it, on overflow pages."""
_TAG = re.compile(rb"<(\d+)-(\d+)>")
Place = tuple[int, int]


def written(lane: int, seq: int) -> SpoolRow:
    """A row; each page that it takes has its tag."""
    count = SIZES[(7 * lane + seq) % len(SIZES)]
    return SpoolRow(lane, seq, 1 + seq % 3, [Record("topic", None, b"<%d-%d>" % (lane, seq) * 8 * count, [], seq)])


def tags(data: bytes) -> set[Place]:
    """Of the rows that have a byte here, or had one before they were deleted. A tag at an edge may be cut."""
    return {(int(lane), int(seq)) for lane, seq in _TAG.findall(data)}


class Moments(SpoolHooks):
    """Fails, or copies the directory as a kill at this moment would leave it, when told to; on the writer's thread."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.copy: Callable[[], object] | None = None
        self.copy_at: tuple[str, int] = ("", 0)
        """The hook, and how many calls of it are let pass."""

    def _at(self, moment: str) -> None:
        if self.copy is not None and self.copy_at[0] == moment:
            if self.copy_at[1] == 0:
                copy, self.copy = self.copy, None
                copy()
            self.copy_at = moment, self.copy_at[1] - 1
        error = self.errors.pop(moment, None)
        if error is not None:
            raise error

    def before_insert(self) -> None:
        """See `SpoolHooks`."""
        self._at("insert")

    def before_commit(self) -> None:
        """See `SpoolHooks`."""
        self._at("commit")

    def after_commit(self) -> None:
        """See `SpoolHooks`."""
        self._at("sync")

    def before_checkpoint(self) -> None:
        """See `SpoolHooks`."""
        self._at("checkpoint")


FAILURES: dict[str, list[Exception]] = {
    "insert": [sqlite_error(sqlite3.SQLITE_FULL), sqlite_error(sqlite3.SQLITE_IOERR_WRITE)],
    "commit": [sqlite_error(sqlite3.SQLITE_FULL), sqlite_error(sqlite3.SQLITE_IOERR_WRITE), OSError(errno.EMFILE, "")],
    "sync": [sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), OSError(errno.EIO, "provoked")],
    "checkpoint": [sqlite_error(sqlite3.SQLITE_FULL), OSError(errno.EIO, "provoked")],
}


class Life:
    """A spool, and what is known of it."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.chance = chance
        self.base = directory
        self.directory = directory / "0"
        self.hooks = Moments()
        self.spool: Spool
        self.next_seq = dict.fromkeys(range(LANES), 1)
        self.promised: set[Place] = set()
        self.possible: set[Place] = set()
        """Rows that may be there or not: refused, or deleted, before a death or a damage."""
        self.refused: set[Place] = set()
        """Of this life: such a row must not be read before the next."""
        self.letters: set[bytes] = set()
        """Bodies of the dead letters that must be there."""
        self.possible_letters: set[bytes] = set()
        self.texts: dict[str, str] = {}
        self.lossy: set[Place] = set()
        """Rows that a damage may have cost; tags on the pages that it hit."""
        self.damaged = False
        self.story: list[str] = []

    async def open(self) -> None:
        """Begin, or begin again."""
        self.hooks = Moments()
        self.spool = await Spool.open(self.directory, max_bytes=64 * MIB, min_free_bytes=0, hooks=self.hooks)

    # ── what is done ──

    async def append(self) -> None:
        """Some rows, in one transaction."""
        places = []
        for _ in range(self.chance.randrange(1, 6)):
            lane = self.chance.randrange(LANES)
            places.append((lane, self.next_seq[lane]))
            self.next_seq[lane] += self.chance.randrange(1, 3)
        try:
            await self.spool.append([written(*place) for place in places])
        except SpoolError:
            self.refused |= set(places)
        else:
            self.promised |= set(places)

    async def delete(self) -> None:
        """A prefix of a lane."""
        lane = self.chance.randrange(LANES)
        through = self.chance.randrange(self.next_seq[lane] + 1)
        self.spool.delete_through(lane, through)
        gone = {place for place in self.promised if place[0] == lane and place[1] <= through}
        self.promised -= gone
        self.refused |= gone
        if self.chance.random() < 0.7:
            await eventually(lambda: self.spool.stats.pending_deletes == 0)

    async def dead_letter(self) -> None:
        """A row that waits, or one that never did."""
        place = self.chance.choice(sorted(self.promised) or [(0, 10**6)])
        row = written(*place)
        # While rows are taken over from a damaged file it may wait there still, and comes after this.
        sure = self.spool.stats.checked
        try:
            await self.spool.dead_letter([row], "refused")
        except SpoolError:
            self._unsure(place)
            return
        known = place in self.promised
        self.promised.discard(place)
        if sure:
            self.refused.add(place)
        elif known:
            self.possible.add(place)
        self.letters.add(body_of(row))

    async def requeue(self) -> None:
        """A dead letter waits again, as the last of its lane."""
        await eventually(lambda: self.spool.stats.checked)
        letters = [each for each in await self._letters() if each.whole]
        if not letters:
            return
        letter = self.chance.choice(letters)
        lane, seq = letter.lane, letter.seq
        if (lane, seq) in self.promised or seq == 10**6:
            return  # in this model a place has one content
        try:
            await self.spool.requeue(letter.id, lane, seq)
        except (SpoolError, ValueError):
            self._unsure((lane, seq))
            return
        self.refused.discard((lane, seq))
        self.promised.add((lane, seq))
        self.letters.discard(letter.body)
        self.possible_letters.add(letter.body)

    def _unsure(self, place: Place) -> None:
        if place in self.promised:
            self.promised.discard(place)
        self.refused.discard(place)
        self.possible.add(place)
        self.letters.discard(body_of(written(*place)))
        self.possible_letters.add(body_of(written(*place)))

    async def set_text(self) -> None:
        """Of the caller."""
        key, value = self.chance.choice("ab"), "t" * self.chance.randrange(1, 400)
        try:
            await self.spool.set_meta(key, value)
        except SpoolError:
            self.texts.pop(key, None)
        else:
            self.texts[key] = value

    async def fail(self) -> None:
        """The disk fails the next time."""
        moment = self.chance.choice(sorted(FAILURES))
        self.hooks.errors[moment] = self.chance.choice(FAILURES[moment])

    async def reopen(self) -> None:
        """An orderly end."""
        self.hooks.errors.clear()
        await self.spool.close(TIMEOUT_SECONDS)
        if self.chance.random() < 0.4:
            await asyncio.to_thread(self.damage)
        self._next_life(orderly=True)
        await self.open()

    async def die(self) -> None:
        """Killed, at this moment or at one in the middle of what comes next."""
        target = self.base / f"{len(self.story)}-{self.chance.random()}"
        source = self.directory
        before = set(self.promised)
        if self.chance.random() < 0.5:
            self.hooks.copy_at = (
                self.chance.choice(["commit", "sync", "insert", "checkpoint"]),
                self.chance.randrange(3),
            )
            self.hooks.copy = lambda: shutil.copytree(source, target)
            await self.append()
            await self.delete()
        self.hooks.errors.clear()
        await eventually(lambda: self.spool.stats.pending_deletes == 0)
        died = self.hooks.copy is None and target.exists()
        self.hooks.copy = None
        if not died:
            await self.still(lambda: target.exists() or shutil.copytree(source, target))
        await self.spool.close(TIMEOUT_SECONDS)
        if died:  # what was answered behind that moment was not answered
            fresh = self.promised - before
            self.promised -= fresh
            self.possible |= fresh
        self.directory = target
        if self.chance.random() < 0.4:
            await asyncio.to_thread(self.damage)
        self._next_life(orderly=False)
        await self.open()

    async def still(self, act: Callable[[], object]) -> None:
        """Do something while the writer's thread waits for it."""
        await self.spool._call(lambda _: act())

    def _next_life(self, *, orderly: bool) -> None:
        if not orderly or self.damaged:
            self.possible |= self.refused
            self.refused = set()

    def damage(self) -> None:
        """Something becomes of a byte, a page, or the end of a file."""
        names = [name for name in ("spool.db", "spool.db-wal") if (self.directory / name).exists()]
        path = self.directory / self.chance.choice(names)
        data = bytearray(path.read_bytes())
        if not data:
            return
        kind = self.chance.choice(["byte", "page", "cut"])
        at = self.chance.randrange(len(data))
        self.story.append(f"damage {path.name} {kind} at {at} of {len(data)}")
        frame, head = (PAGE, 0) if path.name == "spool.db" else (PAGE + 24, 32)
        start = max(0, (at - head) // frame * frame + head)
        hit = bytes(data[max(0, start - PAGE) :] if kind == "cut" else data[start : start + frame])
        if path.name != "spool.db":
            hit += self._transaction_of(data, start, len(data) if kind == "cut" else start)
        if kind == "cut":
            del data[at:]
        else:
            data[start if kind == "page" else at : start + frame if kind == "page" else at + 1] = (
                bytes(min(frame, len(data) - start)) if kind == "page" else bytes([data[at] ^ (1 << at % 8)])
            )
        path.write_bytes(bytes(data))
        self.damaged = True
        self.lossy |= tags(hit)

    def _transaction_of(self, wal: bytearray, start: int, end: int) -> bytes:
        """The frames of the transactions that the frames from ``start`` to ``end`` belong to: a torn one was not promised."""
        frames = range(32, len(wal) - PAGE - 23, PAGE + 24)
        commits = [at for at in frames if any(wal[at + 4 : at + 8])]
        first = max((at + PAGE + 24 for at in commits if at < start), default=0)
        return bytes(wal[first : min((at for at in commits if at >= end), default=len(wal)) + PAGE + 24])

    # ── what must hold ──

    async def look(self) -> None:
        """Read all of it."""
        await eventually(lambda: self.spool.stats.checked and self.spool.stats.pending_deletes == 0)
        letters = await self._letters()
        found: set[Place] = set()
        for lane in range(LANES):
            after = -1
            while rows := await self.spool.read(lane, after, max_bytes=20_000):
                assert rows == [written(lane, each.seq) for each in rows]
                assert [each.seq for each in rows] == sorted({each.seq for each in rows})
                assert rows[0].seq > after
                found |= {(lane, each.seq) for each in rows}
                after = rows[-1].seq
        letters = await self._letters()
        whole = {each.body for each in letters if each.whole}
        lost = self.promised - found
        assert lost <= self.lossy, f"lost: {sorted(lost - self.lossy)}"
        extra = found - self.promised
        assert extra <= self.possible, f"not expected: {sorted(extra - self.possible)}"
        lost_letters = {body for body in self.letters - whole if not tags(body) & self.lossy}
        assert not lost_letters, f"lost dead letters: {[tags(body) for body in lost_letters]}"
        stats = self.spool.stats
        assert (stats.rows, stats.reports) == (len(found), sum(written(*place).n for place in found))
        assert stats.rows == sum(lane.rows for lane in stats.lanes.values())
        assert stats.dead_letter_rows == len(letters)
        for key, text in self.texts.items():
            assert self.spool.get_meta(key) in {text, None} if self.damaged else self.spool.get_meta(key) == text
        self._settle(found, whole)

    async def _letters(self) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        # A read that finds the file damaged fails, and the next one finds what was salvaged.
        with suppress(SpoolError):
            await self.spool.dead_letters(-(1 << 62), max_bytes=MIB)
        await eventually(lambda: self.spool.stats.checked)
        while more := await self.spool.dead_letters(letters[-1].id if letters else -(1 << 62), max_bytes=MIB):
            letters += more
        return letters

    def _settle(self, found: set[Place], letters: set[bytes]) -> None:
        """What is there now is promised; what is not may come out of an old page if the file is damaged again."""
        gone = (self.promised | self.possible) - found
        self.promised = set(found)
        self.refused |= gone
        self.possible, self.lossy = set(), set()
        self.letters = set(letters)
        self.texts = {key: text for key in "ab" if (text := self.spool.get_meta(key)) is not None}
        self.damaged = False


def body_of(row: SpoolRow) -> bytes:
    """As the file has it."""
    return encode_body(row.records)


@pytest.fixture
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A salvage takes a round for each page, so that much happens meanwhile."""
    monkeypatch.setattr(writer, "_READ_SECONDS", 0.0)
    monkeypatch.setattr(checking, "_TAKE_BYTES", 1)
    for module, name in ((checking, "_RETRY_SECONDS"), (writer, "RETRY_SECONDS"), (room, "RETRY_SECONDS")):
        monkeypatch.setattr(module, name, 0.02)


@pytest.mark.usefixtures("in_small_pieces")
@pytest.mark.parametrize("seed", range(300 if LONG else 8))
async def test_no_sequence_loses_changes_or_invents_a_row(tmp_path: Path, seed: int) -> None:
    """See the module's docstring."""
    chance = random.Random(seed)  # noqa: S311 - a test's dice
    life = Life(tmp_path, chance)
    await life.open()
    acts = [life.append] * 6 + [life.delete] * 2 + [life.dead_letter, life.requeue, life.set_text]
    acts += [life.fail, life.reopen, life.reopen, life.die, life.die, life.look, life.look]
    try:
        for _ in range(40):
            act = chance.choice(acts)
            life.story.append(f"{act.__name__} {life.next_seq}")
            await act()
        await life.look()
    except BaseException as error:
        error.add_note("\n".join(life.story))
        raise
    finally:
        life.hooks.errors.clear()
        await life.spool.close(TIMEOUT_SECONDS)
