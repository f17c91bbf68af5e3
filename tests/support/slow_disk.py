"""A disk that is slow for one pod: the kernel holds what the containers read (cgroup v1, blkio)."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_BLKIO: Final = Path("/sys/fs/cgroup/blkio")
_LIMIT: Final = "blkio.throttle.read_bps_device"
_LOOK_SECONDS: Final = 0.02


def why_not(path: Path) -> str:
    """Why the disk of a path can't be slowed down; empty if it can."""
    if not os.access(_BLKIO / _LIMIT, os.W_OK):
        return f"{_BLKIO / _LIMIT} is not there for this user: it takes cgroup v1 and root"
    try:
        _device(path)
    except OSError as error:
        return f"{path} is on no disk of this machine: {error}"
    return ""


class SlowDisk:
    """The disk of a path, slow for the containers of one pod."""

    def __init__(self, path: Path, bytes_per_second: int) -> None:
        self._device = _device(path)
        self._bytes_per_second = bytes_per_second
        self._containers: set[Path] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def slow_down(self, pod: str) -> None:
        """Be slow for each container of the pod with that UID: from before its program runs, or a few milliseconds later."""
        self._thread = threading.Thread(target=self._look, args=(pod,), name="slow-disk")
        self._thread.start()

    def speed_up(self) -> None:
        """Be as fast as ever."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for container in self._containers:
            with suppress(FileNotFoundError):
                self._limit(container, 0)

    def bytes_read(self) -> int:
        """What those containers have read from the disk so far."""
        return sum(self._bytes_read(each) for each in list(self._containers))

    def _look(self, pod: str) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            for container in set(_BLKIO.glob(f"*/kubepods/*/pod{pod}/*/")) - self._containers:
                self._limit(container, self._bytes_per_second)
                self._containers.add(container)

    def _limit(self, container: Path, bytes_per_second: int) -> None:
        (container / _LIMIT).write_text(f"{self._device} {bytes_per_second}")

    def _bytes_read(self, container: Path) -> int:
        lines = (container / "blkio.throttle.io_service_bytes").read_text().splitlines()
        return sum(int(line.split()[2]) for line in lines if line.startswith(f"{self._device} Read "))


@contextmanager
def slow_disk(path: Path, bytes_per_second: int) -> Iterator[SlowDisk]:
    """The disk of that path, which gives a pod so much until the end."""
    disk = SlowDisk(path, bytes_per_second)
    try:
        yield disk
    finally:
        disk.speed_up()


def _device(path: Path) -> str:
    """The whole disk, as the limit takes no partition: ``major:minor``."""
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    return ((device.parent if (device / "partition").exists() else device) / "dev").read_text().strip()
