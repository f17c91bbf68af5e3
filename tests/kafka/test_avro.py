"""Avro values on a real Kafka, with a real registry, with none, and with one that is away.

What a registry does is to numbers the same as what Kafka does to records: while it is away everything is kept, in order.
"""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fastavro
import pytest
from support import raw_http
from support.bridge_process import BridgeProcess
from support.callbacks import SUCCESS, body, eventually, kept, make_topics, mark, report
from support.proxy import Proxy
from support.topics import consume_all

from bridge import config
from bridge.lab.embedded import EmbeddedRegistry
from bridge.lab.embedded.ports import Port
from bridge.registry.client import RegistryClient
from bridge.registry.ids import FILE
from bridge.schemas import written_schema

AVRO = {"events.format": "avro"}
NOWHERE = "127.0.0.1:1"
PLAIN = fastavro.parse_schema(json.loads(written_schema().text.replace('"logicalType"', '"was"')))
TEXT, FINGERPRINT = written_schema()


def client_of(url: str) -> RegistryClient:
    """A client with nothing but an address."""
    return RegistryClient(config.load(environment={}, assignments=[f"registry.url={url}"]).settings.registry)


async def register(registry: EmbeddedRegistry, topic: str) -> int:
    """As ``chatapp-bridge schema register`` does; the id."""
    async with client_of(registry.url) as client:
        return await client.register(f"{topic}-value", TEXT)


class Door:
    """An address of the registry's behind which it is there only inside ``open``."""

    def __init__(self, registry: EmbeddedRegistry) -> None:
        self._registry, self._port = registry, Port()
        self.url = f"http://{self._port.address}{urlsplit(registry.url).path}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let requests through."""
        there = urlsplit(self._registry.url).port
        assert there is not None
        async with Proxy(lambda: there, self._port):
            yield

    def close(self) -> None:
        """Give the port back."""
        self._port.release()


@pytest.fixture
def door(registry: EmbeddedRegistry) -> Any:
    """To the registry, closed."""
    door = Door(registry)
    yield door
    door.close()


def event_of(value: bytes, head: bytes) -> Any:
    """What stands behind a head, decoded by fastavro."""
    assert value[: len(head)] == head
    stream = io.BytesIO(value[len(head) :])
    event = fastavro.schemaless_reader(stream, PLAIN, None)
    assert stream.read() == b""
    return event


def framed(number: int) -> bytes:
    """The head of Confluent's wire format."""
    return b"\0" + number.to_bytes(4, "big")


def says(bridge: BridgeProcess, *texts: str) -> Callable[[], Awaitable[bool]]:
    """Whether its log has them, in one line; a topic's name may look like a number, and be masked there."""

    async def said() -> bool:
        return any(all(text in line for text in texts) for line in bridge.log().splitlines())

    return said


def counts(bridge: BridgeProcess, name: str, least: float, most: float | None = None) -> Callable[[], Awaitable[bool]]:
    """Whether a sample has that value, or one of a range."""

    async def counted() -> bool:
        return least <= (await bridge.metrics())[f"chatapp_bridge_{name}"] <= (least if most is None else most)

    return counted


async def spool_command(*arguments: str | Path) -> tuple[int, str, str]:
    """``chatapp-bridge spool``: its exit code, output and complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "spool", *map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def push(bridge: BridgeProcess, *statuses: str, message: str) -> None:
    """A callback for each status, answered 200."""
    for status in statuses:
        assert (await bridge.post(body(report(message, status)))).body == SUCCESS


FULL = {
    "OriginPhoneNumber": "8613100000009", "StatusDescription": "words", "ErrorCode": 131049, "ErrorDescription": "x" * 100,
    "ConversationId": "c", "ConversationType": "utility", "ConversationExpirationTime": 1691132099000, "MsgFrameType": "TEMPLATE",
    "Type": "IMAGE", "TemplateCode": "t", "TemplateName": "é", "Language": "id", "TaskId": "task", "Neu": {"ü": [1, None]},
}  # fmt: skip


async def test_an_event_is_the_same_in_each_format(
    kafka_bootstrap: str, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    """JSON, single-object encoding, Confluent's wire format: field by field, but for when it was received."""
    pushed = body(report("m-1", "Failed", **FULL), report("m-1", "Read"), {"MessageId": "m-2", "Status": "new"}, {})
    found: dict[str, Any] = {}
    for name, settings in {"json": {}, "single": AVRO, "registry": {**AVRO, "registry.url": registry.url}}.items():
        topics = await make_topics(kafka_bootstrap, partitions=1)
        number = await register(registry, topics[0])
        head = {"json": b"", "single": b"\xc3\x01" + FINGERPRINT, "registry": framed(number)}[name]
        async with BridgeProcess(kafka_bootstrap, tmp_path, {"spool.enabled": False, **settings}, topics) as bridge:
            assert (await bridge.post(pushed)).body == SUCCESS
        records = await consume_all(kafka_bootstrap, topics[0])
        decode = json.loads if name == "json" else lambda value, head=head: event_of(value, head)
        found[name] = [decode(each.value) for each in records]
        media = f"application/{'json' if name == 'json' else 'avro'}".encode()
        assert [media] * 3 == [dict(each.headers)["content-type"] for each in records]
        assert [b"{}"] == [each.value for each in await consume_all(kafka_bootstrap, topics[1])]
        for event, record in zip(found[name], records, strict=True):
            assert event["received_at"] == record.timestamp
            event["message_time"] -= event["received_at"] if event["message_time_source"] == "RECEIVED" else 0
            del event["received_at"]
    assert found["json"] == found["single"] == found["registry"]
    assert json.loads(found["json"][0]["extras"]) == {"Neu": {"ü": [1, None]}}


async def test_a_registry_that_is_away_at_the_first_start_costs_nothing(
    kafka_bootstrap: str, registry: EmbeddedRegistry, door: Door, tmp_path: Path
) -> None:
    """All is answered 200 and kept, over a kill; published in order once the id is known; which is then known without it."""
    topics = await make_topics(kafka_bootstrap, partitions=2)
    number = await register(registry, topics[0])
    settings = {**AVRO, "registry.url": door.url}
    async with BridgeProcess(kafka_bootstrap, tmp_path, settings, topics) as bridge:
        await push(bridge, "Sent", "Delivered", message="m-1")
        assert (await bridge.post(b"no JSON")).body == SUCCESS  # what needs no schema waits for none
        await eventually(counts(bridge, f'reports_published_total{{topic="{topics[1]}"}}', 1))
        assert (await bridge.metrics())['chatapp_bridge_schema_ids{state="missing"}'] == 1
        assert await says(bridge, "schema_id_not_found", "can't be reached")()
        seen = json.loads((await raw_http.get(bridge.admin_port, "/status.json")).body)
        assert ("on_disk", True) == (seen["verdict"], "registry" in seen["why"])
        assert "ChatappBridgeSchemaIds" in {notice["entry"] for notice in seen["notices"]}
        bridge.kill()
        await bridge.start()
        await push(bridge, "Read", message="m-1")
        assert await consume_all(kafka_bootstrap, topics[0]) == []
        async with door.open():
            await push(bridge, "Deleted", message="m-1")
            await eventually(counts(bridge, "reports_waiting", 0))
        assert (await bridge.metrics())['chatapp_bridge_schema_ids{state="known"}'] == 1
        await eventually(counts(bridge, 'lanes{state="degraded"}', 0))
        await bridge.stop()
        await bridge.start()
        await push(bridge, "Read", message="m-2")
        assert (await bridge.metrics())['chatapp_bridge_schema_ids{state="known"}'] == 1
        assert bridge.log().count('"lane_degraded"') == bridge.log().count('"lane_healthy"')
    assert json.loads((tmp_path / "spool" / FILE).read_bytes()) == {
        door.url: {f"{topics[0]}-value": {FINGERPRINT.hex(): number}}
    }
    found = [event_of(each.value, framed(number)) for each in await consume_all(kafka_bootstrap, topics[0])]
    assert ["Sent", "Delivered", "Read", "Deleted"] == [e["provider_status"] for e in found if e["message_id"] == "m-1"]
    assert [e["message_id"] for e in found if e["message_id"] != "m-1"] == ["m-2"]


async def test_without_a_spool_it_is_not_ready_until_the_id_is_known(
    kafka_bootstrap: str, registry: EmbeddedRegistry, door: Door, tmp_path: Path
) -> None:
    """503 while the registry is away; the same while it has no such schema, and the log says what to do; then 200."""
    topics = await make_topics(kafka_bootstrap, partitions=1)
    settings = {**AVRO, "registry.url": door.url, "spool.enabled": False, "delivery.ack_deadline_seconds": 1.5}
    async with BridgeProcess(kafka_bootstrap, tmp_path, settings, topics, wait="live") as bridge:
        await eventually(says(bridge, "schema_id_not_found", "can't be reached"))
        assert (await bridge.post(body(report("m-1")))).status == 503
        assert "registry" in json.loads((await raw_http.get(bridge.admin_port, "/status.json")).body)["why"]
        assert (await bridge.post(b"no JSON")).body == SUCCESS
        await bridge.wait_for("/readyz", 503, 0.5)
        async with door.open():
            await eventually(says(bridge, "schema_id_not_found", "-value", "chatapp-bridge schema register"))
            await bridge.wait_for("/readyz", 503, 0.5)
            number = await register(registry, topics[0])
            await bridge.wait_for("/readyz", 200)
            assert (await bridge.post(body(report("m-2")))).body == SUCCESS
    found = [event_of(each.value, framed(number)) for each in await consume_all(kafka_bootstrap, topics[0])]
    assert ["m-2"] == [event["message_id"] for event in found]


async def test_what_was_spooled_keeps_its_topic_and_its_format(
    kafka_bootstrap: str, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    """A change of format is a new topic; what waits for the old one goes there as it would have, whatever is configured now."""
    lives = [{}, AVRO, {**AVRO, "registry.url": registry.url}]
    topics = [await make_topics(kafka_bootstrap, partitions=1) for _ in range(4)]
    number = await register(registry, topics[2][0])
    for life, names in zip(lives, topics, strict=False):
        async with BridgeProcess(NOWHERE, tmp_path, life, names) as bridge:
            await push(bridge, "Sent", "Read", message=names[0])
            await bridge.stop()
    spool = tmp_path / "spool"

    code, out, err = await spool_command("export", "--directory", spool)
    assert code == 0, err
    exported = [each for each in map(json.loads, out.splitlines()) if each["topic"] == topics[2][0]]
    assert ["Sent", "Read"] == [each["value"]["provider_status"] for each in exported]

    async with BridgeProcess(kafka_bootstrap, tmp_path, {}, topics[3]) as bridge:
        await eventually(counts(bridge, "reports_waiting", 2))
        await eventually(says(bridge, "schema_id_unknown", "-value", "registry.url is empty"))
        await push(bridge, "Sent", message=topics[3][0])
        await bridge.stop()
    code, out, err = await spool_command(
        "drain", "--directory", spool, "--timeout", "60",
        "--set", f"kafka.bootstrap_servers={kafka_bootstrap}", "--set", f"registry.url={registry.url}",
    )  # fmt: skip
    assert (code, "2 of 2 published" in out) == (0, True), err

    heads = [b"", b"\xc3\x01" + FINGERPRINT, framed(number)]
    for names, head in zip(topics, heads, strict=False):
        records = await consume_all(kafka_bootstrap, names[0])
        events = [event_of(each.value, head) if head else json.loads(each.value) for each in records]
        assert [(names[0], "Sent"), (names[0], "Read")] == [(e["message_id"], e["provider_status"]) for e in events]
    assert len(await consume_all(kafka_bootstrap, topics[3][0])) == 1


async def test_pushing_while_the_registry_comes_and_goes_keeps_every_message_in_order(
    kafka_bootstrap: str, registry: EmbeddedRegistry, door: Door, tmp_path: Path
) -> None:
    """The head of a lane waits, and nothing later overtakes it, from memory or from disk."""
    topics = await make_topics(kafka_bootstrap, partitions=3)
    number = await register(registry, topics[0])
    marked = mark()
    async with BridgeProcess(kafka_bootstrap, tmp_path, {**AVRO, "registry.url": door.url}, topics) as bridge:

        async def client(name: int) -> None:
            for state in range(30):
                reports = [report(f"{marked}-{name}-{message}", f"state-{state:02}") for message in range(5)]
                assert (await bridge.post(body(*reports))).body == SUCCESS

        async with asyncio.TaskGroup() as group:
            pushing = [group.create_task(client(name)) for name in range(4)]
            await eventually(counts(bridge, "reports_waiting", 200, 600))
            async with door.open():
                await asyncio.gather(*pushing)
                await eventually(counts(bridge, "reports_waiting", 0))
    states: dict[str, list[str]] = {}
    for record in await consume_all(kafka_bootstrap, topics[0]):
        event = event_of(record.value, framed(number))
        states.setdefault(event["message_id"], []).append(event["provider_status"])
        assert kept(record).key == event["message_id"]
    expected = [f"state-{state:02}" for state in range(30)]
    assert {f"{marked}-{name}-{message}": expected for name in range(4) for message in range(5)} == states
