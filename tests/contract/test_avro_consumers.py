"""Consumers with stock deserialisers read what the bridge writes in Avro: in Java, with Confluent's, and as a whole program.

The schema is registered at a real registry, the reports go through the bridge, and every consumer has to find the same
events: what was pushed, as the JSON of them says it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from aiokafka import ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import DeserializingConsumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from support.apart import run_apart
from support.bridge_process import BridgeProcess
from support.callbacks import make_topics
from support.consumers import Team
from support.topics import consume_all, unique_name

from bridge.consume import Decoder, Named, count_people, registry_schemas
from bridge.lab.embedded import EmbeddedRegistry, compile_java, run_java
from bridge.lab.embedded.download import SERDE, ensure_class_path
from bridge.report.report import Report, read_body

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "avro/status-event.avsc"
RELEASES = sorted((ROOT / "avro/releases").glob("*.avsc"))
BODIES = [
    (ROOT / "tests/fixtures/page-message.json").read_bytes(),
    (ROOT / "tests/fixtures/page-template.json").read_bytes(),
    json.dumps(
        [
            {
                "MessageId": "m-ä",
                "Status": "Read",
                "To": "15550000001",
                "Timestamp": 1,
                "Note": {"n": 12345678901234567890},
            },
            {"MessageId": "m-ä", "Status": "Delivered", "To": "15550000001", "TemplateName": "€" * 500},
            {"MessageId": "m-2", "Status": "Played", "ConversationExpirationTime": 4102444800000},
            {"MessageId": "m-3", "Status": "Failed", "FromUserId": "u-1", "ErrorCode": 130472},
        ]
    ).encode(),
]
READ_SECONDS = 60.0
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Written(NamedTuple):
    """What is on a topic, and what it has to say."""

    topic: str
    records: list[ConsumerRecord]
    expected: dict[str, dict[str, Any]]
    registry: EmbeddedRegistry | None = None


def expected(records: list[ConsumerRecord]) -> dict[str, dict[str, Any]]:
    """Each event as its JSON would have it, by its id; when it was received is the record's time."""
    received = {dict(record.headers)["ce_id"].decode(): record.timestamp for record in records}
    found = {}
    for body in BODIES:
        for item in read_body(body, 0):
            assert isinstance(item, Report)
            event = msgspec.structs.replace(item.event, received_at=received[item.event.event_id])
            if event.message_time_source == "RECEIVED":
                event = msgspec.structs.replace(event, message_time=event.received_at)
            found[event.event_id] = msgspec.to_builtins(event)
    return found


@asynccontextmanager
async def bridge_writing_avro(
    bootstrap: str, directory: Path, registry: str
) -> AsyncIterator[tuple[BridgeProcess, str]]:
    """A bridge that writes Avro: in frames where there is a registry, with the schema registered as its operator would."""
    topics = await make_topics(bootstrap, partitions=2)
    if registry:
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"{registry}/subjects/{topics[0]}-value/versions", json={"schema": SCHEMA.read_text()}
            )
        assert answer.status_code == 200, answer.text
    settings = {"events.format": "avro", "registry.url": registry, "log.level": "info"}
    async with BridgeProcess(bootstrap, directory, settings, topics) as bridge:
        yield bridge, topics[0]


async def written(bootstrap: str, directory: Path, registry: str) -> Written:
    """Every body pushed and answered, the bridge ended."""
    async with bridge_writing_avro(bootstrap, directory, registry) as (bridge, topic):
        for body in BODIES:
            assert (await bridge.post(body, headers=[("traceparent", TRACE)])).status == 200
        await bridge.stop()
    records = await consume_all(bootstrap, topic)
    return Written(topic, records, expected(records))


@pytest.fixture(scope="module")
def framed(kafka_bootstrap: str, _registry: EmbeddedRegistry, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Reports in Confluent's frame."""
    found = run_apart(written(kafka_bootstrap, tmp_path_factory.mktemp("framed"), _registry.url))
    return found._replace(registry=_registry)


@pytest.fixture(scope="module")
def single(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Reports in single-object encoding: there is no registry."""
    return run_apart(written(kafka_bootstrap, tmp_path_factory.mktemp("single"), ""))


@pytest.fixture(scope="module")
def java_path(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The Java programs, compiled, and what they need beside Kafka's jars."""

    async def prepare() -> list[Path]:
        serde = await asyncio.to_thread(ensure_class_path, SERDE)
        sources = sorted((ROOT / "tests/java/avro").glob("*.java"))
        return [await compile_java(sources, tmp_path_factory.mktemp("classes"), class_path=serde), *serde]

    return run_apart(prepare())


async def test_java_reads_frames_with_a_stock_deserialiser(
    kafka_bootstrap: str, framed: Written, java_path: list[Path]
) -> None:
    """Apicurio's, with its defaults and the registry's address alone: every field of every event, key and headers."""
    assert framed.registry is not None
    arguments = [
        kafka_bootstrap,
        framed.topic,
        unique_name("java"),
        framed.registry.native_url,
        str(len(framed.expected)),
        "60",
    ]
    result = await run_java("ReadAvro", arguments, class_path=java_path, timeout_seconds=90)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert {each["value"]["event_id"]: each["value"] for each in found} == framed.expected
    for each in found:
        assert each["key"] == each["value"]["message_id"] == each["headers"]["ce_subject"]
        assert each["headers"]["ce_id"] == each["value"]["event_id"]
        assert each["headers"]["content-type"] == "application/avro"
        assert each["headers"]["traceparent"] == TRACE


async def test_java_reads_single_objects_with_avro_s_own_decoder(single: Written, java_path: list[Path]) -> None:
    """With the released schemas as files, and nothing else."""
    values = "".join(f"{record.value.hex()}\n" for record in single.records).encode()
    files = [str(path) for path in (SCHEMA, *RELEASES)]
    result = await run_java("DecodeSingleObjects", files, class_path=java_path, stdin=values)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert {each["event_id"]: each for each in found} == single.expected


def test_librdkafka_reads_frames_with_confluent_s_own_deserialiser(kafka_bootstrap: str, framed: Written) -> None:
    """In a group, as a team with confluent-kafka would; it gives times as times."""
    assert framed.registry is not None
    settings = {
        "bootstrap.servers": kafka_bootstrap,
        "group.id": unique_name("confluent"),
        "auto.offset.reset": "earliest",
        "value.deserializer": AvroDeserializer(SchemaRegistryClient({"url": framed.registry.url})),
    }
    consumer = DeserializingConsumer(settings)
    consumer.subscribe([framed.topic])
    found: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + READ_SECONDS
    try:
        while len(found) < len(framed.expected) and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is not None:
                assert message.error() is None
                event: Any = message.value()
                found[event["event_id"]] = {name: _plain(value) for name, value in event.items()}
    finally:
        consumer.close()
    assert found == framed.expected


def _plain(value: Any) -> Any:
    """A time as milliseconds."""
    return (
        round((value - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000) if isinstance(value, datetime) else value
    )


def test_bridge_consume_reads_both(framed: Written, single: Written) -> None:
    """Frames with the registry, single objects without."""
    assert framed.registry is not None
    with httpx.Client(base_url=framed.registry.url) as client:
        decoder = Decoder(registry_schemas(client))
        for topic in (framed, single):
            found = [decoder.read(record) for record in topic.records]
            assert {event.event_id: msgspec.to_builtins(event) for event in found} == topic.expected


def test_the_cloudevents_sdk_reads_both(framed: Written, single: Written) -> None:
    """Each record as it lies on Kafka, in its binary mode."""
    for record in (*framed.records, *single.records):
        read = from_binary(KafkaMessage(dict(record.headers), record.key, record.value), JSONFormat())
        expected = framed.expected[read.get_id()]
        assert read.get_subject() == expected["message_id"] == record.key.decode()
        assert read.get_type() == f"chatapp.status.{expected['status'].lower()}"
        assert read.get_datacontenttype() == "application/avro"


async def test_a_team_s_program_follows_frames(kafka_bootstrap: str, framed: Written, tmp_path: Path) -> None:
    """The same program as for JSON, told where the registry is."""
    assert framed.registry is not None
    billing = Team("billing", kafka_bootstrap, framed.topic, tmp_path, framed.registry.url)
    billing.start()
    try:
        await billing.caught_up()
    finally:
        billing.kill()
    delivered: dict[str, list[Named]] = {}
    for event in framed.expected.values():
        if event["status"] in {"DELIVERED", "READ"}:
            delivered.setdefault(event["message_id"], []).append((event["recipient"], event["user_id"]))
    assert dict(billing.rows("SELECT message_id, count(*) FROM charges GROUP BY message_id")) == {
        message_id: count_people(named) for message_id, named in delivered.items()
    }
    assert ("15550000001", None) in delivered["m-ä"]
