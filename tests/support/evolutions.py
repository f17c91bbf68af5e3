"""Changes of a schema, and which of them Avro lets readers bear: what two checkers are compared on."""

import json
from typing import Any, NamedTuple

Field = dict[str, Any]

STATE = {"type": "enum", "name": "State", "symbols": ["UNKNOWN", "SENT", "READ"], "default": "UNKNOWN"}
STRICT = {"type": "enum", "name": "State", "symbols": ["UNKNOWN", "SENT", "READ"]}
TEXT = ["null", "string"]
TIME = {"type": "long", "logicalType": "timestamp-millis"}


class Evolution(NamedTuple):
    """From one schema to another: can new readers read old data, and old readers new data, by Avro's rules."""

    old: str
    new: str
    backward: bool
    forward: bool


def record(*fields: Field, name: str = "Event", **attributes: Any) -> str:
    """A schema of these fields behind one of its own."""
    kept = {"name": "id", "type": "string"}
    return json.dumps({"type": "record", "name": name, "namespace": "a.b", "fields": [kept, *fields], **attributes})


def field(of: Any, name: str = "f", **attributes: Any) -> Field:
    """A field."""
    return {"name": name, "type": of, **attributes}


def enum(*symbols: str, default: bool = True) -> dict[str, Any]:
    """The enum of these symbols, the first one its default if there is to be any."""
    return {"type": "enum", "name": "State", "symbols": list(symbols)} | ({"default": symbols[0]} if default else {})


NULL: dict[str, Any] = {"default": None}
EVOLUTIONS = {
    "nothing": Evolution(record(field("int")), record(field("int")), True, True),
    "documentation": Evolution(record(field("int")), record(field("int", doc="new"), doc="new"), True, True),
    "added with a default": Evolution(record(), record(field(TEXT, **NULL)), True, True),
    "added without": Evolution(record(), record(field(TEXT)), False, True),
    "removed, had a default": Evolution(record(field(TEXT, **NULL)), record(), True, True),
    "removed, had none": Evolution(record(field("int")), record(), True, False),
    "default changed": Evolution(record(field("int", default=1)), record(field("int", default=2)), True, True),
    "default taken away": Evolution(record(field("int", default=1)), record(field("int")), True, True),
    "type widened": Evolution(record(field("int")), record(field("long")), True, False),
    "type narrowed": Evolution(record(field("double")), record(field("float")), False, True),
    "type replaced": Evolution(record(field("int")), record(field("string")), False, False),
    "text and bytes": Evolution(record(field("string")), record(field("bytes")), True, True),
    "nullable from now on": Evolution(record(field("string")), record(field(TEXT)), True, False),
    "never null from now on": Evolution(record(field(TEXT)), record(field("string")), False, True),
    "a branch more": Evolution(record(field(TEXT)), record(field([*TEXT, "int"])), True, False),
    "branches in another order": Evolution(record(field(TEXT)), record(field(["string", "null"])), True, True),
    "renamed": Evolution(record(field("int")), record(field("int", "g")), False, False),
    "renamed, with defaults": Evolution(record(field(TEXT, **NULL)), record(field(TEXT, "g", **NULL)), True, True),
    "renamed, with an alias": Evolution(record(field("int")), record(field("int", "g", aliases=["f"])), True, False),
    "fields in another order": Evolution(
        record(field("int"), field("long", "g")), record(field("long", "g"), field("int")), True, True
    ),
    "symbol added": Evolution(record(field(STATE)), record(field(enum("UNKNOWN", "SENT", "READ", "NEW"))), True, True),
    "symbol added, no default": Evolution(
        record(field(STRICT)), record(field(enum("UNKNOWN", "SENT", "READ", "NEW", default=False))), True, False
    ),
    "symbol removed": Evolution(record(field(STATE)), record(field(enum("UNKNOWN", "SENT"))), True, True),
    "symbol removed, no default": Evolution(
        record(field(STRICT)), record(field(enum("UNKNOWN", "SENT", default=False))), False, True
    ),
    "symbols in another order": Evolution(
        record(field(STRICT)), record(field(enum("READ", "UNKNOWN", "SENT", default=False))), True, True
    ),
    "logical type added": Evolution(record(field("long")), record(field(TIME)), True, True),
    "items of a list widened": Evolution(
        record(field({"type": "array", "items": "int"})), record(field({"type": "array", "items": "long"})), True, False
    ),
    "size of a hash": Evolution(
        record(field({"type": "fixed", "name": "H", "size": 16})),
        record(field({"type": "fixed", "name": "H", "size": 32})),
        False,
        False,
    ),
    "the record renamed": Evolution(record(), record(name="Report"), False, False),
}
