"""Other versions of Apache Kafka than the embedded one, each from a lock of its own in ``tests/versions``.

``python tests/versions/pin.py 2.6.3`` writes such a lock. All run on the Java that pip brings. Kafka 2 needs ZooKeeper, which is
in the same lock.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.errors import EmbeddedError
from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.download import ClassPath, Libraries, ensure_class_path
from bridge.lab.embedded.java import java_command
from bridge.lab.embedded.ports import HOST, Port
from bridge.lab.embedded.process import POLL_SECONDS, START_SECONDS, Process

LOCKS = Path(__file__).resolve().parents[1] / "versions"
EMBEDDED = "4.1.0"
VERSIONS = ("2.6.3", "2.8.2", "3.9.2", EMBEDDED, "4.4.0")
ZOOKEEPER_MAIN = "org.apache.zookeeper.server.ZooKeeperServerMain"
SESSION_MS = 3000


def class_path(version: str) -> ClassPath:
    """The jars of that version, in the cache beside the embedded one's."""
    return ClassPath(f"kafka-{version}", f"Apache Kafka {version}", LOCKS / f"kafka-{version}.lock")


def kafka_of(version: str, **arguments: Any) -> EmbeddedKafka:
    """One broker of that version; ``arguments`` are those of ``EmbeddedKafka``."""
    if version == EMBEDDED:
        return EmbeddedKafka(**arguments)
    if version.startswith("2."):
        return ZooKeeperKafka(version, **arguments)
    return EmbeddedKafka(version=class_path(version), **arguments)


class ZooKeeperKafka(EmbeddedKafka):
    """One broker of Kafka 2, and its ZooKeeper."""

    def __init__(self, version: str, *, properties: Mapping[str, str] | None = None, **arguments: Any) -> None:
        self._jars = class_path(version)
        self._port = Port()
        zookeeper = {
            "process.roles": "",
            "broker.id": "1",
            "zookeeper.connect": self._port.address,
            "zookeeper.session.timeout.ms": str(SESSION_MS),
        }
        super().__init__(properties={**zookeeper, **(properties or {})}, version=self._jars, **arguments)
        self._zookeeper = Process(self.directory / "zookeeper.log")

    async def start(self, *, new_addresses: bool = False, wait_seconds: float = START_SECONDS) -> None:
        """Start ZooKeeper, then the broker, as soon as ZooKeeper has forgotten the one that was killed."""
        if not self._zookeeper.running:
            await self._start_zookeeper()
        if not self.nodes[0].running:
            deadline = time.monotonic() + wait_seconds
            while b"/brokers/ids/1" in (said := await asyncio.to_thread(_dump, self._port.number)) or not said:
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"ZooKeeper is not ready for the broker; its log:\n{self._zookeeper.log_tail()}"
                    )
                await asyncio.sleep(POLL_SECONDS)
        await super().start(new_addresses=new_addresses, wait_seconds=wait_seconds)

    async def close(self) -> None:
        """End both."""
        await self._zookeeper.kill()
        await super().close()
        self._port.release()

    async def _start_zookeeper(self) -> None:
        jars = await asyncio.to_thread(ensure_class_path, self._jars)
        # An embedded node lays out its data by KRaft's rules where this file is missing.
        data = self.nodes[0].directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        meta = data / "meta.properties"
        if not meta.exists():
            meta.write_text("version=0\nbroker.id=1\n", encoding="ascii")
        settings = {
            "dataDir": self.directory / "zookeeper",
            "clientPort": self._port.number,
            "clientPortAddress": HOST,
            "tickTime": 500,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "dump",
        }
        file = self.directory / "zookeeper.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        options = ["-Xmx128m", "-Dzookeeper.forceSync=no", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info"]
        libraries = Libraries(jars[0].parent, jars)
        self._zookeeper.launch(java_command(libraries, ZOOKEEPER_MAIN, [str(file)], jvm_options=options))


def _dump(port: int) -> bytes:
    """ZooKeeper's sessions and what lives as long as they do; empty while it does not answer."""
    try:
        with socket.create_connection((HOST, port), 2.0) as connection:
            connection.settimeout(2.0)
            connection.sendall(b"dump")
            return b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return b""
