"""Answers for the scripts of ``KafkaProxy``: what services answer that Apache Kafka does not.

    def script(request: Request) -> Fault | None:
        if request.api_key == API_VERSIONS:
            return versions_capped({INIT_PRODUCER_ID: None})
        if request.api_key == CREATE_TOPICS:
            return topics_refused(POLICY_VIOLATION, "topics are created in the console")
        return None

``topics_refused`` needs CreateTopics up to version 4, ``settings_hidden`` DescribeConfigs up to version 2. For newer clients
the answer to ApiVersions must offer no more: ``versions_capped(READABLE)``.
"""

import struct
from collections.abc import Callable, Collection, Mapping
from functools import partial
from io import BytesIO
from typing import Any, Final

from aiokafka.protocol import admin

from support.kafka_frames import CREATE_TOPICS, DESCRIBE_CONFIGS, BatchHead, Request
from support.kafka_proxy import Fault

CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_VERSION, POLICY_VIOLATION, UNSUPPORTED_CODEC = 31, 35, 44, 76
READABLE: Final = {CREATE_TOPICS: 4, DESCRIBE_CONFIGS: 2}
"""The newest versions that this module reads and writes."""
_OFFERED = struct.Struct(">hhh")


def versions_capped(newest: Mapping[int, int | None], *, others: bool = True) -> Fault:
    """The answer to ApiVersions offers these requests up to these versions; None: not at all.

    Args:
        newest: The versions, by API key.
        others: Whether it offers requests that are not in ``newest``, as the broker does.
    """
    return Fault(rewrite_answer=partial(_with_versions_capped, newest, others))


def _with_versions_capped(newest: Mapping[int, int | None], others: bool, request: Request, body: bytes) -> bytes:
    # A broker that does not know the version of ApiVersions answers in version 0.
    (code,) = struct.unpack_from(">h", body)
    flexible = request.flexible and code == 0
    count = body[2] - 1 if flexible else struct.unpack_from(">i", body, 2)[0]
    assert count < 127, "the number of requests has more than a byte"
    at, offered = 3 if flexible else 6, []
    for _ in range(count):
        key, oldest, latest = _OFFERED.unpack_from(body, at)
        cap = newest.get(key, latest if others else None)
        if cap is not None and cap >= oldest:
            offered.append(_OFFERED.pack(key, oldest, min(cap, latest)) + (b"\0" if flexible else b""))
        at += _OFFERED.size + flexible
    head = bytes([len(offered) + 1]) if flexible else struct.pack(">i", len(offered))
    return body[:2] + head + b"".join(offered) + body[at:]


def no_producer_id(code: int) -> Fault:
    """InitProducerId is refused with this code."""
    return Fault(answer=lambda request: struct.pack(">ihqh", 0, code, -1, -1) + (b"\0" if request.flexible else b""))


def topics_refused(code: int, message: str | None = None) -> Fault:
    """CreateTopics is refused with this code for all topics of the request; versions up to 4."""
    return Fault(answer=partial(_topics_refused, code, message))


def _topics_refused(code: int, message: str | None, request: Request) -> bytes:
    struct_of = _structs("CreateTopics", request)
    asked = struct_of("Request").decode(BytesIO(request.body))
    topics = [(name, code, message)[: 3 if request.api_version else 2] for name, *_ in asked.create_topic_requests]
    times = {"throttle_time_ms": 0} if request.api_version >= 2 else {}
    return bytes(struct_of("Response")(topic_errors=topics, **times).encode())


def settings_hidden(shown: Collection[str] | None = None, null: Collection[str] = ()) -> Fault:
    """DescribeConfigs answers ``shown`` alone, or all settings, and null for the value of ``null``; versions up to 2."""
    return Fault(rewrite_answer=partial(_with_settings_hidden, shown, null))


def _with_settings_hidden(shown: Collection[str] | None, null: Collection[str], request: Request, body: bytes) -> bytes:
    read = _structs("DescribeConfigs", request)("Response").decode(BytesIO(body))
    read.resources = [
        (
            *resource,
            [
                (name, None if name in null else value, *more)
                for name, value, *more in entries
                if shown is None or name in shown
            ],
        )
        for *resource, entries in read.resources
    ]
    return bytes(read.encode())


def codecs_refused(request: Request, taken: Collection[int], code: int = UNSUPPORTED_CODEC) -> Fault | None:
    """Produce is refused with this code for batches that have another codec than these; the others are appended."""
    refused = [where for where, batch in request.batches.items() if BatchHead.read(batch).codec not in taken]
    return Fault(withhold=refused, codes=dict.fromkeys(refused, code)) if refused else None


def _structs(name: str, request: Request) -> Callable[[str], Any]:
    newest = READABLE[request.api_key]
    assert request.api_version <= newest, (
        f"{name} {request.api_version} cannot be read here: cap it with versions_capped"
    )
    # Version 4 of CreateTopics has the layout of version 3.
    return lambda kind: getattr(admin, f"{name}{kind}_v{min(request.api_version, 3)}")
