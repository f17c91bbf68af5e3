"""Volumes that belong to another user: used where they can be, and refused in words where they can't."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bridge.cli import main

FIRST, SECOND, GROUP = 23_001, 23_002, 23_000

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")

_AS_USER = """
import asyncio, contextlib, encodings.idna, io, json, os, pkgutil, sys
from importlib import import_module
from pathlib import Path
import bridge
from bridge.cli import main
from bridge.errors import SpoolError
from bridge.spool.spool import Spool
from support.spools import MIB, row, seqs

for module in pkgutil.walk_packages(bridge.__path__, "bridge."):  # this user may not be able to read them
    if not module.name.startswith("bridge.lab") and not module.name.endswith("__main__"):
        import_module(module.name)
os.umask(0o022)
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))

async def own(directory):
    try:
        spool = await Spool.open(Path(directory), max_bytes=64 * MIB, min_free_bytes=0)
    except SpoolError as error:
        return str(error)
    last = await seqs(spool, 1)
    await spool.append([row(1, len(last) + 1)])
    found = await seqs(spool, 1)
    await spool.close(10)
    return str(found)

said = []
for command in json.loads(sys.argv[3]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        code = asyncio.run(own(command[1])) if command[0] == "own" else main(command)
    said.append([code, err.getvalue()])
print(json.dumps(said))
"""
READ = ("show", "verify", "export")
TOOLS = (*READ, "requeue --all", "drain")


@pytest.fixture
def volume() -> Iterator[Path]:
    """The root of a volume as Kubernetes mounts it with fsGroup: root's, writable by the group, which it passes on."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        root = Path(directory) / "volume"
        root.mkdir()
        os.chown(root, 0, GROUP)
        root.chmod(0o2770)
        yield root


def run_as(user: int, *commands: Sequence[str | Path]) -> list[tuple[int | str, str]]:
    """Run commands as that user of the group, in one process: the exit code and what each says on standard error."""
    given = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", _AS_USER, str(user), str(GROUP), given],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return [(code, said) for code, said in json.loads(done.stdout)]


def own(user: int, directory: Path) -> str:
    """Open a spool as that user and append a row; the seqs in it, or why it can't be opened."""
    ((found, _),) = run_as(user, ("own", directory))
    return str(found)


def tools(directory: Path, actions: Sequence[str] = TOOLS) -> list[tuple[str | Path, ...]]:
    """The command of each action."""
    return [("spool", *action.split(), "--directory", directory) for action in actions]


@as_root
@pytest.mark.parametrize("place", ["", "spool"])
def test_another_user_of_the_volumes_group_takes_over(volume: Path, place: str) -> None:
    """A volume is kept and runAsUser changes: nothing has to be done where fsGroup stays."""
    directory = volume / place
    assert own(FIRST, directory) == "[1]"
    assert own(SECOND, directory) == "[1, 2]"
    assert own(FIRST, directory) == "[1, 2, 3]"
    assert [code for code, _ in run_as(SECOND, *tools(directory, READ))] == [0, 0, 0]
    modes = {path.name: path.stat().st_mode & 0o7777 for path in directory.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o660}


@as_root
def test_a_mode_that_may_not_be_changed_stays(volume: Path) -> None:
    """Files that the group may write are used as they are, in a directory that calls for another mode."""
    assert own(FIRST, volume) == "[1]"
    volume.chmod(0o770)
    assert own(SECOND, volume) == "[1, 2]"


@as_root
@pytest.mark.parametrize("what", ["directory", "files", "damaged"])
def test_what_cannot_be_used_is_refused_in_words(volume: Path, what: str) -> None:
    """Whose it is, who asks, what to do; by the bridge and by every tool."""
    directory = volume / "spool"
    assert own(FIRST, directory) == "[1]"
    (directory / "damaged").mkdir()
    os.chown(directory / "damaged", FIRST, GROUP)
    closed = {"directory": directory, "files": directory / "spool.db", "damaged": directory / "damaged"}[what]
    closed.chmod(0o700 if closed.is_dir() else 0o600)
    words = (
        f"{closed}: this process may not ",
        f"belongs to user {FIRST}, group {GROUP}, with mode 0{closed.stat().st_mode & 0o777:o}",
        f"the process runs as user {SECOND}, groups {GROUP}",
        f"chown -R {SECOND}:{GROUP}",
        f"podSecurityContext.runAsUser to {FIRST}",
    )
    serve = ("serve", "--set", f"spool.directory={directory}", "--set", "access.allow_unauthenticated=true")
    said = run_as(SECOND, serve, *tools(directory))
    assert [(code, [text for text in words if text not in text_said]) for code, text_said in said] == [(1, [])] * 6


@as_root
def test_a_directory_that_cannot_be_looked_into_or_made(volume: Path) -> None:
    """A parent that this process may not enter, or may not write."""
    volume.chmod(0o700)
    words = f"{volume / 'spool'}: Permission denied; the process runs as user {FIRST}"
    said = run_as(FIRST, *tools(volume / "spool"))
    assert [(code, words in text) for code, text in said] == [(1, True)] * len(TOOLS)
    assert "Permission denied" in own(FIRST, volume / "spool")
    volume.chmod(0o750)
    assert f"{volume}: this process may not write it" in own(FIRST, volume / "spool")


@pytest.mark.parametrize("action", TOOLS)
def test_a_file_is_no_directory(tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that names a file, or goes through one."""
    (tmp_path / "file").write_text("x")
    for path, words in ((tmp_path / "file", "this is not a directory"), (tmp_path / "file" / "x", "Not a directory")):
        assert main(["spool", *action.split(), "--directory", str(path)]) == 1
        assert f"{path}: {words}" in capsys.readouterr().err
