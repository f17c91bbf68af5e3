"""Replay of Avro in Confluent's frame, by a real registry: two releases of the schema in one range; a registry that is away."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import msgspec
import pytest
from support.apart import run_apart
from support.replaying import (
    Put,
    arguments,
    event,
    lines_of,
    make_topic,
    put_event,
    read_all,
    single_object,
    write,
)

from bridge import cli, config
from bridge.consume import Decoder
from bridge.lab.embedded import EmbeddedRegistry
from bridge.registry.client import RegistryClient
from bridge.report.event import StatusEvent
from bridge.schemas import written_schema

TEXT = written_schema().text
# Symbols that came with the present release; those behind them had other numbers before.
SINCE = {"READ", "RE_ENGAGEMENT"}
AWAY = "http://127.0.0.1:1"

Run = Callable[..., int]


def older() -> str:
    """The schema of a release from before ``SINCE``."""
    schema = json.loads(TEXT)
    for field in schema["fields"]:
        if isinstance(field["type"], dict) and "symbols" in field["type"]:
            field["type"]["symbols"] = [each for each in field["type"]["symbols"] if each not in SINCE]
    return json.dumps(schema)


async def register(registry: EmbeddedRegistry, topic: str, *texts: str) -> list[int]:
    """As ``chatapp-bridge schema register`` did at each release; the ids."""
    settings = config.load(environment={}, assignments=[f"registry.url={registry.url}"]).settings
    async with RegistryClient(settings.registry) as client:
        return [await client.register(f"{topic}-value", text) for text in texts]


def framed(of: StatusEvent, number: int, text: str = TEXT) -> Put:
    """The record of an event in Confluent's frame, by a writer that shares nothing with the bridge."""
    out = io.BytesIO(b"\0" + number.to_bytes(4, "big"))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(text)), msgspec.to_builtins(of))
    return put_event(of, value=out.getvalue())


class Source(NamedTuple):
    """A topic of one partition, its events in order, and the id of the schema that the older ones name."""

    topic: str
    events: list[StatusEvent]
    before: int
    now: int


@pytest.fixture
def source(kafka_bootstrap: str, registry: EmbeddedRegistry) -> Source:
    """Two of the older release, two of the present one, then one in single-object encoding and one in JSON."""
    topic = make_topic(kafka_bootstrap)
    before, now = run_apart(register(registry, topic, older(), TEXT))
    assert before != now
    more = {"TemplateCode": "t-1", "ErrorCode": "131050"}
    events = [event(f"m-{n}", ("Sent", "Failed")[n % 2], **(more if n % 2 else {})) for n in range(6)]
    records = [
        *(framed(each, before, older()) for each in events[:2]),
        *(framed(each, now) for each in events[2:4]),
        put_event(events[4], value=single_object(events[4])),
        put_event(events[5]),
    ]
    write(kafka_bootstrap, topic, records)
    return Source(topic, events, before, now)


@pytest.fixture
def run(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``replay`` on a topic with the registry at that address, here; gives the exit code."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_") and "__" in name]:
        monkeypatch.delenv(name)

    def replay(topic: str, url: str, *words: str) -> int:
        of_the_registry = ["--set", f"registry.url={url}"] if url else []
        return cli.main(arguments(kafka_bootstrap, topic, ["replay", *words, *of_the_registry]))

    return replay


def fields(of: StatusEvent) -> dict[str, Any]:
    """An event as a line has it."""
    built: dict[str, Any] = json.loads(msgspec.json.encode(of))
    return built


def test_to_lines_each_value_is_decoded_by_the_schema_it_names(
    registry: EmbeddedRegistry, source: Source, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is in base64, and no symbol is taken for another; filters look into both."""
    assert run(source.topic, registry.url, "--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    lines = lines_of(said.out)
    assert "could not be decoded" not in said.err
    assert [fields(each) for each in source.events] == [line["value"] for line in lines]
    assert ["FAILED", "OPT_OUT"] == [lines[1]["value"][name] for name in ("status", "error_category")]
    assert not [line for line in lines if line.keys() & {"value_base64", "value_error", "value_text"}]

    assert run(source.topic, registry.url, "--template", "t-1", "--to-file", "-", "--execute") == 0
    assert [line["offset"] for line in lines_of(capfd.readouterr().out)] == [1, 3, 5]


def test_to_a_topic_the_bytes_are_the_same_and_the_registry_is_not_asked(
    kafka_bootstrap: str, source: Source, run: Run
) -> None:
    """Plan and run, while it is away: value, key, time and headers are copied, and the ids still lead to the schemas."""
    target = make_topic(kafka_bootstrap)
    assert run(source.topic, AWAY, "--to-topic", target) == 0
    assert run(source.topic, AWAY, "--to-topic", target, "--execute") == 0
    there, copies = read_all(kafka_bootstrap, source.topic), read_all(kafka_bootstrap, target)
    assert [each[2:5] for each in there] == [each[2:5] for each in copies]
    assert [dict(each.headers)["ce_id"] for each in there] == [dict(each.headers)["ce_id"] for each in copies]
    texts = {source.before: older(), source.now: TEXT}
    decoder = Decoder(lambda number: texts[number])
    assert [each.event_id for each in source.events] == [decoder.decode(each.value or b"").event_id for each in copies]


def test_a_filter_into_the_value_chooses_for_a_topic_as_well(
    kafka_bootstrap: str, registry: EmbeddedRegistry, source: Source, run: Run
) -> None:
    """By the template, which no header has."""
    target = make_topic(kafka_bootstrap)
    assert run(source.topic, registry.url, "--template", "t-1", "--to-topic", target, "--execute") == 0
    assert [b"m-1", b"m-3", b"m-5"] == [each.key for each in read_all(kafka_bootstrap, target)]


def test_while_the_registry_is_away_nothing_is_passed_over(
    registry: EmbeddedRegistry, source: Source, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """1 and words, for lines and for a filter that needs the value; the run goes on from there when it is back."""
    file = tmp_path / "out.ndjson"
    assert run(source.topic, AWAY, "--template", "t-1", "--count") == 1
    assert "can't be reached" in capfd.readouterr().err
    assert run(source.topic, AWAY, "--to-file", str(file), "--execute") == 1
    said = capfd.readouterr().err
    assert "--resume" in said
    number = said.partition("--resume ")[2].split()[0]
    assert run(source.topic, registry.url, "--resume", number, "--to-file", str(file), "--execute") == 0
    assert [f"m-{n}" for n in range(6)] == [line["value"]["message_id"] for line in lines_of(file)]


@pytest.mark.parametrize("known", [True, False])
def test_what_no_schema_is_known_of_is_told(
    kafka_bootstrap: str,
    registry: EmbeddedRegistry,
    source: Source,
    run: Run,
    capfd: pytest.CaptureFixture[str],
    *,
    known: bool,
) -> None:
    """An id that the registry does not have; or none configured: in base64 in lines, counted where a filter had to know."""
    url = registry.url if known else ""
    write(kafka_bootstrap, source.topic, [framed(event("m-6", TemplateCode="t-1"), 999_999)])
    undecodable = [6] if known else [0, 1, 2, 3, 6]
    assert run(source.topic, url, "--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    assert undecodable == [line["offset"] for line in lines_of(said.out) if "value_error" in line]
    assert f"{len(undecodable)} value" in said.err

    assert run(source.topic, url, "--template", "t-1", "--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    assert sorted({1, 3, 5} - set(undecodable)) == [line["offset"] for line in lines_of(said.out)]
    assert f"{len(undecodable)} value" in said.err
