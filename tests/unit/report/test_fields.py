"""The table of fields, and all that follows from it."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.scripts import script

from bridge.compiled import COMPILED
from bridge.operate import masking
from bridge.report.event import StatusEvent
from bridge.report.fields import FIELDS, Personal
from bridge.report.symbols import ENUMERATIONS
from bridge.schemas import released_texts

# What the compiled part has room for: `LONGEST_NAME`, `OF_A_LENGTH` of bridge/_compiled.pyx.
LONGEST_NAME, NAMES_OF_A_LENGTH = 64, 12
ROOT = Path(__file__).parents[3]
KINDS = {"string", "boolean", "int", "timestamp", *ENUMERATIONS}


GENERATOR = script("generate_fields.py")


@pytest.mark.parametrize("path", GENERATOR.MADE, ids=lambda path: path.name)
def test_what_is_made_from_the_table_is_as_it_would_be_made(path: Path) -> None:
    """The struct, the schema, the contract, AsyncAPI, the Go peer: ``make fields`` would change nothing."""
    assert GENERATOR.MADE[path]() == path.read_text(), "run make fields"


def test_a_field_has_what_all_that_follows_needs() -> None:
    """A type that there is, names that no other has, words, a sentence."""
    assert tuple(field.name for field in FIELDS) == StatusEvent.__struct_fields__
    for field in FIELDS:
        assert field.base_type in KINDS
        assert re.fullmatch("[a-z]+(_[a-z]+)*", field.name)
        assert field.doc.endswith(".")
        assert all(len(name.encode()) <= LONGEST_NAME for name in field.wire)
        assert not field.is_word or field.base_type == "string"
    names = [name.casefold() for field in FIELDS for name in field.wire]
    assert max(Counter(map(len, names)).values()) <= NAMES_OF_A_LENGTH
    assert len(names) == len(set(names))


def test_fields_are_only_ever_added() -> None:
    """Of every release, in its order, and each a field that old events may lack."""
    now = [field.name for field in FIELDS]
    before: list[str] = []
    for text in released_texts().values():
        names = [field["name"] for field in json.loads(text)["fields"]]
        assert [name for name in names if name in before] == before
        assert [name for name in now if name in names] == names
        before = names
    first = {field["name"] for field in json.loads(released_texts()[1])["fields"]}
    assert all(field.is_nullable for field in FIELDS if field.name not in first)


def test_what_tells_of_a_person_is_masked() -> None:
    """Numbers, ids and names as a whole; free text where it has digits."""
    assert masking._PEOPLE == {field.name for field in FIELDS if field.personal is Personal.YES}
    assert masking._FREE == {field.name for field in FIELDS if field.personal is Personal.FREE_TEXT}


# What ``docs/design.md`` has people do for another field, done by the document.
EXAMPLE = (ROOT / "docs/design.md").read_text().partition("## Adding a field\n")[2].partition("\n## ")[0]
HOLD_IT = [
    "tests/unit/report/test_fields.py", "tests/unit/report/test_report.py", "tests/unit/report/test_event.py",
    "tests/unit/encode", "tests/unit/consume", "tests/unit/test_golden.py", "tests/unit/test_contract.py",
    "tests/unit/test_asyncapi.py", "tests/unit/registry/test_compatibility.py", "tests/unit/operate/test_masking.py",
]  # fmt: skip
SEEN = """
import json
from bridge.consume import Decoder
from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format

body = b'[{"MessageId":"m","Status":"Sent","PricingCategory":" Marketing-Lite "}]'
for form in "json", "avro":
    encoder = RecordEncoder("s", "q", "/x", 10**6, value_format(form, registry=False))
    encoded = encoder.encode_body(body, callback_id="c", received_at_ms=1764000000007, traceparent=None)
    event = Decoder().decode(encoded.records[0].value)
    print(form, event.pricing_category, event.extras, encoded.fast)
"""


def test_the_worked_example_adds_a_field(tmp_path: Path) -> None:
    """On a copy of the tree: the line of the table, the command, the release; nothing else by hand, and every test holds."""
    [line] = re.findall(r"```text\n(.*?)```", EXAMPLE, re.DOTALL)
    [commands] = re.findall(r"```sh\n(.*?)```", EXAMPLE, re.DOTALL)
    copy_of_the_tree(tmp_path)
    table = tmp_path / "bridge/report/fields.py"
    before, mark, rest = table.read_text().partition('    Field(\n        "extras"')
    assert mark
    table.write_text(before + line + mark + rest)
    python = f"PYTHONPATH={tmp_path} {sys.executable}"
    for command in commands.splitlines():
        run(tmp_path, command.replace("make fields", f"{python} generate_fields.py"))
    fast = int(COMPILED)
    said = run(tmp_path, f"{python} -c '{SEEN.replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'")
    assert said == f"json marketing_lite None {fast}\navro marketing_lite None {fast}\n"
    run(
        tmp_path,
        f"{python} -m pytest -q -p no:cacheprovider --numprocesses=0 -k 'not worked_example' {' '.join(HOLD_IT)}",
    )


def copy_of_the_tree(place: Path) -> None:
    """What is versioned, and what was compiled."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    compiled = [str(path.relative_to(ROOT)) for path in (ROOT / "bridge").glob("_compiled*.so")]
    for name in filter(None, [*listed, *compiled]):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, place / name, follow_symlinks=False)


def run(place: Path, command: str) -> str:
    """What a command of a shell says.

    Raises:
        AssertionError: it failed.
    """
    ran = subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True, check=False, timeout=300)  # noqa: S602
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout
