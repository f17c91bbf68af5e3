"""The Avro value of a record, by a writer that is generated from the schema.

The usual way, event to dictionary to fastavro, costs more than all the rest of a report's way. Here the schema becomes the
source of one Python function: an attribute of the event after the other, lengths and numbers from tables, one join.
``benchmarks/encode.py`` compares; the bytes are fastavro's, which ``tests/unit/encode/test_avro.py`` holds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

CONTENT_TYPE: Final = b"application/avro"

# Texts of fewer bytes have their length in a table.
_SHORT: Final = 1024
_SMALL: Final = 64
_CONTINUED: Final = 0x80
# Times of which all bits but the sign are in three look-ups of two bytes: milliseconds, 1970-01-02 to 2039.
_BITS: Final = 14
_PAIRS: Final = 1 << _BITS
_TIMES: Final = range(1 << 2 * _BITS - 1, 1 << 3 * _BITS - 1)


def varint(number: int) -> bytes:
    """An Avro int or long: zigzag, seven bits a byte, the low ones first."""
    rest = number << 1 if number >= 0 else ~(number << 1)
    encoded = bytearray()
    while rest >= _CONTINUED:
        encoded.append(rest % _CONTINUED | _CONTINUED)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _present(length: int) -> bytes:
    """The head of a text in a union with null: the second branch, its length."""
    return b"\x02" + varint(length)


class _Computed:
    """In place of a table: for what the tables don't hold."""

    def __init__(self, entry: Callable[[int], bytes]) -> None:
        self._entry = entry

    def __getitem__(self, number: int) -> bytes:
        return self._entry(number)


_COMMON: Final[dict[str, Any]] = {
    "join": b"".join,
    "varint": varint,
    "BOOLEAN": (b"\x00", b"\x01"),
    "MIDDLE": [bytes((pair % 128 | _CONTINUED, pair >> 7 | _CONTINUED)) for pair in range(_PAIRS)],
    "LAST": [bytes((pair % 128 | _CONTINUED, pair >> 7) if pair >= _CONTINUED else (pair,)) for pair in range(_PAIRS)],
}
_TABLES: Final[dict[str, Any]] = {
    "LENGTH": [varint(length) for length in range(_SHORT)],
    "PRESENT": [_present(length) for length in range(_SHORT)],
    "NUMBER": {number: varint(number) for number in range(_SMALL)},  # a list would have an entry for -1
}
_COMPUTED: Final[dict[str, Any]] = {
    "LENGTH": _Computed(varint),
    "PRESENT": _Computed(_present),
    "NUMBER": _Computed(varint),
}


def compile_writer(schema: Mapping[str, Any], head: bytes = b"") -> Callable[[Any], bytes]:
    """A function that writes an object, whose attributes are the record's fields, as Avro.

    Args:
        schema: of a record, as JSON has it; its fields are of types that the event has, see ``_statement``.
        head: what each value begins with.

    Raises:
        NotImplementedError: a field is of another type.
    """
    source, symbols = _source(schema)
    writers = []
    for tables in (_TABLES, _COMPUTED):
        names = {**_COMMON, **tables, **symbols, "HEAD": head}
        exec(compile(source, "<avro writer>", "exec"), names)  # noqa: S102 - made here, from a file of this package
        writers.append(names["write"])
    quick, thorough = writers

    def write(event: Any) -> bytes:
        try:
            value: bytes = quick(event)
        except LookupError:  # beyond the tables; a symbol that is none fails again
            value = thorough(event)
        return value

    return write


def _source(schema: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, bytes]]]:
    """The text of a function ``write(event)``, and the tables of symbols that it uses, by name."""
    lines, parts = [], ["HEAD"]
    symbols: dict[str, dict[str, bytes]] = {}
    for field in schema["fields"]:
        kind, value = field["type"], f"{field['name']}_"
        if isinstance(kind, Mapping) and kind["type"] == "enum":
            table = f"{kind['name']}_SYMBOLS"
            symbols[table] = {symbol: varint(index) for index, symbol in enumerate(kind["symbols"])}
            parts.append(f"{table}[event.{field['name']}]")
            continue
        lines += [f"{value} = event.{field['name']}", _statement(kind, value)]
        parts += [f"LENGTH[len({value})]", value] if kind == "string" else [value]
    lines.append(f"return join(({', '.join(parts)},))")
    return "\n    ".join(["def write(event):", *lines]), symbols


def _statement(kind: Any, value: str) -> str:
    """What turns the variable ``value``, of an Avro type that is no enum, into bytes."""
    match kind:
        case "string":
            return f"{value} = {value}.encode()"
        case "boolean":
            return f"{value} = BOOLEAN[{value}]"
        case "int":
            return f"{value} = NUMBER[{value}]"
        case {"type": "long"}:
            return f"{value} = {_long(value)}"
        case ["null", "string"]:
            encode = f"{value} = {value}.encode(); {value} = PRESENT[len({value})] + {value}"
            return f"if {value} is None: {value} = b'\\0'\n    else: {encode}"
        case ["null", {"type": "long"}]:
            return f"{value} = b'\\0' if {value} is None else b'\\2' + ({_long(value)})"
    raise NotImplementedError(f"no field of type {kind} can be written yet: add it to bridge/encode/avro.py")


def _long(value: str) -> str:
    """An expression: six bytes of three look-ups, where that is how long the number is."""
    pairs = [
        f"MIDDLE[{value} << 1 & {_PAIRS - 1}]",
        f"MIDDLE[{value} >> {_BITS - 1} & {_PAIRS - 1}]",
        f"LAST[{value} >> {2 * _BITS - 1}]",
    ]
    return f"{' + '.join(pairs)} if {_TIMES.start} <= {value} < {_TIMES.stop} else varint({value})"
