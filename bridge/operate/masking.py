"""Numbers and ids of people, made unreadable: what shows records to people, or pipes them on, shows no more than it must."""

import re
from typing import Any, Final

import msgspec

from bridge.report.fields import FIELDS, Personal

_PEOPLE: Final = frozenset(field.name for field in FIELDS if field.personal is Personal.YES)
_FREE: Final = frozenset(field.name for field in FIELDS if field.personal is Personal.FREE_TEXT)
_RAW: Final = ("value_text", "value_base64", "headers_exact")
_DIGITS: Final = re.compile(r"\d{6,}")
_LEAST_DIGITS: Final = 10**5
_SHOWN_FIRST, _SHOWN_LAST = 1, 2
_MOST_LEVELS: Final = 100
"""Of nesting, so that what is shown does not depend on how deep this Python can go."""

_decode: Final = msgspec.json.Decoder().decode
_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def masked(text: str) -> str:
    """The first and the last two characters: enough to recognise one, for whoever knows it."""
    hidden = len(text) - _SHOWN_FIRST - _SHOWN_LAST
    return f"{text[:_SHOWN_FIRST]}{'*' * hidden}{text[-_SHOWN_LAST:]}" if hidden > 0 else "***"


def masked_line(line: bytes) -> bytes:
    """A line of JSON as ``bridge.operate.ndjson`` makes it: of an event the fields about people masked, of others every number.

    ``value_masked`` stands in place of what is no JSON, or can't be looked into: how many characters it had.
    """
    try:
        return _encode(_masked(_decode(line)))
    except (msgspec.DecodeError, RecursionError):
        # A number out of range, or nested deeper than can be followed: JSON all the same.
        parts = _parts(line)
    record = {name: None if name == "value" else _decode(part) for name, part in parts.items()}
    return _encode({**_masked(record), "value_masked": len(bytes(parts["value"]))})


def _masked(record: dict[str, Any]) -> dict[str, Any]:
    value = record["value"]
    if isinstance(value, dict) and "event_id" in value:
        record["value"] = {name: _field(name, each) for name, each in value.items()}
    else:
        record["value"] = _numbers(value)
    raw = [len(record.pop(name)) for name in _RAW if name in record]
    if raw:
        record["value_masked"] = sum(raw)
    return record


def _field(name: str, value: Any) -> Any:
    if name in _PEOPLE and isinstance(value, str):
        return masked(value)
    return _numbers(value) if name in _FREE else value


def _numbers(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """Mask every run of six digits or more, anywhere in the value.

    Raises:
        RecursionError: the value is nested deeper than ``levels``.
    """
    if levels == 0:
        raise RecursionError("the value is nested too deep to be masked")
    if isinstance(value, str):
        return _DIGITS.sub(lambda match: masked(match[0]), value)
    if isinstance(value, dict):
        return {_numbers(name): _numbers(each, levels - 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each, levels - 1) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= _LEAST_DIGITS:
        return masked(str(value))
    return value
