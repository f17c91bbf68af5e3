"""What tests of replay share: topics filled as a test wants them, commands run here or in a process of their own."""

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from subprocess import Popen
from typing import Any, NamedTuple

import msgspec
from aiokafka import TopicPartition as Place
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import admin as administration
from confluent_kafka.admin import AdminClient
from fastavro import parse_schema, schemaless_writer

from bridge.encode.json import encode_event
from bridge.lab.embedded.java import spawn
from bridge.report.event import StatusEvent
from bridge.report.report import Report, read_body
from bridge.schemas import written_schema
from support.apart import run_apart
from support.topics import unique_name

WAIT_SECONDS = 30.0
Headers = list[tuple[str, bytes | None]]


class Put(NamedTuple):
    """A record to write; ``status`` only makes the headers of an event."""

    value: bytes | None
    key: bytes | None = None
    partition: int = 0
    time_ms: int = 0
    headers: Headers | None = None


def event(message_id: str, status: str = "Delivered", **fields: Any) -> StatusEvent:
    """An event as the bridge makes it of a report with these fields."""
    body = [{"MessageId": message_id, "To": "12025550123", "Timestamp": 1691043638000, "Status": status, **fields}]
    (item,) = read_body(msgspec.json.encode(body), 1691043638500)
    assert isinstance(item, Report)
    return item.event


def event_headers(of: StatusEvent) -> Headers:
    """The headers that matter to a replay."""
    return [
        ("ce_id", of.event_id.encode()),
        ("ce_type", f"chatapp.status.{of.status.lower()}".encode()),
        ("ce_subject", of.message_id.encode()),
    ]


def single_object(of: StatusEvent) -> bytes:
    """The event in Avro, by its present schema, in the single-object encoding."""
    schema = written_schema()
    out = BytesIO(b"\xc3\x01" + schema.fingerprint)
    out.seek(0, 2)
    schemaless_writer(out, parse_schema(json.loads(schema.text)), msgspec.to_builtins(of))
    return out.getvalue()


def put_event(of: StatusEvent, *, partition: int = 0, time_ms: int = 0, value: bytes | None = None) -> Put:
    """The record of an event, in JSON unless its value is given."""
    return Put(value or encode_event(of), of.message_id.encode(), partition, time_ms, event_headers(of))


def make_topic(bootstrap: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
    """A topic of a unique name, which the broker knows; its records may be as old as they like."""
    name = unique_name("replay")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = administration.NewTopic(
        name, partitions, len(bootstrap.split(",")), config={"retention.ms": "-1", **(config or {})}
    )
    admin.create_topics([new], operation_timeout=WAIT_SECONDS)[name].result()
    return name


def write(bootstrap: str, topic: str, records: Iterable[Put], **settings: Any) -> Producer:
    """Write them, in order within each partition, and wait for it; ``settings`` of a transaction leave it open.

    Returns:
        The producer, for what is to be done with an open transaction.
    """
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **settings})
    if "transactional.id" in settings:
        producer.init_transactions(WAIT_SECONDS)
        producer.begin_transaction()
    for put in records:
        headers: Any = put.headers
        producer.produce(topic, put.value, put.key, put.partition, timestamp=put.time_ms, headers=headers)
        producer.poll(0)
    assert producer.flush(WAIT_SECONDS) == 0
    return producer


def delete_before(bootstrap: str, topic: str, offsets: Mapping[int, int]) -> None:
    """Remove the head of partitions, as retention does."""
    run_apart(
        _delete_before(bootstrap, {Place(topic, partition): RecordsToDelete(at) for partition, at in offsets.items()})
    )


async def _delete_before(bootstrap: str, offsets: dict[Place, RecordsToDelete]) -> None:
    """By aiokafka: confluent-kafka gives its argument free once too often (confluent-kafka-python issue 2275)."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    await admin.delete_records(offsets)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                else:
                    return
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


def clean_at_once(bootstrap: str) -> None:
    """Let the broker look for what it can compact all the time, not every 15 seconds."""
    admin: Any = AdminClient({"bootstrap.servers": bootstrap})
    kinds: Any = administration
    entry = kinds.ConfigEntry("log.cleaner.backoff.ms", "100", incremental_operation=kinds.AlterConfigOpType.SET)
    resource = kinds.ConfigResource(kinds.ConfigResource.Type.BROKER, "1", incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


class Read(NamedTuple):
    """A record as a reader of what is committed sees it."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def _ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """Where each partition ends, with what is not committed yet."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "ends", "isolation.level": "read_uncommitted"})
    ends = {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=WAIT_SECONDS)[1]
        for partition in range(partitions)
    }
    consumer.close()
    return ends


def read_all(bootstrap: str, topic: str, partitions: int = 1) -> list[Read]:
    """All that is committed, by partition and offset.

    A commit is answered before the brokers have written its markers to every partition, so the end of what is
    committed may still be on its way to the end of the log.
    """
    expected = _ends(bootstrap, topic, partitions)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": unique_name("reader"),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[Read] = []
    ends: set[int] = set()
    while len(ends) < partitions:
        message: Any = consumer.poll(WAIT_SECONDS)
        assert message is not None, "no end within the time"
        if message.error():
            if message.offset() >= expected[message.partition()]:
                ends.add(message.partition())
            continue
        headers = message.headers() or []
        found.append(
            Read(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(), headers)
        )
    consumer.close()
    return sorted(found)


def offsets_of(records: Iterable[Read]) -> list[tuple[int, int]]:
    """Where each stands."""
    return [(record.partition, record.offset) for record in records]


def lines_of(text: str | bytes | Path) -> list[dict[str, Any]]:
    """The objects of lines of JSON, each line parsed by itself."""
    data = text.read_bytes() if isinstance(text, Path) else text.encode() if isinstance(text, str) else text
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def arguments(bootstrap: str, topic: str, words: Sequence[str]) -> list[str]:
    """A command with its configuration: Kafka there, and the topic as that of the events."""
    pairs = {"kafka.bootstrap_servers": bootstrap, "topics.status": topic}
    return [*words, *(part for key, value in pairs.items() for part in ("--set", f"{key}={value}"))]


def start(bootstrap: str, topic: str, *words: str, directory: Path) -> Popen[bytes]:
    """A command in a process of its own, which never outlives the tests; its output is in ``directory``."""
    with (directory / "out").open("wb") as out, (directory / "error").open("ab") as error:
        return spawn(
            [sys.executable, "-m", "bridge", *arguments(bootstrap, topic, words)],
            stdout=out,
            stderr=error,
        )
