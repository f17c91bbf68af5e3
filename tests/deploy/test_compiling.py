"""What hatch_build.py makes of bridge/_compiled.pyx: a wheel for this kind of machine, or in words one for every machine."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.helm import ROOT

from bridge.kafka.partition import murmur2_python

HEADERS = Path(sysconfig.get_path("include"), "Python.h")
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or not HEADERS.exists(), reason="no C compiler here, or no headers of Python"
)
COMPILED = f"bridge/_compiled{sysconfig.get_config_var('EXT_SUFFIX')}"
FILES = (".gitignore", "LICENSE", "README.md", "pyproject.toml", "hatch_build.py", "bridge/_compiled.pyx")
MORE = ("bridge/__init__.py", "bridge/compiled.py", "bridge/record.py")
WORDS = "so all is done in Python, which is slower: not found: a C compiler (nothing)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As much of the project as a wheel needs, in a place of its own."""
    project = tmp_path / "project"
    for name in (*FILES, *MORE):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    for folder in ("config", "avro"):
        (project / folder).mkdir()
    return project


def build(project: Path, target: str, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Build a target into ``dist``; quickly, as what is made does not have to be fast."""
    environment = {name: value for name, value in os.environ.items() if name not in {"BRIDGE_COMPILED", "CC"}}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", "dist", "--target", target, *flags]
    return subprocess.run(
        command,
        cwd=project,
        env=environment | {"CFLAGS": "-O0"} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@needs_compiler
def test_a_wheel_with_the_compiled_part_says_what_it_is_for(project: Path, tmp_path: Path) -> None:
    """This Python and this kind of machine; the part in it works."""
    done = build(project, "wheel", BRIDGE_COMPILED="require")
    assert done.returncode == 0, done.stdout
    (wheel,) = (project / "dist").iterdir()
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{python}-{python}-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        for name in (name for name in archive.namelist() if name.startswith("bridge/")):
            archive.extract(name, tmp_path / "installed")
    code = "from bridge.compiled import COMPILED, module; print(COMPILED, module.__file__, module.murmur2(b'x'))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "installed",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == f"True {tmp_path / 'installed' / COMPILED} {murmur2_python(b'x')}\n", ran.stderr
    assert not (project / COMPILED).exists()


@pytest.mark.parametrize("settings", [{"CC": "nothing"}, {"BRIDGE_COMPILED": "0"}])
def test_a_wheel_without_it_is_for_every_machine(project: Path, settings: dict[str, str]) -> None:
    """Also where one lies beside its source; where it could not be made, that is said."""
    (project / COMPILED).write_text("of an earlier source")
    done = build(project, "wheel", **settings)
    assert done.returncode == 0
    assert (WORDS in done.stdout) == ("CC" in settings)
    (wheel,) = (project / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith((".so", ".c")) for name in zipfile.ZipFile(wheel).namelist())


def test_what_is_required_and_can_not_be_made_is_an_error(project: Path) -> None:
    """In the same words, and there is no wheel."""
    done = build(project, "wheel", CC="nothing", BRIDGE_COMPILED="require")
    assert done.returncode == 1
    assert WORDS in done.stdout
    assert "Traceback" not in done.stdout
    assert list((project / "dist").glob("*.whl")) == []


@needs_compiler
def test_a_compiler_that_fails_is_told_and_gone_without(project: Path) -> None:
    """With what it printed."""
    (project / "bridge/_compiled.pyx").write_text("import\n")
    done = build(project, "wheel:editable", "--hooks-only")
    assert done.returncode == 0
    assert "_compiled.pyx:1:6: Expected an identifier" in done.stdout
    assert "which is slower: Cython failed, exit code 1" in done.stdout


def test_what_an_earlier_source_was_compiled_to_does_not_stay(project: Path) -> None:
    """In a checkout, where it can not be compiled anew."""
    (project / COMPILED).write_text("of an earlier source")
    assert build(project, "wheel:editable", "--hooks-only", CC="nothing").returncode == 0
    assert list((project / "bridge").glob("*.so*")) == []


@needs_compiler
def test_what_is_compiled_in_a_checkout_takes_the_place_of_the_earlier(project: Path) -> None:
    """As another file: a process may run the earlier one."""
    (project / COMPILED).write_text("of an earlier source")
    running = (project / COMPILED).open()
    assert build(project, "wheel:editable", "--hooks-only").returncode == 0
    with running:
        assert running.read() == "of an earlier source"
    assert (project / COMPILED).read_bytes()[:4] == b"\x7fELF"
    assert [path.name for path in (project / "bridge").glob("*.so*")] == [Path(COMPILED).name]


def test_the_source_is_in_the_source_distribution(project: Path) -> None:
    """With what compiles it, and without what was compiled here."""
    (project / COMPILED).write_text("of this machine")
    done = build(project, "sdist")
    assert done.returncode == 0, done.stdout
    (archive,) = (project / "dist").iterdir()
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"hatch_build.py", "bridge/_compiled.pyx"} <= names
    assert COMPILED not in names


@pytest.mark.parametrize("changed", ["bridge/_compiled.pyx", "hatch_build.py"])
def test_make_compiles_again_when_the_source_changed(changed: str) -> None:
    """Before anything that it runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", f"--assume-new={changed}", "test-unit"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    compiles, tests = said.find("hatchling build --hooks-only --target wheel:editable"), said.find("-m pytest")
    assert 0 < compiles < tests
