"""What of the chart follows from something else: ``python helm/generate.py`` writes it anew.

``values.schema.json``: its ``config`` and ``secrets``, from the bridge's own settings; its ``errorCodes``, from the categories
and retries there are; and what is required, from the defaults of ``values.yaml``. All else in it is written by hand.
``README.md``: the table of values, from the comments of ``values.yaml``.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bridge.config import Settings
from bridge.report.symbols import ErrorCategory, ErrorRetry

CHART = Path(__file__).parent / "chatapp-bridge"
SCHEMA, VALUES, README = CHART / "values.schema.json", CHART / "values.yaml", CHART / "README.md"
_BEGIN, _END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


def schema() -> str:
    """The text of ``values.schema.json`` as it should be."""
    document = json.loads(SCHEMA.read_text())
    settings = msgspec.json.schema(Settings)
    components = settings["$defs"]
    config, secrets = {}, {}
    for section, reference in components["Settings"]["properties"].items():
        keys = components[reference["$ref"].rpartition("/")[2]]["properties"]
        config[section] = _closed({key: _portable(hint) for key, hint in keys.items()})
        files = {
            key: {"$ref": "#/definitions/secretKey"} for key in keys if key.endswith("file") and section != "topics"
        }
        if files:
            secrets[section] = _closed(files)
    document["properties"] |= {"config": _closed(config), "secrets": _closed(secrets), "errorCodes": _error_codes()}
    _require(document, yaml.safe_load(VALUES.read_text()), document["definitions"])
    return json.dumps(document, indent=2) + "\n"


def readme() -> str:
    """The text of ``README.md`` as it should be."""
    head, _, rest = README.read_text().partition(_BEGIN)
    return head + _BEGIN + "\n" + values_table() + "\n" + _END + rest.partition(_END)[2]


def values_table() -> str:
    """A row for each documented value of ``values.yaml``: its name, its default, its comment."""
    defaults = yaml.safe_load(VALUES.read_text())
    rows, path, comment = ["| value | default | what it is |", "| --- | --- | --- |"], [""], list[str]()
    for line in VALUES.read_text().splitlines():
        found = re.match(r"( *)(?:# (.*)|(\w+):)", line)
        if found and found[2]:
            comment.append(found[2])
        elif found:
            path = [*path[: len(found[1]) // 2], found[3]]
            if comment:
                default = defaults
                for name in path:
                    default = default[name]
                shown = json.dumps(default, separators=(",", ":")).replace("|", "\\|")
                rows.append(f"| `{'.'.join(path)}` | `{shown}` | {' '.join(comment)} |")
            comment = []
        else:
            comment = []
    return "\n".join(rows) + "\n"


def _error_codes() -> dict[str, Any]:
    """An entry a code, as in ``config/error_codes.toml``; NONE is for reports without an error."""
    symbols = {
        name: {"enum": [each.value for each in kind if each.value != "NONE"]}
        for name, kind in (("category", ErrorCategory), ("retry", ErrorRetry))
    }
    entry = _closed({**symbols, "what": {"type": "string"}}) | {"required": ["category", "retry"]}
    return {"type": "object", "additionalProperties": entry}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _require(part: dict[str, Any], defaults: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Demand what has a default.

    Where that is missing all the same, null took it away, or it is newer than the values that are reused: a template would fail
    on it without words, or open every port in a policy.
    """
    required = []
    for key, default in defaults.items():
        below = part["properties"][key]
        closed = definitions.get(below.get("$ref", "").rpartition("/")[2], below).get("additionalProperties") is False
        if default not in (None, "", [], {}) and (closed or not isinstance(default, dict)):
            if {"type": "null"} not in below.get("anyOf", []):
                required.append(key)
            if closed and "$ref" not in below:
                _require(below, default, definitions)
    part.pop("required", None)
    if required:
        part["required"] = required


def _portable(hint: dict[str, Any]) -> dict[str, Any]:
    """Without what Helm's regular expressions lack: the bridge itself refuses what slips through."""
    kept = {name: value for name, value in hint.items() if not (name == "pattern" and "(?" in value)}
    return kept | {"items": _portable(kept["items"])} if "items" in kept else kept


if __name__ == "__main__":
    SCHEMA.write_text(schema())
    README.write_text(readme())
