"""Files and directories that are on disk when a call returns."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file's content, or a directory's entries, on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """Put a whole new file, of mode 0600, in the place of ``path``: whoever reads it sees the old one or the new one.

    What stands beside it as ``path.new`` in between is written over.
    """
    beside = path.with_name(f"{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    beside.replace(path)
    sync(path.parent)
