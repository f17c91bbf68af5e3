"""Whether this process may use the spool's directory and what is in it, and in words why not.

Asked before anything is opened: an error that SQLite or Python raises later names neither the owner nor the remedy.
"""

import os
import stat
from pathlib import Path

from bridge.errors import SpoolFailed

_RIGHTS = {os.R_OK: "read", os.W_OK: "write", os.X_OK: "enter"}


def check_access(directory: Path, *, write: bool) -> None:
    """Refuse a directory that this process can't read, or (with ``write``) can't own.

    Raises:
        SpoolFailed: there is no spool (unless ``write``, which makes one), or the first path that can't be used: what is
            missing, whose it is, who this process is, and what to do.
    """
    try:
        found = directory.stat()
    except FileNotFoundError:
        if not write:
            raise SpoolFailed(f"{directory}: there is no spool here") from None
        existing = next(path for path in directory.parents if path.exists())
        _require(existing, os.R_OK | os.W_OK | os.X_OK)
        return
    except OSError as error:
        raise SpoolFailed(f"{directory}: {error.strerror}; {_process()}; correct spool.directory") from error
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolFailed(f"{directory}: this is not a directory; correct spool.directory")
    _require(directory, os.R_OK | os.X_OK | (os.W_OK if write else 0))
    for name in ("format", "owner.lock", "spool.db", "spool.db-wal", "spool.db-shm", "rebuild.db", "damaged"):
        if (directory / name).exists():
            _require(directory / name, _rights(directory / name, write=write))
    for pattern in ("*", "*/*"):
        for path in (directory / "damaged").glob(pattern):
            _require(path, _rights(path, write=False))


def _rights(path: Path, *, write: bool) -> int:
    return os.R_OK | (os.W_OK if write else 0) | (os.X_OK if path.is_dir() else 0)


def _require(path: Path, rights: int) -> None:
    missing = [name for right, name in _RIGHTS.items() if rights & right and not os.access(path, right)]
    if not missing or not path.exists():  # an owner that ends removes its -wal and -shm
        return
    what = f"this process may not {' or '.join(missing)} it"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise SpoolFailed(f"{path}: {what}: its file system is mounted read-only; mount it writable")
    found = path.stat()
    owner = f"it belongs to user {found.st_uid}, group {found.st_gid}, with mode {stat.S_IMODE(found.st_mode):04o}"
    user, group = os.geteuid(), os.getegid()
    raise SpoolFailed(
        f"{path}: {what}: {owner}; {_process()}. Give the directory and all in it to this user (chown -R {user}:{group}), or "
        f"run as user {found.st_uid}. In Kubernetes set podSecurityContext.runAsUser to {found.st_uid}, or fsGroup with "
        "fsGroupChangePolicy: Always"
    )


def _process() -> str:
    groups = ", ".join(map(str, sorted({os.getegid(), *os.getgroups()})))
    return f"the process runs as user {os.geteuid()}, groups {groups}"
