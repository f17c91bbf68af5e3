"""The wheel by itself: what is installed elsewhere works without the checkout and without the extras."""

import asyncio
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from support.bridge_process import BridgeProcess

from bridge.schemas import written_schema

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements/runtime.txt"
NOWHERE = "127.0.0.1:1"


def run(command: list[str | Path], cwd: Path) -> str:
    """Run to the end, in a folder that is no checkout and without a developer's settings; its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the tools of the lock."""
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT], out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new environment's programs: the runtime lock and the wheel, nothing else."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    pip: list[str | Path] = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "--requirement", LOCK], home)
    run([*pip, "--no-deps", "--no-index", wheel], home)
    return home / "bin"


def test_it_carries_the_files_that_are_read_at_run_time(wheel: Path) -> None:
    """Everything of config/ and avro/ is in it, as it is here, and nothing of the tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for folder in ("config", "avro"):
            for path in (path for path in (ROOT / folder).rglob("*") if path.is_file()):
                packaged = f"bridge/data/{path.relative_to(ROOT)}"
                assert packaged in names
                assert path.read_bytes() == archive.read(packaged)
    assert {
        "bridge/py.typed",
        "bridge/health/page.html",
        "bridge/data/config/bridge.toml",
        "bridge/data/config/error_codes.toml",
        "bridge/data/config/topics.toml",
    } <= names
    assert [name for name in names if name.startswith(("tests/", "benchmarks/"))] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_runtime_lock_is_all_it_needs(installed: Path, tmp_path: Path) -> None:
    """No requirement is missing or of another version."""
    assert "No broken requirements" in run([installed / "python", "-m", "pip", "check"], tmp_path)


def test_it_prints_its_configuration(installed: Path, tmp_path: Path) -> None:
    """The defaults come out of the wheel."""
    printed = run([installed / "chatapp-bridge", "config"], tmp_path)
    assert 'topics.status = "chatapp.status.v1"' in printed
    assert all(line.endswith("# default") for line in printed.splitlines())


def test_consuming_teams_can_decode_with_it(installed: Path, tmp_path: Path) -> None:
    """The released schemas, by which Avro values are told apart, come out of the wheel."""
    schema = written_schema()
    program = f"""
from bridge.consume import Decoder, Undecodable
try:
    Decoder().decode(b"\\xc3\\x01" + bytes.fromhex("{schema.fingerprint.hex()}"))
except Undecodable as error:
    print(error)
"""
    assert "not the Avro of chatapp.status.v1.StatusEvent" in run([installed / "python", "-c", program], tmp_path)


async def test_it_serves_without_kafka(installed: Path, tmp_path: Path) -> None:
    """Live, and ready for the sake of its spool; it takes a callback, and ends at SIGTERM with exit code 0."""
    program = [installed / "chatapp-bridge"]
    async with BridgeProcess(NOWHERE, tmp_path, program=program, secrets=()) as bridge:
        await bridge.wait_for("/livez")
        assert (await bridge.post(b'[{"MessageId":"m-1","Status":"Sent"}]')).json() == {"code": 0, "msg": "Success"}
        simulate: list[str | Path] = [*program, "simulate", "--messages", "5", "--plain", "--url", bridge.url]
        assert re.search(r"^lost +0 *$", await asyncio.to_thread(run, simulate, tmp_path), re.MULTILINE)
        assert (await bridge.stop()).code == 0
