"""Files and directories as the spool needs them: synced, and with their blocks allocated before they are relied on."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from bridge import durable
from bridge.durable import sync

FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The operating system's errors that mean: there is no room."""


_READ_AHEAD_BYTES: Final = 512 << 10


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def write_synced(path: Path, data: bytes) -> None:
    """Create or replace a file, allocate its blocks, and sync it. The caller syncs its directory."""
    fd = durable.create(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.posix_fallocate(fd, 0, len(data))
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fsync(fd)
    finally:
        os.close(fd)


def bound_read_ahead(path: Path) -> None:
    """Have what this process reads of an open file not wait for more than `_READ_AHEAD_BYTES` that follow it.

    Some systems read megabytes ahead. On a slow disk each of them is a second in which nothing else is read or stored.
    The file is not opened here: to close it would release SQLite's locks.
    """
    found = path.stat()
    setting = Path(f"/sys/class/bdi/{os.major(found.st_dev)}:{os.minor(found.st_dev)}/read_ahead_kb")
    if not setting.exists() or int(setting.read_text()) << 10 <= _READ_AHEAD_BYTES:
        return
    for number in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # of another thread, and closed meanwhile
            other = os.fstat(int(number.name))
            if (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino):
                os.posix_fadvise(int(number.name), 0, 0, os.POSIX_FADV_RANDOM)


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, of mode 0700 or as `modes_in` says, and sync each into its own parent."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    mode = durable.modes_in(directory).directory
    for path in reversed(missing):
        path.mkdir(mode=mode, exist_ok=True)
        durable.set_mode(path, mode)
        sync(path)
        sync(path.parent)
    if not mode & stat.S_ISGID:  # a directory of the group may have rights beyond these
        durable.set_mode(directory, mode)


class Ballast:
    """A file that is freed when the disk is full, so that deletes and checkpoints go on. ``stands``: it is there."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._path = directory / "ballast"
        self.size_bytes = size_bytes
        self.stands = False

    def find(self) -> None:
        """Look whether an earlier owner of the directory left it standing."""
        self.stands = size_of(self._path) >= self.size_bytes

    def make(self) -> bool:
        """Make it if it does not stand; False if there is no room for it."""
        if self.stands:
            return True
        try:
            write_synced(self._path, os.urandom(self.size_bytes))
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno in FULL_ERRNOS:
                return False
            raise
        self.stands = True
        return True

    def free(self) -> None:
        """Give its blocks back."""
        self._path.unlink(missing_ok=True)
        self.stands = False
