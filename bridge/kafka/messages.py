"""The requests and answers that the bridge writes and reads itself, as the Kafka protocol guide has them.

Only versions with a fixed layout are used, so that nothing here needs tagged fields: Produce 3 to 8, InitProducerId 0 and 1,
ApiVersions 0, SaslHandshake 1, SaslAuthenticate 0 and 1. Metadata and DescribeConfigs are aiokafka's.
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
"""The versions of each request that are known here, least and newest."""
_REQUEST_NAMES: Final = {
    PRODUCE: "Produce",
    INIT_PRODUCER_ID: "InitProducerId",
    SASL_HANDSHAKE: "SaslHandshake",
    SASL_AUTHENTICATE: "SaslAuthenticate",
}
_NULL_STRING: Final = b"\xff\xff"
_ACKS_ALL: Final = -1
_WITH_LOG_START, _WITH_RECORD_ERRORS = 5, 8
_PARTITION = struct.Struct(">ihqq")
_REQUEST_HEAD = struct.Struct(">hhi")


class Fields:
    """Reads the fields of an answer one behind the other.

    Raises:
        UnreadableAnswer: from each method, where the answer is too short.
    """

    def __init__(self, answer: bytes, at: int = 0) -> None:
        self._answer, self._at = answer, at

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """Numbers of a fixed layout."""
        try:
            numbers = layout.unpack_from(self._answer, self._at)
        except struct.error as error:
            raise UnreadableAnswer(f"the answer is too short: {error}") from error
        self._at += layout.size
        return numbers

    def number(self, form: str) -> int:
        """One number, by the letter of ``struct``."""
        return self.take(_NUMBERS[form])[0]

    def bytes(self, form: str = "i") -> bytes | None:
        """Bytes behind their length; None for a length of -1."""
        size = self.number(form)
        if size < 0:
            return None
        if self._at + size > len(self._answer):
            raise UnreadableAnswer("the answer is too short")
        self._at += size
        return self._answer[self._at - size : self._at]

    def string(self) -> str:
        """A string; empty for null."""
        return (self.bytes("h") or b"").decode(errors="replace")

    def count(self) -> int:
        """The length of an array; 0 for null."""
        count = self.number("i")
        if count > len(self._answer):
            raise UnreadableAnswer(f"the answer announces {count} elements but has only {len(self._answer)} bytes")
        return max(0, count)


_NUMBERS: Final = {form: struct.Struct(f">{form}") for form in "bhiq"}


def string(text: str) -> bytes:
    """A string of the protocol."""
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def request_head(api_key: int, version: int, correlation_id: int, client_id: bytes) -> bytes:
    """What every request begins with; ``client_id`` as ``string`` makes it."""
    return _REQUEST_HEAD.pack(api_key, version, correlation_id) + client_id


def common_version(api_key: int, offered: Mapping[int, tuple[int, int]]) -> int:
    """The newest version of a request that both sides know.

    Raises:
        UnsupportedBroker: there is none.
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


# --- Produce --------------------------------------------------------------------------------------------------------------


def produce_request(batches: Iterable[tuple[str, int, bytes]], timeout_ms: int) -> list[bytes]:
    """The body of a Produce request, in pieces.

    Args:
        batches: topic, partition and bytes of each.
        timeout_ms: for how long the broker may wait for its followers.
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
    """What a broker says to a Produce request."""

    partitions: Sequence[tuple[str, int, ProduceError | None]]
    """Topic, partition, and the error, or None where the batch is in the log."""
    throttle_seconds: float


def read_produce_answer(answer: bytes, version: int) -> ProduceAnswer:
    """Read the body of an answer to Produce ``version``.

    Raises:
        UnreadableAnswer: it is none.
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


# --- others ---------------------------------------------------------------------------------------------------------------


def init_producer_id_request() -> bytes:
    """The body of InitProducerId, of a producer without transactions."""
    return _NULL_STRING + struct.pack(">i", -1)


class ProducerId(NamedTuple):
    """What a broker gives for InitProducerId."""

    code: int
    producer_id: int
    epoch: int


def read_producer_id(answer: bytes) -> ProducerId:
    """Read the body of an answer to InitProducerId.

    Raises:
        UnreadableAnswer: it is none.
    """
    fields = Fields(answer)
    fields.number("i")  # throttle time
    return ProducerId(fields.number("h"), fields.number("q"), fields.number("h"))


def read_api_versions(answer: bytes) -> dict[int, tuple[int, int]]:
    """The least and newest version of each request that a broker offers, by the request's key.

    Raises:
        UnreadableAnswer: it is no answer to ApiVersions 0, or one with an error.
    """
    fields = Fields(answer)
    if code := fields.number("h"):
        raise UnreadableAnswer(f"the broker refuses ApiVersions with code {code}")
    versions = [(fields.number("h"), fields.number("h"), fields.number("h")) for _ in range(fields.count())]
    return {key: (least, newest) for key, least, newest in versions}


class SaslMechanisms(NamedTuple):
    """What a broker says to SaslHandshake."""

    code: int
    offered: Sequence[str]


def read_sasl_handshake(answer: bytes) -> SaslMechanisms:
    """Read the body of an answer to SaslHandshake 1.

    Raises:
        UnreadableAnswer: it is none.
    """
    fields = Fields(answer)
    return SaslMechanisms(fields.number("h"), [fields.string() for _ in range(fields.count())])


class SaslStep(NamedTuple):
    """What a broker says to SaslAuthenticate."""

    code: int
    message: str
    challenge: bytes
    session_seconds: float
    """How long the login lasts; 0: without an end."""


def read_sasl_step(answer: bytes, version: int) -> SaslStep:
    """Read the body of an answer to SaslAuthenticate ``version``.

    Raises:
        UnreadableAnswer: it is none.
    """
    fields = Fields(answer)
    code, message, challenge = fields.number("h"), fields.string(), fields.bytes() or b""
    return SaslStep(code, message, challenge, fields.number("q") / 1000 if version else 0.0)
