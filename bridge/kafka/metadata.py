"""Asks a broker for the cluster's metadata: its id, its brokers, and some topics with their ids and partition leaders.

Brokers give topic ids from version 10 of the request on, which Kafka has since 2.8. aiokafka knows the versions up to 5, so
this module encodes and decodes version 10. Where a broker does not offer it, aiokafka asks, and there are no topic ids.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.protocol.metadata import MetadataRequest

from bridge.kafka import messages
from bridge.kafka.errors import NONE
from bridge.kafka.wire import Connection

_VERSION: Final = 10
_ID_BYTES: Final = 16
_NO_ID: Final = bytes(_ID_BYTES)
_NO_TAGS: Final = b"\0"
# Do not create the topics, and do not list what the cluster and the topics allow.
_OPTIONS: Final = b"\0\0\0"


class Broker(NamedTuple):
    """A broker's address, from the cluster's metadata or from ``kafka.bootstrap_servers``."""

    host: str
    port: int


class Topic(NamedTuple):
    """A topic as a broker describes it; empty where the code is not 0."""

    name: str
    code: int
    topic_id: str
    """In the form that Kafka's tools show; empty if the broker gives none. A topic that is created again gets another one."""
    leaders: Mapping[int, int]
    """The id of each partition's leader, -1 if it has none."""


class Metadata(NamedTuple):
    """A broker's answer."""

    cluster_id: str
    """Empty if the broker gives none."""
    brokers: Mapping[int, Broker]
    topics: Sequence[Topic]

    @property
    def topic_ids(self) -> dict[str, str]:
        """The ids of the topics that have one."""
        return {each.name: each.topic_id for each in self.topics if each.code == NONE and each.topic_id}


async def ask_metadata(connection: Connection, topics: Sequence[str]) -> Metadata:
    """Ask for the cluster and these topics; no topic is created.

    Raises:
        ConnectionEnded, UnsupportedBroker, UnreadableAnswer: see ``Connection.ask_aiokafka``.
    """
    least, newest = connection.versions.get(messages.METADATA, (0, 0))
    if least <= _VERSION <= newest:
        return read_metadata(await connection.ask(messages.METADATA, _VERSION, metadata_request(topics)))
    return _of_aiokafka(await connection.ask_aiokafka(MetadataRequest(list(topics), allow_auto_topic_creation=False)))


def metadata_request(topics: Sequence[str]) -> bytes:
    """Encode what follows the client id in a request of version 10, which includes the tags of the request's head."""
    names = b"".join(_NO_ID + messages.compact_string(topic) + _NO_TAGS for topic in topics)
    return _NO_TAGS + messages.varint(len(topics) + 1) + names + _OPTIONS + _NO_TAGS


def read_metadata(answer: bytes) -> Metadata:
    """Read what follows the correlation id in an answer of version 10.

    Raises:
        UnreadableAnswer: the bytes are not such an answer.
    """
    fields = messages.Fields(answer)
    fields.tags()
    fields.number("i")  # throttle time
    brokers = {}
    for _ in range(fields.compact_count()):
        node = fields.number("i")
        brokers[node] = Broker(fields.compact_string(), fields.number("i"))
        fields.compact_string()  # rack
        fields.tags()
    cluster_id = fields.compact_string()
    fields.number("i")  # controller
    topics = [_read_topic(fields) for _ in range(fields.compact_count())]
    fields.number("i")  # what the cluster allows
    fields.tags()
    return Metadata(cluster_id, brokers, topics)


def _read_topic(fields: messages.Fields) -> Topic:
    code, name, topic_id = fields.number("h"), fields.compact_string(), fields.raw(_ID_BYTES)
    fields.number("b")  # whether it is internal
    leaders = {}
    for _ in range(fields.compact_count()):
        fields.number("h")  # error code
        number = fields.number("i")
        leaders[number] = fields.number("i")
        fields.number("i")  # leader epoch
        for _ in ("replicas", "in sync", "offline"):
            fields.raw(4 * fields.compact_count())
        fields.tags()
    fields.number("i")  # what the topic allows
    fields.tags()
    text = "" if topic_id == _NO_ID else base64.urlsafe_b64encode(topic_id).decode().rstrip("=")
    return Topic(name, code, text, leaders)


def _of_aiokafka(answer: Any) -> Metadata:
    brokers = {node: Broker(host, port) for node, host, port, *_ in answer.brokers}
    topics = [
        Topic(name, code, "", {number: leader for _, number, leader, *_ in partitions})
        for code, name, _, partitions in answer.topics
    ]
    return Metadata(getattr(answer, "cluster_id", None) or "", brokers, topics)
