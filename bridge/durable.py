"""Files and directories that are on disk when a call returns, readable by nobody who was not given the directory."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple


class Modes(NamedTuple):
    """The modes of directories and files that are made in one place."""

    directory: int
    file: int


_OWN: Final = Modes(0o700, 0o600)
_OF_THE_GROUP: Final = Modes(0o2770, 0o660)
_GROUP_WRITABLE: Final = stat.S_ISGID | stat.S_IWGRP


def modes_in(directory: Path) -> Modes:
    """The modes of what is made in a directory, which need not exist yet.

    A directory that the group may write and passes on (mode 2770, as Kubernetes makes a volume with fsGroup) was given to the
    group: so the group may use what is in it, and a bridge that runs as another user of the group can go on with it. What is
    made anywhere else is its owner's alone.
    """
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    return _OF_THE_GROUP if existing.stat().st_mode & _GROUP_WRITABLE == _GROUP_WRITABLE else _OWN


def set_mode(path: Path, mode: int) -> None:
    """Set a mode, whatever the umask; leave the mode of what belongs to another user, as only that user may change it."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with suppress(PermissionError):
            path.chmod(mode)


def create(path: Path, flags: int) -> int:
    """Open a file with ``os.open``'s flags, of the mode that its directory calls for if it is new; the descriptor."""
    mode = modes_in(path.parent).file
    fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, mode)
    set_mode(path, mode)
    return fd


def sync(path: Path) -> None:
    """Have a file's content, or a directory's entries, on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """Replace ``path`` by a new file of mode 0600 or 0660; a reader sees the old content or the new one.

    The new file is written as ``path.new`` first; one that exists is removed.
    """
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)  # it may belong to another user
    fd = create(beside, os.O_WRONLY | os.O_EXCL)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    beside.replace(path)
    sync(path.parent)
