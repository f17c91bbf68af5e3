"""The parts of Kafka's protocol that a proxy needs: headers, the addresses in answers, and Produce.

A frame is a message without the four bytes of its length. Frames of unknown versions are returned unchanged.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.protocol import produce

PRODUCE, METADATA, FIND_COORDINATOR, API_VERSIONS, CREATE_TOPICS, INIT_PRODUCER_ID, DESCRIBE_CONFIGS = (
    0, 3, 10, 18, 19, 22, 32,
)  # fmt: skip
PRODUCE_VERSIONS = range(3, 9)
"""The versions whose answers this module reads and writes. From version 9 on the encoding is compact."""
_FIRST_FLEXIBLE = {
    PRODUCE: 9, 1: 12, 2: 6, METADATA: 9, 8: 8, 9: 6, FIND_COORDINATOR: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 16: 3, 17: 99,
    API_VERSIONS: 3, CREATE_TOPICS: 5, 20: 4, 21: 2, INIT_PRODUCER_ID: 2, 23: 4, 24: 3, 25: 3, 26: 3, 28: 3, 29: 2, 30: 2,
    31: 2, DESCRIBE_CONFIGS: 4, 33: 2, 34: 2, 35: 2, 36: 2, 37: 2, 38: 2, 39: 2, 40: 2, 41: 2, 42: 2, 43: 2, 44: 1, 47: 1,
    48: 1, 49: 1,
}  # fmt: skip
"""By API key, the first version with compact encoding and tagged fields. It is 0 for the keys that are not here."""
_NO_OFFSET = -1
_BODY_AT = 10
"""Where a request's body begins, without the client's name."""
_BATCH_FROM_ATTRIBUTES = struct.Struct(">hiqqqhii")
_ATTRIBUTES_AT = 21
_CODEC = 0x07

METADATA_ANSWER = bytes.fromhex(
    "00000000050300000001046f6e6500002384000000000002057a77c3b60000238502720017354c3667336e5368542d654d43"
    "744b2d2d58383673770000000104000007737461747573fb00112233445566778899aabbccddef0003000000000000000000"
    "010000000403000000010000000202000000010100000000000001ffffffff00000004020000000202000000010100800000"
    "00000000046f6c64000000000000000000000000000000000002000000000000000000020000000402000000020200000001"
    "010080000000000003086d697373696e6700000000000000000000000000000000000180000000008000000000"
)
"""An answer to Metadata 10 behind its correlation id, from kio 0.6.5, which is generated from Kafka's own descriptions.

Two brokers and three topics: one with an id, one without, one that is missing.
"""

Partition = tuple[str, int]
"""A topic's name and a partition's number."""
Move = Callable[[str, int], tuple[str, int]]
"""Takes a broker's host and port, returns those that replace them."""


@dataclass(frozen=True)
class Request:
    """A request on its way to a broker.

    Attributes:
        api_key: 0 is Produce.
        api_version: The client's choice.
        correlation_id: The client's.
        size: Bytes, without the four of the length.
        connection: Its connection's number, from 1 in the order in which they were opened, over all brokers.
        number: Its own number among those of the same API key, from 1, over all connections.
        broker: The number of the broker, from 0.
        batches: What a Produce request of a known version brings: record batches by partition.
        acks: Of such a request; a broker does not answer where it is 0.
        topics: The names that a Metadata request asks for; None if it asks for all topics.
        may_create: Whether the broker may create the topics that a Metadata request asks for.
        frame: All of it.
    """

    api_key: int
    api_version: int
    correlation_id: int
    size: int
    connection: int = 0
    number: int = 0
    broker: int = 0
    batches: Mapping[Partition, bytes] = field(default_factory=dict, repr=False)
    acks: int = -1
    topics: Sequence[str] | None = ()
    may_create: bool = False
    frame: bytes = field(default=b"", repr=False)

    @property
    def understood(self) -> bool:
        """Whether its answer can be read and written here."""
        return self.api_key == PRODUCE and self.api_version in PRODUCE_VERSIONS

    @property
    def flexible(self) -> bool:
        """Whether it has compact encoding and tagged fields."""
        return self.api_version >= _FIRST_FLEXIBLE.get(self.api_key, 0)

    @property
    def body(self) -> bytes:
        """What follows the header."""
        cursor = _Cursor(self.frame, flexible=self.flexible)
        cursor.skip(_BODY_AT + max(0, struct.unpack_from(">h", self.frame, _BODY_AT - 2)[0]))
        cursor.tags()
        return self.frame[cursor.at :]

    def answer_frame(self, body: bytes) -> bytes:
        """An answer to it, with the header that its version has."""
        return struct.pack(">i", self.correlation_id) + (b"\0" if self._answer_has_tags else b"") + body

    def answer_body(self, frame: bytes) -> bytes:
        """What follows the header of an answer to it."""
        assert not self._answer_has_tags or frame[4] == 0, "the answer's header has tagged fields"
        return frame[5:] if self._answer_has_tags else frame[4:]

    @property
    def _answer_has_tags(self) -> bool:
        # A client that does not know the broker's versions yet must be able to read an answer to ApiVersions.
        return self.flexible and self.api_key != API_VERSIONS


def read_request(frame: bytes) -> Request:
    """Read a frame. The caller adds ``connection``, ``number`` and ``broker``."""
    key, version, correlation_id, client_length = struct.unpack_from(">hhih", frame)
    request = Request(key, version, correlation_id, len(frame), frame=frame)
    if key == METADATA:
        topics, may_create = _topics_asked_for(frame, version, max(client_length, 0))
        return replace(request, topics=topics, may_create=may_create)
    if not request.understood:
        return request
    body = BytesIO(frame)
    body.seek(_BODY_AT + max(client_length, 0))
    read = _struct("Request", version).decode(body)
    batches = {(topic, number): batch for topic, parts in read.topics for number, batch in parts}
    return replace(request, batches=batches, acks=read.required_acks)


def _topics_asked_for(frame: bytes, version: int, client_length: int) -> tuple[Sequence[str] | None, bool]:
    """The topics of a Metadata request, None for all, and whether it lets the broker create them."""
    cursor = _Cursor(frame, flexible=version >= _FIRST_FLEXIBLE[METADATA])
    cursor.skip(_BODY_AT + client_length)
    cursor.tags()
    count, names = cursor.count(), []
    for _ in range(count):
        cursor.skip(16 if version >= 10 else 0)  # topic_id
        names.append(cursor.string())
        cursor.tags()
    every = count < 0 or (version == 0 and not count)
    return None if every else names, version < 4 or frame[cursor.at] != 0


def without_partitions(frame: bytes, unwanted: Collection[Partition]) -> bytes:
    """A Produce request's frame without the batches for these partitions; of a version in ``PRODUCE_VERSIONS``."""
    _, version, _, client_length = struct.unpack_from(">hhih", frame)
    start = _BODY_AT + max(client_length, 0)
    body = BytesIO(frame)
    body.seek(start)
    read = _struct("Request", version).decode(body)
    kept = [(topic, [part for part in parts if (topic, part[0]) not in unwanted]) for topic, parts in read.topics]
    read.topics = [(topic, parts) for topic, parts in kept if parts]
    return frame[:start] + bytes(read.encode())


class BatchHead(NamedTuple):
    """What a record batch says about itself. ``codec``: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd. Timestamps are in ms."""

    codec: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @classmethod
    def read(cls, batch: bytes) -> "BatchHead":
        """Of a batch of version 2."""
        attributes, _, *fields = _BATCH_FROM_ATTRIBUTES.unpack_from(batch, _ATTRIBUTES_AT)
        return cls(attributes & _CODEC, *fields)


class PartitionAnswer(NamedTuple):
    """A Produce answer for one partition. ``record_errors`` and ``message`` are written from version 8 on."""

    code: int
    offset: int = _NO_OFFSET
    timestamp: int = -1
    log_start_offset: int = -1
    record_errors: Sequence[tuple[int, str | None]] = ()
    message: str | None = None


@dataclass
class ProduceAnswer:
    """An answer to Produce, to be changed."""

    partitions: dict[Partition, PartitionAnswer]
    throttle_time_ms: int = 0

    @classmethod
    def read(cls, frame: bytes, version: int) -> "ProduceAnswer":
        """Read a frame, correlation id and all."""
        body = BytesIO(frame)
        body.seek(4)
        read = _struct("Response", version).decode(body)
        partitions = {
            (topic, number): PartitionAnswer(*fields) for topic, parts in read.topics for number, *fields in parts
        }
        return cls(partitions, read.throttle_time_ms)

    def write(self, correlation_id: int, version: int) -> bytes:
        """The frame."""
        # Code, offset and timestamp are in all of these versions, the log's start from 5 on, the two of errors from 8 on.
        known = 6 if version >= 8 else 4 if version >= 5 else 3
        topics: dict[str, list[tuple[Any, ...]]] = {}
        for (topic, number), answer in self.partitions.items():
            topics.setdefault(topic, []).append((number, *answer[:known]))
        body = _struct("Response", version)(topics=list(topics.items()), throttle_time_ms=self.throttle_time_ms)
        return struct.pack(">i", correlation_id) + bytes(body.encode())


def with_correlation_id(frame: bytes, correlation_id: int) -> bytes:
    """An answer's frame under another id."""
    return struct.pack(">i", correlation_id) + frame[4:]


def with_addresses_moved(frame: bytes, api_key: int, version: int, move: Move) -> bytes:
    """An answer's frame with each broker's address moved, where it is one to Metadata or FindCoordinator."""
    if api_key not in {METADATA, FIND_COORDINATOR}:
        return frame
    cursor = _Cursor(frame, flexible=version >= _FIRST_FLEXIBLE[api_key])
    cursor.skip(4)
    cursor.tags()
    parts, kept = [], 0
    for start, end, host, port in _metadata(cursor, version) if api_key == METADATA else _coordinators(cursor, version):
        parts += [frame[kept:start], cursor.written(*move(host, port))]
        kept = end
    return b"".join([*parts, frame[kept:]])


class _Cursor:
    """Walks through a frame."""

    def __init__(self, frame: bytes, *, flexible: bool) -> None:
        self.at = 0
        self._frame, self._flexible = frame, flexible

    def skip(self, count: int) -> None:
        self.at += count

    def int32(self) -> int:
        value: int = struct.unpack_from(">i", self._frame, self.at)[0]
        self.at += 4
        return value

    def count(self) -> int:
        """Of an array."""
        return self._varint() - 1 if self._flexible else self.int32()

    def string(self) -> str:
        """Empty for none."""
        if self._flexible:
            length = self._varint() - 1
        else:
            length = struct.unpack_from(">h", self._frame, self.at)[0]
            self.at += 2
        length = max(length, 0)
        self.at += length
        return self._frame[self.at - length : self.at].decode()

    def tags(self) -> None:
        """Skip the tagged fields that end each structure of a flexible version."""
        if self._flexible:
            for _ in range(self._varint()):
                self._varint()
                self.skip(self._varint())

    def address(self) -> tuple[int, int, str, int]:
        """Where it begins and ends, host, port."""
        start, host, port = self.at, self.string(), self.int32()
        return start, self.at, host, port

    def written(self, host: str, port: int) -> bytes:
        """An address as it is in this frame; its host is shorter than 127 bytes."""
        name = host.encode()
        length = bytes([len(name) + 1]) if self._flexible else struct.pack(">h", len(name))
        return length + name + struct.pack(">i", port)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._frame[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def _metadata(cursor: _Cursor, version: int) -> list[tuple[int, int, str, int]]:
    if version >= 3:
        cursor.skip(4)  # throttle_time_ms
    found = []
    for _ in range(cursor.count()):
        cursor.skip(4)  # node_id
        found.append(cursor.address())
        if version >= 1:
            cursor.string()  # rack
        cursor.tags()
    return found


def _coordinators(cursor: _Cursor, version: int) -> list[tuple[int, int, str, int]]:
    """Those that were found: without one there is an error, and a port of -1."""
    found = []
    if version >= 1:
        cursor.skip(4)  # throttle_time_ms
    for _ in range(cursor.count() if version >= 4 else 1):
        if version >= 4:
            cursor.string()  # key
        else:
            cursor.skip(2)  # error_code
            if version >= 1:
                cursor.string()  # error_message
        cursor.skip(4)  # node_id
        found.append(cursor.address())
        if version >= 4:
            cursor.skip(2)  # error_code
            cursor.string()  # error_message
        cursor.tags()
    return [address for address in found if address[3] >= 0]


def _struct(kind: str, version: int) -> Any:
    return getattr(produce, f"Produce{kind}_v{version}")
