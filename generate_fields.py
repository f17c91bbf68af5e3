"""What follows from the table of fields: ``make fields`` writes it anew.

From ``bridge/report/fields.py`` and ``symbols.py``: the event's struct, the Avro schema, AsyncAPI's payload, the tables and the
example of the contract, and the Go peer's event. From ``symbols.py`` and ``config/error_codes.toml``: the Go peer's codes.
Between marks in files that are written by hand, whole files otherwise.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bridge.report.fields import FIELDS, Field, Personal
from bridge.report.symbols import ENUMERATIONS, STATUSES, status_rank

ROOT = Path(__file__).parent
SCHEMA = ROOT / "avro/status-event.avsc"
STRUCTS = ROOT / "bridge/report/generated.py"
CONTRACT = ROOT / "avro/CONTRACT.md"
ASYNCAPI = ROOT / "avro/asyncapi.yaml"
PEER = ROOT / "benchmarks/peers/franz/fields.go"
PEER_CODES = ROOT / "benchmarks/peers/franz/codes.go"

ABOUT = (
    "One delivery receipt of a ChatApp message: what became of the message, as the provider reported it. "
    "Times are milliseconds since the epoch; what did not arrive is null."
)
# The report of the contract's and AsyncAPI's example, and when it was received.
EXAMPLE = {
    "MessageId": "m-1", "From": "15550000000", "To": "15550000001", "Timestamp": 1691043638000, "Status": "Delivered",
    "ConversationType": "marketing", "MsgFrameType": "template", "Type": "image", "TemplateCode": "820561547132813184",
    "TemplateName": "offer", "Language": "en", "TaskId": "t-1", "Campaign": "spring",
}  # fmt: skip
EXAMPLE_RECEIVED_MS = 1691043640123

_PYTHON = {"string": "str", "boolean": "bool", "int": "int", "timestamp": "int"}
_AVRO = {
    "string": "string", "boolean": "boolean", "int": "int",
    "timestamp": {"type": "long", "logicalType": "timestamp-millis"},
}  # fmt: skip
_SHORT = re.compile(r'\[\s+"null",[^\]]+\]|\{\s+"type": "long",[^}]+\}')
_JSON = {"string": "string", "boolean": "boolean", "int": "integer", "timestamp": "integer"}


def structs() -> str:
    """The text of ``generated.py``: the event, and a report whose fields are all as documented."""
    lines = [
        '"""The structs that follow from the table of fields: made by ``make fields``, not to be edited."""',
        "",
        "import msgspec",
        "",
        f"from bridge.report.symbols import {', '.join(sorted(ENUMERATIONS))}",
        "",
        "",
        "class EventFields(msgspec.Struct, frozen=True, gc=False, kw_only=True):",
        '    """The fields of an event, in the order of the published JSON; one that may be null is so in older events."""',
        "",
    ]
    for field in FIELDS:
        default = " = None" if field.is_nullable else ""
        lines += [*_comment(field.documentation), f"    {field.name}: {_python_type(field)}{default}"]
    lines += [
        "",
        "",
        "class WireReport(msgspec.Struct, forbid_unknown_fields=True, gc=False):",
        '    """A report with nothing but documented names, named as the event has it. Blank text is as it came."""',
        "",
    ]
    for field in FIELDS:
        if field.wire:
            kind = "int | float | str" if field.is_time else "str"
            lines.append(f'    {field.name}: {kind} | None = msgspec.field(default=None, name="{field.wire[0]}")')
    return "\n".join(lines) + "\n"


def _comment(text: str, width: int = 116) -> Iterator[str]:
    line = "    #:"
    for word in text.split():
        if len(line) + 1 + len(word) > width:
            yield line
            line = "    #:"
        line += f" {word}"
    yield line


def _python_type(field: Field) -> str:
    return _PYTHON.get(field.base_type, field.base_type) + (" | None" if field.is_nullable else "")


def schema() -> str:
    """The text of the Avro schema."""
    fields = []
    for field in FIELDS:
        of: Any = _AVRO.get(field.base_type) or _avro_enum(field.base_type)
        default = {"default": None} if field.is_nullable else {}
        fields.append(
            {
                "name": field.name,
                "type": ["null", of] if field.is_nullable else of,
                **default,
                "doc": field.documentation,
            }
        )
    record = {"type": "record", "name": "StatusEvent", "namespace": "chatapp.status.v1", "doc": ABOUT, "fields": fields}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # A type in a line.
    return _SHORT.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text)


def _avro_enum(name: str) -> dict[str, Any]:
    of = ENUMERATIONS[name]
    symbols = [symbol.value for symbol in of]
    return {"type": "enum", "name": name, "doc": of.__doc__, "symbols": symbols, "default": of("a newer symbol").value}


def contract() -> str:
    """The text of the contract: its table of fields, what of it is personal, and its example of an event."""
    text = CONTRACT.read_text()
    rows = [f"| `{field.name}` | {field.type} | {field.documentation} |" for field in FIELDS]
    text = _between(text, "<!-- fields: {} -->", ["| field | type | meaning |", "| --- | --- | --- |", *rows])
    people, free = (
        ", ".join(f"`{field.name}`" for field in FIELDS if field.personal is which)
        for which in (Personal.YES, Personal.FREE_TEXT)
    )
    personal = [
        "| where | what |",
        "| --- | --- |",
        f"| {people} | telephone numbers, user and page ids, user names |",
        f"| {free} | may hold any of these: it is the provider's text |",
        "| `event_id` | a hash over MessageId and recipient: whoever has both can recognise it |",
        "| the quarantine topic | raw reports, and whatever else was pushed to the callback |",
    ]
    text = _between(text, "<!-- personal data: {} -->", personal)
    return _between(text, "<!-- event: {} -->", ["```json", *json.dumps(_example(), indent=2).splitlines(), "```"])


def asyncapi() -> str:
    """The text of AsyncAPI's document: the event's JSON Schema, and its example."""
    lines = [f"      description: {json.dumps(ABOUT)}", "      type: object", "      required:"]
    lines += [f"        - {field.name}" for field in FIELDS]
    lines.append("      properties:")
    for field in FIELDS:
        lines += [
            f"        {field.name}:",
            f"          description: {json.dumps(field.documentation, ensure_ascii=False)}",
        ]
        base = _JSON.get(field.base_type, "string")
        lines.append("          type: " + (f"[{base}, 'null']" if field.is_nullable else base))
        if field.is_time:
            lines.append("          format: int64")
        if field.base_type in ENUMERATIONS:
            lines.append("          enum:")
            lines += [f"            - {json.dumps(symbol.value)}" for symbol in ENUMERATIONS[field.base_type]]
    text = _between(ASYNCAPI.read_text(), "      # fields: {}", lines)
    example = [f"            {name}: {json.dumps(value)}" for name, value in _example().items()]
    return _between(text, "            # event: {}", example)


# What a Go peer's report makes of each field that is more than its value on the wire; all of type string but for the last ones.
_GO_TEXT = {
    "event_id": "string(made.id[:])", "task_id": "or(r.TaskID, r.MessageID)", "status": "made.status.symbol",
    "message_time_source": "made.source", "error_code": "made.code", "error_category": "made.meaning.category",
    "error_retry": "made.meaning.retry", "message_frame_type": "made.frame", "extras": "made.extras",
}  # fmt: skip
_GO_OTHER = {
    "task_id_defaulted": 'strconv.AppendBool({}, r.TaskID == "")', "status_rank": "append({}, made.status.rank)",
    "message_time": "strconv.AppendInt({}, made.sent, 10)", "received_at": "strconv.AppendInt({}, made.receivedAt, 10)",
}  # fmt: skip


def go_peer() -> str:
    """The Go peer's report, and what it writes of it."""
    lines = [
        "// Made by `make fields` from bridge/report/fields.py; not to be edited.", "", "package main", "",
        'import "strconv"', "",
        "// A report as documented: strings are strings, times are numbers; extras has what else came.", "type report struct {",
    ]  # fmt: skip
    wire = [field for field in FIELDS if field.wire]
    width = max(len(_go_name(name)) for field in wire for name in field.wire)
    for field in wire:
        kind = "*int64" if field.is_time else "string"
        lines += [f"\t{_go_name(name):{width}} {kind}" for name in field.wire]
    lines += [
        f"\t{'extras':{width}} []byte",
        "}",
        "",
        "// field is where the value of a name is put: a text or a time, neither of another name.",
    ]
    lines += ["func (r *report) field(name string) (*string, **int64) {", "\tswitch name {"]
    for field in wire:
        for name in field.wire:
            where = f"nil, &r.{_go_name(name)}" if field.is_time else f"&r.{_go_name(name)}, nil"
            lines += [f'\tcase "{name}":', f"\t\treturn {where}"]
    lines += ["\t}", "\treturn nil, nil", "}", "", "func (r *report) texts() []*string {", "\treturn []*string{"]
    lines += [f"\t\t&r.{_go_name(name)}," for field in wire if not field.is_time for name in field.wire]
    lines += ["\t}", "}", "", "func (r *report) aliases() {"]
    for field in wire:
        first, *others = map(_go_name, field.wire)
        absent = "nil" if field.is_time else '""'
        lines += [f"\tif r.{first} == {absent} {{\n\t\tr.{first} = r.{other}\n\t}}" for other in others]
    lines += ["}", "", "func (r *report) members(to []byte, made *made) []byte {"]
    for place, field in enumerate(FIELDS):
        begin = f'`{"{" if place == 0 else ","}"{field.name}":`'
        if field.name in _GO_OTHER:
            lines.append(f"\tto = {_GO_OTHER[field.name].format(f'append(to, {begin}...)')}")
        elif field.is_time:
            lines.append(f"\tto = number(append(to, {begin}...), r.{_go_name(field.wire[0])})")
        else:
            value = _GO_TEXT.get(field.name) or f"r.{_go_name(field.wire[0])}"
            if field.is_word and field.name not in _GO_TEXT:
                value = f"folded({value})"
            lines.append(f"\tto = text(append(to, {begin}...), {value})")
    lines += ["\treturn append(to, '}')", "}"]
    return "\n".join(lines) + "\n"


def go_peer_codes() -> str:
    """The Go peer's statuses by their words on the wire, and its error codes, those of one meaning in a row."""
    # Not before the structs were written.
    from bridge.report.catalogue import shipped_catalogue  # noqa: PLC0415

    rows: dict[tuple[str, str], list[str]] = {}
    for code, meaning in shipped_catalogue().meanings.items():
        rows.setdefault((meaning.category.value, meaning.retry.value), []).append(code)
    lines = [
        "// Made by `make fields` from bridge/report/symbols.py and config/error_codes.toml; not to be edited.", "",
        "package main", "", "var wireStatuses = []struct {", "\twire, symbol string", "\trank         byte", "}{",
        *(f"\t{{{json.dumps(wire)}, {json.dumps(of.value)}, '{status_rank(of)}'}}," for wire, of in STATUSES.items()), "}", "",
        "var codes = []struct {", "\tmeaning meaning", "\tcodes   string", "}{",
    ]  # fmt: skip
    lines += [
        f"\t{{meaning{{{json.dumps(category)}, {json.dumps(retry)}}}, {json.dumps(' '.join(of))}}},"
        for (category, retry), of in rows.items()
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _go_name(name: str) -> str:
    return f"{name.removesuffix('Id')}ID" if name.endswith("Id") else name


def _example() -> dict[str, Any]:
    # Not before the structs were written.
    import msgspec  # noqa: PLC0415

    from bridge.report.report import Report, read_body  # noqa: PLC0415

    [item] = read_body(json.dumps([EXAMPLE]).encode(), EXAMPLE_RECEIVED_MS)
    if not isinstance(item, Report):
        raise SystemExit(f"the example is no report any more: {item.detail}")
    event: dict[str, Any] = msgspec.to_builtins(item.event)
    return event


def _between(text: str, mark: str, lines: list[str]) -> str:
    """The text with these lines between its two marks."""
    begin, end = f"{mark.format('begin')}\n", f"{mark.format('end')}\n"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"the mark {begin.strip()!r} has to stand once, and its end")
    head, _, rest = text.partition(begin)
    return head + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]


# In this order: what comes later is made with what came before.
MADE: dict[Path, Callable[[], str]] = {
    STRUCTS: structs, SCHEMA: schema, CONTRACT: contract, ASYNCAPI: asyncapi, PEER: go_peer,
    PEER_CODES: go_peer_codes,
}  # fmt: skip

if __name__ == "__main__":
    os.environ["BRIDGE_COMPILED"] = "0"  # it may be of another table of fields
    for path, make in MADE.items():
        made = make()
        if not path.exists() or made != path.read_text():
            path.write_text(made)
            print(f"{path.relative_to(ROOT)} rewritten", file=sys.stderr)
