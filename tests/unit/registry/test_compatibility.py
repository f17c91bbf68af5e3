"""What may change in the event's schema, and that what was released is kept."""

import json
from pathlib import Path

import pytest
from support.evolutions import EVOLUTIONS, NULL, TEXT, TIME, Evolution, enum, field, record

from bridge.cli import main
from bridge.errors import RegistryError
from bridge.registry.compatibility import incompatibilities
from bridge.registry.difference import differences
from bridge.schemas import released_texts, written_schema

BACKWARD, FORWARD = "readers of ours can't read its data: ", "its readers can't read our data: "
PROMISED = {
    "removed, had a default": "the field f is gone",
    "renamed, with defaults": "the field f is gone",
    "symbol removed": "the field f has lost the symbols READ",
    "logical type added": "the field f has another logical type",
}
"""What Avro would bear and the contract does not."""


@pytest.mark.parametrize("evolution", EVOLUTIONS.values(), ids=EVOLUTIONS)
def test_avro_s_rules_hold_in_both_directions(evolution: Evolution) -> None:
    """Each direction has a sentence of its own where readers could not read."""
    found = incompatibilities(evolution.new, evolution.old)

    assert evolution.backward != any(line.startswith(BACKWARD) for line in found), found
    assert evolution.forward != any(line.startswith(FORWARD) for line in found), found


@pytest.mark.parametrize("name", EVOLUTIONS)
def test_what_the_contract_promises_beyond_them_holds_too(name: str) -> None:
    """Fields and symbols never go, and a number never means something else, though Avro would let them."""
    found = incompatibilities(EVOLUTIONS[name].new, EVOLUTIONS[name].old)

    bearable = EVOLUTIONS[name].backward and EVOLUTIONS[name].forward
    assert found == [] if bearable and name not in PROMISED else found != []
    if name in PROMISED:
        assert PROMISED[name] in found[0]


def test_a_sentence_names_what_is_wrong_and_where() -> None:
    """Whoever reads it in a deployment's log finds the field."""
    found = incompatibilities(record(field("string", "new_one")), record())

    assert found == [f"{BACKWARD}reader field missing default value (new_one) at /fields/1"]


@pytest.mark.parametrize("schema", ["", "{", "[]x", '{"type":"nope"}', '{"type":"record","name":"R"}', "17", "null {}"])
def test_what_is_no_schema_is_refused_as_such(schema: str) -> None:
    """A registry may hold JSON Schema or Protobuf under the subject."""
    with pytest.raises(RegistryError, match="no Avro schema"):
        incompatibilities(record(), schema)
    with pytest.raises(RegistryError, match="no Avro schema"):
        differences(record(), schema)


# --- releases ---------------------------------------------------------------------------------------------------------


def test_the_schema_is_one_of_the_releases() -> None:
    """A changed avro/status-event.avsc is released as a new file in avro/releases; see the README there."""
    ours = json.loads(written_schema().text)

    assert ours in [json.loads(text) for text in released_texts().values()], "add it: avro/releases/<next number>.avsc"
    assert list(range(1, len(released_texts()) + 1)) == list(released_texts())


@pytest.mark.parametrize("number", released_texts())
def test_every_release_can_stand_beside_the_present_one(number: int) -> None:
    """FULL_TRANSITIVE, and what the contract promises, without any registry."""
    assert incompatibilities(written_schema().text, released_texts()[number]) == []


def test_check_offline_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The command that CI runs needs no registry, and does not ask one that is configured."""
    assert main(["schema", "check", "--offline", "--set", "registry.url=http://127.0.0.1:1"]) == 0

    said = capsys.readouterr().out
    assert f"avro/releases: compatible with {', '.join(f'release {number}' for number in released_texts())}" in said
    assert "the registry was not asked" in said


def test_check_fails_for_what_can_t_be_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field gone since a release, and a schema that is none of them: exit 1, and both are said."""
    releases = {1: record(field("int")), 2: record()}
    monkeypatch.setattr("bridge.operate.schema_actions.released_texts", lambda: releases)
    monkeypatch.chdir(tmp_path)

    assert main(["schema", "check"]) == 1

    said = capsys.readouterr().out
    assert "avro/releases: not compatible with release 1\n" in said
    assert "avro/releases: not compatible with release 2\n" in said
    assert "add it as avro/releases/3.avsc" in said


@pytest.mark.parametrize("action", ["register", "diff"])
def test_what_needs_a_registry_names_the_key(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an address it is wrong usage: exit 2."""
    assert main(["schema", action]) == 2

    assert "registry.url: is empty" in capsys.readouterr().err


# --- what differs -----------------------------------------------------------------------------------------------------


def test_the_same_in_other_words_does_not_differ() -> None:
    """Registries keep a schema in a form of their own: names in full or not, types as objects, another layout."""
    theirs = {
        "fields": [{"type": {"type": "string"}, "name": "id"}, {"name": "f", "type": enum("A") | {"namespace": "a.b"}}],
        "name": "a.b.Event",
        "type": "record",
    }

    assert differences(record(field(enum("A"))), json.dumps(theirs, indent=4)) == []


def test_each_difference_is_a_line_of_its_own() -> None:
    """Fields, types, symbols, defaults, documentation, order: each named, theirs before ours."""
    ours = record(
        field(TEXT, "added", **NULL), field(enum("A", "B", "C"), "state"), field("long", "number", doc="a number")
    )
    theirs = record(
        field("int", "number", default=1), field(enum("A", "X", "B"), "state"), field("long", "gone", doc="old")
    )

    assert differences(ours, theirs) == [
        '+ field added: {"default": null, "type": ["null", "string"]}',
        "+ field state: type: symbol C",
        "- field state: type: symbol X",
        "- field number: default 1",
        '+ field number: doc "a number"',
        '~ field number: type: "int" → "long"',
        '- field gone: {"doc": "old", "type": "long"}',
        "~ order of the fields: state, number",
    ]
    assert differences(record(field(TIME)), record(field("long"))) == [
        '~ field f: type: "long" → {"logicalType": "timestamp-millis", "type": "long"}'
    ]
    assert differences(record(field(enum("A", "B"))), record(field(enum("B", "A")))) == [
        '~ field f: type: default "B" → "A"',
        "~ field f: type: order of the symbols B, A → A, B",
    ]
