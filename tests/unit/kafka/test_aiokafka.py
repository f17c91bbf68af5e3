"""What the bridge uses of aiokafka below its public face: a new version that changes any of it fails here.

The expected bytes are written by hand, from Kafka's protocol and the standards of SASL.
"""

import asyncio
import base64
import gzip
import hashlib
import hmac
import inspect
import struct
from collections.abc import Callable
from typing import Any

import cramjam
import pytest
from aiokafka.abc import AbstractTokenProvider
from aiokafka.codec import gzip_encode, snappy_encode, zstd_encode
from aiokafka.conn import OAuthAuthenticator, SaslPlainAuthenticator, ScramAuthenticator, collect_hosts
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from bridge.errors import UnreadableAnswer, UnsupportedBroker
from bridge.kafka.wire import Connection

METADATA, DESCRIBE_CONFIGS = 3, 32
USER, PASSWORD = "kim,=", "pässword"
HASHES: dict[str, Callable[..., Any]] = {"SCRAM-SHA-256": hashlib.sha256, "SCRAM-SHA-512": hashlib.sha512}


def parameters(function: Any) -> dict[str, Any]:
    """The names of its parameters, without ``self``, and their defaults."""
    return {
        name: None if each.default is each.empty else each.default
        for name, each in inspect.signature(function).parameters.items()
        if name != "self"
    }


def string(text: str | None) -> bytes:
    """As Kafka writes it."""
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text.encode()


# --- logins ---------------------------------------------------------------------------------------------------------------


def test_authenticators_take_what_the_bridge_gives_them() -> None:
    """By name. All of them have one method that is used: ``step``, with what the broker said, None at first."""
    assert parameters(SaslPlainAuthenticator).keys() == {"loop", "sasl_plain_username", "sasl_plain_password"}
    assert parameters(ScramAuthenticator).keys() == {
        "loop",
        "sasl_plain_username",
        "sasl_plain_password",
        "sasl_mechanism",
    }
    assert parameters(OAuthAuthenticator).keys() == {"sasl_oauth_token_provider"}
    for kind in (SaslPlainAuthenticator, ScramAuthenticator, OAuthAuthenticator):
        assert list(parameters(kind.step)) == ["payload"]


async def test_plain_sends_name_and_password_once() -> None:
    """RFC 4616. The broker's answer is empty."""
    login = SaslPlainAuthenticator(
        loop=asyncio.get_running_loop(), sasl_plain_username=USER, sasl_plain_password=PASSWORD
    )

    assert (await login.step(None))[0] == f"{USER}\0{USER}\0{PASSWORD}".encode()
    assert await login.step(b"") is None


async def scram(mechanism: str, *, nonce: str = "", proof: bytes = b"") -> tuple[bool, Any]:
    """A login by RFC 5802: whether the client proves that it knows the password, and what it says at the end.

    Args:
        mechanism: One of SCRAM's.
        nonce: The server's own, in place of one that begins with the client's.
        proof: The server's, in place of the right one.
    """
    digest = HASHES[mechanism]

    def mac(key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, digest).digest()

    login = ScramAuthenticator(
        loop=asyncio.get_running_loop(),
        sasl_plain_username=USER,
        sasl_plain_password=PASSWORD,
        sasl_mechanism=mechanism,
    )
    first = (await login.step(None))[0].decode()
    assert first.startswith("n,,n=kim=2C=3D,r=")
    salt = b"salt"
    nonce = nonce or first.rpartition("r=")[2] + "server"
    challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096"
    final = (await login.step(challenge.encode()))[0].decode()

    without_proof, _, client_proof = final.rpartition(",p=")
    assert without_proof == f"c=biws,r={nonce}"
    signed = ",".join([first.removeprefix("n,,"), challenge, without_proof]).encode()
    salted = hashlib.pbkdf2_hmac(digest().name, PASSWORD.encode(), salt, 4096)
    client_key = mac(salted, b"Client Key")
    signature = mac(digest(client_key).digest(), signed)
    proven = base64.b64decode(client_proof) == bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    answer = b"v=" + base64.b64encode(proof or mac(mac(salted, b"Server Key"), signed))
    return proven, await login.step(answer)


@pytest.mark.parametrize("mechanism", HASHES)
async def test_scram_proves_both_sides(mechanism: str) -> None:
    """Two steps; the third says that it is over."""
    assert await scram(mechanism) == (True, None)


@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("wrong", [{"nonce": "another"}, {"proof": b"wrong"}])
async def test_scram_refuses_a_broker_that_does_not_know_the_password(mechanism: str, wrong: dict[str, Any]) -> None:
    """By an exception of this kind."""
    with pytest.raises(ValueError, match=r"nonce|signature"):
        await scram(mechanism, **wrong)


class Token(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """A token, with extensions or without."""

    def __init__(self, extensions: dict[str, str]) -> None:
        self._extensions = extensions

    async def token(self) -> str:
        """It."""
        return "a-token"

    def extensions(self) -> dict[str, str]:
        """They."""
        return self._extensions


@pytest.mark.parametrize(
    ("extensions", "sent"), [({}, ""), ({"logicalCluster": "lkc-1", "pool": "p"}, "\1logicalCluster=lkc-1\1pool=p")]
)
async def test_oauthbearer_sends_the_token_once(extensions: dict[str, str], sent: str) -> None:
    """RFC 7628, with Kafka's extensions."""
    login = OAuthAuthenticator(sasl_oauth_token_provider=Token(extensions))

    assert (await login.step(None))[0] == f"n,,\1auth=Bearer a-token{sent}\1\1".encode()
    assert await login.step(b"") is None


# --- addresses ------------------------------------------------------------------------------------------------------------


def test_bootstrap_servers_are_split_into_host_and_port() -> None:
    """A list or a text; port 9092 unless given; an address of IPv6 without its brackets; in any order unless told."""
    expected = [("kafka-1", 9093), ("10.0.0.1", 9092), ("2001:db8::1", 9094)]
    written = ["kafka-1:9093", "10.0.0.1", "[2001:db8::1]:9094"]

    assert [host[:2] for host in collect_hosts(written, randomize=False)] == expected
    assert [host[:2] for host in collect_hosts(",".join(written), randomize=False)] == expected
    assert sorted(host[:2] for host in collect_hosts(written)) == sorted(expected)
    assert {collect_hosts(written)[0][0] for _ in range(200)} == {host for host, _ in expected}


# --- requests -------------------------------------------------------------------------------------------------------------

TOPICS = struct.pack(">i", 2) + string("status") + string("other")


@pytest.mark.parametrize(
    ("offered", "version", "body"),
    [
        ((0, 13), 5, TOPICS + b"\0"),
        ((4, 4), 4, TOPICS + b"\0"),
        ((0, 3), 3, TOPICS),
        ((0, 1), 1, TOPICS),
    ],
)
def test_metadata_is_asked_for_by_name_in_the_newest_version(
    offered: tuple[int, int], version: int, body: bytes
) -> None:
    """The last byte keeps the broker from creating the topics."""
    request = MetadataRequest(["status", "other"], allow_auto_topic_creation=False).prepare({METADATA: offered})

    assert (request.API_KEY, request.API_VERSION, request.encode()) == (METADATA, version, body)


def test_metadata_for_no_topic_asks_for_none() -> None:
    """None, in place of an empty list, would ask for all."""
    request = MetadataRequest([], allow_auto_topic_creation=False).prepare({METADATA: (0, 13)})
    assert request.encode() == struct.pack(">i", 0) + b"\0"


def test_an_answer_to_metadata_is_read() -> None:
    """In the order in which the bridge takes brokers, topics and partitions apart, and by the names it uses."""
    partition = struct.pack(">hii", 0, 7, 2) + struct.pack(">iii", 2, 1, 2) * 2 + struct.pack(">i", 0)
    written = (
        struct.pack(">ii", 0, 1) + struct.pack(">i", 2) + string("kafka-2") + struct.pack(">i", 9092) + string(None)
        + string("cluster") + struct.pack(">i", 2)
        + struct.pack(">ih", 2, 0) + string("status") + b"\0" + struct.pack(">i", 1) + partition
        + struct.pack(">h", 3) + string("other") + b"\0" + struct.pack(">i", 0)
    )  # fmt: skip
    answer: Any = MetadataRequest([]).prepare({METADATA: (0, 13)}).RESPONSE_TYPE.decode(written)

    assert answer.brokers == [(2, "kafka-2", 9092, None)]
    assert answer.topics == [(0, "status", False, [(0, 7, 2, [1, 2], [1, 2], [])]), (3, "other", False, [])]
    topic, other = answer.to_object()["topics"]
    assert [(each["error_code"], each["topic"], len(each["partitions"])) for each in (topic, other)] == [
        (0, "status", 1),
        (3, "other", 0),
    ]
    assert (topic["partitions"][0]["partition"], topic["partitions"][0]["replicas"]) == (7, [1, 2])


@pytest.mark.parametrize(("offered", "version", "end"), [((0, 4), 2, b"\0"), ((1, 1), 1, b"\0"), ((0, 0), 0, b"")])
def test_a_setting_of_a_topic_is_asked_for(offered: tuple[int, int], version: int, end: bytes) -> None:
    """The last byte is for synonyms, which are not asked for."""
    resources = [(2, "status", ["max.message.bytes"])]
    request = DescribeConfigsRequest(resources).prepare({DESCRIBE_CONFIGS: offered})

    body = struct.pack(">ib", 1, 2) + string("status") + struct.pack(">i", 1) + string("max.message.bytes") + end
    assert (request.API_KEY, request.API_VERSION, request.encode()) == (DESCRIBE_CONFIGS, version, body)


@pytest.mark.parametrize("entries", ["one", "none", "null"])
def test_an_answer_to_describe_configs_is_read(entries: str) -> None:
    """A list that is null is None, and so is a value."""
    entry = string("max.message.bytes") + string(None) + b"\0\5\0" + struct.pack(">i", 0)
    lists: dict[str, tuple[bytes, Any]] = {
        "one": (struct.pack(">i", 1) + entry, [("max.message.bytes", None, False, 5, False, [])]),
        "none": (struct.pack(">i", 0), []),
        "null": (struct.pack(">i", -1), None),
    }
    written, read = lists[entries]
    request = DescribeConfigsRequest([]).prepare({DESCRIBE_CONFIGS: (0, 4)})
    head = struct.pack(">iih", 0, 1, 0) + string(None) + struct.pack(">b", 2) + string("status")
    answer: Any = request.RESPONSE_TYPE.decode(head + written)

    assert answer.resources == [(0, None, 2, "status", read)]


def test_a_request_that_the_broker_does_not_offer_is_refused() -> None:
    """In two ways: not at all, and not in a version that aiokafka knows."""
    with pytest.raises(IncompatibleBrokerVersion):
        MetadataRequest([]).prepare({})
    with pytest.raises(NotImplementedError):
        MetadataRequest([]).prepare({METADATA: (14, 15)})


class Answered(Connection):
    """A connection whose only answer is known."""

    def __init__(self, versions: dict[int, tuple[int, int]], answer: bytes = b"") -> None:
        super().__init__("test")
        self.versions, self._body = versions, answer

    async def ask(self, api_key: int, version: int, *body: bytes) -> bytes:  # noqa: ARG002 - whatever is asked
        """The answer."""
        return self._body


@pytest.mark.parametrize("versions", [{}, {METADATA: (14, 15)}])
async def test_a_broker_that_is_too_new_or_too_old_is_an_error_of_the_connection(
    versions: dict[int, tuple[int, int]],
) -> None:
    """One that callers expect, and that names the request."""
    with pytest.raises(UnsupportedBroker, match="no version of MetadataRequest that the bridge knows"):
        await Answered(versions).ask_aiokafka(MetadataRequest([]))


@pytest.mark.parametrize("size", range(0, 30, 3))
async def test_an_answer_that_ends_too_early_is_an_error_of_the_connection(size: int) -> None:
    """Wherever it ends."""
    written = struct.pack(">iiii", 0, 1, 2, 7) + string("kafka-2") + struct.pack(">i", 9092) + string(None)
    with pytest.raises(UnreadableAnswer, match="the answer to MetadataRequest can't be read"):
        await Answered({METADATA: (0, 5)}, written[:size]).ask_aiokafka(MetadataRequest([]))


# --- records --------------------------------------------------------------------------------------------------------------


def test_the_sum_of_a_batch_is_crc_32c() -> None:
    """Of bytes: the check value of the standard, and nothing's."""
    assert (calc_crc32c(b"123456789"), calc_crc32c(b"")) == (0xE3069283, 0)


def test_a_record_is_written_as_kafka_has_it() -> None:
    """Behind the 61 bytes of the batch's head; the first always fits, the next only where there is room."""
    builder: Any = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=61 + 40
    )
    assert builder.append(0, 1000, b"k", b"v", [("h", b"x")]) is not None
    assert builder.size() == 61 + 13
    assert builder.append(1, 1001, None, b"v" * 100, []) is None
    assert bytes(builder.build())[61:] == b"\x18\0\0\0\2k\2v\2\2h\2x"


def test_codecs_write_what_others_read() -> None:
    """Gzip and zstd as they are; snappy in the frames of Java's library, 32 KiB each."""
    payload = b"payload " * 10_000

    assert gzip.decompress(gzip_encode(payload)) == payload
    assert bytes(cramjam.zstd.decompress(zstd_encode(payload))) == payload
    framed = snappy_encode(payload)
    assert framed[:16] == b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    at, found = 16, b""
    while at < len(framed):
        (size,) = struct.unpack_from(">i", framed, at)
        found += bytes(cramjam.snappy.decompress_raw(framed[at + 4 : at + 4 + size]))
        at += 4 + size
    assert found == payload
