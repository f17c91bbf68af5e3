"""Encodes requests and decodes answers as Kafka's protocol guide describes them.

The bridge uses versions with a fixed layout: Produce 3 to 8, InitProducerId 0 and 1, ApiVersions 0, SaslHandshake 1,
SaslAuthenticate 0 and 1. Only Metadata 10 has compact lengths and tagged fields (``metadata.py``). aiokafka encodes and
decodes older versions of Metadata, and DescribeConfigs.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from bridge.errors import UnreadableAnswer, UnsupportedBroker
from bridge.kafka.errors import ProduceError, RecordError

PRODUCE, METADATA, SASL_HANDSHAKE, API_VERSIONS, INIT_PRODUCER_ID, DESCRIBE_CONFIGS, SASL_AUTHENTICATE = (
    0, 3, 17, 18, 22, 32, 36,
)  # fmt: skip
VERSIONS: Final = {PRODUCE: (3, 8), INIT_PRODUCER_ID: (0, 1), SASL_HANDSHAKE: (1, 1), SASL_AUTHENTICATE: (0, 1)}
"""The oldest and newest version of each request that the bridge knows."""
_REQUEST_NAMES: Final = {
    PRODUCE: "Produce",
    INIT_PRODUCER_ID: "InitProducerId",
    SASL_HANDSHAKE: "SaslHandshake",
    SASL_AUTHENTICATE: "SaslAuthenticate",
}
_NULL_STRING: Final = b"\xff\xff"
_ACKS_ALL: Final = -1
_SEVEN_BITS, _MORE = 0x7F, 0x80
_WITH_LOG_START, _WITH_RECORD_ERRORS = 5, 8
_PARTITION = struct.Struct(">ihqq")
_REQUEST_HEAD = struct.Struct(">hhi")


class Fields:
    """Reads the fields of an answer, one after another.

    Raises:
        UnreadableAnswer: by each method, if the answer is too short.
    """

    def __init__(self, answer: bytes, at: int = 0) -> None:
        self._answer, self._at = answer, at

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """Read numbers in a fixed layout."""
        try:
            numbers = layout.unpack_from(self._answer, self._at)
        except struct.error as error:
            raise UnreadableAnswer(f"the answer is too short: {error}") from error
        self._at += layout.size
        return numbers

    def number(self, form: str) -> int:
        """Read one number; ``form`` is its format letter in ``struct``."""
        return self.take(_NUMBERS[form])[0]

    def raw(self, size: int) -> bytes:
        """Read as many bytes."""
        if self._at + size > len(self._answer):
            raise UnreadableAnswer("the answer is too short")
        self._at += size
        return self._answer[self._at - size : self._at]

    def bytes(self, form: str = "i") -> bytes | None:
        """Read a length and as many bytes; None for null, which has the length -1."""
        size = self.number(form)
        return None if size < 0 else self.raw(size)

    def string(self) -> str:
        """Read a string; empty for null."""
        return (self.bytes("h") or b"").decode(errors="replace")

    def count(self) -> int:
        """Read the length of an array; 0 for null."""
        count = self.number("i")
        if count > len(self._answer):
            raise UnreadableAnswer(f"the answer announces {count} elements but has only {len(self._answer)} bytes")
        return max(0, count)

    def varint(self) -> int:
        """Read an unsigned number of up to five bytes, with seven bits in each."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.number("B")
            value |= (byte & _SEVEN_BITS) << shift
            if byte <= _SEVEN_BITS:
                return value
        raise UnreadableAnswer("the answer has a number of more than five bytes")

    def compact_count(self) -> int:
        """Read the compact length of an array or a string; 0 for null."""
        count = max(0, self.varint() - 1)
        if count > len(self._answer):
            raise UnreadableAnswer(f"the answer announces {count} elements but has only {len(self._answer)} bytes")
        return count

    def compact_string(self) -> str:
        """Read a string with a compact length; empty for null."""
        return self.raw(self.compact_count()).decode(errors="replace")

    def tags(self) -> None:
        """Skip the tagged fields at the end of a structure."""
        for _ in range(self.varint()):
            self.varint()
            self.raw(self.varint())


_NUMBERS: Final = {form: struct.Struct(f">{form}") for form in "bBhiq"}


def string(text: str) -> bytes:
    """Encode a string of the protocol."""
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def varint(number: int) -> bytes:
    """Encode an unsigned number, with seven bits in each byte."""
    encoded = bytearray()
    while number > _SEVEN_BITS:
        encoded.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    return bytes([*encoded, number])


def compact_string(text: str) -> bytes:
    """Encode a string with a compact length."""
    encoded = text.encode()
    return varint(len(encoded) + 1) + encoded


def request_head(api_key: int, version: int, correlation_id: int, client_id: bytes) -> bytes:
    """Encode the head of a request; ``client_id`` is already encoded by ``string``."""
    return _REQUEST_HEAD.pack(api_key, version, correlation_id) + client_id


def common_version(api_key: int, offered: Mapping[int, tuple[int, int]]) -> int:
    """The newest version of a request that both sides know.

    Raises:
        UnsupportedBroker: both sides have no version in common.
    """
    least, newest = VERSIONS[api_key]
    theirs = offered.get(api_key)
    if theirs is None:
        raise UnsupportedBroker(f"the broker does not offer {_REQUEST_NAMES[api_key]}")
    version = min(newest, theirs[1])
    if version < max(least, theirs[0]):
        raise UnsupportedBroker(
            f"the broker offers {_REQUEST_NAMES[api_key]} {theirs[0]} to {theirs[1]}, the bridge knows {least} to {newest}"
        )
    return version


# --- Produce ----------------------------------------------------------------------------------------------------------


def produce_request(batches: Iterable[tuple[str, int, bytes]], timeout_ms: int) -> list[bytes]:
    """Encode the body of a Produce request, in pieces.

    Args:
        batches: the topic, partition and bytes of each batch.
        timeout_ms: how long the broker may wait for its followers, in milliseconds.
    """
    by_topic: dict[str, list[tuple[int, bytes]]] = {}
    for topic, partition, batch in batches:
        by_topic.setdefault(topic, []).append((partition, batch))
    pieces = [_NULL_STRING, struct.pack(">hii", _ACKS_ALL, timeout_ms, len(by_topic))]
    for topic, of_topic in by_topic.items():
        pieces += (string(topic), struct.pack(">i", len(of_topic)))
        for partition, batch in of_topic:
            pieces += (struct.pack(">ii", partition, len(batch)), batch)
    return pieces


class ProduceAnswer(NamedTuple):
    """A broker's answer to a Produce request."""

    partitions: Sequence[tuple[str, int, ProduceError | None]]
    """The topic, the partition, and the error, which is None if the batch is in the log."""
    throttle_seconds: float


def read_produce_answer(answer: bytes, version: int) -> ProduceAnswer:
    """Read the body of an answer to Produce ``version``.

    Raises:
        UnreadableAnswer: the bytes are not such an answer.
    """
    fields = Fields(answer)
    partitions: list[tuple[str, int, ProduceError | None]] = []
    for _ in range(fields.count()):
        topic = fields.string()
        for _ in range(fields.count()):
            partition, code, _, _ = fields.take(_PARTITION)
            if version >= _WITH_LOG_START:
                fields.number("q")
            named: tuple[RecordError, ...] = ()
            message = ""
            if version >= _WITH_RECORD_ERRORS:
                named = tuple(RecordError(fields.number("i"), fields.string()) for _ in range(fields.count()))
                message = fields.string()
            partitions.append((topic, partition, ProduceError(code, message, named) if code else None))
    return ProduceAnswer(partitions, fields.number("i") / 1000)


# --- other requests ---------------------------------------------------------------------------------------------------


def init_producer_id_request() -> bytes:
    """Encode the body of InitProducerId for a producer without transactions."""
    return _NULL_STRING + struct.pack(">i", -1)


class ProducerId(NamedTuple):
    """A broker's answer to InitProducerId."""

    code: int
    producer_id: int
    epoch: int


def read_producer_id(answer: bytes) -> ProducerId:
    """Read the body of an answer to InitProducerId.

    Raises:
        UnreadableAnswer: the bytes are not such an answer.
    """
    fields = Fields(answer)
    fields.number("i")  # throttle time
    return ProducerId(fields.number("h"), fields.number("q"), fields.number("h"))


def read_api_versions(answer: bytes) -> dict[int, tuple[int, int]]:
    """Read the oldest and newest version of each request that a broker offers, by the request's key.

    Raises:
        UnreadableAnswer: the bytes are not an answer to ApiVersions 0, or the answer has an error code.
    """
    fields = Fields(answer)
    if code := fields.number("h"):
        raise UnreadableAnswer(f"the broker refuses ApiVersions with code {code}")
    versions = [(fields.number("h"), fields.number("h"), fields.number("h")) for _ in range(fields.count())]
    return {key: (least, newest) for key, least, newest in versions}


class SaslMechanisms(NamedTuple):
    """A broker's answer to SaslHandshake."""

    code: int
    offered: Sequence[str]


def read_sasl_handshake(answer: bytes) -> SaslMechanisms:
    """Read the body of an answer to SaslHandshake 1.

    Raises:
        UnreadableAnswer: the bytes are not such an answer.
    """
    fields = Fields(answer)
    return SaslMechanisms(fields.number("h"), [fields.string() for _ in range(fields.count())])


class SaslStep(NamedTuple):
    """A broker's answer to SaslAuthenticate."""

    code: int
    message: str
    challenge: bytes
    session_seconds: float
    """How long the login lasts; 0 if it does not expire."""


def read_sasl_step(answer: bytes, version: int) -> SaslStep:
    """Read the body of an answer to SaslAuthenticate ``version``.

    Raises:
        UnreadableAnswer: the bytes are not such an answer.
    """
    fields = Fields(answer)
    code, message, challenge = fields.number("h"), fields.string(), fields.bytes() or b""
    return SaslStep(code, message, challenge, fields.number("q") / 1000 if version else 0.0)
