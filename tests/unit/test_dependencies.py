"""Every package that the code imports is declared in pyproject.toml."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """The distributions that the package, and each extra, name themselves."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {normalized(re.match(r"[\w.-]+", text)[0]) for each in lists for text in each}  # type: ignore[index]


def imported(path: Path) -> Iterator[str]:
    """The top-level modules that a file imports, anywhere in it, but those of Python and of this project."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in (name.partition(".")[0] for name in names):
            if name not in sys.stdlib_module_names and name != "bridge":
                yield name


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("bridge", ("msk",)), ("bridge/lab", ("embedded",))],
    ids=["service", "lab"],
)
def test_each_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    """What another package happens to bring may be gone with its next version."""
    distributions = packages_distributions()
    lab = ROOT / "bridge/lab"
    paths = [path for path in (ROOT / folder).rglob("*.py") if "embedded" in extras or lab not in path.parents]
    needed = {name: path for path in paths for name in imported(path)}
    assert needed
    missing = {
        name: str(path.relative_to(ROOT))
        for name, path in needed.items()
        if declared(*extras).isdisjoint(map(normalized, distributions.get(name, [name])))
    }
    assert missing == {}
