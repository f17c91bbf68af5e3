"""Which change of the event's schema its consumers can bear, whoever is upgraded first and however old the data is.

The level is FULL_TRANSITIVE: every version reads what every other one wrote. BACKWARD alone would not do, as consumers are
upgraded at their own pace, a bridge may be rolled back, and the spool of an older one may be published by a newer one, or the
other way round; and retention and replays put records of all versions before one reader.

Avro's rules are Apache Avro's own; what ``avro/CONTRACT.md`` promises beyond them is looked at here: they let a field with a
default go, and a symbol of an enum with one, and know nothing of logical types.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import avro.compatibility
import avro.errors
import avro.schema
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from bridge.errors import RegistryError

LEVEL: Final = "FULL_TRANSITIVE"
UNCHECKED: Final = frozenset({"", "NONE"})
"""What a registry answers for a subject without a level of its own, besides the default of some."""

_COMPATIBLE: Final = avro.compatibility.SchemaCompatibilityType.compatible


def incompatibilities(new: str, old: str) -> list[str]:
    """Why ``new`` (ours) and ``old`` may not stand beside each other: a sentence each, none where they may.

    Raises:
        RegistryError: One of them is no Avro schema.
    """
    reading, written = _parsed(new), _parsed(old)
    found = [f"readers of ours can't read its data: {why}" for why in _unreadable(reading, written)]
    found += [f"its readers can't read our data: {why}" for why in _unreadable(written, reading)]
    return found + list(_broken_promises(normal_form(new), normal_form(old)))


def normal_form(schema: str) -> Any:
    """A schema as JSON, in one form whoever kept it: names in full, primitive types as their names.

    Raises:
        RegistryError: It is no Avro schema.
    """
    _parsed(schema)  # Refuses more than the other parser.
    try:
        parsed = parse_schema(json.loads(schema), _force=True)
    except (ValueError, TypeError, KeyError, AttributeError, SchemaParseException, UnknownType) as error:
        raise RegistryError(f"this is no Avro schema ({error}); correct it: {schema[:200]}") from error
    return _bare(parsed)


def _parsed(schema: str) -> Any:
    try:
        return avro.schema.parse(schema)
    except (avro.errors.AvroException, ValueError) as error:
        raise RegistryError(f"this is no Avro schema ({error}); correct it: {schema[:200]}") from error


def _unreadable(reader: Any, writer: Any) -> list[str]:
    checker: Any = avro.compatibility.ReaderWriterCompatibilityChecker
    checked = checker().get_compatibility(reader, writer)
    if checked.compatibility is _COMPATIBLE:
        return []
    kinds = sorted({kind.name.replace("_", " ") for kind in checked.incompatibilities})
    return [f"{', '.join(kinds)} ({'; '.join(sorted(checked.messages))}) at {', '.join(sorted(checked.locations))}"]


def _broken_promises(new: Any, old: Any) -> Iterator[str]:
    """What Avro would allow and the contract does not, of two records' fields."""
    new_fields, old_fields = (
        {field["name"]: field["type"] for field in schema.get("fields", ())} if isinstance(schema, dict) else {}
        for schema in (new, old)
    )
    for name, old_type in old_fields.items():
        if name not in new_fields:
            yield f"the field {name} is gone, which the contract promises never to happen: keep it"
            continue
        was, now = (dict(_details(of)) for of in (old_type, new_fields[name]))
        if gone := was["symbols"] - now["symbols"]:
            yield f"the field {name} has lost the symbols {', '.join(sorted(gone))}, which the contract promises to keep"
        if was["logical"] != now["logical"]:
            yield f"the field {name} has another logical type, so that old values would be read as something else"


def _details(of: Any) -> Iterator[tuple[str, set[str]]]:
    branches = [branch for branch in (of if isinstance(of, list) else [of]) if isinstance(branch, dict)]
    yield "symbols", {symbol for branch in branches for symbol in branch.get("symbols", ())}
    yield "logical", {str(branch["logicalType"]) for branch in branches if "logicalType" in branch}


def _bare(schema: Any) -> Any:
    """Without what the parser notes for itself, and without objects that only say a primitive type's name."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {key: _bare(value) for key, value in schema.items() if not key.startswith("__")}
    return bare["type"] if set(bare) == {"type"} else bare
