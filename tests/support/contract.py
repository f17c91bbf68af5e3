"""``docs/metrics.md`` as a table: what is promised of each metric."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/metrics.md"


class Promised(NamedTuple):
    """A row; ``labels`` with their values, empty where these are not bounded by a list."""

    kind: str
    labels: dict[str, set[str]]
    unit: str
    meaning: str


def promised() -> dict[str, Promised]:
    """Every row by its metric's name."""
    found = {}
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("| `chatapp_bridge_"):
            name, kind, labels, unit, meaning, _todo = (cell.strip() for cell in line.strip("|").split("|"))
            assert name.strip("`") not in found, f"{name} stands there twice"
            found[name.strip("`")] = Promised(kind, _labels(labels), unit, meaning)
    return found


def _labels(cell: str) -> dict[str, set[str]]:
    """``a`: `1` `2`; `b``: each label with its values."""
    labels = {}
    for part in filter(None, re.split(r"[;,]", cell)):
        name, _, values = part.partition(":")
        labels[name.strip(" `")] = set(re.findall(r"`([^`]+)`", values))
    return labels


def series_of(text: str) -> set[str]:
    """The names of this bridge's series that an expression or a text names, a histogram's without what Prometheus appends."""
    names = set(re.findall(r"\bchatapp_bridge_\w+", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
