"""The bridge as a process of its own: started, killed, asked how it is.

It dies with this process, however this one dies.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bridge.lab.embedded.java import GUARD

HOST = "127.0.0.1"
_ASK_SECONDS = 1.0
_STOP_SECONDS = 12.0
_TAIL_LINES = 12
_OK = b" 200 "
_DESKTOPS = ("DISPLAY", "WAYLAND_DISPLAY")


def open_on_desktop(url: str) -> bool:
    """Open it in the browser of whoever sits at this machine's desktop; False where nobody does."""
    opener = shutil.which("xdg-open")
    if opener is None or not sys.stdout.isatty() or not any(map(os.environ.get, _DESKTOPS)):
        return False
    silent = subprocess.DEVNULL
    subprocess.Popen([opener, url], stdin=silent, stdout=silent, stderr=silent, start_new_session=True)  # noqa: S603
    return True


class Reading(msgspec.Struct, frozen=True):
    """What ``/metrics`` said. ``answers`` and ``published`` count since the process started."""

    waiting: int
    spool_rows: int
    degraded: int
    healthy: int
    answers: dict[str, int]
    published: dict[str, int]

    @property
    def drained(self) -> bool:
        """Whether all it took is on Kafka, and callbacks go there directly again."""
        return self.waiting == self.spool_rows == self.degraded == 0

    @classmethod
    def parse(cls, text: str) -> "Reading":
        """From Prometheus's text format."""
        found: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("chatapp_bridge_") and len(sample.labels) <= 1:
                    label = next(iter(sample.labels.values()), "")
                    found[sample.name.removeprefix("chatapp_bridge_"), label] = sample.value

        def labelled(name: str) -> dict[str, int]:
            return {label: int(value) for (family, label), value in found.items() if family == name}

        return cls(
            waiting=int(found.get(("reports_waiting", ""), 0)),
            spool_rows=int(found.get(("spool_rows", ""), 0)),
            degraded=int(found.get(("lanes", "degraded"), 0)),
            healthy=int(found.get(("lanes", "healthy"), 0)),
            answers=labelled("callbacks_total"),
            published=labelled("reports_published_total"),
        )


class Bridge:
    """``chatapp-bridge serve``.

    Args:
        assignments: texts ``section.key=value`` for ``--set``.
        environment: all of its environment variables; the secret travels here, where ``ps`` doesn't show it.
        admin_port: where it says how it is.
        log_file: takes what it writes; start after start is added to it.
    """

    def __init__(
        self, assignments: Sequence[str], environment: Mapping[str, str], admin_port: int, log_file: Path
    ) -> None:
        self._arguments = [word for assignment in assignments for word in ("--set", assignment)]
        self._environment = dict(environment)
        self._admin_port = admin_port
        self.log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process, None where there is none."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start it; from this process's main thread, which it is tied to."""
        command = [sys.executable, "-m", "bridge", "serve", *self._arguments]
        guarded = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *command]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  this project's own command
                guarded,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def stop(self) -> None:
        """SIGTERM; SIGKILL where that takes too long."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            await self.kill()

    async def ready(self) -> bool:
        """Whether it says that it would take a callback."""
        return await self._ask("/readyz") is not None

    async def read(self) -> Reading | None:
        """Its metrics, or None where it does not answer."""
        text = await self._ask("/metrics")
        return None if text is None else Reading.parse(text)

    def log_tail(self) -> str:
        """The last lines it wrote."""
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-_TAIL_LINES:])

    async def _ask(self, path: str) -> str | None:
        """The body of an answer of 200, else None."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self._admin_port)
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None
        return body.decode() if _OK in head.split(b"\r\n")[0] else None
