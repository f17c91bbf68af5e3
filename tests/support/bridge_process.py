"""The bridge as it is run in earnest: ``python -m bridge serve``, a process of its own.

    async with BridgeProcess(bootstrap, tmp_path, {"spool.enabled": False}, topics=(status, quarantine)) as bridge:
        answer = await bridge.post(b'[{"MessageId":"m","Status":"Sent"}]')
        metrics = await bridge.metrics()
        stopped = await bridge.stop()

It belongs to no event loop, so that a fixture of any scope can hold one. It never outlives the tests, however they end.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from bridge.lab.embedded.java import spawn
from bridge.lab.embedded.ports import HOST, Port
from support import raw_http
from support.raw_http import Answer

SECRET = "a-secret-of-the-tests-0123456789"  # noqa: S105 - opens nothing but a test's own process
START_SECONDS = 30.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.02
LOG_TAIL_CHARACTERS = 4000


class Stopped(NamedTuple):
    """How a process ended: exit code (negative: the signal's number) and seconds since it was told to."""

    code: int
    seconds: float


class BridgeProcess:
    """One bridge on ports of its own, which stay its own over restarts.

    Args:
        bootstrap: Kafka, ``host:port``, comma-separated.
        directory: For its log and its spool.
        settings: Any key of the configuration, over the defaults here; None leaves the bridge's own. Lists become
            comma-separated texts, booleans true and false.
        topics: Names of the topics for events and quarantine; the bridge's own defaults unless given.
        secrets: In force; none at all runs it open.
        environment: More variables.
        program: What takes ``serve`` and its arguments; this checkout's unless given.
        wait: Until when ``start`` waits: ``live`` (it answers), ``ready`` (it could store a callback), ``no``.
    """

    def __init__(
        self,
        bootstrap: str,
        directory: Path,
        settings: Mapping[str, Any] | None = None,
        topics: tuple[str, str] | None = None,
        *,
        secrets: Sequence[str] = (SECRET,),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (sys.executable, "-m", "bridge"),
        wait: Literal["live", "ready", "no"] = "ready",
    ) -> None:
        self._port, self._admin_port = Port(), Port()
        self._directory = directory
        self._environment = dict(environment or {})
        self._program = [str(part) for part in program]
        self._wait = wait
        self._process: subprocess.Popen[bytes] | None = None
        self.secret = secrets[0] if secrets else None
        defaults = {
            "server.host": HOST,
            "server.port": self._port.number,
            "server.admin_host": HOST,
            "server.admin_port": self._admin_port.number,
            "access.path_secrets": secrets or None,
            # Tests of wrong secrets send more than a scanner may.
            "limits.unauthenticated_per_second": 0,
            "access.allow_unauthenticated": None if secrets else True,
            "kafka.bootstrap_servers": bootstrap,
            "topics.status": topics and topics[0],
            "topics.quarantine": topics and topics[1],
            "spool.directory": directory / "spool",
            "log.level": "debug",
            "log.format": "json",
        }
        self.settings: dict[str, Any] = {**defaults, **(settings or {})}

    # --- where it is --------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Of the public listener, on 127.0.0.1."""
        return self._port.number

    @property
    def admin_port(self) -> int:
        """Of the admin listener, on 127.0.0.1."""
        return self._admin_port.number

    @property
    def path(self) -> str:
        """Of the callback, with the first secret."""
        return "/callbacks/chatapp/status" + (f"/{self.secret}" if self.secret else "")

    @property
    def url(self) -> str:
        """Of the callback, with the first secret."""
        return f"http://{HOST}:{self.port}{self.path}"

    @property
    def admin_url(self) -> str:
        """Of the admin listener, without a path."""
        return f"http://{HOST}:{self.admin_port}"

    @property
    def pid(self) -> int:
        """Its process's id; of the one that ended, where it has."""
        return self._known().pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def arguments(self) -> list[str]:
        """The command line behind the program."""
        return ["serve", *self._assignments]

    def command(self, *words: str) -> list[str]:
        """The command line of another command with the same configuration."""
        return [*self._program, *words, *self._assignments]

    @property
    def _assignments(self) -> list[str]:
        pairs = ((key, _text(value)) for key, value in self.settings.items() if value is not None)
        return [part for key, text in pairs for part in ("--set", f"{key}={text}")]

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start it; where that fails nothing is left behind."""
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, whatever state it is in."""
        self.close()

    async def start(self) -> None:
        """Start it, on the same ports and directory as before, and wait as the constructor was told.

        Raises:
            AssertionError: It ended, or did not come up in time; says what it logged.
        """
        assert not self.running, "it runs already"
        self._directory.mkdir(parents=True, exist_ok=True)
        # A developer's own variables must not change what is tested.
        foreign = [name for name in os.environ if name.startswith("BRIDGE_") and "__" in name]
        variables = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **self._environment}
        command = [
            shutil.which("env") or "/usr/bin/env",
            *(part for name in foreign for part in ("-u", name)),
            *(f"{name}={value}" for name, value in variables.items()),
            *self._program,
            *self.arguments,
        ]
        with self.log_file.open("ab") as log:
            self._process = spawn(command, stdout=log, stderr=subprocess.STDOUT)
        if self._wait != "no":
            await self.wait_for("/livez" if self._wait == "live" else "/readyz")

    async def wait_for(self, path: str = "/readyz", status: int = 200, seconds: float = START_SECONDS) -> None:
        """Ask the admin listener until it answers with that status.

        Raises:
            AssertionError: The process ended, or it took longer; says what it logged.
        """
        deadline = time.monotonic() + seconds
        while not await self._answers(path, status):
            assert self.running, f"the bridge ended with {self._known().returncode}:\n{self._log_tail()}"
            assert time.monotonic() < deadline, f"{path} is not {status} after {seconds:g} s:\n{self._log_tail()}"
            await asyncio.sleep(POLL_SECONDS)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._known().terminate()

    async def stop(self, seconds: float = STOP_SECONDS) -> Stopped:
        """SIGTERM, and wait for the end.

        Raises:
            AssertionError: It lives on for longer than that; it was killed.
        """
        began = time.monotonic()
        self.terminate()
        return Stopped(await self.ended(seconds), time.monotonic() - began)

    async def ended(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end by itself; its exit code, negative for a signal.

        Raises:
            AssertionError: It lives on for longer than that; it was killed.
        """
        process, deadline = self._known(), time.monotonic() + seconds
        while (code := process.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                msg = f"still running after {seconds:g} s:\n{self._log_tail()}"
                raise AssertionError(msg)
            await asyncio.sleep(POLL_SECONDS)
        return code

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self._known()
        process.kill()
        process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self._known().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._known().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it if it lives, and give the ports back. May be called again."""
        if self._process is not None:
            self.kill()
        self._port.release()
        self._admin_port.release()

    # --- what it says -------------------------------------------------------------------------------------------------

    async def post(
        self,
        body: bytes,
        *,
        path: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        seconds: float = raw_http.ANSWER_SECONDS,
    ) -> Answer:
        """Push a body, on a connection of its own.

        Raises:
            AssertionError: The connection ended without an answer.
            TimeoutError: No answer came in time.
        """
        pushed = raw_http.request("POST", path or self.path, body, [*headers, ("Connection", "close")])
        answer = await raw_http.exchange(self.port, pushed, seconds=seconds)
        assert answer is not None, "the connection ended without an answer"
        return answer

    async def metrics(self) -> dict[str, float]:
        """A scrape: each sample's value by its name and labels, written as they come: ``name{label="value"}``."""
        text = (await raw_http.get(self.admin_port, "/metrics")).body.decode()
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    @property
    def log_file(self) -> Path:
        """Everything it wrote, in all its lives."""
        return self._directory / f"bridge-{self.port}.log"

    def log(self) -> str:
        """The text of ``log_file``."""
        return self.log_file.read_text(errors="replace")

    # --- within -------------------------------------------------------------------------------------------------------

    async def _answers(self, path: str, status: int) -> bool:
        try:
            return (await raw_http.get(self.admin_port, path, seconds=2.0)).status == status
        except (OSError, TimeoutError):
            return False

    def _known(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    def _log_tail(self) -> str:
        return self.log()[-LOG_TAIL_CHARACTERS:]


class Balance(NamedTuple):
    """Both sides of the reconciliation of one scrape, in reports."""

    taken: float
    accounted: float


def balance(metrics: Mapping[str, float]) -> Balance:
    """``received + recovered`` and ``published + waiting + dead_lettered + refused`` of a scrape."""

    def total(name: str) -> float:
        return sum(value for sample, value in metrics.items() if sample.partition("{")[0] == f"chatapp_bridge_{name}")

    taken = total("reports_received_total") + total("reports_recovered_total")
    accounted = total("reports_published_total") + total("reports_waiting")
    return Balance(taken, accounted + total("reports_dead_lettered_total") + total("reports_refused_total"))


def _text(value: Any) -> str:
    """A setting as ``--set`` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path | int | float):
        return str(value)
    return ",".join(map(str, value))
