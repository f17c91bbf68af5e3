"""Java and Go read every case of ``tests/golden``; ``tests/unit/test_golden.py`` has the same for Python."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.golden import DIRECTORY, golden_cases

from bridge.lab.embedded import compile_java, run_java
from bridge.lab.embedded.download import SERDE, ensure_class_path

ROOT = Path(__file__).parents[2]
GO_CLIENT = ROOT / "tests/go/golden"
GO_SECONDS = 240


async def test_java_reads_every_case(tmp_path: Path) -> None:
    """Apache Avro's GenericDatumReader and, of the whole values, its decoder of single objects: the case's value."""
    serde = await asyncio.to_thread(ensure_class_path, SERDE)
    classes = await compile_java(ROOT / "tests/java/avro/ReadGolden.java", tmp_path, class_path=serde)
    files = [str(path) for path in (ROOT / "avro/releases/1.avsc", *sorted(DIRECTORY.glob("*.json")))]
    result = await run_java("ReadGolden", files, class_path=[classes, *serde])
    found = [json.loads(line) for line in result.stdout.splitlines()]
    expected = [
        {"case": f"{case.name}.json", "values": [record.value] * (3 if record.framed else 1)}
        for case in golden_cases()
        for record in case.events
    ]
    assert found == expected


@pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go here")
def test_go_reads_every_case() -> None:
    """A client in Go, as its own test says; and it ran for every case."""
    command = ["go", "test", "-C", str(GO_CLIENT), "-count=1", "-v", "-vet=all", "./..."]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GO_SECONDS)
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.findall(r"^ +--- PASS: TestGolden/(\S+)", result.stdout, re.MULTILINE)
    assert sorted(passed) == sorted(case.name for case in golden_cases())
