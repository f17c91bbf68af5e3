"""The direction of the layers, as the table in ``docs/design.md`` draws it: the document is what is tested against."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "bridge"
ENTRY_POINT = "__main__"
CHECKERS = frozenset({"lab.embedded", "lab.simulate"})
"""They judge the service, so what they know must not come from it; how it fails is no knowledge of it."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str, *, for_types: bool) -> set[str]:
    """The package's own modules that a module imports, anywhere in it; ``for_types``: also those for type checkers."""
    found = set()
    for node in _statements(ast.parse(MODULES[module].read_text()), for_types=for_types):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            # ``from bridge import config`` names a module, ``from bridge.config import Settings`` what is in one.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        else:
            continue
        found |= {name for name in names if name.partition(".")[0] == PACKAGE}
    return found


def _statements(node: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not for_types and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _statements(child, for_types=for_types)


def part_of(module: str) -> str:
    """The part of the package that a module belongs to, as the table names it: ``bridge.kafka.batch`` is of ``kafka``.

    The parts of the lab are told apart: ``bridge.lab.simulate.push`` is of ``lab.simulate``.
    """
    names = module.split(".")[1:]
    return ".".join(names[:2] if names[:1] == ["lab"] else names[:1])


def room_of(module: str) -> str:
    """The folder of a module; of one that lies beside folders, in ``bridge/`` or ``bridge/operate/``, the module itself."""
    path = MODULES[module]
    beside_folders = any(each.is_dir() and (each / "__init__.py").exists() for each in path.parent.iterdir())
    return module if beside_folders or path.name == "__init__.py" else module.rpartition(".")[0]


class Table:
    """The table of layers: each part's row, from 0 at the top, and the rows whose parts ignore each other."""

    def __init__(self, document: str) -> None:
        section = document.partition("## Layers")[2].partition("\n## ")[0]
        rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")][2:]
        self.row = {name: number for number, (_, cell) in enumerate(rows) for name in re.findall(r"`(\w+)`", cell)}
        self.independent = {number for number, (_, cell) in enumerate(rows) if "independent of each other" in cell}
        self.rows = len(rows)

    def refuses(self, importer: str, imported: str) -> bool:
        """Whether one part must not import another."""
        if importer == imported or not imported:
            return False
        if importer in CHECKERS:
            return imported != "errors"
        importer, imported = importer.partition(".")[0], imported.partition(".")[0]
        if importer == imported:
            return False
        if imported == "lab":
            return importer != "cli"
        above, below = self.row[importer], self.row[imported]
        return above > below or (above == below and above in self.independent)


TABLE = Table((ROOT / "docs/design.md").read_text())


def test_the_table_has_a_place_for_every_module_and_names_no_other() -> None:
    """A new package is put into its layer when it is made, and leaves the document when it goes."""
    parts = {part_of(module).partition(".")[0] for module in MODULES} - {"", ENTRY_POINT}
    assert parts == set(TABLE.row)


def test_the_table_is_read_as_it_is_meant() -> None:
    """Several rows, programs above what they run, the shared modules lowest: else the next test would hold nothing."""
    parts = ("cli", "operate", "service", "health", "receive", "delivery", "topics", "kafka", "report", "config")
    order = [TABLE.row[part] for part in parts]
    assert all(above < below for above, below in pairwise(order))
    assert len(order) == TABLE.rows
    assert {TABLE.row[part] for part in ("operate", "encode", "spool")} == TABLE.independent
    assert TABLE.row["encode"] == TABLE.row["delivery"]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_never_point_up(module: str) -> None:
    """A module imports from its own row and from those below it; the checkers, nothing of what they check."""
    part = part_of(module)
    # The package itself stands below everything; its entry point is the command line's.
    importer = "cli" if part == ENTRY_POINT else part
    own = imports(module, for_types=True)
    assert importer or not own, f"{PACKAGE}/__init__.py imports {own}: whoever imports anything would import that"
    refused = {target for target in own if TABLE.refuses(importer, part_of(target))}
    assert refused == set(), f"{module} imports from above it, or from what it must not know"


def in_order(graph: dict[str, set[str]]) -> None:
    """Fail where something needs itself by way of others."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' ← '.join(error.args[1])}")


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Each module can be read, and imported, after those it needs."""
    in_order({module: imports(module, for_types=False) - {module} for module in MODULES})


def test_no_folder_imports_itself_by_way_of_others() -> None:
    """Each folder can be read after those it needs."""
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        room = room_of(module)
        graph.setdefault(room, set()).update({room_of(each) for each in imports(module, for_types=True)} - {room})
    assert {"bridge.cli", "bridge.operate.tail", "bridge.operate.replay", "bridge.kafka"} <= set(graph)
    in_order(graph)


@pytest.mark.parametrize(
    ("importer", "imported", "refused"),
    [
        ("report", "delivery", True),
        ("encode", "delivery", True),
        ("kafka", "spool", True),
        ("operate", "lab.embedded", True),
        ("service", "lab.simulate", True),
        ("cli", "lab.demo", False),
        ("delivery", "report", False),
        ("delivery", "kafka", False),
        ("observe", "receive", True),
        ("receive", "health", True),
        ("lab.simulate", "report", True),
        ("lab.embedded", "lab.simulate", True),
        ("lab.embedded", "config", True),
        ("lab.simulate", "errors", False),
        ("lab.demo", "lab.simulate", False),
        ("cli", "receive", False),
        ("observe", "config", False),
    ],
)
def test_what_is_refused(importer: str, imported: str, refused: bool) -> None:
    """The rule itself: up, sideways where the row says so, and out of a checker into the service."""
    assert refused == TABLE.refuses(importer, imported)


MOST_LINES = 450
LONGER = {"bridge.delivery.lane"}
"""Is rebuilt with the producers."""


@pytest.mark.parametrize("module", sorted(MODULES.keys() - LONGER))
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    """No file of the package is longer than a few screens."""
    assert len(MODULES[module].read_text().splitlines()) <= MOST_LINES
