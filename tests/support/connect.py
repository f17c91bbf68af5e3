"""Kafka Connect as a consuming team runs it: a standalone worker, in a process of its own.

    async with ConnectWorker(tmp_path, worker_settings, [connector_settings], plugins) as worker:
        lines = await worker.lines(tmp_path / "events.txt", 4)

Settings are what stands in Java's properties files; ``settings_of`` reads them out of a document.
"""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bridge.errors import EmbeddedError
from bridge.lab.embedded import compile_java
from bridge.lab.embedded.download import CONNECT, ensure_class_path
from bridge.lab.embedded.java import java_command, libraries_off_loop
from bridge.lab.embedded.ports import Port
from bridge.lab.embedded.process import Owned, Process
from support.topics import until

MAIN = "org.apache.kafka.connect.cli.ConnectStandalone"
SOURCES = Path(__file__).parents[1] / "java/connect"
LINES_SECONDS = 60.0


def settings_of(text: str) -> dict[str, str]:
    """The settings of a properties file, in their order; ``#`` begins a comment."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def changed(settings: Mapping[str, str], changes: Mapping[str, object]) -> dict[str, str]:
    """The settings with other values for what they have already: nothing is added.

    Raises:
        AssertionError: One of them has no such name.
    """
    assert changes.keys() <= settings.keys(), changes.keys() - settings.keys()
    return {**settings, **{name: str(value) for name, value in changes.items()}}


class ConnectWorker(Owned, Process):
    """A standalone worker with its connectors; ``async with`` starts it and kills it at the end. It belongs to no event loop.

    Attributes:
        log_file: What the worker says.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        connectors: Sequence[Mapping[str, str]],
        converter: Sequence[Path] = (),
    ) -> None:
        """Name its place and settings; nothing is started yet.

        Args:
            directory: Takes the worker's files: plug-ins, offsets, its log.
            settings: Of the worker, but for the port it listens on, its plug-ins and its offsets: those are its own.
            connectors: Of each connector.
            converter: The jars of a converter, a plug-in of its own.
        """
        super().__init__(directory / "worker.log")
        self._directory = directory
        self._plugins = directory / "plugins"
        self._port = Port()
        here = {
            "listeners": f"http://{self._port.address}",
            "plugin.path": self._plugins,
            "offset.storage.file.filename": directory / "offsets",
        }
        self._settings = changed(settings, here)
        self._connectors = connectors
        self._converter = converter

    async def start(self) -> None:
        """Start it, with the stock file connectors and the sink of ``tests/java/connect`` as plug-ins."""
        libraries = await libraries_off_loop()
        jars = await asyncio.to_thread(ensure_class_path, CONNECT)
        # As in Kafka's own distribution, the file connectors are not on the class path.
        files = next(jar for jar in jars if jar.name.startswith("connect-file-"))
        for name, parts in (("file", [files]), ("converter", self._converter)):
            (self._plugins / name).mkdir(parents=True)
            for jar in parts:
                shutil.copy(jar, self._plugins / name)
        await compile_java(sorted(SOURCES.glob("*.java")), self._plugins / "typed", class_path=jars)
        written = []
        for name, settings in (("worker", self._settings), *((each["name"], each) for each in self._connectors)):
            written.append(self._directory / f"{name}.properties")
            written[-1].write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        class_path = [jar for jar in jars if jar != files]
        options = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Xmx256m"]
        self.launch(java_command(libraries, MAIN, [*map(str, written)], jvm_options=options, class_path=class_path))

    async def close(self) -> None:
        """Kill it, and give its port back."""
        await self.kill()
        self._port.release()

    async def lines(self, file: Path, count: int, wait_seconds: float = LINES_SECONDS) -> list[str]:
        """What a connector wrote there, once it is that many lines.

        Raises:
            EmbeddedError: The worker ended, or they have not come in time; the message has the last lines of its log.
        """

        def read() -> list[str]:
            return file.read_text().splitlines() if file.exists() else []

        async def enough() -> bool:
            return len(read()) >= count or not self.running

        try:
            async with asyncio.timeout(wait_seconds):
                await until(enough)
        except TimeoutError:
            pass
        found = read()
        if len(found) < count:
            msg = f"{file.name} has {len(found)} of {count} lines; the worker's log ends:\n{self.log_tail()}"
            raise EmbeddedError(msg)
        return found
