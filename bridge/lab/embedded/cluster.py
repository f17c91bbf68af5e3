"""A real Apache Kafka of one to three nodes, from packages alone: for the demo and the tests.

    async with EmbeddedKafka(nodes=3) as kafka:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
        …
        await kafka.nodes[0].kill()
        await kafka.nodes[0].start()
        await kafka.wait_in_sync()

Each node is broker and controller (KRaft). Beside the listeners for clients, whose security the caller
chooses, each has a plaintext one on the loopback address, by which the nodes talk to each other and this
module asks them how they are; with an authorizer, make ``User:ANONYMOUS`` a super user, which no client of
a SASL listener is.
"""

import asyncio
import base64
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bridge.errors import EmbeddedError
from bridge.lab.embedded.archive import ensure_archive
from bridge.lab.embedded.download import ClassPath, Libraries, ensure_class_path, ensure_libraries
from bridge.lab.embedded.java import java_executable
from bridge.lab.embedded.node import CONTROLLER, Node, Shared
from bridge.lab.embedded.ports import Port
from bridge.lab.embedded.process import POLL_SECONDS, START_SECONDS, STOP_SECONDS, Owned

MAX_NODES = 3
HEAL_SECONDS = 120.0


class EmbeddedKafka(Owned):
    """A cluster to start, stop, hurt and heal; ``async with`` starts it and removes it at the end.

    It belongs to no event loop: a session's fixture may start it in one and tests use it in others. Ports
    are chosen when it is made and kept for its life. Its processes die with this one, however this one
    dies.

    Attributes:
        nodes: By position; ``nodes[0].id`` is 1.
        directory: Holds a directory for each node.
        cluster_id: Kafka's.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        auto_create_topics: bool = False,
        properties: Mapping[str, str] | None = None,
        node_properties: Mapping[int, Mapping[str, str]] | None = None,
        listeners: Mapping[str, str] | None = None,
        heap: str = "400m",
        jvm_options: Sequence[str] = (),
        version: ClassPath | None = None,
        directory: Path | None = None,
        keep: bool = False,
        console: Console | None = None,
    ) -> None:
        """Choose ports and places; nothing is started or fetched yet.

        Args:
            nodes: 1 to 3.
            auto_create_topics: Whether producing to a topic that is not there makes it.
            properties: server.properties of all nodes, over the defaults.
            node_properties: The same for single nodes, by id.
            listeners: Security protocol by name of the listeners for clients, the main one first:
                ``{"CLIENT": "PLAINTEXT"}`` unless given.
            heap: The most each JVM's heap may take, as -Xmx has it.
            jvm_options: Over the defaults; another collector needs ``-XX:-UseSerialGC`` too.
            version: Another version of Kafka than the package's own.
            directory: For data and logs; a temporary one unless given. Data kept there earlier by as many
                nodes is taken up again.
            keep: Leave the nodes' data and logs at the end.
            console: Takes progress of the first fetch; standard error unless given.

        Raises:
            ValueError: Another number of nodes.
        """
        if not 1 <= nodes <= MAX_NODES:
            msg = f"an embedded Kafka has 1 to {MAX_NODES} nodes, not {nodes}"
            raise ValueError(msg)
        self.directory = Path(directory or tempfile.mkdtemp(prefix="chatapp-bridge-kafka-")).absolute()
        self.cluster_id = _kept_cluster_id(self.directory) or _new_cluster_id()
        self._temporary = directory is None
        self._keep = keep
        self._console = console
        self._version = version
        protocols = dict(listeners or {"CLIENT": "PLAINTEXT"})
        self.nodes = tuple(
            Node(number, self.directory / f"node-{number}", Port(), protocols) for number in range(1, nodes + 1)
        )
        self._shared = Shared(
            cluster_id=self.cluster_id,
            voters=",".join(f"{node.id}@{node.address(CONTROLLER)}" for node in self.nodes),
            protocols=protocols,
            properties={**_defaults(nodes, auto_create_topics), **(properties or {})},
            jvm_options=(f"-Xmx{heap}", *jvm_options),
        )
        for node in self.nodes:
            node.join(self._shared)
            node.properties.update((node_properties or {}).get(node.id, {}))

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it: ``host:port`` of every node's main listener, comma-separated."""
        return self.bootstrap()

    def bootstrap(self, listener: str | None = None) -> str:
        """The same for a listener by its name."""
        return ",".join(node.address(listener) for node in self.nodes)

    def node(self, number: int) -> Node:
        """A node by its id, such as a partition's leader."""
        return self.nodes[number - 1]

    async def start(self, *, new_addresses: bool = False, wait_seconds: float = START_SECONDS) -> None:
        """Start every node that does not run; wait until each running one answers and knows all the others.

        The first time on a machine the jars are fetched, with progress shown, and starts are made faster.

        Args:
            new_addresses: The nodes that are started listen for clients on other ports than before.
            wait_seconds: How long it may take until they answer.

        Raises:
            EmbeddedError: Java or the jars can't be had, or a node does not come up.
        """
        if self._shared.libraries is None:
            java_executable()  # Asked before 48 MB are fetched in vain.
            self._shared.libraries = await self._fetch()
            if self._version is None:
                await ensure_archive(self._shared.libraries, self._console)
        await asyncio.gather(*(node.start(new_address=new_addresses, wait_seconds=None) for node in self.nodes))
        await self.wait_ready(wait_seconds)

    async def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """SIGTERM to all at once; data and ports stay for the next start.

        The last ones may wait in vain for a quorum that is gone; they are killed after the grace.
        """
        await asyncio.gather(*(node.stop(grace_seconds) for node in self.nodes))

    async def kill_all(self) -> None:
        """SIGKILL to all; data and ports stay for the next start."""
        for node in self.nodes:
            node.kill_now()
        await asyncio.gather(*(node.kill() for node in self.nodes))

    async def close(self) -> None:
        """Kill what runs, give the ports back, remove data and logs unless they are to be kept."""
        await self.kill_all()
        for node in self.nodes:
            node.release()
        if not self._keep:
            # A directory that was given may hold other things than ours.
            ours = [self.directory] if self._temporary else [node.directory for node in self.nodes]
            for each in ours:
                await asyncio.to_thread(shutil.rmtree, each, ignore_errors=True)

    async def wait_ready(self, wait_seconds: float = START_SECONDS) -> None:
        """Wait until each node that runs unpaused answers and knows all such nodes.

        Raises:
            EmbeddedError: One ends, or they do not get there in time.
        """
        awake = [node for node in self.nodes if node.running and not node.paused]
        ids = frozenset(node.id for node in awake)
        await asyncio.gather(*(node.wait_ready(wait_seconds, ids) for node in awake))

    async def wait_in_sync(self, wait_seconds: float = HEAL_SECONDS) -> None:
        """Wait until every node sees every partition led and each of its replicas in sync.

        Raises:
            EmbeddedError: They do not get there in time; the message names what is missing.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            missing = [line for node in self.nodes for line in await _not_in_sync(node)]
            if not missing:
                return
            if time.monotonic() > deadline:
                msg = f"not in sync after {wait_seconds:g} s: {'; '.join(missing[:MAX_NODES])}"
                raise EmbeddedError(msg)
            await asyncio.sleep(POLL_SECONDS)

    async def heal(self) -> None:
        """Resume what is paused, start what is down, wait until all is in sync: after a test that hurt it."""
        for node in self.nodes:
            node.resume()
        await self.start()
        await self.wait_in_sync()

    async def _fetch(self) -> Libraries:
        """Have the jars; a cancelled task makes the thread that fetches them give up too."""
        cancelled = threading.Event()
        try:
            if self._version is None:
                return await asyncio.to_thread(ensure_libraries, self._console, cancelled)
            jars = await asyncio.to_thread(ensure_class_path, self._version, self._console, cancelled)
            return Libraries(jars[0].parent, jars)
        except asyncio.CancelledError:
            cancelled.set()
            raise


async def _not_in_sync(node: Node) -> list[str]:
    """What this node misses, one line each."""
    view = await node.view()
    if view is None:
        return [f"node {node.id} does not answer"]
    return [
        f"node {node.id} sees {each.topic}/{each.index} led by {each.leader}, {each.in_sync} in sync"
        for each in view.partitions
        if not each.is_whole
    ]


def _kept_cluster_id(directory: Path) -> str | None:
    """The id that an earlier cluster gave the data in this directory, if there is any."""
    try:
        text = (directory / "node-1" / "data" / "meta.properties").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return next((line.removeprefix("cluster.id=") for line in text.splitlines() if "cluster.id=" in line), None)


def _new_cluster_id() -> str:
    """A random id in Kafka's form; one that begins with a dash would be taken for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _defaults(nodes: int, auto_create_topics: bool) -> dict[str, str]:
    """What differs from Kafka's defaults: small internal topics, little memory, soon noticing a dead node."""
    replicas, in_sync = str(nodes), "2" if nodes == MAX_NODES else "1"
    return {
        "auto.create.topics.enable": str(auto_create_topics).lower(),
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        # A node that says nothing for 4.5 s is out and its partitions get other leaders; Kafka's own 9 s
        # make tests slow.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "4500",
        # 128 MB of each heap otherwise.
        "log.cleaner.dedupe.buffer.size": "4194304",
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
