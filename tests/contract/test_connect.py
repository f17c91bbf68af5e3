"""Kafka Connect reads the topic as ``avro/CONTRACT.md`` says: a real worker, with the settings that stand there."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from aiokafka import ConsumerRecord
from confluent_kafka import Producer
from support.apart import run_apart
from support.bridge_process import BridgeProcess
from support.brokers import running
from support.callbacks import make_topics
from support.connect import ConnectWorker, changed, settings_of
from support.contract_document import blocks, table
from support.topics import consume_all, create_topic, unique_name

from bridge.consume import Decoder, registry_schemas
from bridge.encode.records import RecordEncoder
from bridge.lab.embedded import EmbeddedRegistry
from bridge.lab.embedded.download import CONVERTER, ensure_class_path
from bridge.report.event import event_id
from bridge.report.report import read_body

SCHEMA = json.loads((Path(__file__).parents[2] / "avro/status-event.avsc").read_text())
RECEIVED = 1_691_043_640_123
RECIPIENT = "12025550123"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# Found by trying sixty million ids of messages: event ids that are numbers to a converter that guesses.
NUMBERS = {
    "202307846946370012996553": "00077631735134940645552971072081",
    "202307846946370016754449": "34408993631313662898501275058e23",
    "202307846946370010189765": "57435766435377453244691e30188839",
    "202307846946370004257276": "5867843641336890965623e530389154",
}
REPORTS = [
    {"MessageId": "m-ä", "Status": "Sent", "To": RECIPIENT, "TemplateName": 'a "b", {c=d}'},
    *({"MessageId": message_id, "Status": "Delivered", "To": RECIPIENT} for message_id in NUMBERS),
    {"MessageId": "m-2", "Status": "Failed", "To": RECIPIENT, "ErrorCode": "131026"},
]
NO_JSON = b"{not json"
WORKER, CONNECTOR, AVRO, DEAD_LETTERS = map(settings_of, blocks("properties"))


Said = list[str | None]
"""Of a key, a value, a field or a header that a connector was given: the schema, the class and the text."""


class Handed(NamedTuple):
    """What a connector was given of one record; the fields of a value with a schema."""

    key: Said
    value: Said
    headers: list[tuple[str, Said]]
    fields: dict[str, Said]


class Connect(NamedTuple):
    """A worker that runs, with a connector for each test, and what is on their topics."""

    worker: ConnectWorker
    directory: Path
    dead_letters: str
    broken: ConsumerRecord
    records: list[ConsumerRecord]

    async def handed(self, name: str, count: int) -> list[Handed]:
        """What the connector of that name was given, once it is so many records."""
        return await handed(self.worker, self.directory / name, count)


async def handed(worker: ConnectWorker, file: Path, count: int) -> list[Handed]:
    """What ``TypedSink`` wrote into a file, once it is so many records."""
    return [
        Handed(each["key"], each["value"], [(name, said) for name, said in each["headers"]], each.get("fields", {}))
        for each in map(json.loads, await worker.lines(file, count))
    ]


def put(bootstrap: str, topic: str, reports: list[dict[str, str]], *, commit: bool = True) -> None:
    """The reports' events as the bridge makes them, in a transaction as replay writes them."""
    encoder = RecordEncoder(topic, "unused", "/callbacks/chatapp/status", 1_000_000)
    items = read_body(json.dumps(reports).encode(), RECEIVED)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": unique_name("put")})
    producer.init_transactions(60)
    producer.begin_transaction()
    for each in encoder.encode(items, callback_id="cb-1", received_at_ms=RECEIVED, traceparent=TRACE):
        producer.produce(topic, each.value, each.key, headers=list(each.headers))
    producer.flush(60)
    producer.commit_transaction(60) if commit else producer.abort_transaction(60)


@pytest.fixture(scope="module")
def connect(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """One worker for the file sink as documented, one with types, one that guesses, and one with a dead letter topic."""
    bootstrap, directory = kafka_bootstrap, tmp_path_factory.mktemp("connect")
    topic, other = (run_apart(create_topic(bootstrap, unique_name(stem))) for stem in ("events", "broken"))
    dead_letters = unique_name("dead")
    put(bootstrap, topic, REPORTS[:2])
    put(bootstrap, topic, [{"MessageId": "given-up", "Status": "Sent"}], commit=False)
    put(bootstrap, topic, REPORTS[2:])
    put(bootstrap, other, REPORTS[:1])
    plain = Producer({"bootstrap.servers": bootstrap})
    plain.produce(other, NO_JSON, b"m-1", headers=[("ce_id", b"00077631735134940645552971072081")])
    plain.flush(60)
    put(bootstrap, other, REPORTS[-1:])

    def connector(name: str, **changes: object) -> dict[str, str]:
        """The documented one, for this Kafka and directory."""
        here = {"name": unique_name(name), "topics": topic, "file": directory / name, **changes}
        return changed(CONNECTOR, here)

    typed = {"connector.class": "TypedSink"}
    guessing = connector("guessed", **typed)
    del guessing["header.converter"]
    kept = {
        "errors.deadletterqueue.topic.name": dead_letters,
        "errors.deadletterqueue.topic.replication.factor": 1,
    }
    tolerant = connector("tolerant", **typed, topics=other) | changed(DEAD_LETTERS, kept)
    worker = ConnectWorker(
        directory,
        changed(WORKER, {"bootstrap.servers": bootstrap}),
        [connector("documented"), connector("typed", **typed), guessing, tolerant],
    )
    broken = run_apart(consume_all(bootstrap, other))[1]
    records = run_apart(consume_all(bootstrap, topic, isolation_level="read_committed"))
    with running(worker):
        yield Connect(worker, directory, dead_letters, broken, records)


def text_of(headers: Any) -> list[tuple[str, str]]:
    """The headers of a record, as text."""
    return [(name, value.decode()) for name, value in headers]


def test_the_ids_are_those_of_the_reports() -> None:
    """By the formula of the contract, and each is one that a guess takes for a number."""
    for message_id, identity in NUMBERS.items():
        assert event_id(message_id, RECIPIENT, "Delivered", None) == identity
        assert re.fullmatch(r"\d+(e\d+)?", identity)


async def test_the_documented_connector_writes_every_event_once(connect: Connect) -> None:
    """As it stands there: each committed event in its order, and none of the run that was given up."""
    lines = await connect.worker.lines(connect.directory / "documented", len(REPORTS))
    expected = [dict(text_of(record.headers))["ce_id"] for record in connect.records]
    assert [re.findall(r"[{ ]event_id=(\w+)", line) for line in lines] == [[identity] for identity in expected]


async def test_keys_and_headers_arrive_as_the_exact_text(connect: Connect) -> None:
    """Also where an id looks like a number with a huge exponent; and the value is a map without a schema."""
    handed = await connect.handed("typed", len(REPORTS))
    assert len(connect.records) == len(handed) == len(REPORTS)
    for record, found in zip(connect.records, handed, strict=True):
        assert found.key == ["STRING", "String", record.key.decode()]
        assert found.headers == [(name, ["STRING", "String", text]) for name, text in text_of(record.headers)]
        schema, name, text = found.value
        assert (schema, name) == (None, "HashMap")
        assert f'"event_id":"{dict(text_of(record.headers))["ce_id"]}"' in str(text)
    assert {dict(text_of(record.headers))["ce_id"] for record in connect.records} > set(NUMBERS.values())


async def test_the_default_header_converter_changes_them(connect: Connect) -> None:
    """Each row of the contract's table, and nothing that is not in it: the other headers stay text."""
    expected = {}
    for header, on_topic, name, text in table("Kafka Connect", "header"):
        expected[header.strip("`"), on_topic.strip("`")] = [name.strip("`"), text.strip("`")]
    handed = await connect.handed("guessed", len(REPORTS))
    seen = {
        (header, before): said[1:]
        for record, found in zip(connect.records, handed, strict=True)
        for (header, before), (_, said) in zip(text_of(record.headers), found.headers, strict=True)
    }
    assert {each: seen.get(each) for each in expected} == expected
    for (header, before), (kind, after) in seen.items():
        if header == "ce_id" and before in NUMBERS.values():
            assert (kind in {"BigDecimal", "Double"}, after != before) == (True, True)
        elif header not in {"ce_specversion", "ce_time", "ce_subject"}:
            assert (kind, after) == ("String", before)


async def test_what_is_no_event_goes_to_the_dead_letter_topic(connect: Connect, kafka_bootstrap: str) -> None:
    """As it was, with its own headers before Connect's; the events around it go on."""
    handed = await connect.handed("tolerant", 2)
    assert [found.key[2] for found in handed] == ["m-ä", "m-2"]
    [dead] = await consume_all(kafka_bootstrap, connect.dead_letters)
    assert (dead.key, dead.value) == (connect.broken.key, NO_JSON)
    assert dead.headers[: len(connect.broken.headers)] == connect.broken.headers
    reasons = dict(dead.headers)
    assert reasons["__connect.errors.topic"].decode() == connect.broken.topic
    assert b"JsonConverter" in reasons["__connect.errors.class.name"]


async def test_avro_arrives_with_a_schema(kafka_bootstrap: str, registry: EmbeddedRegistry, tmp_path: Path) -> None:
    """Through the bridge and a registry: every field with its type, as a sink that makes columns needs it; texts as ever."""
    topics = await make_topics(kafka_bootstrap, partitions=1)
    async with httpx.AsyncClient() as client:
        address = f"{registry.url}/subjects/{topics[0]}-value/versions"
        assert (await client.post(address, json={"schema": json.dumps(SCHEMA)})).status_code == 200
    settings = {"events.format": "avro", "registry.url": registry.url, "log.level": "info"}
    async with BridgeProcess(kafka_bootstrap, tmp_path, settings, topics) as bridge:
        assert (await bridge.post(json.dumps(REPORTS).encode())).status == 200
        await bridge.stop()
    records = await consume_all(kafka_bootstrap, topics[0])
    address = registry.native_url.replace("/v3", "/v2")
    converter = changed(AVRO, {"value.converter.apicurio.registry.url": address})
    plain = {name: value for name, value in CONNECTOR.items() if not name.startswith("value.converter")}
    here = {"name": unique_name("avro"), "topics": topics[0], "file": tmp_path / "avro", "connector.class": "TypedSink"}
    connector = changed(plain, here) | converter
    there = changed(WORKER, {"bootstrap.servers": kafka_bootstrap})
    async with ConnectWorker(
        tmp_path / "connect", there, [connector], await asyncio.to_thread(ensure_class_path, CONVERTER)
    ) as worker:
        found = await handed(worker, tmp_path / "avro", len(REPORTS))

    with httpx.Client(base_url=registry.url) as client:
        decoder = Decoder(registry_schemas(client))
        events = [msgspec.to_builtins(decoder.read(record)) for record in records]
    for record, expected, each in zip(records, events, found, strict=True):
        assert each.value[:2] == ["chatapp.status.v1.StatusEvent", "Struct"]
        assert each.fields == {
            field["name"]: said_of(field["type"], expected[field["name"]]) for field in SCHEMA["fields"]
        }
        assert each.headers == [(name, ["STRING", "String", text]) for name, text in text_of(record.headers)]
        assert each.key == ["STRING", "String", record.key.decode()]


def said_of(avro: Any, value: Any) -> Said:
    """What a connector is given for a field: Connect's type for Avro's, and the value as Connect writes it."""
    kind = avro[1] if isinstance(avro, list) else avro
    whole: dict[str, Any] = kind if isinstance(kind, dict) else {"type": kind}
    schema, name = {
        "string": ("STRING", "String"),
        "enum": (f"{SCHEMA['namespace']}.{whole.get('name')}", "String"),
        "int": ("INT32", "Integer"),
        "boolean": ("BOOLEAN", "Boolean"),
        "timestamp-millis": ("org.apache.kafka.connect.data.Timestamp", "Date"),
    }[whole.get("logicalType", whole["type"])]
    if value is None:
        return [schema, None, None]
    if name == "Date":
        value = datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [schema, name, str(value).lower() if name == "Boolean" else str(value)]
