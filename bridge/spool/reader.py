"""Reads the spool: for its owner, and for any other process at any time, without writing a byte."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar, cast

import msgspec

from bridge.errors import SpoolFailed
from bridge.spool.access import check_access
from bridge.spool.disk import size_of
from bridge.spool.failure import malformed
from bridge.spool.format import DATABASE, TABLES, check_format
from bridge.spool.index_check import IndexCheck
from bridge.spool.rows import DeadLetter, Ledger, SpoolRow, Total, crc_of, crc_of_text, crc_of_total, decode_body

T = TypeVar("T")

READ_ROWS: Final = 4_096
"""Rows that one read looks at, at most."""
_CHECK_ROWS: Final = 50_000
"""Rows that one transaction of a reader looks for in the index, at most."""
_RETRY_SECONDS: Final = 5.0
# Passing states of a WAL whose -shm this process may only read: its owner is changing the header, or has just restarted it.
_PASSING: Final = (sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTINIT)


class Rows(NamedTuple):
    """Rows of a lane that their CRC proves, the others (without records) with the reason, and bytes of the bodies."""

    good: list[SpoolRow]
    bad: list[tuple[SpoolRow, str]]
    size: int


_Fetched = list[tuple[int, object, object, object]]
"""Seq, n, crc and body of rows, each perhaps damaged."""


def head_of(connection: sqlite3.Connection, lane: int) -> tuple[int, int | None] | None:
    """Seq of a lane's first row and its first record's timestamp (None where it can't be decoded)."""
    row = connection.execute("SELECT seq, body FROM queue WHERE lane = ? ORDER BY seq LIMIT 1", (lane,)).fetchone()
    if row is None:
        return None
    try:
        records = decode_body(row[1])
    except msgspec.MsgspecError:
        return row[0], None  # the read that comes to it makes it a dead letter and says so
    return row[0], records[0].timestamp_ms if records else None


def load_ledger(connection: sqlite3.Connection) -> tuple[Ledger, dict[str, str]]:
    """The totals that the file keeps, and the texts next to them: a few pages, however large the file is.

    Raises:
        sqlite3.DatabaseError: the file is malformed.
    """
    schema = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    if [text for (text,) in schema] != TABLES:
        raise malformed("these are not the spool's tables")
    totals = [(tuple(total), crc) for *total, crc in connection.execute("SELECT * FROM totals").fetchall()]
    if any(crc != crc_of_total(total) for total, crc in totals):
        raise malformed("the totals fail their checksum")
    try:
        ledger = Ledger.of_totals(cast("list[Total]", [total for total, _ in totals]))
    except ValueError as error:
        raise malformed(str(error)) from error
    if not totals and connection.execute(
        "SELECT EXISTS (SELECT 1 FROM queue), EXISTS (SELECT 1 FROM dead_letter)"
    ).fetchone() != (0, 0):
        raise malformed("there are rows and no totals")
    return ledger, load_texts(connection)


def load_texts(connection: sqlite3.Connection) -> dict[str, str]:
    """The texts of ``meta``.

    Raises:
        sqlite3.DatabaseError: the file is malformed.
    """
    rows = connection.execute("SELECT key, value, crc FROM meta").fetchall()
    if any(crc != crc_of_text(key, value) for key, value, crc in rows):
        raise malformed("a text of meta fails its checksum")
    return {key: value for key, value, _ in rows}


def read_rows(connection: sqlite3.Connection, lane: int, after_seq: int, limit: int, max_bytes: int) -> Rows:
    """Up to ``limit`` rows behind ``after_seq``: those the CRC proves, and the others (without records) with the reason."""
    fetched = _fetch_at_once(connection, lane, after_seq, limit)
    found = judge_rows(lane, after_seq, fetched, max_bytes) if fetched is not None else Rows([], [], 0)
    if (
        found.bad or fetched is None
    ):  # judge rows one by one: a damaged one shifts its neighbours in what was concatenated
        fetched = connection.execute(
            "SELECT seq, n, crc, body FROM queue WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?",
            (lane, after_seq, limit),
        ).fetchall()
        found = judge_rows(lane, after_seq, fetched, max_bytes)
    return found


def judge_rows(lane: int, after_seq: int, fetched: _Fetched, max_bytes: int) -> Rows:
    """Rows that the CRC proves, up to ``max_bytes``, and the others (without records) with the reason.

    Raises:
        sqlite3.DatabaseError: the index leads backwards.
    """
    rows: list[SpoolRow] = []
    bad: list[tuple[SpoolRow, str]] = []
    total = 0
    for seq, n, crc, body in fetched:
        if seq <= after_seq:
            raise malformed(f"lane {lane}: seq {seq} stands behind {after_seq} in the index")
        after_seq = seq
        if not (isinstance(n, int) and isinstance(body, bytes) and crc == crc_of(lane, seq, n, body)):
            bad.append((SpoolRow(lane, seq, n if isinstance(n, int) else 0, []), "crc"))
            continue
        if total + len(body) > max_bytes and rows:
            break
        total += len(body)
        try:
            rows.append(SpoolRow(lane, seq, n, decode_body(body)))
        except msgspec.MsgspecError as error:
            bad.append((SpoolRow(lane, seq, n, []), f"undecodable: {error}"))
    return Rows(rows, bad, total)


def _fetch_at_once(connection: sqlite3.Connection, lane: int, after_seq: int, limit: int) -> _Fetched | None:
    """Seq, n, crc and body of rows, in one step of one statement (see `SpoolFile._insert` for why); None: damaged."""
    listed, bodies = connection.execute(
        "SELECT group_concat(seq || ' ' || n || ' ' || crc || ' ' || length(body), ' '), "
        "CAST(group_concat(body, '') AS BLOB) FROM "
        "(SELECT seq, n, crc, body FROM queue WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?)",
        (lane, after_seq, limit),
    ).fetchone()
    if listed is None:
        return [] if bodies is None else None
    numbers = [int(number) if number.lstrip("-").isdigit() else None for number in listed.split(" ")]
    if None in numbers or len(numbers) % 4:
        return None
    rows: _Fetched = []
    at = 0
    proper = cast("list[int]", numbers)
    for seq, n, crc, size in zip(proper[::4], proper[1::4], proper[2::4], proper[3::4], strict=True):
        rows.append((seq, n, crc, bodies[at : at + size]))
        at += size
    return rows


def read_dead_letters(connection: sqlite3.Connection, after_id: int, max_bytes: int) -> list[DeadLetter]:
    """Dead letters behind ``after_id``, up to ``max_bytes`` of bodies but at least one if there is any."""
    rows: list[DeadLetter] = []
    total = 0
    for row in connection.execute(
        "SELECT id, lane, seq, n, reason, at_ms, crc, body FROM dead_letter WHERE id > ? ORDER BY id", (after_id,)
    ):
        total += len(row[7])
        if total > max_bytes and rows:
            break
        rows.append(DeadLetter(*row))
    return rows


class SpoolReader:
    """The spool as another process may see it at any time, next to its owner or without one. Blocks; writes nothing.

    Each question is one read transaction, so that its answer agrees with itself while an owner commits. None is long: while
    a reader holds a snapshot, its owner can't restart the WAL, which grows meanwhile. So what takes a whole pass over the file
    is asked piece by piece, and ``changed`` says whether the pieces may be of different moments.

    Next to an owner, and after one that was killed, SQLite reads file and WAL through the existing -shm, opened read-only.
    A closed spool has neither; it is read as immutable, and each answer is checked for an owner that came meanwhile. A
    WAL without its -shm (a copy of the directory) is read from a private copy, since SQLite would have to make a -shm.
    """

    def __init__(self, directory: Path) -> None:
        self._database = directory / DATABASE
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._immutable: tuple[int, int, int] | None = None
        self._inode = 0
        self._changed = False
        if not self._database.exists():
            raise SpoolFailed(f"{directory}: there is no spool here")
        self._connection = self._connect()
        self._version = self._steady(_data_version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    @property
    def changed(self) -> bool:
        """Whether an owner committed since this was opened: then two answers may be of different moments."""
        self._changed = self._steady(_data_version) != self._version or self._changed
        return self._changed

    @property
    def empty(self) -> bool:
        """Whether no row waits and there are no dead letters."""
        question = "SELECT EXISTS (SELECT 1 FROM queue) + EXISTS (SELECT 1 FROM dead_letter)"
        (found,) = self._steady(lambda connection: connection.execute(question).fetchone())
        return not found

    def stats(self) -> Ledger:
        """Rows, reports and bytes by lane and in total, and the dead letters, as the file keeps them."""
        return self._steady(lambda connection: load_ledger(connection)[0])

    def check_index(self) -> None:
        """Look for every row of the queue's table in its index, piece by piece: no read by lane comes to one that it lacks.

        Raises:
            sqlite3.DatabaseError: the file is malformed; also if the index lacks a row.
        """
        check: IndexCheck | None = None
        opened: sqlite3.Connection | None = None

        def step(connection: sqlite3.Connection) -> bool:
            nonlocal check, opened
            if check is None or connection is not opened:  # an owner came or went: it is another file, or another state
                check, opened = IndexCheck(connection), connection
            check.step(_CHECK_ROWS)
            return check.done

        while not self._steady(step):
            pass

    def meta(self) -> dict[str, str]:
        """The texts that `set_meta` stored."""
        return self._steady(load_texts)

    def read(
        self, lane: int, after_seq: int, *, max_bytes: int, limit: int = READ_ROWS
    ) -> tuple[list[SpoolRow], list[tuple[SpoolRow, str]]]:
        """Rows of a lane in order, up to ``max_bytes`` but at least one if any, and damaged ones with the reason.

        ``limit`` bounds the rows that are looked at, and so the memory that this takes.
        """
        return self._steady(lambda connection: read_rows(connection, lane, after_seq, limit, max_bytes)[:2])

    def dead_letters(self, after_id: int = 0, *, max_bytes: int) -> list[DeadLetter]:
        """Dead letters, by id, up to ``max_bytes`` but at least one if there is any."""
        return self._steady(lambda connection: read_dead_letters(connection, after_id, max_bytes))

    def _connect(self) -> sqlite3.Connection:
        wal, shm = (self._database.with_name(DATABASE + suffix) for suffix in ("-wal", "-shm"))
        self._immutable = None
        self._inode = self._fingerprint()[0]
        path, options = self._database, "mode=ro&readonly_shm=1"
        if size_of(wal) == 0 and not shm.exists():
            self._immutable = self._fingerprint()
            options = "mode=ro&immutable=1"
        elif not shm.exists():
            self._copy = tempfile.TemporaryDirectory(prefix="spool-")
            path = Path(self._copy.name) / DATABASE
            shutil.copyfile(self._database, path)
            shutil.copyfile(wal, path.with_name(wal.name))
            options = "mode=rw"
        return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, timeout=1, isolation_level=None)

    def _fingerprint(self) -> tuple[int, int, int]:
        stat = self._database.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _steady(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction's answer; if an owner came or went meanwhile, open the file and ask again."""
        until = time.monotonic() + _RETRY_SECONDS
        while True:
            failure: sqlite3.Error | None = None
            try:
                answer = _in_transaction(self._connection, question)
            except sqlite3.Error as error:
                failure = error
            if self._is_outdated():
                self._changed = True
                self._connection.close()
                self._connection = self._connect()
            elif failure is None:
                return answer
            elif getattr(failure, "sqlite_errorcode", None) not in _PASSING or time.monotonic() > until:
                raise failure

    def _is_outdated(self) -> bool:
        if self._copy is not None:
            return False
        if self._immutable is not None:
            wal = self._database.with_name(f"{DATABASE}-wal")
            return size_of(wal) > 0 or self._fingerprint() != self._immutable
        return self._inode != self._fingerprint()[0]


def _in_transaction(connection: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return question(connection)
    finally:
        if connection.in_transaction:  # some errors have ended it already
            connection.execute("ROLLBACK")


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when another connection commits."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def open_read_only(directory: Path) -> SpoolReader:
    """Read a spool without owning it, without writing a byte.

    Raises:
        SpoolFailed: there is none, or this process may not read it.
        SpoolTooNew: a newer bridge wrote it.
    """
    check_access(directory, write=False)
    check_format(directory)
    return SpoolReader(directory)
