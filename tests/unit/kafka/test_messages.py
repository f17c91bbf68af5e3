"""What the bridge writes and reads itself, against aiokafka's descriptions of the same messages."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.protocol import admin, produce, transaction
from hypothesis import given
from hypothesis import strategies as st
from support.kafka_frames import METADATA_ANSWER

from bridge.errors import UnreadableAnswer, UnsupportedBroker
from bridge.kafka import messages
from bridge.kafka.errors import ProduceError, RecordError
from bridge.kafka.metadata import read_metadata

VERSIONS = range(3, 9)
TIMEOUT_MS = 5_000

names = st.text(min_size=1, max_size=20)
partitions = st.integers(0, 2**31 - 1)
codes = st.sampled_from([0, 0, -1, 6, 44, 87, 999])
int64 = st.integers(-(2**63), 2**63 - 1)


def of_aiokafka(kind: str, version: int) -> Any:
    """Its class for a Produce message."""
    return getattr(produce, f"Produce{kind}_v{version}")


# --- Produce ------------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.tuples(names, partitions), st.binary(max_size=50), min_size=1, max_size=6),
    st.sampled_from(VERSIONS),
)
def test_a_produce_request_is_aiokafkas(batches: dict[tuple[str, int], bytes], version: int) -> None:
    """To the byte, partitions of a topic together."""
    body = b"".join(messages.produce_request(((t, p, batch) for (t, p), batch in batches.items()), TIMEOUT_MS))
    topics: dict[str, list[tuple[int, bytes]]] = {}
    for (topic, partition), batch in batches.items():
        topics.setdefault(topic, []).append((partition, batch))
    assert body == of_aiokafka("Request", version)(None, -1, TIMEOUT_MS, list(topics.items())).encode()


@given(
    st.lists(st.tuples(names, st.lists(st.tuples(partitions, codes, int64, int64, int64), max_size=4)), max_size=3),
    st.integers(0, 2**31 - 1),
    st.sampled_from(range(3, 8)),
)
def test_a_produce_answer_is_read_as_aiokafka_writes_it(topics: list[Any], throttle_ms: int, version: int) -> None:
    """In the versions before answers name records."""
    fields = 5 if version >= 5 else 4
    written = of_aiokafka("Response", version)(
        topics=[(topic, [each[:fields] for each in of_topic]) for topic, of_topic in topics],
        throttle_time_ms=throttle_ms,
    ).encode()
    read = messages.read_produce_answer(written, version)
    assert read.throttle_seconds == throttle_ms / 1000
    assert list(read.partitions) == [
        (topic, partition, ProduceError(code) if code else None)
        for topic, of_topic in topics
        for partition, code, *_ in of_topic
    ]


def nullable(text: str | None) -> bytes:
    """A string of the protocol, or null."""
    return b"\xff\xff" if text is None else messages.string(text)


def answer_of_version_8(named: list[tuple[int, str | None]] | None, message: str | None) -> bytes:
    """One partition, refused with 87; null for no list."""
    errors = struct.pack(">i", -1 if named is None else len(named))
    for place, said in named or ():
        errors += struct.pack(">i", place) + nullable(said)
    head = struct.pack(">i", 1) + messages.string("t") + struct.pack(">i", 1) + struct.pack(">ihqqq", 5, 87, -1, -1, -1)
    return head + errors + nullable(message) + struct.pack(">i", 1500)


@given(
    st.none() | st.lists(st.tuples(st.integers(0, 2**31 - 1), st.none() | st.text(max_size=20)), max_size=4),
    st.none() | st.text(max_size=50),
)
def test_an_answer_of_version_8_names_records(named: list[tuple[int, str | None]] | None, message: str | None) -> None:
    """By their place in the batch, with words or without."""
    written = answer_of_version_8(named, message)
    expected = ProduceError(87, message or "", tuple(RecordError(place, said or "") for place, said in named or ()))
    assert messages.read_produce_answer(written, 8) == ([("t", 5, expected)], 1.5)
    theirs = produce.ProduceResponse_v8.decode(written)
    assert theirs.topics[0][1][0][:2] == (5, 87)


# --- others -------------------------------------------------------------------------------------------------------------


def test_a_producer_id_is_asked_for_without_transactions() -> None:
    """As aiokafka asks; version 1 is laid out alike."""
    theirs = transaction.InitProducerIdRequest_v0(None, -1).encode()
    assert messages.init_producer_id_request() == theirs


@given(st.integers(0, 2**31 - 1), codes, int64, st.integers(-1, 2**15 - 1))
def test_a_producer_id_is_read(throttle_ms: int, code: int, producer_id: int, epoch: int) -> None:
    """As aiokafka writes it."""
    written = transaction.InitProducerIdResponse_v0(
        throttle_time_ms=throttle_ms, error_code=code, producer_id=producer_id, producer_epoch=epoch
    ).encode()
    assert messages.read_producer_id(written) == (code, producer_id, epoch)


def test_what_a_broker_offers_is_read() -> None:
    """And an answer with an error is none."""
    offered = {0: (3, 12), 3: (0, 13), 22: (0, 5)}
    written = struct.pack(">hi", 0, 3) + b"".join(struct.pack(">hhh", key, *both) for key, both in offered.items())
    assert messages.read_api_versions(written) == offered
    with pytest.raises(UnreadableAnswer, match="35"):
        messages.read_api_versions(struct.pack(">hi", 35, 0))


@given(codes, st.lists(names, max_size=4))
def test_the_mechanisms_of_a_broker_are_read(code: int, mechanisms: list[str]) -> None:
    """As aiokafka writes them."""
    written = admin.SaslHandShakeResponse_v1(error_code=code, enabled_mechanisms=mechanisms).encode()
    assert messages.read_sasl_handshake(written) == (code, mechanisms)


@given(codes, st.none() | st.text(max_size=20), st.binary(max_size=30), st.integers(0, 2**62), st.sampled_from([0, 1]))
def test_a_step_of_a_login_is_read(
    code: int, message: str | None, challenge: bytes, life_ms: int, version: int
) -> None:
    """As aiokafka writes it; only version 1 says how long the login lasts."""
    life = {"session_lifetime_ms": life_ms} if version else {}
    written = getattr(admin, f"SaslAuthenticateResponse_v{version}")(
        error_code=code, error_message=message, sasl_auth_bytes=challenge, **life
    ).encode()
    expected = code, message or "", challenge, life_ms / 1000 if version else 0.0
    assert messages.read_sasl_step(written, version) == expected


# --- what is no answer --------------------------------------------------------------------------------------------------


def _of_produce(version: int) -> bytes:
    if version >= 8:
        return answer_of_version_8([(0, "no"), (3, None)], "message")
    fields = (5, 6, -1, -1, -1) if version >= 5 else (5, 6, -1, -1)
    written: bytes = of_aiokafka("Response", version)(topics=[("topic", [fields, fields])], throttle_time_ms=1).encode()
    return written


ANSWERS: list[tuple[Callable[[bytes], Any], bytes]] = [
    *((lambda answer, v=v: messages.read_produce_answer(answer, v), _of_produce(v)) for v in VERSIONS),
    (messages.read_producer_id, struct.pack(">ihqh", 0, 0, 7, 0)),
    (messages.read_api_versions, struct.pack(">hi", 0, 2) + struct.pack(">hhh", 0, 3, 8) * 2),
    (read_metadata, METADATA_ANSWER),
    (messages.read_sasl_handshake, struct.pack(">hi", 0, 1) + messages.string("PLAIN")),
    (
        lambda answer: messages.read_sasl_step(answer, 1),
        struct.pack(">h", 0) + messages.string("m") + struct.pack(">i3sq", 3, b"abc", 1000),
    ),
]


@pytest.mark.parametrize(("read", "whole"), ANSWERS)
def test_an_answer_that_was_cut_off_is_none(read: Callable[[bytes], Any], whole: bytes) -> None:
    """Wherever it was."""
    read(whole)
    for length in range(len(whole)):
        with pytest.raises(UnreadableAnswer):
            read(whole[:length])


@pytest.mark.parametrize(("read", "whole"), ANSWERS)
@given(data=st.data())
def test_an_answer_with_other_bytes_is_read_or_is_none(
    read: Callable[[bytes], Any], whole: bytes, data: st.DataObject
) -> None:
    """Nothing else is raised, and no count makes anybody wait."""
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for garbage in (bytes(changed), data.draw(st.binary(max_size=40))):
        try:
            read(garbage)
        except UnreadableAnswer:
            continue


def test_a_count_that_cannot_be_is_refused_before_anything_is_made_of_it() -> None:
    """Two thousand million partitions in a few bytes."""
    with pytest.raises(UnreadableAnswer, match="2147483647 elements"):
        messages.read_produce_answer(struct.pack(">i", 2**31 - 1) + b"x" * 100, 7)


# --- versions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "version"),
    [((0, 12), 8), ((3, 8), 8), ((0, 5), 5), ((3, 3), 3), ((8, 9), 8), ((0, 3), 3)],
)
def test_the_newest_version_that_both_know_is_taken(offered: tuple[int, int], version: int) -> None:
    """Of Produce, of which 3 to 8 are known."""
    assert messages.common_version(messages.PRODUCE, {0: offered}) == version


@pytest.mark.parametrize("offered", [{}, {0: (0, 2)}, {0: (9, 12)}])
def test_a_broker_without_such_a_version_is_named(offered: dict[int, tuple[int, int]]) -> None:
    """With what it offers."""
    with pytest.raises(UnsupportedBroker, match="Produce"):
        messages.common_version(messages.PRODUCE, offered)
