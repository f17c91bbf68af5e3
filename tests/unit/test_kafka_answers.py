"""What a proxy answers for a service is what a client of the protocol reads, in each version; it leaves the rest as it is."""

import struct
from typing import Any

import pytest
from aiokafka.protocol import admin
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from support.kafka_answers import (
    READABLE,
    codecs_refused,
    no_producer_id,
    settings_hidden,
    topics_refused,
    versions_capped,
)
from support.kafka_frames import (
    API_VERSIONS,
    CREATE_TOPICS,
    DESCRIBE_CONFIGS,
    INIT_PRODUCER_ID,
    PRODUCE,
    Request,
    read_request,
)
from support.kafka_proxy import Fault

from bridge.kafka import messages

GZIP, LZ4 = 1, 3


def request(key: int, version: int, body: bytes = b"", *, flexible: bool = False) -> Request:
    """One of a client with a name of three letters; ``flexible``: its header has tagged fields."""
    return read_request(struct.pack(">hhih", key, version, 77, 3) + b"abc" + (b"\0" if flexible else b"") + body)


def rewritten(fault: Fault, asked: Request, body: bytes) -> bytes:
    """The body of the answer."""
    assert fault.rewrite_answer is not None
    return fault.rewrite_answer(asked, body)


def test_headers_have_tagged_fields_from_a_version_on() -> None:
    """Of the request and of its answer. An answer to ApiVersions never has any."""
    for key, version, flexible, tagged_answer in [
        (INIT_PRODUCER_ID, 1, False, False),
        (INIT_PRODUCER_ID, 2, True, True),
        (API_VERSIONS, 3, True, False),
        (68, 0, True, True),
    ]:
        asked = request(key, version, b"body", flexible=flexible)
        assert (asked.body, asked.flexible) == (b"body", flexible)
        frame = asked.answer_frame(b"answer")
        assert frame == struct.pack(">i", 77) + (b"\0" if tagged_answer else b"") + b"answer"
        assert asked.answer_body(frame) == b"answer"


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_versions_of_a_broker_are_capped(version: int) -> None:
    """An older one stays; what is not offered is gone, also where the broker's oldest version is newer than the cap."""
    offered = [(PRODUCE, 0, 13), (1, 4, 18), (INIT_PRODUCER_ID, 0, 6), (24, 0, 5)]
    times = {"throttle_time_ms": 9} if version else {}
    answer = getattr(admin, f"ApiVersionResponse_v{version}")(error_code=0, api_versions=offered, **times).encode()
    asked = request(API_VERSIONS, version)

    capped = rewritten(versions_capped({PRODUCE: 8, 1: 3, INIT_PRODUCER_ID: None}), asked, answer)
    assert messages.read_api_versions(capped) == {PRODUCE: (0, 8), 24: (0, 5)}
    assert capped[-4:] == answer[-4:]
    alone = rewritten(versions_capped({24: 7}, others=False), asked, answer)
    assert messages.read_api_versions(alone) == {24: (0, 5)}


def test_the_versions_are_capped_in_the_compact_encoding_too() -> None:
    """What follows them stays; a broker that does not know the version answers in version 0."""
    tail = b"\0\0\0\7" + b"tags"
    entries = [struct.pack(">hhh", *each) + b"\0" for each in [(PRODUCE, 0, 13), (INIT_PRODUCER_ID, 0, 6)]]
    asked = request(API_VERSIONS, 3, flexible=True)
    fault = versions_capped({PRODUCE: 8, INIT_PRODUCER_ID: None})

    capped = rewritten(fault, asked, b"\0\0\3" + b"".join(entries) + tail)
    assert capped == b"\0\0\2" + struct.pack(">hhh", PRODUCE, 0, 8) + b"\0" + tail
    old = struct.pack(">hi", 35, 1) + struct.pack(">hhh", PRODUCE, 0, 13)
    assert rewritten(fault, asked, old) == old[:-2] + struct.pack(">h", 8)


def test_a_producer_id_is_refused() -> None:
    """Version 2 ends with tagged fields."""
    fault = no_producer_id(31)
    plain, compact = request(INIT_PRODUCER_ID, 1), request(INIT_PRODUCER_ID, 4, flexible=True)

    assert messages.read_producer_id(fault.own_answer(plain)[4:]) == (31, -1, -1)
    assert fault.own_answer(compact)[5:] == fault.own_answer(plain)[4:] + b"\0"


@pytest.mark.parametrize("version", range(READABLE[CREATE_TOPICS] + 1))
def test_topics_are_refused(version: int) -> None:
    """All of the request, with the message from version 1 on."""
    wanted: list[Any] = [(name, 1, 1, [], [("retention.ms", "1")]) for name in ("one", "two")]
    later = {"validate_only": False} if version else {}
    body = getattr(admin, f"CreateTopicsRequest_v{min(version, 3)}")(
        create_topic_requests=wanted, timeout=1, **later
    ).encode()

    answer = topics_refused(44, "by the console").own_answer(request(CREATE_TOPICS, version, body))
    read = getattr(admin, f"CreateTopicsResponse_v{min(version, 3)}").decode(answer[4:])
    said = (44, "by the console") if version else (44,)
    assert read.topic_errors == [("one", *said), ("two", *said)]


def test_what_cannot_be_read_is_no_quiet_pass() -> None:
    """The proxy raises at its end what a script raises."""
    with pytest.raises(AssertionError, match="CreateTopics 5 cannot be read here"):
        topics_refused(44).own_answer(request(CREATE_TOPICS, 5, flexible=True))


@pytest.mark.parametrize("version", range(READABLE[DESCRIBE_CONFIGS] + 1))
def test_settings_are_hidden_or_null(version: int) -> None:
    """The others are as the broker said."""
    more: tuple[Any, ...] = (False, 1, False, []) if version else (False, False, False)
    entries = [(name, value, *more) for name, value in [("a", "1"), ("b", "2"), ("c", None)]]
    struct_of = getattr(admin, f"DescribeConfigsResponse_v{version}")
    body = struct_of(throttle_time_ms=0, resources=[(0, None, 2, "topic", entries)]).encode()
    asked = request(DESCRIBE_CONFIGS, version)

    def settings(fault: Fault) -> dict[str, str | None]:
        [(*_, shown)] = struct_of.decode(rewritten(fault, asked, body)).resources
        return {name: value for name, value, *_ in shown}

    assert settings(settings_hidden({"a", "c"})) == {"a": "1", "c": None}
    assert settings(settings_hidden(null={"b"})) == {"a": "1", "b": None, "c": None}


def test_other_codecs_are_refused() -> None:
    """Their batches alone; nothing is done to a request without any."""

    def batch(codec: int) -> bytes:
        builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
        builder.append(0, 1, b"key", b"value" * 100, [])
        return bytes(builder.build())

    mixed = {("t", 0): batch(GZIP), ("t", 1): batch(LZ4)}
    fault = codecs_refused(Request(PRODUCE, 8, 1, 1, batches=mixed), [GZIP])
    assert fault is not None
    assert (fault.withhold, fault.codes) == ([("t", 1)], {("t", 1): 76})
    assert codecs_refused(Request(PRODUCE, 8, 1, 1, batches={("t", 0): batch(GZIP)}), [GZIP]) is None
