"""``avro/CONTRACT.md``, taken apart: its sections, tables and examples."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "avro/CONTRACT.md"
TEXT = DOCUMENT.read_text()
SECTIONS = {
    part.partition("\n")[0]: part.partition("\n")[2] for part in re.split(r"^#{2,3} ", TEXT, flags=re.MULTILINE)[1:]
}
"""What follows each heading, up to the next."""


def table(section: str, first: str) -> list[list[str]]:
    """The rows of the table of a section whose first column is called so.

    Raises:
        AssertionError: There is none, or there are several.
    """
    tables = [
        [_cells(line) for line in lines.splitlines()]
        for lines in re.findall(r"(?:^\|.*\n)+", SECTIONS[section], re.MULTILINE)
    ]
    found = [rows[2:] for rows in tables if rows[0][0] == first]
    assert len(found) == 1, f"{section} has {len(found)} tables that begin with {first}"
    return found[0]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def row_of(first: str, rows: list[list[str]]) -> list[str]:
    """The row that begins with this."""
    return next(row for row in rows if row[0].strip("`") == first)


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
