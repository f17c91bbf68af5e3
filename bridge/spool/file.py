r"""The spool's directory and its SQLite file, used by one thread; `bridge.spool.spool` puts the thread around it.

Format 1, or 2
==============
::

    <directory>/            0700
      format                "1\n" or "2\n": the version, written and synced before anything else. A later bridge that changes
                            the format must raise it before it writes anything the old one would misread. 2: records may
                            lack the id of their schema, which a bridge that knows 1 would send without it.
      owner.lock            empty; the owner holds an exclusive flock on it
      spool.db, -wal, -shm  SQLite in WAL mode, 4096-byte pages; user_version = 1; application_id = a random number a file,
                            by which a -wal that belongs to another file is told
      ballast               random bytes, to be freed when the disk is full
      rebuild.partial       a new file being filled from a damaged one; unfinished, deleted at the next start
      rebuild.db            the same, complete: the next start finishes the exchange
      damaged/<time>-<why>/ a damaged file with its -wal and -shm, as they were; never deleted by the bridge

    queue (lane INTEGER, seq INTEGER, n INTEGER, crc INTEGER, body BLOB, PRIMARY KEY (lane, seq))    one row a group
        n     reports in the group, for the reconciliation
        crc   CRC-32 over lane, seq, n (little-endian, 8 bytes each) and body
        body  msgpack of list[Record], each an array [topic, key, value, headers, timestamp_ms, schema]
    dead_letter (id INTEGER PRIMARY KEY, lane, seq, n, reason TEXT, at_ms, crc, body)    kept, out of the way; at_ms: when
    meta  (key TEXT PRIMARY KEY, value TEXT)                                       the caller's, such as the lane layout

Invariants
==========
- One connection writes. Readers never write: not the file, not its -shm, and they take no lock of the owner's.
- `Ledger` equals the committed file: a transaction works on a copy that replaces it after the commit.
- A row leaves `queue` only by `commit`'s deletes (a prefix of its lane) or into `dead_letter`, in one transaction.
- A file that is not trusted any more is never checkpointed, written or deleted: its bytes are moved as they are.
- The exchange of a damaged file is atomic: until ``rebuild.db`` is complete and synced the old file stays in place.
"""

import errno
import fcntl
import os
import resource
import shutil
import sqlite3
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar, cast

import msgspec

from bridge import compiled
from bridge.durable import sync
from bridge.errors import SpoolBusy, SpoolFailed, SpoolTooNew
from bridge.record import Record
from bridge.spool.salvage import PAGE_BYTES, Value, WalFrames, crc_of, raw_rows

T = TypeVar("T")

DISK_ERRORS: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What can come of a disk; the last of a message of SQLite's that quotes a damaged schema."""

FORMAT: Final = 2
_PLAIN_FORMAT: Final = 1
WAL_BYTES: Final = 8 << 20
"""Size of the WAL beyond which it is checkpointed."""
BALLAST_BYTES: Final = 2 * WAL_BYTES
"""More than a WAL holds: when the disk is full, what is in it must find room in the file before it can be used again."""

DATABASE: Final = "spool.db"
_REBUILD: Final = "rebuild.db"
_PARTIAL: Final = "rebuild.partial"
_SUFFIXES: Final = ("", "-wal", "-shm")
_DELETE_ROWS: Final = 500
"""Rows one commit deletes at most, so that no append waits long behind a large delete: each may touch a page of its own."""
_VACUUM_LIVE_BYTES: Final = 4 << 20
"""The file is rewritten only when no more than this is in it, which takes milliseconds."""
SMALL_BYTES: Final = 1 << 20
"""A file of this size is near nothing."""
_ROW_OVERHEAD_BYTES: Final = 64
_INSERT_ROWS: Final = 64
_INSERT_ROWS_MANY: Final = 512
_READ_ROWS: Final = 4_096
_LIMIT_BYTES: Final = 64 << 10
_TABLES: Final = [
    "CREATE TABLE queue (lane INTEGER, seq INTEGER, n INTEGER, crc INTEGER, body BLOB, PRIMARY KEY (lane, seq))",
    (
        "CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, lane INTEGER, seq INTEGER, n INTEGER, reason TEXT, "
        "at_ms INTEGER, crc INTEGER, body BLOB)"
    ),
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)",
]

_INSERTS: Final = {
    count: "INSERT INTO queue VALUES " + ", ".join(["(?, ?, ?, ?, ?)"] * count)  # noqa: S608 - numbers alone
    for count in (*range(1, _INSERT_ROWS + 1), _INSERT_ROWS_MANY)
}
_TAKE_OVER: Final = {count: sql.replace("INSERT", "INSERT OR IGNORE") for count, sql in _INSERTS.items()}

encode_body_python = msgspec.msgpack.Encoder().encode
encode_body = compiled.module.packed if compiled.COMPILED else encode_body_python
"""The faster of the two."""
decode_body = msgspec.msgpack.Decoder(list[Record]).decode


class SpoolRow(msgspec.Struct, frozen=True):
    """One group of a lane: ``n`` reports encoded as ``records``; ``seq`` is unique and orders the lane."""

    lane: int
    seq: int
    n: int
    records: list[Record]


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter at ``at_ms`` (milliseconds since the epoch); ``body`` as it was, perhaps damaged."""

    id: int
    lane: int
    seq: int
    n: int
    reason: str
    at_ms: int
    crc: int
    body: bytes

    @property
    def whole(self) -> bool:
        """Whether the CRC proves the row."""
        return crc_of(self.lane, self.seq, self.n, self.body) == self.crc

    def records(self) -> list[Record]:
        """The records.

        Raises:
            msgspec.DecodeError: the body is damaged.
        """
        return decode_body(self.body)


class LaneStats(msgspec.Struct, frozen=True):
    """What one lane has in the spool; ``bytes`` of bodies; ``oldest_at_ms`` from the first record of the first row."""

    rows: int
    reports: int
    bytes: int
    first_seq: int
    last_seq: int
    oldest_at_ms: int | None

    def joined(self, other: "LaneStats") -> "LaneStats":
        """Both as one."""
        first = self if self.first_seq <= other.first_seq else other
        return LaneStats(
            self.rows + other.rows,
            self.reports + other.reports,
            self.bytes + other.bytes,
            first.first_seq,
            max(self.last_seq, other.last_seq),
            first.oldest_at_ms,
        )


class EncodedRow(msgspec.Struct, frozen=True):
    """A `SpoolRow` as it is stored: ``at_ms`` its first record's timestamp, ``cost_bytes`` the disk it takes at most."""

    lane: int
    seq: int
    n: int
    body: bytes
    at_ms: int | None
    cost_bytes: int


def encode_row(row: SpoolRow) -> EncodedRow:
    """Encode a row, 1 to 3 µs for a few records. Beyond a page a row has overflow pages for itself alone."""
    at_ms = row.records[0].timestamp_ms if row.records else None
    body = encode_body(row.records)
    size = len(body) + _ROW_OVERHEAD_BYTES
    cost = size if size < PAGE_BYTES else (size // (PAGE_BYTES - 4) + 2) * PAGE_BYTES
    return EncodedRow(row.lane, row.seq, row.n, body, at_ms, cost)


class SpoolHooks:
    """Where a fault test steps in, on the writer thread: block there, or raise OSError or sqlite3.Error."""

    def before_insert(self) -> None:
        """Before the rows of a transaction are inserted."""

    def before_delete(self) -> None:
        """Before a delete."""

    def before_commit(self) -> None:
        """Before COMMIT, which writes and syncs the WAL."""

    def after_commit(self) -> None:
        """After COMMIT; to raise here is to fail its fsync."""

    def before_checkpoint(self) -> None:
        """Before a checkpoint."""

    def before_open(self) -> None:
        """Before SQLite opens the file, the first time and after a damage."""

    def before_read(self) -> None:
        """Before a read."""

    def free_bytes(self, actual: int) -> int:
        """Bytes free on the file system, as the spool is to see them."""
        return actual


@dataclass(slots=True)
class Ledger:
    """What the file holds, by lane and in total, without asking it. Never by row."""

    lanes: dict[int, LaneStats] = field(default_factory=dict)
    rows: int = 0
    reports: int = 0
    bytes: int = 0
    dead_letter_rows: int = 0
    dead_letter_reports: int = 0

    def copy(self) -> "Ledger":
        """A copy to work on; lanes are immutable."""
        return Ledger(
            self.lanes.copy(), self.rows, self.reports, self.bytes, self.dead_letter_rows, self.dead_letter_reports
        )

    def add(self, rows: Iterable[EncodedRow]) -> None:
        """Rows were inserted."""
        sums: dict[int, list[int]] = {}
        heads: dict[int, EncodedRow] = {}
        for row in rows:
            found = sums.get(row.lane)
            if found is None:
                sums[row.lane], heads[row.lane] = [1, row.n, len(row.body), row.seq], row
                continue
            found[0] += 1
            found[1] += row.n
            found[2] += len(row.body)
            if row.seq > found[3]:
                found[3] = row.seq
            elif row.seq < heads[row.lane].seq:
                heads[row.lane] = row
        for lane, (count, reports, size, last) in sums.items():
            head, old = heads[lane], self.lanes.get(lane)
            new = LaneStats(count, reports, size, head.seq, last, head.at_ms)
            self.put(lane, new if old is None else old.joined(new))

    def put(self, lane: int, new: LaneStats | None) -> None:
        """A lane is ``new`` now; None: empty."""
        old = self.lanes.pop(lane, None)
        for sign, stats in ((-1, old), (1, new)):
            if stats is not None:
                self.rows += sign * stats.rows
                self.reports += sign * stats.reports
                self.bytes += sign * stats.bytes
        if new is not None:
            self.lanes[lane] = new

    def oldest_at_ms(self) -> int | None:
        """The smallest first timestamp of all lanes; None when there is none."""
        return min((s.oldest_at_ms for s in self.lanes.values() if s.oldest_at_ms is not None), default=None)


class Rebuilt(msgspec.Struct, frozen=True):
    """What became of a damaged file: where it is now, and what was taken over from it."""

    moved_to: Path
    reason: str
    rows: int
    reports: int


def malformed(message: str) -> sqlite3.Error:
    """The error of a file that contradicts itself, where SQLite does not notice."""
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


Failure = Literal["full", "damaged", "failed"]


def failure_of(error: Exception, directory: Path) -> Failure:  # noqa: PLR0911 - a table of what each kind says
    """What an error says of the disk: it is full, the file can't be trusted any more, or just not now.

    SQLite tells ENOSPC alone from other failed writes; a quota and a limit on file sizes are found by writing.
    """
    if isinstance(error, OSError):
        if error.errno in _FULL_ERRNOS:
            return "full"
        return "damaged" if error.errno == errno.EIO else "failed"
    if isinstance(error, UnicodeDecodeError):
        return "damaged"
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # a text that is none: found by Python, not by SQLite
        return "damaged" if isinstance(error, sqlite3.OperationalError) else "failed"
    if code == sqlite3.SQLITE_FULL:
        return "full"
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        if code != sqlite3.SQLITE_IOERR_FSYNC and _is_disk_full(directory):
            return "full"
        return "failed" if code in _SHARED_MEMORY_ERRORS else "damaged"
    return "damaged" if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else "failed"


_NOT_ITS_OWN_FILE: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY)
"""While opening: a version in the header, or a name in the schema, that the spool does not write."""
_FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHARED_MEMORY_ERRORS: Final = (
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_NOMEM,
)


def _is_disk_full(directory: Path) -> bool:
    """Whether a block behind the end of the largest file is refused for want of room."""
    sizes = [size_of(directory / (DATABASE + suffix)) for suffix in _SUFFIXES]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and max(sizes) + _LIMIT_BYTES >= limit:
        return True
    probe = directory / "probe"
    try:
        _write_synced(probe, os.urandom(_LIMIT_BYTES))
    except OSError as error:
        return error.errno in _FULL_ERRNOS
    finally:
        probe.unlink(missing_ok=True)
    return False


# ── directory ────────────────────────────────────────────────────────────────────────────────────────────────────────


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write_synced(path: Path, data: bytes) -> None:
    """Create or replace a file, its blocks allocated, and sync it (not its directory)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, len(data))
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directory(directory: Path) -> None:
    """Make it and its parents, 0700, each synced into its own parent."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path)
        sync(path.parent)
    if stat.S_IMODE(directory.stat().st_mode) != 0o700:  # noqa: PLR2004 - the mode above
        with suppress(PermissionError):  # the root of a volume belongs to somebody else; the files in it are 0600
            directory.chmod(0o700)


def check_format(directory: Path) -> None:
    """Refuse what a newer bridge wrote, from bytes alone: SQLite would recover or checkpoint the file.

    Raises:
        SpoolTooNew: naming the directory and both versions.
    """
    version = _marked_format(directory)
    if version is None:
        version = _header_format(directory / DATABASE)
    if version > FORMAT:
        raise SpoolTooNew(
            f"{directory}: written in spool format {version}, this bridge knows {FORMAT}; nothing was touched. "
            "Start the bridge that wrote it, or one at least as new."
        )


def _marked_format(directory: Path) -> int | None:
    """The version in the file ``format``; None where it says nothing."""
    marker = directory / "format"
    text = marker.read_bytes()[:32].split(b"\n")[0].strip() if marker.exists() else b""
    return int(text) if text.isdigit() else None


def _mark_format(directory: Path, version: int) -> None:
    """Have the file ``format`` say at least ``version``."""
    marker = directory / "format"
    if not marker.exists():
        _write_synced(directory / "format.partial", f"{version}\n".encode())
        (directory / "format.partial").rename(marker)
        sync(directory)
    elif (_marked_format(directory) or version) < version:
        with marker.open("r+b") as file:  # a digit in its place: that works on a full disk, too
            file.write(b"%d" % version)
            file.flush()
            os.fsync(file.fileno())


def _header_format(database: Path) -> int:
    """The version in the file's own header; 0 where there is none.

    Asked only when the file ``format`` is gone: closing any descriptor of a file lets go of all of a process's locks on
    it, those of its SQLite connections too.
    """
    if size_of(database) == 0:
        return 0
    with database.open("rb") as file:
        header = file.read(100)
    return int.from_bytes(header[60:64]) if header.startswith(b"SQLite format 3\0") else 0


def lock_directory(directory: Path, *, schemas: bool = False) -> int:
    """Make the directory if need be and own it; the descriptor holds the lock. ``schemas``: records may lack their schema's id.

    Raises:
        SpoolBusy: another process owns it.
        SpoolTooNew: see `check_format`; nothing was touched.
    """
    check_format(directory)
    _make_directory(directory)
    fd = os.open(directory / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check_format(directory)  # again: a newer bridge may just have let go of it
        _mark_format(directory, FORMAT if schemas else _PLAIN_FORMAT)
    except BlockingIOError as error:
        os.close(fd)
        raise SpoolBusy(f"{directory}: another process owns this spool directory") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


class Ballast:
    """A file to free when the disk is full, so that deletes and checkpoints go on. ``stands``: it is there."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._path = directory / "ballast"
        self.size_bytes = size_bytes
        self.stands = size_of(self._path) >= size_bytes

    def make(self) -> bool:
        """Make it if it does not stand; False if there is no room for it."""
        if self.stands:
            return True
        try:
            _write_synced(self._path, os.urandom(self.size_bytes))
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno in _FULL_ERRNOS:
                return False
            raise
        self.stands = True
        return True

    def free(self) -> None:
        """Give its blocks back."""
        self._path.unlink(missing_ok=True)
        self.stands = False


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _connect(path: Path, max_pages: int | None) -> sqlite3.Connection:
    """Open for writing: WAL, synced at every commit, no checkpoint but the spool's own."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0, cached_statements=512, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
            "cell_size_check = ON",
            "secure_delete = OFF",  # as some builds have it, a delete writes every page that it frees
            "mmap_size = 0",  # a bad sector under a mapping is a SIGBUS
            f"journal_size_limit = {WAL_BYTES}",
            *([f"max_page_count = {max_pages}"] if max_pages else []),
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("DELETE FROM meta WHERE 0")  # fails where a damaged header makes the file read-only
    except BaseException:
        _close_untouched(connection, path)
        raise
    return connection


def _create(path: Path) -> sqlite3.Connection:
    """Create an empty spool file, 0600, in rollback mode and unsynced: the caller syncs it."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF").fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    for table in _TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA user_version = {_PLAIN_FORMAT}")
    connection.execute(f"PRAGMA application_id = {int.from_bytes(os.urandom(4)) & 0x7FFFFFFF or 1}")
    return connection


def _close_untouched(connection: sqlite3.Connection, path: Path) -> None:
    """Close without the checkpoint and the removal of the WAL that come with SQLite's last close.

    They need an exclusive lock on the file. A shared lock of an open file description conflicts with it even within this
    process (0x40000002, 510 bytes: where SQLite locks), so SQLite leaves both as they are.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        connection.close()
        return
    try:
        shared = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, shared)
        connection.close()
    finally:
        os.close(fd)


def _is_stale(database: Path, wal: WalFrames) -> bool:
    """Whether the WAL belongs to another file than the one it lies beside."""
    if size_of(database) == 0:
        return bool(wal.pages or wal.lost)
    if wal.page_one_offset is None:
        return False
    with database.open("rb") as file:
        return file.read(72)[68:] != wal.page(wal.page_one_offset)[68:72]


def _fill(
    connection: sqlite3.Connection,
    rows: Iterable[list[Value]],
    first_seqs: Mapping[int, int],
    unwanted: Container[tuple[int, int]],
) -> None:
    """Put every row that is proved whole into a new file; rows of the ``dead_letter`` table as they are."""
    values: list[object] = []
    connection.execute("BEGIN")
    for row in rows:
        match row:
            case [_, int(lane), int(seq), int(n), int(crc), bytes(body)]:
                wanted = seq >= first_seqs.get(lane, seq) and (lane, seq) not in unwanted
                if wanted and crc == crc_of(lane, seq, n, body):
                    values += (lane, seq, n, crc, body)
                if len(values) == 5 * _INSERT_ROWS:
                    connection.execute(_TAKE_OVER[_INSERT_ROWS], values)
                    values.clear()
            case [rowid, None, int(), int(), int(), str(), int(), int(), bytes()]:
                connection.execute(
                    "INSERT OR IGNORE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [rowid, *row[2:]]
                )
            case [_, str(key), str(value)]:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    if values:
        connection.execute(_TAKE_OVER[len(values) // 5], values)
    connection.execute("COMMIT")


def rebuild(
    directory: Path,
    reason: str,
    first_seqs: Mapping[int, int] | None = None,
    unwanted: Container[tuple[int, int]] = frozenset(),
) -> Rebuilt:
    """Begin a new file with the whole rows of the damaged one, and move that aside with its -wal and -shm.

    ``first_seqs``, where known, is the first seq of each lane that was not deleted. Where it is not, rows that were
    deleted shortly before the damage may come back if the header is lost: they are published again with the same id.
    ``unwanted`` are rows (lane, seq) that were refused, though they may be in the file.
    """
    database, partial = directory / DATABASE, directory / _PARTIAL
    wal = directory / f"{DATABASE}-wal"
    absent = directory / "absent"
    connection = _create(partial)
    try:
        stale = _is_stale(database, WalFrames(wal))
        for part in [(database, absent), (absent, wal)] if stale else [(database, wal)]:
            _fill(connection, raw_rows(*part), first_seqs or {}, unwanted)
        rows, reports = connection.execute("SELECT count(*), coalesce(sum(n), 0) FROM queue").fetchone()
    except BaseException:
        partial.unlink()  # its room may be what is missing
        raise
    finally:
        connection.close()
    sync(partial)
    partial.rename(directory / _REBUILD)
    sync(directory)
    return Rebuilt(_exchange(directory, reason), reason, rows, reports)


def _exchange(directory: Path, reason: str) -> Path:
    """Move the damaged file aside and the rebuilt one to its place; may be begun again after a crash."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    moved_to = directory / "damaged" / f"{stamp}-{time.time_ns() % 10**9:09d}-{reason}"
    _make_directory(moved_to)
    for suffix in ("-wal", "-shm", ""):  # the file last: while it is in place a restart finds the exchange undone
        path = directory / (DATABASE + suffix)
        if path.exists():
            path.rename(moved_to / path.name)
    sync(moved_to)
    (directory / _REBUILD).rename(directory / DATABASE)
    sync(directory)
    return moved_to


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class SpoolFile:
    """The open file. Every method may raise sqlite3.Error or OSError; `failure_of` says what that means."""

    def __init__(self, directory: Path, connection: sqlite3.Connection, hooks: SpoolHooks) -> None:
        self.directory = directory
        self.ledger = Ledger()
        self.meta: dict[str, str] = {}
        self._connection = connection
        self._hooks = hooks
        self.doubtful: Sequence[EncodedRow] = ()
        self._wal = directory / f"{DATABASE}-wal"

    @classmethod
    def open(cls, directory: Path, hooks: SpoolHooks, *, max_pages: int) -> tuple[Self, Rebuilt | None]:
        """Open or create the file in a directory this process owns; a damaged one is exchanged first."""
        hooks.before_open()
        database, rebuilt = directory / DATABASE, None
        (directory / _PARTIAL).unlink(missing_ok=True)
        if (directory / _REBUILD).exists():
            _exchange(directory, "unfinished")
        wal = WalFrames(directory / f"{DATABASE}-wal")
        if wal.broken or _is_stale(database, wal):
            rebuilt = rebuild(directory, "wal")
        elif size_of(database) == 0:
            _create(directory / _PARTIAL).close()
            sync(directory / _PARTIAL)
            (directory / _PARTIAL).rename(database)
            sync(directory)
        del wal
        try:
            return cls._open(directory, hooks, max_pages), rebuilt
        except DISK_ERRORS as error:
            if (
                failure_of(error, directory) != "damaged"
                and getattr(error, "sqlite_errorcode", None) not in _NOT_ITS_OWN_FILE
            ):
                raise
        rebuilt = rebuild(directory, "malformed")
        return cls._open(directory, hooks, max_pages), rebuilt

    @classmethod
    def _open(cls, directory: Path, hooks: SpoolHooks, max_pages: int) -> Self:
        for suffix in _SUFFIXES:
            path = directory / (DATABASE + suffix)
            if path.exists():
                path.chmod(0o600)
        connection = _connect(directory / DATABASE, max_pages)
        try:
            file = cls(directory, connection, hooks)
            file._load()
        except BaseException:
            _close_untouched(connection, directory / DATABASE)
            raise
        return file

    def _load(self) -> None:
        self.ledger, self.meta = load_ledger(self._connection)

    def close(self) -> None:
        """Checkpoint and close; the -wal goes."""
        self._connection.close()

    def abandon(self) -> None:
        """Close without touching the file or its WAL, which are not trusted any more."""
        _close_untouched(self._connection, self.directory / DATABASE)

    @contextmanager
    def _transaction(self) -> Iterator[Ledger]:
        """Everything inside is committed and synced, or nothing is; yields the ledger to work on."""
        draft = self.ledger.copy()
        self._connection.execute("BEGIN")
        try:
            yield draft
            self._hooks.before_commit()
            self._connection.execute("COMMIT")
            self._hooks.after_commit()
        except BaseException:
            if self._connection.in_transaction:  # some errors have rolled back already
                self._connection.execute("ROLLBACK")
            raise
        self.ledger = draft

    def commit(self, rows: Sequence[EncodedRow], deletes: Mapping[int, int]) -> dict[int, int]:
        """Delete the prefixes ``deletes`` (lane → through seq), then insert ``rows``: one transaction, one fsync.

        At most `_DELETE_ROWS` are deleted; returns the deletes that are not done yet. Rows that an unfinished delete
        covers are not inserted before it is done: it is finished first.
        """
        remaining: dict[int, int] = {}
        self.doubtful = ()
        covered = {row.lane for row in rows if row.seq <= deletes.get(row.lane, row.seq - 1)} if deletes else ()
        with self._transaction() as draft:
            budget = _DELETE_ROWS
            for lane, through in deletes.items():
                budget -= self._delete(draft, lane, through, draft.rows if lane in covered else budget)
                left = draft.lanes.get(lane)
                if left is not None and left.first_seq <= through:
                    remaining[lane] = through
            if rows:
                self._insert(rows)
                draft.add(rows)
                self.doubtful = rows
        self.doubtful = ()
        return remaining

    def _delete(self, draft: Ledger, lane: int, through: int, limit: int) -> int:
        """Delete up to ``limit`` rows of a lane's prefix; returns how many."""
        old = draft.lanes.get(lane)
        if old is None or old.first_seq > through or limit <= 0:
            return 0
        self._hooks.before_delete()
        if through >= old.last_seq and old.rows <= limit:
            self._connection.execute("DELETE FROM queue WHERE lane = ? AND seq <= ?", (lane, through))
            draft.put(lane, None)
            return old.rows
        rows, reports, size, last = self._connection.execute(
            "SELECT count(*), sum(n), sum(size), max(seq) FROM (SELECT seq, n, length(body) AS size FROM queue "
            "WHERE lane = ? AND seq <= ? ORDER BY seq LIMIT ?)",
            (lane, through, limit),
        ).fetchone()
        if rows:
            self._connection.execute("DELETE FROM queue WHERE lane = ? AND seq <= ?", (lane, last))
        draft.put(lane, self._lane_after(old, rows, reports or 0, size or 0, lane))
        return int(rows)

    def _lane_after(self, old: LaneStats, rows: int, reports: int, size: int, lane: int) -> LaneStats | None:
        """A lane's figures with a part gone and its new head looked up."""
        head = _head(self._connection, lane)
        if head is None:
            return None
        return LaneStats(
            old.rows - rows, old.reports - reports, old.bytes - size, head[0], max(old.last_seq, head[0]), head[1]
        )

    def _insert(self, rows: Sequence[EncodedRow]) -> None:
        """Insert in as few statements as can be.

        The GIL is let go at every step of a statement, and a busy event loop may keep it for 5 ms before it is requeued:
        a statement a row made 551 rows/s beside a busy loop, a statement a hundred rows 6,396.
        """
        self._hooks.before_insert()
        start = 0
        while start < len(rows):
            left = len(rows) - start
            count = next((size for size in (_INSERT_ROWS_MANY, _INSERT_ROWS) if left >= size), left)
            values: list[object] = []
            for row in rows[start : start + count]:
                values += (row.lane, row.seq, row.n, crc_of(row.lane, row.seq, row.n, row.body), row.body)
            self._connection.execute(_INSERTS[count], values)
            start += count

    def read(self, lane: int, after_seq: int, max_bytes: int) -> tuple[list[SpoolRow], list[tuple[SpoolRow, str]]]:
        """Rows of a lane behind ``after_seq``, in order, up to ``max_bytes`` of bodies but at least one if there is any.

        Rows that the CRC refuses are dead-lettered first; the second list names them (without records), with the reason.
        """
        self._hooks.before_read()
        bad: list[tuple[SpoolRow, str]] = []
        while True:
            stats = self.ledger.lanes.get(lane)
            if stats is None or stats.last_seq <= after_seq:
                return [], bad
            limit = max(1, min(_READ_ROWS, max_bytes * stats.rows // max(1, stats.bytes)))
            rows, broken = read_rows(self._connection, lane, after_seq, limit, max_bytes)
            for row, reason in broken:
                if any(row.seq == before.seq for before, _ in bad):
                    raise malformed(f"lane {lane}, seq {row.seq} can't be removed")
                self._dead_letter_bad_rows(row, reason)
                bad.append((row, reason))
            if rows or not broken:
                return rows, bad

    def _dead_letter_bad_rows(self, row: SpoolRow, reason: str) -> None:
        with self._transaction() as draft:
            self._move_to_dead_letters(draft, row.lane, row.seq, reason)

    def _move_to_dead_letters(self, draft: Ledger, lane: int, seq: int, reason: str) -> None:
        """Move a row of the queue to ``dead_letter`` as it is, whatever state its body is in."""
        found = self._connection.execute(  # the casts: of a damaged row anything may be anything
            "SELECT CAST(n AS INTEGER), length(CAST(body AS BLOB)) FROM queue WHERE lane = ? AND seq = ?",
            (lane, seq),
        ).fetchone()
        if found is None:
            raise malformed(f"lane {lane}, seq {seq} is in the index alone")
        n, size = found[0] or 0, found[1] or 0
        self._connection.execute(
            "INSERT INTO dead_letter (lane, seq, n, reason, at_ms, crc, body) "
            "SELECT lane, seq, n, ?, ?, crc, body FROM queue WHERE lane = ? AND seq = ?",
            (reason, time.time_ns() // 1_000_000, lane, seq),
        )
        self._connection.execute("DELETE FROM queue WHERE lane = ? AND seq = ?", (lane, seq))
        draft.put(lane, self._lane_after(draft.lanes[lane], 1, n, size, lane))
        draft.dead_letter_rows += 1
        draft.dead_letter_reports += n

    def dead_letter(self, rows: Sequence[EncodedRow], reason: str) -> None:
        """Keep rows out of the way. One that stands in the queue just so leaves it; a part of one leaves it there."""
        with self._transaction() as draft:
            for row in rows:
                crc = crc_of(row.lane, row.seq, row.n, row.body)
                same = self._connection.execute(
                    "SELECT 1 FROM queue WHERE lane = ? AND seq = ? AND crc = ?", (row.lane, row.seq, crc)
                ).fetchone()
                if same:
                    self._move_to_dead_letters(draft, row.lane, row.seq, reason)
                    continue
                self._connection.execute(
                    "INSERT INTO dead_letter (lane, seq, n, reason, at_ms, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (row.lane, row.seq, row.n, reason, time.time_ns() // 1_000_000, crc, row.body),
                )
                draft.dead_letter_rows += 1
                draft.dead_letter_reports += row.n

    def dead_letters(self, after_id: int, max_bytes: int) -> list[DeadLetter]:
        """Dead letters behind ``after_id``, in order, up to ``max_bytes`` of bodies but at least one if there is any."""
        return read_dead_letters(self._connection, after_id, max_bytes)

    def requeue(self, dead_letter_id: int, lane: int, seq: int) -> None:
        """Move a dead letter to the queue again, as ``(lane, seq)``.

        Raises:
            KeyError: there is no such row.
            ValueError: its CRC does not prove it, or ``(lane, seq)`` is taken.
        """
        found = read_dead_letters(self._connection, dead_letter_id - 1, 0)
        if not found or found[0].id != dead_letter_id:
            raise KeyError(f"there is no dead letter {dead_letter_id}")
        if not found[0].whole:
            raise ValueError(f"dead letter {dead_letter_id} is damaged: {found[0].reason}")
        records = found[0].records()
        row = encode_row(SpoolRow(lane, seq, found[0].n, records))
        with self._transaction() as draft:
            try:
                self._insert([row])
            except sqlite3.IntegrityError as error:
                raise ValueError(f"lane {lane}, seq {seq} is in the spool already") from error
            self._connection.execute("DELETE FROM dead_letter WHERE id = ?", (dead_letter_id,))
            draft.add([row])
            draft.dead_letter_rows -= 1
            draft.dead_letter_reports -= row.n

    def set_meta(self, key: str, value: str) -> None:
        """Keep a text for the caller."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        self.meta = {**self.meta, key: value}

    def used_bytes(self) -> int:
        """Bytes of pages that hold something; the freelist is room."""
        pages, free = self._connection.execute(
            "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
        ).fetchone()
        return int(pages - free) * PAGE_BYTES

    def file_bytes(self) -> int:
        """Bytes of the file and its WAL on disk."""
        return size_of(self.directory / DATABASE) + size_of(self._wal)

    def wal_bytes(self) -> int:
        """Bytes of the WAL, which does not shrink by a checkpoint alone."""
        return size_of(self._wal)

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Bring the WAL into the file; False if a reader keeps a part of it. ``truncate``: cut it to nothing."""
        self._hooks.before_checkpoint()
        mode = "TRUNCATE" if truncate else "PASSIVE"
        busy, frames, done = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return bool(busy == 0 and frames == done)

    def shrink(self) -> None:
        """Give free pages back to the file system if little is in use: a rewrite of that little, then a truncation."""
        used = self.used_bytes()
        if used <= _VACUUM_LIVE_BYTES and self.file_bytes() > 4 * used + SMALL_BYTES:
            self._connection.execute("VACUUM")
        self.checkpoint(truncate=True)


# ── reading, by the owner and by others ──────────────────────────────────────────────────────────────────────────────


def _head(connection: sqlite3.Connection, lane: int) -> tuple[int, int | None] | None:
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
    """Count what is in the file. Payloads on overflow pages are not read.

    Raises:
        sqlite3.DatabaseError: the file is malformed; also if its index and its table disagree.
    """
    schema = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    if [text for (text,) in schema] != _TABLES:
        raise malformed("these are not the spool's tables")
    ledger = Ledger()
    counted = connection.execute(
        "SELECT lane, count(*), min(seq), max(seq), sum((seq + 7 * row) % 1000003), sum(n), sum(size) FROM "
        "(SELECT lane, seq, n, length(body) AS size, rowid AS row FROM queue NOT INDEXED LIMIT -1) "
        "GROUP BY lane ORDER BY lane"
    ).fetchall()  # the limit keeps the subquery apart: sorted by lane are four numbers a row then, not the bodies
    indexed = connection.execute(
        "SELECT lane, count(*), min(seq), max(seq), sum((seq + 7 * rowid) % 1000003) FROM queue "
        "GROUP BY lane ORDER BY lane"
    ).fetchall()
    if [row[:5] for row in counted] != indexed:
        raise malformed("the queue's index and its table disagree")
    for lane, rows, first, last, _, reports, size in counted:
        head = _head(connection, lane)
        ledger.put(lane, LaneStats(rows, reports, size, first, last, head[1] if head else None))
    ledger.dead_letter_rows, ledger.dead_letter_reports = connection.execute(
        "SELECT count(*), coalesce(sum(n), 0) FROM dead_letter"
    ).fetchone()
    return ledger, dict(connection.execute("SELECT key, value FROM meta").fetchall())


def read_rows(
    connection: sqlite3.Connection, lane: int, after_seq: int, limit: int, max_bytes: int
) -> tuple[list[SpoolRow], list[tuple[SpoolRow, str]]]:
    """Up to ``limit`` rows behind ``after_seq``: those proved whole, and the others (without records) with the reason."""
    fetched = _fetch_at_once(connection, lane, after_seq, limit)
    rows, bad = _judged(lane, after_seq, fetched, max_bytes) if fetched is not None else ([], [])
    if bad or fetched is None:  # judge a row by itself: a damaged one shifts its neighbours in what was concatenated
        fetched = connection.execute(
            "SELECT seq, n, crc, body FROM queue WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?",
            (lane, after_seq, limit),
        ).fetchall()
        rows, bad = _judged(lane, after_seq, fetched, max_bytes)
    return rows, bad


_Fetched = list[tuple[int, object, object, object]]


def _judged(
    lane: int, after_seq: int, fetched: _Fetched, max_bytes: int
) -> tuple[list[SpoolRow], list[tuple[SpoolRow, str]]]:
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
        total += len(body)
        if total > max_bytes and rows:
            break
        try:
            rows.append(SpoolRow(lane, seq, n, decode_body(body)))
        except msgspec.MsgspecError as error:
            bad.append((SpoolRow(lane, seq, n, []), f"undecodable: {error}"))
    return rows, bad


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
    """The spool as another process may see it at any time: beside its owner or without one. Blocking; writes nothing.

    Beside an owner, and after one that was killed, SQLite reads file and WAL by the -shm that is there, opened read-only.
    A closed spool has neither; it is read as immutable, and each answer is checked for an owner that came meanwhile. A
    WAL without its -shm (a copy of the directory) is read from a private copy, since SQLite would have to make one.
    """

    def __init__(self, directory: Path) -> None:
        self._database = directory / DATABASE
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._immutable: tuple[int, int, int] | None = None
        self._inode = 0
        if not self._database.exists():
            raise SpoolFailed(f"{directory}: there is no spool here")
        self._connection = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def stats(self) -> Ledger:
        """Rows, reports and bytes by lane and in total, and the dead letters: one pass over the file."""
        return self._steady(lambda connection: load_ledger(connection)[0])

    def meta(self) -> dict[str, str]:
        """What `set_meta` kept."""
        return self._steady(lambda connection: dict(connection.execute("SELECT key, value FROM meta").fetchall()))

    def read(
        self, lane: int, after_seq: int, *, max_bytes: int, limit: int = _READ_ROWS
    ) -> tuple[list[SpoolRow], list[tuple[SpoolRow, str]]]:
        """Rows of a lane in order, up to ``max_bytes`` but at least one if any, and damaged ones with the reason.

        ``limit`` bounds the rows that are looked at, and so the memory that this takes.
        """
        return self._steady(lambda connection: read_rows(connection, lane, after_seq, limit, max_bytes))

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
        """An answer that no owner interfered with: if one came or went meanwhile, open anew and ask again."""
        while True:
            failure: sqlite3.Error | None = None
            try:
                answer = question(self._connection)
            except sqlite3.Error as error:
                failure = error
            if not self._is_outdated():
                if failure is not None:
                    raise failure
                return answer
            self._connection.close()
            self._connection = self._connect()

    def _is_outdated(self) -> bool:
        if self._copy is not None:
            return False
        if self._immutable is not None:
            wal = self._database.with_name(f"{DATABASE}-wal")
            return size_of(wal) > 0 or self._fingerprint() != self._immutable
        return self._inode != self._fingerprint()[0]


def open_read_only(directory: Path) -> SpoolReader:
    """Read a spool without owning it, without writing a byte.

    Raises:
        SpoolFailed: there is none.
        SpoolTooNew: a newer bridge wrote it.
    """
    check_format(directory)
    return SpoolReader(directory)
