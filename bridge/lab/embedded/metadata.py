"""Ask one broker what it knows of the cluster: Kafka's Metadata request, version 1, over a plain socket.

Small on purpose: it is asked in a loop while a broker starts, it must say nothing when nobody answers, and
it must tell what *this* broker sees. A client library would follow the answer to other brokers, retry, and
log each failure.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

METADATA, VERSION, CORRELATION = 3, 1, 7
ALL_TOPICS = -1


@dataclass(frozen=True)
class Partition:
    """One partition as a broker sees it; ``leader`` is -1 while there is none."""

    topic: str
    index: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Led, and every replica in sync."""
        return self.leader >= 0 and set(self.in_sync) == set(self.replicas)


@dataclass(frozen=True)
class View:
    """What one broker knows: the ids of the living brokers, and every partition, of internal topics too."""

    brokers: frozenset[int]
    partitions: tuple[Partition, ...]


def ask(host: str, port: int, timeout_seconds: float) -> View | None:
    """What the broker at this plaintext address knows, or None where none answers in time; blocks so long."""
    body = struct.pack(">hhihi", METADATA, VERSION, CORRELATION, -1, ALL_TOPICS)
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _exactly(connection, 4))
            return _view(_exactly(connection, size))
    except (OSError, EOFError):
        return None


def _exactly(connection: socket.socket, count_bytes: int) -> bytes:
    """Receive that many bytes; EOFError where the other side hangs up first."""
    content = bytearray()
    while len(content) < count_bytes:
        chunk = connection.recv(count_bytes - len(content))
        if not chunk:
            raise EOFError
        content += chunk
    return bytes(content)


class _Reader:
    """Takes values one after another from a response."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def number(self, form: str) -> int:
        """One integer, in a form of the struct module's."""
        (value,) = struct.unpack_from(">" + form, self._content, self._position)
        self._position += struct.calcsize(">" + form)
        return int(value)

    def text(self) -> str:
        """A string with its length before it; an absent one is empty."""
        length = max(self.number("h"), 0)
        self._position += length
        return self._content[self._position - length : self._position].decode()

    def numbers(self) -> tuple[int, ...]:
        """An array of 32-bit integers."""
        return tuple(self.number("i") for _ in range(self.number("i")))


def _view(content: bytes) -> View:
    """Read a whole response."""
    reader = _Reader(content)
    reader.number("i")  # The correlation id: there was one request.
    brokers = []
    for _ in range(reader.number("i")):
        brokers.append(reader.number("i"))
        reader.text()  # host
        reader.number("i")  # port
        reader.text()  # rack
    reader.number("i")  # With KRaft, the controller named here is any broker.
    partitions = [partition for _ in range(reader.number("i")) for partition in _topic(reader)]
    return View(frozenset(brokers), tuple(partitions))


def _topic(reader: _Reader) -> Iterator[Partition]:
    """The partitions of the topic that comes next."""
    reader.number("h")  # error
    topic = reader.text()
    reader.number("b")  # internal
    for _ in range(reader.number("i")):
        reader.number("h")  # error: what it means for us is in the leader and the replicas
        index, leader = reader.number("i"), reader.number("i")
        yield Partition(topic, index, leader, reader.numbers(), reader.numbers())
