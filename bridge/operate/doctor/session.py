"""One run of the doctor: the settings with its advice so far, its connections, and what it made on Kafka."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from bridge.config import Settings
from bridge.errors import KafkaUnavailable
from bridge.kafka.cluster import NO_PRODUCER_ID, ProducerId
from bridge.kafka.connection import client_arguments
from bridge.kafka.sequences import Sequences
from bridge.kafka.wire import Connection, connect
from bridge.operate.doctor.findings import Finding, Left, Outcome
from bridge.threads import in_daemon_thread

T = TypeVar("T")

CONNECT_SECONDS: Final = 8.0
PREFIX: Final = "chatapp-bridge-doctor-"
"""What every name on Kafka that the doctor makes begins with; ``topics acls --replay`` allows such groups and ids."""
TOPIC, GROUP, TRANSACTIONAL_ID = "topic", "group", "transactional id"
"""The kinds of what it makes."""


_kept: Final[list[Any]] = []


def keep(client: T) -> T:
    """Keep a client of confluent_kafka until the program ends: freeing each would take up to a second."""
    _kept.append(client)
    return client


class NotTried(Exception):  # noqa: N818 - a result, not a failure
    """A check can't be tried, because something that it needs is missing."""


class Session:
    """See the module docstring.

    Args:
        settings: as configured.
        named: the topic for the test records; None to make one.

    Attributes:
        settings: as configured, with the advice so far.
        name: of everything that this run makes on Kafka.
        topic: the topic for the test records; empty while there is none.
        made: whether this run made the topic.
        brokers: the advertised addresses, by the brokers' ids.
        usable: the brokers that took a connection and, once that was tried, a record.
        leaders: the broker that leads each partition of the topic.
        sequences: the numbers of the test batches.
        numbered: whether these batches have a producer id.
        left: what is on Kafka, or may be, by kind and name.
        largest_status: the status topic's ``max.message.bytes``; None if Kafka does not show it.
        topics_as_declared: whether both topics of the bridge are there and shown as declared.
    """

    def __init__(self, settings: Settings, named: str | None) -> None:
        self._configured = settings
        self.settings = settings
        self.named = named
        self.name = PREFIX + uuid.uuid4().hex[:12]
        self.topic, self.made = "", False
        self.brokers: dict[int, tuple[str, int]] = {}
        self.usable: set[int] = set()
        self.leaders: dict[int, int] = {}
        self.sequences, self.numbered = Sequences(), False
        self.left: dict[tuple[str, str], Left] = {}
        self.largest_status: int | None = None
        self.topics_as_declared = False
        self._connections: dict[int, Connection] = {}
        self._count = self._calls = 0

    # --- advice -------------------------------------------------------------------------------------------------------

    def apply(self, advice: Mapping[str, Any]) -> None:
        """Go on with these keys set."""
        for key, value in advice.items():
            section, name = key.split(".", 1)
            changed = msgspec.structs.replace(getattr(self.settings, section), **{name: value})
            self.settings = msgspec.structs.replace(self.settings, **{section: changed})

    def differing(self, findings: list[Finding]) -> dict[str, Any]:
        """The advised keys whose values differ from the configured ones."""
        keys = dict.fromkeys(key for finding in findings for key in finding.set)
        return {key: _value(self.settings, key) for key in keys if self.differs(key, _value(self.settings, key))}

    def differs(self, key: str, value: Any) -> bool:
        """Whether the key is configured otherwise."""
        return bool(_value(self._configured, key) != value)

    # --- connections --------------------------------------------------------------------------------------------------

    async def connection(self, node: int) -> Connection:
        """An open connection to a broker, with the bridge's login.

        Raises:
            KafkaUnavailable, KafkaError, OSError, TimeoutError: there is none; ``connection.reason`` says why.
        """
        known = self._connections.get(node)
        if known is not None and not known.end:
            return known
        if node not in self.brokers:
            raise KafkaUnavailable(f"the cluster does not name broker {node}")
        arguments = client_arguments(self.settings.kafka)
        opened = self._connections[node] = await connect(*self.brokers[node], arguments, CONNECT_SECONDS)
        return opened

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.abort("not used any more")

    # --- what checks share --------------------------------------------------------------------------------------------

    @property
    def creates(self) -> bool:
        """Whether it matters that this user may create topics: there is something to make or change, and the bridge does it."""
        return not self.topics_as_declared and self.settings.topics.manage == "bridge"

    @property
    def partitions(self) -> list[int]:
        """One partition of the test topic on each broker that can be reached.

        Raises:
            NotTried: there is none.
        """
        if not self.leaders:
            raise NotTried("there is no topic for the test records")
        chosen = {leader: partition for partition, leader in self.leaders.items() if leader in self.usable}
        if not chosen:
            raise NotTried("no broker takes a record on the test topic")
        return sorted(chosen.values())

    def number_with(self, given: ProducerId | None) -> None:
        """From now on, give the test batches numbers of this producer id, or none."""
        self.sequences, self.numbered = Sequences(), given is not None
        self.sequences.use(given or NO_PRODUCER_ID)

    def key(self) -> bytes:
        """The next test record's key."""
        self._count += 1
        return f"{self.name}-{self._count}".encode()

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Make a call of confluent_kafka, which blocks, in a thread whose end nobody has to wait for."""
        self._calls += 1
        future = asyncio.wrap_future(in_daemon_thread(call, "doctor"))
        future.add_done_callback(_retrieved)
        await asyncio.wait([future])
        self._calls -= 1
        return future.result()

    def doubtful(self, kind: str) -> bool:
        """Whether Kafka may still be making it, as nobody waited for the answer."""
        return not self.made if kind == TOPIC else self._calls > 0

    def leave(self, kind: str, name: str, why: str) -> None:
        """Note what is, or may be, on Kafka from now on."""
        self.left[kind, name] = Left(kind, name, why)

    def removed(self, kind: str, name: str) -> None:
        """Note that it is not there any more."""
        self.left.pop((kind, name), None)


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Nobody may wait for the call any more; then its failure is not worth a line."""
    if not future.cancelled():
        future.exception()


def now_ms() -> int:
    """The time of a test record."""
    return time.time_ns() // 1_000_000


def not_tried(name: str, why: str) -> Finding:
    """The finding of a check that was not tried."""
    return Finding(name, Outcome.NOT_TRIED, why)


def _value(settings: Settings, key: str) -> Any:
    section, name = key.split(".", 1)
    return getattr(getattr(settings, section), name)
