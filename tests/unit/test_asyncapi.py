"""``avro/asyncapi.yaml`` is an AsyncAPI 3.0 document, and says what the bridge publishes.

Validated against AsyncAPI's own JSON Schema, which is in ``tests/fixtures`` (Apache License 2.0); ``make check-asyncapi`` does it
with the initiative's parser.
"""

import copy
import json
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from support.contract_document import table

from bridge import config
from bridge.encode.headers import CallbackHeaders
from bridge.encode.json import CONTENT_TYPE, encode_event
from bridge.report.report import Quarantined, Reason, Report, read_body

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "avro/asyncapi.yaml"
ASYNCAPI: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
AVRO = json.loads((ROOT / "avro/status-event.avsc").read_text())
TOPICS = tomllib.loads((ROOT / "config/topics.toml").read_text())
SCHEMAS = ASYNCAPI["components"]["schemas"]
MESSAGES = ASYNCAPI["components"]["messages"]
DRAFT = jsonschema.Draft7Validator


@cache
def official() -> Any:
    """AsyncAPI's own schema."""
    schema = json.loads((ROOT / "tests/fixtures/asyncapi-3.0.0.schema.json").read_text())
    DRAFT.check_schema(schema)
    return DRAFT(schema)


def references(part: Any) -> Iterator[str]:
    """Every ``$ref``."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def resolved(reference: str) -> Any:
    """What a reference leads to; KeyError or FileNotFoundError where that is nothing."""
    file, _, path = reference.partition("#")
    found = json.loads((DOCUMENT.parent / file).read_text()) if file else ASYNCAPI
    for name in filter(None, path.split("/")):
        found = found[name]
    return found


def test_it_is_valid() -> None:
    """By AsyncAPI's own schema."""
    assert [error.message for error in official().iter_errors(ASYNCAPI)] == []


@pytest.mark.parametrize(
    "path", ["info/title", "operations/publishStatus/action", "channels/status/bindings/kafka/topic"]
)
def test_the_schema_would_notice(path: str) -> None:
    """Else it would hold nothing."""
    broken: Any = copy.deepcopy(ASYNCAPI)
    *parents, name = path.split("/")
    part = broken
    for parent in parents:
        part = part[parent]
    part[name] = 7
    assert not official().is_valid(broken)


def test_every_reference_leads_somewhere_and_to_a_valid_schema() -> None:
    """In the document, or to the Avro schema beside it."""
    leads = {reference: resolved(reference) for reference in references(ASYNCAPI)}
    assert leads["./status-event.avsc"] == AVRO
    for schema in SCHEMAS.values():
        DRAFT.check_schema(schema)


def json_type(avro: Any) -> dict[str, Any]:
    """An Avro type as JSON Schema."""
    if isinstance(avro, list):
        inner = json_type(avro[1])
        return {**inner, "type": [inner["type"], "null"]}
    if isinstance(avro, dict) and "symbols" in avro:
        return {"type": "string", "enum": avro["symbols"]}
    if isinstance(avro, dict):
        return {"type": "integer", "format": "int64"}
    return {"type": {"string": "string", "boolean": "boolean", "int": "integer"}[avro]}


def test_the_value_is_that_of_the_avro_schema() -> None:
    """Field by field: name, type, symbols, documentation."""
    described = {field["name"]: {"description": field["doc"], **json_type(field["type"])} for field in AVRO["fields"]}
    assert SCHEMAS["statusEvent"]["properties"] == described
    assert SCHEMAS["statusEvent"]["required"] == list(described)
    assert SCHEMAS["statusEvent"]["description"] == AVRO["doc"]


def test_the_headers_are_those_of_the_contract() -> None:
    """No name more or less, and every word of the closed lists."""
    events = [name.strip("`") for name, *_ in table("Headers", "header")]
    quarantined = [name.strip("`") for name, *_ in table("Quarantined records", "header")]
    assert list(SCHEMAS["eventHeaders"]["properties"]) == events
    assert list(SCHEMAS["quarantineHeaders"]["properties"]) == quarantined
    assert SCHEMAS["quarantineHeaders"]["properties"]["quarantine_reason"]["enum"] == [
        reason.value for reason in Reason
    ]


def test_the_channels_are_the_topics_that_are_declared() -> None:
    """Addresses, partitions and what is set for them."""
    names = msgspec.to_builtins(config.load(environment={}).settings.topics)
    for channel, declared in TOPICS.items():
        kafka = ASYNCAPI["channels"][channel]["bindings"]["kafka"]
        assert ASYNCAPI["channels"][channel]["address"] == kafka["topic"] == names[channel]
        assert (kafka["partitions"], kafka["replicas"]) == (declared["partitions"], declared["replication_factor"])
        settings = declared["config"] | {"cleanup.policy": [declared["config"]["cleanup.policy"]]}
        assert kafka["topicConfiguration"].items() <= settings.items()


def of_the_bridge() -> Iterator[tuple[str, dict[str, str], Any]]:
    """Records as the bridge makes them: which headers they have to have, the headers, the value."""
    [item] = read_body(b'[{"MessageId":"m-1","Status":"Failed","ErrorCode":131026,"Played":{}}]', 1_764_000_000_007)
    assert isinstance(item, Report)
    headers = CallbackHeaders(
        source=b"/a",
        content_type=CONTENT_TYPE,
        callback_id="cb-1",
        received_at_ms=1_764_000_000_007,
        total=2,
        traceparent=b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    quarantined = Quarantined(b"{}", Reason.NO_STATUS, "A sentence.", "$[1].Status")
    made = headers.of_event(item.event, b"m-1", 1)
    yield "eventHeaders", {name: value.decode() for name, value in made}, json.loads(encode_event(item.event))
    made = headers.of_quarantined(quarantined, 2)
    yield "quarantineHeaders", {name: value.decode() for name, value in made}, None


def test_the_bridge_s_records_are_valid_by_it() -> None:
    """Headers and value; with one that is missing, or wrong, they are not."""
    for schema, headers, value in of_the_bridge():
        validator = DRAFT(SCHEMAS[schema])
        validator.validate(headers)
        for name in SCHEMAS[schema]["required"]:
            assert not validator.is_valid({key: text for key, text in headers.items() if key != name})
        if value is not None:
            DRAFT(SCHEMAS["statusEvent"]).validate(value)
            assert not DRAFT(SCHEMAS["statusEvent"]).is_valid(value | {"status": "NEW"})


def test_the_example_is_valid_by_it() -> None:
    """And its headers are of its value."""
    [example] = MESSAGES["statusEvent"]["examples"]
    DRAFT(SCHEMAS["eventHeaders"]).validate(example["headers"])
    DRAFT(SCHEMAS["statusEvent"]).validate(example["payload"])
    assert example["headers"]["ce_id"] == example["payload"]["event_id"]


class _OnceEach(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice, of which the last would win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """As YAML says it should be."""
        names = [self.construct_object(key) for key, _ in node.value]
        assert len(names) == len(set(names)), f"twice in line {node.start_mark.line}: {names}"
        return super().construct_mapping(node, deep)


def test_no_key_stands_twice() -> None:
    """Parsers take the last one, and say nothing."""
    assert yaml.load(DOCUMENT.read_text(), _OnceEach) == ASYNCAPI  # noqa: S506 - a safe loader
    with pytest.raises(AssertionError, match="twice in line 0"):
        yaml.load("a: 1\na: 2\n", _OnceEach)  # noqa: S506 - a safe loader
