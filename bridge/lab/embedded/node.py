"""One node of an embedded Kafka: broker and controller in one JVM, to stop, kill, pause and restart."""

import asyncio
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import EmbeddedError
from bridge.lab.embedded.download import Libraries
from bridge.lab.embedded.java import java_command, spawn
from bridge.lab.embedded.metadata import View, ask
from bridge.lab.embedded.ports import HOST, Port
from bridge.lab.embedded.process import POLL_SECONDS, START_SECONDS, Process

INTERNAL, CONTROLLER = "INTERNAL", "CONTROLLER"
ASK_SECONDS = 2.0
FORMAT_MAIN, BROKER_MAIN = "kafka.tools.StorageTool", "kafka.Kafka"


@dataclass
class Shared:
    """What the nodes of one cluster have in common.

    Attributes:
        cluster_id: Kafka's 22 characters.
        voters: ``id@host:port`` of each controller, comma-separated.
        protocols: Security protocol by the name of each listener for clients; the first is the main one.
        properties: The cluster's own server.properties, over the defaults.
        jvm_options: Over the defaults.
        libraries: The jars, once they are known.
    """

    cluster_id: str
    voters: str
    protocols: Mapping[str, str]
    properties: dict[str, str]
    jvm_options: tuple[str, ...]
    libraries: Libraries | None = None


class Node(Process):
    """One node. It belongs to no event loop: any may await its methods, one at a time.

    Attributes:
        id: 1, 2, 3.
        directory: Has ``server.properties``, ``server.log`` and ``data``.
        properties: This node's own server.properties, over the cluster's. A change holds from the next start
            on.
        advertised: ``host:port`` that clients are told, by listener, where it is not the listener's own: a
            proxy before the broker. A change holds from the next start on.
    """

    def __init__(self, number: int, directory: Path, controller: Port, protocols: Mapping[str, str]) -> None:
        super().__init__(directory / "server.log")
        self.id = number
        self.directory = directory
        self.properties: dict[str, str] = {}
        self.advertised: dict[str, str] = {}
        self._shared: Shared | None = None
        self._ports = {name: Port() for name in (*protocols, INTERNAL)} | {CONTROLLER: controller}

    def join(self, shared: Shared) -> None:
        """Take part in a cluster, before the first start."""
        self._shared = shared

    def address(self, listener: str | None = None) -> str:
        """``host:port`` where clients find it; the main listener unless named."""
        name = listener or next(iter(self._ports))
        return self.advertised.get(name, self._ports[name].address)

    def port(self, listener: str | None = None) -> int:
        """The port it listens on itself, on 127.0.0.1: a proxy's upstream."""
        return self._ports[listener or next(iter(self._ports))].number

    async def start(self, *, new_address: bool = False, wait_seconds: float | None = START_SECONDS) -> None:
        """Start it, with the data it has, and wait until it answers and counts itself among the brokers.

        Args:
            new_address: Listen for clients on other ports than before.
            wait_seconds: How long that may take; None to return at once.

        Raises:
            EmbeddedError: It ends, or does not come up in time; the message has the last lines of its log.
        """
        if self.running:
            return
        shared = self._known()
        if new_address:
            self._move(shared.protocols)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_properties(shared)
        if not (self.directory / "data" / "meta.properties").exists():
            await self._format(shared)
        self.launch(_command(shared, BROKER_MAIN, [str(self._properties_file)]))
        if wait_seconds is not None:
            await self.wait_ready(wait_seconds)

    async def restart(self, *, new_address: bool = False) -> None:
        """Stop it in good order and start it again."""
        await self.stop()
        await self.start(new_address=new_address)

    async def view(self) -> View | None:
        """What it knows of the cluster now, or None where it does not answer within two seconds."""
        return await asyncio.to_thread(ask, HOST, self.port(INTERNAL), ASK_SECONDS)

    async def wait_ready(self, wait_seconds: float = START_SECONDS, others: frozenset[int] = frozenset()) -> None:
        """Wait until it answers and counts itself and the ``others`` among the living brokers.

        Raises:
            EmbeddedError: It ends or does not get there in time; the message has the last lines of its log.
        """
        deadline = time.monotonic() + wait_seconds
        wanted = others | {self.id}
        while True:
            if not self.running:
                raise self._failure("ended while it started")
            view = await self.view()
            if view is not None and view.brokers >= wanted:
                return
            if time.monotonic() > deadline:
                seen = "does not answer" if view is None else f"knows the brokers {sorted(view.brokers)}"
                raise self._failure(f"is not up after {wait_seconds:g} s: it {seen}, wanted {sorted(wanted)}")
            await asyncio.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Give its ports back, at the end of the cluster's life."""
        for port in self._ports.values():
            port.release()

    def _known(self) -> Shared:
        if self._shared is None:
            msg = f"node {self.id} belongs to no cluster"
            raise EmbeddedError(msg)
        return self._shared

    def _move(self, protocols: Mapping[str, str]) -> None:
        """Take other ports for clients; the old ones are held until the new ones are, so they differ."""
        old = [self._ports[name] for name in protocols]
        self._ports |= {name: Port() for name in protocols}
        for port in old:
            port.release()

    @property
    def _properties_file(self) -> Path:
        return self.directory / "server.properties"

    def _write_properties(self, shared: Shared) -> None:
        """Write what the broker reads: places first, then the cluster's properties, then the node's own."""
        listeners = {name: port.address for name, port in self._ports.items()}
        advertised = {name: address for name, address in listeners.items() if name != CONTROLLER} | self.advertised
        protocols = {**shared.protocols, INTERNAL: "PLAINTEXT", CONTROLLER: "PLAINTEXT"}
        values = {
            "process.roles": "broker,controller",
            "node.id": str(self.id),
            "controller.quorum.voters": shared.voters,
            "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
            "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": INTERNAL,
            "controller.listener.names": CONTROLLER,
            "log.dirs": str(self.directory / "data"),
            **shared.properties,
            **self.properties,
        }
        # In a properties file a backslash escapes what follows.
        lines = [f"{key}={value.replace(chr(92), chr(92) * 2)}\n" for key, value in values.items()]
        self._properties_file.write_text("".join(lines), encoding="utf-8")

    async def _format(self, shared: Shared) -> None:
        """Lay out the data directory, as Kafka demands before the first start."""
        arguments = ["format", "-t", shared.cluster_id, "-c", str(self._properties_file)]
        with self.log_file.open("ab") as log:
            process = spawn(_command(shared, FORMAT_MAIN, arguments), stdout=log, stderr=subprocess.STDOUT)
        try:
            if await asyncio.to_thread(process.wait, START_SECONDS) != 0:
                raise self._failure("refused its configuration")
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not lay out its data within {START_SECONDS:g} s") from None
        finally:
            process.kill()

    def _failure(self, what: str) -> EmbeddedError:
        return EmbeddedError(f"Kafka node {self.id} {what}; its log, {self.log_file}, ends:\n{self.log_tail()}")


def _command(shared: Shared, main_class: str, arguments: list[str]) -> list[str]:
    """The command line of one of Kafka's programs."""
    if shared.libraries is None:
        msg = "start the cluster before one of its nodes"
        raise EmbeddedError(msg)
    options = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info", *shared.jvm_options]
    return java_command(shared.libraries, main_class, arguments, jvm_options=options)
