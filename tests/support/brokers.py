"""Which real Kafka the tests run against, and a container of it.

``BRIDGE_TEST_BOOTSTRAP`` names one that runs already. Else it is a container of the official image, where a
Docker engine answers and has the image or can fetch it. Else, and wherever there is no Docker, it is the
embedded one, which needs nothing but the packages of the ``dev`` and ``embedded`` extras.
``BRIDGE_TEST_KAFKA=container`` or ``=embedded`` leaves no choice.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.metadata import ask
from bridge.lab.embedded.ports import HOST, Port
from bridge.lab.embedded.process import Owned
from support.apart import run_apart

Server = TypeVar("Server", bound=Owned)

IMAGE = "apache/kafka:4.1.0"
READY_SECONDS = 90.0
POLL_SECONDS = 0.1
CONTAINER, EMBEDDED, GIVEN = "container", "embedded", "given"
used: list[str] = []
"""What was taken in this session, for people: one line each, in the order of its start."""


def settled() -> str:
    """The kind that the environment demands, else the one that can be had here."""
    if os.environ.get("BRIDGE_TEST_BOOTSTRAP"):
        return GIVEN
    wanted = os.environ.get("BRIDGE_TEST_KAFKA", "")
    if wanted not in {"", CONTAINER, EMBEDDED}:
        msg = f"BRIDGE_TEST_KAFKA is {wanted!r}; it may be {CONTAINER!r} or {EMBEDDED!r}"
        raise ValueError(msg)
    return wanted or (CONTAINER if engine() is not None else EMBEDDED)


@cache
def engine() -> Any | None:
    """A client of the Docker engine, where one answers."""
    import docker  # noqa: PLC0415  not every run needs it, and it takes its time
    from docker.errors import DockerException  # noqa: PLC0415

    with suppress(DockerException, OSError):
        client = docker.from_env(timeout=10)
        client.ping()
        return client
    return None


def image_at_hand(*, pull: bool) -> bool:
    """Whether the engine has Kafka's image, or (with ``pull``) could fetch it."""
    from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415

    client = engine()
    if client is None:
        return False
    with suppress(ImageNotFound):
        client.images.get(IMAGE)
        return True
    if pull:
        with suppress(DockerException, OSError):
            client.images.pull(IMAGE)
            return True
    return False


def headline() -> str:
    """What the run's header says, before anything is started."""
    kind = settled()
    if kind == GIVEN:
        return f"kafka: given, {os.environ['BRIDGE_TEST_BOOTSTRAP']}"
    if kind == EMBEDDED:
        return "kafka: embedded, Apache Kafka's own jars on the Java of pip"
    there = "" if image_at_hand(pull=False) else " (to be pulled; embedded where that fails)"
    return f"kafka: container of {IMAGE}{there}"


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start it, take it down at the end; it belongs to no loop, so that tests with loops of their own can share it."""
    try:
        run_apart(server.start())
        yield server
    finally:
        run_apart(server.close())


@contextmanager
def broker() -> Iterator[str]:
    """A broker for the session; gives ``host:port``."""
    kind = settled()
    forced = os.environ.get("BRIDGE_TEST_KAFKA") == CONTAINER
    if kind == GIVEN:
        used.append("given")
        yield os.environ["BRIDGE_TEST_BOOTSTRAP"]
    elif kind == CONTAINER and (forced or image_at_hand(pull=True)):
        with _container() as address:
            used.append(f"container of {IMAGE}")
            yield address
    else:
        with running(EmbeddedKafka()) as kafka:
            used.append("embedded, one node")
            yield kafka.bootstrap_servers


@contextmanager
def _container() -> Iterator[str]:
    """The official image as one node; it advertises the port of this machine that leads to it."""
    # One image less to fetch: the container is removed below, so nothing has to clean up behind it.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  reads the environment when imported

    port = Port()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "CLIENT://:9092,CONTROLLER://:9093,INTERNAL://:9094",
        # What is advertised to clients leads nowhere inside the container: the broker talks to itself
        # elsewhere.
        "KAFKA_ADVERTISED_LISTENERS": f"CLIENT://{port.address},INTERNAL://localhost:9094",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    container = DockerContainer(IMAGE).with_envs(**settings).with_bind_ports("9092/tcp", port.number)
    try:
        container.start()
        run_apart(_answering(container, port))
        yield port.address
    finally:
        container.stop()
        port.release()


async def _answering(container: Any, port: Port) -> None:
    """Wait until the broker in the container says that it is one."""
    deadline = time.monotonic() + READY_SECONDS
    while not await asyncio.to_thread(_counts_itself, port.number):
        if time.monotonic() > deadline:
            out, error = container.get_logs()
            said = (out + error).decode(errors="replace")[-2000:]
            msg = f"{IMAGE} does not answer after {READY_SECONDS:g} s:\n{said}"
            raise TimeoutError(msg)
        await asyncio.sleep(POLL_SECONDS)


def _counts_itself(port: int) -> bool:
    view = ask(HOST, port, timeout_seconds=2.0)
    return view is not None and len(view.brokers) == 1
