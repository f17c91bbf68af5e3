"""A server in a process of its own, to stop, kill and pause; it writes into a log file and dies with this process."""

import asyncio
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.lab.embedded.java import spawn, tail

START_SECONDS = 90.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
LOG_TAIL_BYTES = 16_384


class Owned(ABC):
    """What ``async with`` starts and takes down, whatever happens in between."""

    async def __aenter__(self) -> Self:
        """Start; where that fails nothing is left behind."""
        try:
            await self.start()
        except BaseException:
            await asyncio.shield(self.close())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and remove what it left."""
        await asyncio.shield(self.close())

    @abstractmethod
    async def start(self) -> None:
        """Start it and wait until it answers."""

    @abstractmethod
    async def close(self) -> None:
        """End it and remove what it left; may be called again."""


class Process:
    """The process, where there is one. It belongs to no event loop: any may await its methods, one at a time.

    Attributes:
        log_file: What the server says, all starts one after another.
    """

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def pid(self) -> int | None:
        """The JVM's, while it lives."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Its process lives, paused or not."""
        return self.pid is not None

    @property
    def paused(self) -> bool:
        """Its process lives and was told to stand still."""
        return self.running and self._paused

    def launch(self, command: Sequence[str]) -> None:
        """Start it; not awaited, as a task cancelled there could not tell whether there is a process."""
        with self.log_file.open("ab") as log:
            self._process = spawn(command, stdout=log, stderr=subprocess.STDOUT)
        self._paused = False

    async def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """SIGTERM: end in good order; SIGKILL where that takes longer than the grace."""
        if self._process is not None and self.running:
            self.resume()
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, grace_seconds)
            except subprocess.TimeoutExpired:
                await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.kill_now()
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    def kill_now(self) -> None:
        """SIGKILL; the process may take a moment to be gone."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing more, from when this returns."""
        self._signal(signal.SIGSTOP)
        if self._process is not None and self.running:
            # The signal is sent, not obeyed: on a busy machine threads go on for a moment.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def log_tail(self) -> str:
        """The last lines of its log."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(self.log_file.stat().st_size - LOG_TAIL_BYTES, 0))
                return tail(file.read().decode(errors="replace"))
        except FileNotFoundError:
            return "(no log)"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # Does nothing once the process was waited for.
