"""What the topics alone can prove: each record's place in its callback, kept on disk, and questions asked of all of them.

Memory is flat however many there are: a record is a row of a dozen integers in a temporary SQLite file, about 120 bytes with its
indexes, and SQLite sorts on disk, too. Keys, event ids and quarantined bytes are kept as 64-bit hashes: of ten million of them
some two are the same by chance once in 300,000 audits.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from bridge.headers import CALLBACK, CE_ID, CE_TYPE, POSITION, QUARANTINE_REASON, REDRIVE, REPLAY

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


SLOTS_MS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
"""Lengths of time by which records are counted."""

_CACHE_KIB: Final = 32_768
_PAGE: Final = 5_000
_SHOWN: Final = 100
_CALLBACK: Final = re.compile(rb"(.+)-([0-9]{1,18})", re.DOTALL)
_POSITION: Final = re.compile(rb"([0-9]{1,9})/([0-9]{1,9})")
_NO_NUMBER: Final = -1

_TABLE: Final = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = FILE;
    CREATE TABLE piece (
        topic INTEGER, partition INTEGER, offset INTEGER, time_ms INTEGER, kind INTEGER, word INTEGER,
        instance INTEGER, number INTEGER, position INTEGER, total INTEGER, content INTEGER, key INTEGER
    )
"""
_INSERT: Final = "INSERT INTO piece VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Rows stand in the order they were read, which within a partition is that of the offsets.
_INDEXES: Final = """
    CREATE INDEX by_callback ON piece (instance, number, position, total, time_ms) WHERE kind = 0;
    CREATE INDEX by_content ON piece (content, topic, partition, instance, number, position, total) WHERE kind = 0;
    CREATE TABLE first (id INTEGER PRIMARY KEY, records INTEGER, moved INTEGER, pushed_again INTEGER);
    INSERT INTO first
        SELECT MIN(rowid) AS id, COUNT(*), MIN(partition) <> MAX(partition),
               MIN(instance) <> MAX(instance) OR MIN(number) <> MAX(number)
        FROM piece INDEXED BY by_content WHERE kind = 0 AND topic = 0 GROUP BY content ORDER BY id
"""
_INCOMPLETE: Final = """
    SELECT instance, number, MIN(time_ms), COUNT(DISTINCT position) AS found, MIN(total) AS least, MAX(total) AS most,
           MAX(position) AS last
    FROM piece INDEXED BY by_callback WHERE kind = 0
    GROUP BY instance, number HAVING found <> least OR least <> most OR last > least
"""
# Pushed again, the same bytes make as many items: what is here of the incomplete one has to stand at the same places there.
_AGAIN: Final = """
    SELECT other.instance, other.number FROM piece AS mine JOIN piece AS other
        ON other.content = mine.content AND other.topic = mine.topic
        AND other.position = mine.position AND other.total = mine.total
    WHERE mine.kind = 0 AND other.kind = 0 AND mine.instance = ? AND mine.number = ?
        AND (other.instance <> mine.instance OR other.number <> mine.number)
    GROUP BY other.instance, other.number HAVING COUNT(DISTINCT other.position) = ?
"""
_FOUND: Final = (
    "SELECT COUNT(DISTINCT position) FROM piece WHERE kind = 0 AND instance = ? AND number = ? AND total = ?"
)
_DISORDER: Final = """
    SELECT partition, offset, time_ms, instance, number, position, earlier_number, earlier_position, earlier_offset FROM (
        SELECT partition, offset, time_ms, instance, number, position, LAG(number) OVER one AS earlier_number,
               LAG(position) OVER one AS earlier_position, LAG(offset) OVER one AS earlier_offset
        FROM first JOIN piece ON piece.rowid = first.id WHERE number >= 0 AND NOT moved AND time_ms >= ?
        WINDOW one AS (PARTITION BY key, partition, instance ORDER BY offset)
    ) WHERE (number, position) < (earlier_number, earlier_position)
"""
_ORDERED: Final = """
    SELECT COUNT(*) FROM (
        SELECT 1 FROM first JOIN piece ON piece.rowid = first.id WHERE number >= 0 AND NOT moved AND time_ms >= ?
        GROUP BY key, partition, instance HAVING COUNT(*) > 1)
"""
_COUNTS: Final = """
    SELECT time_ms / :slot * :slot AS since, topic, kind, kind = 0 AND topic = 0 AND first.id IS NULL AS repeat, word, COUNT(*)
    FROM piece LEFT JOIN first ON first.id = piece.rowid GROUP BY since, topic, kind, repeat, word
"""


class Topic(IntEnum):
    """Which of the two."""

    STATUS = 0
    QUARANTINE = 1


class Kind(IntEnum):
    """Who brought a record: the service, a replay into its own topic, or a redrive."""

    ORIGINAL = 0
    REPLAYED = 1
    REDRIVEN = 2


class IncompleteCallback(msgspec.Struct, frozen=True):
    """A callback that is not whole: ``found`` of ``total`` places, or its records contradict each other.

    ``again`` names a whole callback with all that is here of this one at the same places: the same bytes, pushed again.
    """

    callback: str
    time_ms: int
    found: int
    total: int
    contradictory: bool
    again: str | None


class Disorder(msgspec.Struct, frozen=True):
    """A first occurrence that stands behind one of the same key that the same process received later."""

    partition: int
    offset: int
    time_ms: int
    callback: str
    position: int
    behind_offset: int
    behind_callback: str
    behind_position: int


class Count(msgspec.Struct, frozen=True):
    """Records of one slot of time; ``word`` is the status, or why it was quarantined."""

    time_ms: int
    outcome: str
    word: str
    records: int


class Repeats(msgspec.Struct, frozen=True):
    """Of ``distinct`` events ``events`` stand there more than once, by ``records`` records too many.

    ``pushed_again`` of these events came in several callbacks; the others are the bridge's own repeats.
    """

    distinct: int
    events: int
    records: int
    pushed_again: int


class ForeignRecord(msgspec.Struct, frozen=True):
    """Where a record stands that has not the headers of the bridge."""

    topic: str
    partition: int
    offset: int


class _Piece(NamedTuple):
    topic: int
    partition: int
    offset: int
    time_ms: int
    kind: int
    word: int
    instance: int
    number: int
    position: int
    total: int
    content: int
    key: int


class _Names:
    """Few different texts, by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self._names)
            self._names.append(name)
        return found

    def __getitem__(self, number: int) -> str:
        return self._names[number]


class AuditIndex:
    """The rows and the questions: ``add`` every record, say ``complete``, then ask.

    Args:
        file: made new; who made its directory removes it.
    """

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript(f"PRAGMA cache_size = -{_CACHE_KIB};{_TABLE}")
        self._db.execute("BEGIN")
        self._instances, self._words = _Names(), _Names()
        self._waiting: list[_Piece] = []
        self.records = 0
        self.foreign_records = 0
        self.foreign: list[ForeignRecord] = []
        self.notes = 0

    def close(self) -> None:
        """Give the file up."""
        self._db.close()

    # --- records ------------------------------------------------------------------------------------------------------

    def add(
        self,
        topic: Topic,
        partition: int,
        offset: int,
        time_ms: int,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
    ) -> None:
        """Take one record; of one partition they come in order."""
        self.records += 1
        named = dict(headers or ())
        kind = _kind(named)
        if topic is Topic.QUARANTINE and kind is Kind.REDRIVEN:
            self.notes += 1
            return
        of_status = topic is Topic.STATUS
        callback, place = named.get(CALLBACK), _POSITION.fullmatch(named.get(POSITION) or b"")
        content = named.get(CE_ID) if of_status else value
        word = named.get(CE_TYPE if of_status else QUARANTINE_REASON)
        if not callback or place is None or content is None or word is None:
            self._add_foreign(topic, partition, offset)
            return
        numbered = _CALLBACK.fullmatch(callback)
        instance, number = (numbered[1], int(numbered[2])) if numbered else (callback, _NO_NUMBER)
        self._waiting.append(
            _Piece(
                topic,
                partition,
                offset,
                time_ms,
                kind,
                self._words.number(word.decode(errors="replace")),
                self._instances.number(instance.decode(errors="replace")),
                number,
                int(place[1]),
                int(place[2]),
                hash(content),
                hash(key),
            )
        )
        if len(self._waiting) >= _PAGE:
            self._write()

    def complete(self) -> None:
        """All records are there; index them."""
        self._write()
        self._db.execute("COMMIT")
        self._db.executescript(_INDEXES)

    def _add_foreign(self, topic: Topic, partition: int, offset: int) -> None:
        self.foreign_records += 1
        if len(self.foreign) < _SHOWN:
            self.foreign.append(ForeignRecord(topic.name.lower(), partition, offset))

    def _write(self) -> None:
        self._db.executemany(_INSERT, self._waiting)
        self._waiting.clear()

    # --- questions ----------------------------------------------------------------------------------------------------

    @property
    def callbacks(self) -> int:
        """How many there are, whole or not."""
        counted = (
            "SELECT COUNT(*) FROM (SELECT 1 FROM piece INDEXED BY by_callback WHERE kind = 0 GROUP BY instance, number)"
        )
        return self._number(counted)

    def incomplete(self) -> Iterator[IncompleteCallback]:
        """Every callback that is not whole."""
        for instance, number, time_ms, found, least, most, last in self._db.execute(_INCOMPLETE):
            contradictory = least != most or last > least
            again = None if contradictory else self._again(instance, number, found, least)
            yield IncompleteCallback(self._callback(instance, number), time_ms, found, least, contradictory, again)

    def _again(self, instance: int, number: int, found: int, total: int) -> str | None:
        for other, other_number in self._db.execute(_AGAIN, (instance, number, found)):
            if self._number(_FOUND, other, other_number, total) == total:
                return self._callback(other, other_number)
        return None

    def disorder(self, since_ms: int) -> Iterator[Disorder]:
        """First occurrences out of order, of those received since then.

        An event that stands in several partitions, since some were added, has no first occurrence that offsets could tell.
        """
        for row in self._db.execute(_DISORDER, (since_ms,)):
            partition, offset, time_ms, instance, number, position, earlier, earlier_position, earlier_offset = row
            yield Disorder(
                partition,
                offset,
                time_ms,
                self._callback(instance, number),
                position,
                earlier_offset,
                self._callback(instance, earlier),
                earlier_position,
            )

    def ordered_keys(self, since_ms: int) -> int:
        """Keys of one process with more than one event: those whose order says anything."""
        return self._number(_ORDERED, since_ms)

    def repeats(self) -> Repeats:
        """Of events, by their ids; copies that a replay or a redrive made are none."""
        query = """SELECT COUNT(*), TOTAL(records > 1), TOTAL(records - 1), TOTAL(records > 1 AND pushed_again) FROM first"""
        return Repeats(*map(int, self._db.execute(query).fetchone()))

    def slots(self, slot_ms: int) -> int:
        """How many slots of that length hold anything."""
        return self._number("SELECT COUNT(DISTINCT time_ms / ?) FROM piece", slot_ms)

    def counts(self, slot_ms: int) -> Iterator[Count]:
        """Records by time, outcome and word."""
        for since, topic, kind, repeat, word, records in self._db.execute(_COUNTS, {"slot": slot_ms}):
            yield Count(since, _outcome(topic, kind, repeat=repeat), self._words[word], records)

    def _callback(self, instance: int, number: int) -> str:
        name = self._instances[instance]
        return name if number == _NO_NUMBER else f"{name}-{number}"

    def _number(self, query: str, *values: int) -> int:
        return int(self._db.execute(query, values).fetchone()[0])


def _kind(named: dict[str, bytes | None]) -> Kind:
    if REDRIVE in named:
        return Kind.REDRIVEN
    return Kind.REPLAYED if REPLAY in named else Kind.ORIGINAL


def _outcome(topic: int, kind: int, *, repeat: bool) -> str:
    """What one record is."""
    if kind != Kind.ORIGINAL:
        return Kind(kind).name.lower()
    if topic == Topic.QUARANTINE:
        return "quarantined"
    return "repeat" if repeat else "event"
