r"""The spool's directory and its tables: the specification of the format, the mark of its version, and the lock.

The directory
=============
::

    <directory>/            0700; what is in it 0600, see below
      format                "1\n": the version of the format, written and synced before anything else. A later bridge that
                            changes the format must raise it before it writes anything that this one would misread.
      owner.lock            empty; the owner holds an exclusive flock on it
      spool.db, -wal, -shm  SQLite in WAL mode, 4096-byte pages; user_version = 1, the version of the format;
                            application_id = a random number for each file, which shows a -wal that belongs to another file
      ballast               random bytes, to be freed when the disk is full
      rebuild.partial       a new file being created; deleted at the next start
      rebuild.db            the same, complete: the next start finishes the exchange for a damaged one
      damaged/<time>-<why>/ a damaged file with its -wal and -shm, unchanged; never deleted by the bridge. ``taken-over``
                            next to them, empty: its whole rows are in the spool

If the directory's group may write it and it passes its group on (mode 2770: Kubernetes makes a volume so for fsGroup), new
directories are 2770 and new files 0660: a bridge that runs as another user of that group can take over the volume. A mode
that this process may not change, because the file belongs to another user, stays as it is. `access.py` refuses what can't be
read and written.

The tables
==========
::

    queue (lane INTEGER, seq INTEGER, n INTEGER, crc INTEGER, body BLOB, PRIMARY KEY (lane, seq))  one row a lane entry
        n     reports in the lane entry, for the reconciliation
        crc   CRC-32 over lane, seq, n (little-endian, 8 bytes each) and body
        body  msgpack of list[Record], each an array [topic, key, value, headers, timestamp_ms, schema]; a record with a
              schema lacks the id that the registry has for it
    dead_letter (id INTEGER PRIMARY KEY, lane, seq, n, reason TEXT, at_ms, crc, body)  at_ms: when it became a dead letter
    meta  (key TEXT PRIMARY KEY, value TEXT, crc)  the caller's texts, such as the lane layout; ``salvage`` while rows of a
        damaged file are being taken over: where it is, and how far the salvage has come. crc: CRC-32 over key, NUL, value
    totals (lane INTEGER PRIMARY KEY, rows, reports, bytes, first_seq, last_seq, oldest_at_ms, crc)  what the queue holds
        of each lane: written in the transaction that changes it, so that a start need not count. A lane without rows has
        zeros. Lane -1 has the sums of all lanes, and in first_seq and last_seq the rows and reports of ``dead_letter``.
        crc: CRC-32 over the other columns in decimal, with commas between (``None`` for NULL)

Invariants
==========
- One connection writes. Readers never write: neither the file nor its -shm. They take none of the owner's locks.
- `Ledger` equals the committed file: a transaction works on a copy that replaces it after the commit. ``totals`` is the
  ledger on disk.
- A row leaves `queue` in one of two ways, each in one transaction: deleted by `commit` (a prefix of its lane), or moved to
  `dead_letter`.
- A file that is no longer trusted is never checkpointed, written or deleted: its bytes are moved unchanged.
- The exchange of a damaged file is atomic: an empty ``rebuild.db`` that names the damaged file's new place in ``meta`` is
  complete and synced before anything moves. Its rows are taken over afterwards, from ``damaged/``; until the last one is
  there no row of a lane is read.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

from bridge import durable
from bridge.durable import sync
from bridge.errors import SpoolBusy, SpoolTooNew
from bridge.spool.access import check_access
from bridge.spool.disk import make_directory, size_of, write_synced

FORMAT: Final = 1
"""The version of the format that this bridge writes and reads."""
PAGE_BYTES: Final = 4096
"""Page size of every spool file, set when it is created."""
DATABASE: Final = "spool.db"
SUFFIXES: Final = ("", "-wal", "-shm")
"""What follows `DATABASE` in the names of the file, its WAL and its shared memory."""
REBUILD: Final = "rebuild.db"
PARTIAL: Final = "rebuild.partial"
TAKEN_OVER: Final = "taken-over"
TABLES: Final = [
    "CREATE TABLE queue (lane INTEGER, seq INTEGER, n INTEGER, crc INTEGER, body BLOB, PRIMARY KEY (lane, seq))",
    (
        "CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, lane INTEGER, seq INTEGER, n INTEGER, reason TEXT, "
        "at_ms INTEGER, crc INTEGER, body BLOB)"
    ),
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT, crc INTEGER)",
    (
        "CREATE TABLE totals (lane INTEGER PRIMARY KEY, rows INTEGER, reports INTEGER, bytes INTEGER, first_seq INTEGER, "
        "last_seq INTEGER, oldest_at_ms INTEGER, crc INTEGER)"
    ),
]


def check_format(directory: Path) -> None:
    """Refuse a directory that a newer bridge wrote, by its bytes alone: SQLite would recover or checkpoint the file.

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
    """The version in the file ``format``; None if the file is absent or holds no number."""
    marker = directory / "format"
    text = marker.read_bytes()[:32].split(b"\n")[0].strip() if marker.exists() else b""
    return int(text) if text.isdigit() else None


def _mark_format(directory: Path) -> None:
    """Write the file ``format`` if it is absent."""
    marker = directory / "format"
    if not marker.exists():
        write_synced(directory / "format.partial", f"{FORMAT}\n".encode())
        (directory / "format.partial").rename(marker)
        sync(directory)


def _header_format(database: Path) -> int:
    """The version in the file's own header; 0 if there is none.

    Read only when the file ``format`` is gone: closing any descriptor of a file releases all of a process's locks on
    it, those of its SQLite connections too.
    """
    if size_of(database) == 0:
        return 0
    with database.open("rb") as file:
        header = file.read(100)
    return int.from_bytes(header[60:64]) if header.startswith(b"SQLite format 3\0") else 0


def lock_directory(directory: Path) -> int:
    """Make the directory if need be and own it; the descriptor that is returned holds the lock.

    Raises:
        SpoolFailed: this process may not use it; see `check_access`.
        SpoolBusy: another process owns it.
        SpoolTooNew: see `check_format`; nothing was touched.
    """
    check_access(directory, write=True)
    check_format(directory)
    make_directory(directory)
    fd = durable.create(directory / "owner.lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check_format(directory)  # again: a newer bridge may just have released it
        _mark_format(directory)
    except BlockingIOError as error:
        os.close(fd)
        raise SpoolBusy(f"{directory}: another process owns this spool directory") from error
    except BaseException:
        os.close(fd)
        raise
    return fd
