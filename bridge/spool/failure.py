"""What an error says about the disk: it is full, the file can't be trusted any more, or it failed this time only."""

import errno
import os
import resource
import sqlite3
from pathlib import Path
from typing import Final, Literal

from bridge.spool.disk import FULL_ERRNOS, size_of, write_synced
from bridge.spool.format import DATABASE, SUFFIXES

Failure = Literal["full", "damaged", "failed"]

DISK_ERRORS: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What a disk can cause. UnicodeDecodeError comes from a message of SQLite's that quotes a damaged schema."""
_SHARED_MEMORY_ERRORS: Final = (
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_NOMEM,
)
_PROBE_BYTES: Final = 64 << 10


def malformed(message: str) -> sqlite3.Error:
    """The error of a file that contradicts itself, where SQLite does not notice."""
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def failure_of(error: Exception, directory: Path | None) -> Failure:  # noqa: PLR0911 - a table of what each kind says
    """Judge an error of the spool in ``directory``; None: by one who only reads, so that the disk is not full.

    SQLite tells ENOSPC alone from other failed writes; a quota and a limit on file sizes are found by writing.
    """
    if isinstance(error, OSError):
        if error.errno in FULL_ERRNOS:
            return "full"
        return "damaged" if error.errno == errno.EIO else "failed"
    if isinstance(error, UnicodeDecodeError):
        return "damaged"
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python, not SQLite, found a text that is not UTF-8
        return "damaged" if isinstance(error, sqlite3.OperationalError) else "failed"
    if code == sqlite3.SQLITE_FULL:
        return "full"
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        if code != sqlite3.SQLITE_IOERR_FSYNC and directory is not None and _is_disk_full(directory):
            return "full"
        return "failed" if code in _SHARED_MEMORY_ERRORS else "damaged"
    return "damaged" if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else "failed"


def _is_disk_full(directory: Path) -> bool:
    """Whether the disk refuses a block behind the end of the largest file for lack of room."""
    sizes = [size_of(directory / (DATABASE + suffix)) for suffix in SUFFIXES]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and max(sizes) + _PROBE_BYTES >= limit:
        return True
    probe = directory / "probe"
    try:
        write_synced(probe, os.urandom(_PROBE_BYTES))
    except OSError as error:
        return error.errno in FULL_ERRNOS
    finally:
        probe.unlink(missing_ok=True)
    return False
