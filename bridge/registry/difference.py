"""What differs between two schemas of an event, field by field, for people."""

import json
from collections.abc import Iterator
from typing import Any

from bridge.registry.compatibility import normal_form


def differences(ours: str, theirs: str) -> list[str]:
    """One line for each difference, none where they say the same however they are laid out.

    ``+`` only ours has it, ``-`` only theirs, ``~`` both have it and it differs: theirs → ours.

    Raises:
        RegistryError: One of them is no Avro schema.
    """
    return list(_compare("the record", normal_form(ours), normal_form(theirs)))


def _compare(what: str, ours: Any, theirs: Any) -> Iterator[str]:
    if not (isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("type") == theirs.get("type")):
        if ours != theirs:
            yield f"~ {what}: {_text(theirs)} → {_text(ours)}"
        return
    yield from _attributes(what, ours, theirs)
    yield from _symbols(what, ours.get("symbols", []), theirs.get("symbols", []))
    yield from _fields(
        {field["name"]: field for field in ours.get("fields", ())},
        {field["name"]: field for field in theirs.get("fields", ())},
    )


def _attributes(what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Documentation, defaults, aliases, names, logical types: whatever is no part with lines of its own."""
    for key in sorted((ours.keys() | theirs.keys()) - {"type", "fields", "symbols"}):
        if key not in theirs:
            yield f"+ {what}: {key} {_text(ours[key])}"
        elif key not in ours:
            yield f"- {what}: {key} {_text(theirs[key])}"
        elif ours[key] != theirs[key]:
            yield f"~ {what}: {key} {_text(theirs[key])} → {_text(ours[key])}"


def _symbols(what: str, ours: list[str], theirs: list[str]) -> Iterator[str]:
    yield from (f"+ {what}: symbol {symbol}" for symbol in ours if symbol not in theirs)
    yield from (f"- {what}: symbol {symbol}" for symbol in theirs if symbol not in ours)
    if ours != theirs and sorted(ours) == sorted(theirs):
        yield f"~ {what}: order of the symbols {', '.join(theirs)} → {', '.join(ours)}"


def _fields(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in theirs:
            yield f"+ field {name}: {_text(ours[name])}"
        elif name not in ours:
            yield f"- field {name}: {_text(theirs[name])}"
        else:
            field, other = ours[name], theirs[name]
            yield from _attributes(f"field {name}", field, other)
            yield from _compare(f"field {name}: type", field["type"], other["type"])
    common = [name for name in ours if name in theirs]
    others = [name for name in theirs if name in ours]
    if common != others:
        moved = [name for name, other in zip(common, others, strict=True) if name != other]
        yield f"~ order of the fields: {', '.join(moved)}"


def _text(value: Any) -> str:
    """JSON; of a field, without the name that stands before it."""
    if isinstance(value, dict) and "name" in value and "type" in value and "symbols" not in value:
        value = {key: inner for key, inner in value.items() if key != "name"}
    return json.dumps(value, ensure_ascii=False)
