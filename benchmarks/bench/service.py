"""A contestant's process: started, looked at through /proc, ended."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bridge.lab.embedded.java import GUARD, tail

HOST = "127.0.0.1"
START_SECONDS, STOP_SECONDS, LOOK_SECONDS = 60.0, 15.0, 0.01
TICKS, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
# In /proc/PID/stat behind the name: user and system time, and those of children that were waited for.
TIMES = slice(11, 15)


class ServiceError(Exception):
    """It does not do what it has to; the message has the end of its log."""


class Service:
    """One process on one port. It dies with this one."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> None:
        self.name, self.port, self.log = name, port, log
        self._command, self._environment = list(command), {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> float:
        """Start it; seconds until its port takes connections.

        Raises:
            ServiceError: it does not, or ends.
        """
        began = time.monotonic()
        guarded = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *self._command]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - from the main thread, which its life is tied to
                guarded, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment
            )
        while not await _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > began + START_SECONDS:
                raise ServiceError(f"{self.name} does not listen:\n{self.log_tail()}")
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process.

        Raises:
            ServiceError: there is none.
        """
        if self._process is None or self._process.poll() is not None:
            raise ServiceError(f"{self.name} has ended:\n{self.log_tail()}")
        return self._process.pid

    def log_tail(self) -> str:
        """The last lines it wrote."""
        return tail(self.log.read_text(errors="replace")) if self.log.exists() else ""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children until now."""
    return sum(sum(map(int, _stat(each)[TIMES])) for each in _family(pid)) / TICKS


def rss_mib(pid: int) -> float:
    """Resident memory of a process and its children, MiB."""
    return sum(int(_stat(each)[21]) for each in _family(pid)) * PAGE_BYTES / (1 << 20)


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
