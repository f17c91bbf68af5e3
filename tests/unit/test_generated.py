"""What ``make fields`` writes is up to date."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def made() -> dict[Path, Callable[[], str]]:
    """Each file of ``avro/generate.py``, and what makes its text."""
    spec = importlib.util.spec_from_file_location("generate_fields", ROOT / "avro/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files: dict[Path, Callable[[], str]] = module.MADE
    return files


@pytest.mark.parametrize(("path", "make"), [pytest.param(path, make, id=path.name) for path, make in made().items()])
def test_a_generated_file_is_what_would_be_generated(path: Path, make: Callable[[], str]) -> None:
    """Else ``make fields`` was forgotten, or the file was edited."""
    assert path.read_text() == make(), f"run make fields: {path.relative_to(ROOT)} is not up to date"
