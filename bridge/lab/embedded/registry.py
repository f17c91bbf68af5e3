"""A real Schema Registry from packages alone: Apicurio Registry with Confluent's API, on the Java that pip brings.

    async with EmbeddedRegistry() as registry:
        client = httpx.AsyncClient(base_url=registry.url)
        …
        await registry.kill()
        await registry.start()

It keeps its data in a file, so that a restart finds what was registered, also after a kill.
"""

import asyncio
import http.client
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

from bridge.errors import EmbeddedError
from bridge.lab.embedded.download import REGISTRY_JAR, ensure_registry
from bridge.lab.embedded.java import JVM_OPTIONS, java_executable
from bridge.lab.embedded.ports import HOST, Port
from bridge.lab.embedded.process import POLL_SECONDS, START_SECONDS, Owned, Process

API = "/apis/ccompat/v7"
NATIVE_API = "/apis/registry/v3"
ASK_SECONDS = 5.0
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class EmbeddedRegistry(Owned, Process):
    """One registry to start, stop, hurt and start again; ``async with`` starts it and removes it at the end.

    It belongs to no event loop. Its port is chosen when it is made and kept for its life; its process dies
    with this one, however this one dies.

    Attributes:
        directory: Has ``registry.log`` and the data.
    """

    def __init__(
        self,
        *,
        compatibility: str = "BACKWARD",
        directory: Path | None = None,
        console: Console | None = None,
    ) -> None:
        """Choose port and place; nothing is started or fetched yet.

        Args:
            compatibility: The level of subjects without one of their own; as new registries of Confluent's have it
                unless given.
            directory: For data and log, kept at the end; a temporary one, removed, unless given.
            console: Takes progress of the first fetch; standard error unless given.
        """
        self.directory = Path(directory or tempfile.mkdtemp(prefix="chatapp-bridge-registry-")).absolute()
        super().__init__(self.directory / "registry.log")
        self._temporary = directory is None
        self._compatibility = compatibility
        self._console = console
        self._port, self._management_port = Port(), Port()

    @property
    def url(self) -> str:
        """Where Confluent's API is, without a slash at the end."""
        return f"http://{self._port.address}{API}"

    @property
    def native_url(self) -> str:
        """Where Apicurio's own API is, which its serialisers for Java use."""
        return f"http://{self._port.address}{NATIVE_API}"

    async def start(self, wait_seconds: float = START_SECONDS) -> None:
        """Start it with the data it has, unless it runs, and wait until it answers.

        Raises:
            EmbeddedError: Java or the registry can't be had, or it ends, or does not come up in time; the
                message has the last lines of its log.
        """
        if self.running:
            return
        java_executable()  # Asked before 159 MB are fetched in vain.
        place = await self._fetch()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.launch(self._command(place))
        await self.wait_ready(wait_seconds)
        if not await asyncio.to_thread(self._call, "PUT", "/config", {"compatibility": self._compatibility}):
            raise self._failure(f"does not take the compatibility {self._compatibility}")

    async def heal(self) -> None:
        """Resume it where it is paused, start it where it is down, wait until it answers: after a test that hurt it."""
        self.resume()
        await self.start()
        await self.wait_ready()

    async def close(self) -> None:
        """Kill it, give the ports back, remove data and log unless their directory was given."""
        await self.kill()
        self._port.release()
        self._management_port.release()
        if self._temporary:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def wait_ready(self, wait_seconds: float = START_SECONDS) -> None:
        """Wait until it answers.

        Raises:
            EmbeddedError: It ends or does not get there in time; the message has the last lines of its log.
        """
        deadline = time.monotonic() + wait_seconds
        while not await asyncio.to_thread(self._call, "GET", "/subjects"):
            if not self.running:
                raise self._failure("ended while it started")
            if time.monotonic() > deadline:
                raise self._failure(f"does not answer after {wait_seconds:g} s")
            await asyncio.sleep(POLL_SECONDS)

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> bool:
        """True where it answers 200."""
        connection = http.client.HTTPConnection(HOST, self._port.number, timeout=ASK_SECONDS)
        try:
            connection.request(method, API + path, json.dumps(body) if body else None, {"Content-Type": MEDIA_TYPE})
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _command(self, place: Path) -> list[str]:
        properties = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self._port.number,
            "quarkus.http.access-log.enabled": "false",
            "quarkus.management.host": HOST,
            "quarkus.management.port": self._management_port.number,
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            # Each commit at once, not half a second later: a kill loses nothing.
            "apicurio.datasource.url": f"jdbc:h2:file:{self.directory / 'data'};WRITE_DELAY=0",
            # 20 and more unless told.
            "apicurio.datasource.jdbc.initial-size": 1,
            "apicurio.datasource.jdbc.min-size": 1,
        }
        settings = [f"-D{name}={value}" for name, value in properties.items()]
        return [str(java_executable()), *JVM_OPTIONS, "-Xmx384m", *settings, "-jar", str(place / REGISTRY_JAR)]

    async def _fetch(self) -> Path:
        """Have it; a cancelled task makes the thread that fetches it give up too."""
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(ensure_registry, self._console, cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def _failure(self, what: str) -> EmbeddedError:
        return EmbeddedError(f"the registry {what}; its log, {self.log_file}, ends:\n{self.log_tail()}")
