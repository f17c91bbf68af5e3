"""SQLite connections of the owner: how it creates the file, opens it for writing, and closes one it does not trust."""

import fcntl
import os
import sqlite3
import struct
from pathlib import Path
from typing import Final

from bridge import durable
from bridge.spool.disk import bound_read_ahead
from bridge.spool.format import FORMAT, PAGE_BYTES, TABLES

WAL_BYTES: Final = 8 << 20
"""Size of the WAL beyond which it is checkpointed."""
INSERT_ROWS: Final = 64
INSERT_ROWS_MANY: Final = 512
INSERTS: Final = {
    count: "INSERT INTO queue VALUES " + ", ".join(["(?, ?, ?, ?, ?)"] * count)  # noqa: S608 - numbers alone
    for count in (*range(1, INSERT_ROWS + 1), INSERT_ROWS_MANY)
}
"""The statement that inserts so many rows into the queue: up to `INSERT_ROWS`, or `INSERT_ROWS_MANY`."""
REPLACE_TOTALS: Final = {
    count: "INSERT OR REPLACE INTO totals VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * count)  # noqa: S608 - question marks alone
    for count in range(1, INSERT_ROWS + 1)
}
"""The statement that writes so many rows of ``totals``."""


def create(path: Path) -> sqlite3.Connection:
    """Create an empty spool file, 0600 or 0660, in rollback mode and unsynced: the caller syncs it."""
    path.unlink(missing_ok=True)
    os.close(durable.create(path, os.O_RDWR | os.O_EXCL))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF").fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    for table in TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute(f"PRAGMA application_id = {int.from_bytes(os.urandom(4)) & 0x7FFFFFFF or 1}")
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Open for writing: in WAL mode, synced at every commit, checkpointed only when the spool says so."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0, cached_statements=512, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "temp_store = MEMORY",
            "cell_size_check = ON",
            "secure_delete = OFF",  # some builds turn it on: a delete then writes every page that it frees
            "mmap_size = 0",  # a bad sector under a mapping is a SIGBUS
            f"journal_size_limit = {WAL_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        bound_read_ahead(path)
        connection.execute("DELETE FROM meta WHERE 0")  # fails where a damaged header makes the file read-only
    except BaseException:
        close_untouched(connection, path)
        raise
    return connection


def close_untouched(connection: sqlite3.Connection, path: Path) -> None:
    """Close without the checkpoint and the removal of the WAL that come with SQLite's last close.

    They need an exclusive lock on the file. A shared lock of an open file description conflicts with it even within this
    process (0x40000002, 510 bytes: where SQLite locks), so SQLite changes neither.
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
