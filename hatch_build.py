"""Compiles ``bridge/_compiled.pyx`` when a wheel is built, or in place for an editable installation.

Where there is no C compiler, or none of Python's headers, it says so in a line, and the wheel is one for every machine.
``BRIDGE_COMPILED=require`` makes that an error, ``BRIDGE_COMPILED=0`` compiles nothing; ``CC`` and ``CFLAGS`` are heeded.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "bridge/_compiled.pyx"
# What Python's own extensions are compiled with; nothing that only this machine's processor has.
FLAGS = ("-O2", "-DNDEBUG", "-fwrapv", "-fno-strict-aliasing", "-fPIC", "-shared")


class NotCompiledError(Exception):
    """Why not."""


class Compile(BuildHookInterface[Any]):
    """The hook; hatchling finds it here."""

    _place: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is made; ``version`` is ``editable`` or ``standard``."""
        root = Path(self.root)
        name = str(Path(SOURCE).with_suffix(sysconfig.get_config_var("EXT_SUFFIX")))
        self._place = tempfile.TemporaryDirectory()
        compiled = self._compiled(root, Path(self._place.name))
        if version == "editable":
            # Replaced, not written over: a process may run it. One of another source must not stay.
            if compiled is None:
                (root / name).unlink(missing_ok=True)
            else:
                shutil.copy(compiled, root / f"{name}.new")
                (root / f"{name}.new").replace(root / name)
        elif compiled is not None:
            build_data["force_include"][str(compiled)] = name
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """After it was made."""
        if self._place is not None:
            self._place.cleanup()

    def _compiled(self, root: Path, place: Path) -> Path | None:
        wanted = os.environ.get("BRIDGE_COMPILED")
        if wanted == "0":
            return None
        try:
            return compile_source(root, place)
        except NotCompiledError as error:
            said = f"{SOURCE} is not compiled, so all is done in Python, which is slower: {error}"
            if wanted == "require":
                self.app.abort(f"{said}; BRIDGE_COMPILED=require")
            self.app.display_warning(said)
            return None


def compile_source(root: Path, place: Path) -> Path:
    """Compile it, in a folder for what is made.

    Returns:
        The shared object.

    Raises:
        NotCompiledError: something is missing, or failed; in words.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    headers = Path(sysconfig.get_path("include"))
    missing = [
        what
        for what, there in (
            (f"a C compiler ({compiler[0]})", shutil.which(compiler[0])),
            (f"Python's headers ({headers / 'Python.h'})", (headers / "Python.h").exists()),
            ("Cython", importlib.util.find_spec("Cython")),
        )
        if not there
    ]
    if missing:
        raise NotCompiledError(f"not found: {', '.join(missing)}")
    made = place / "_compiled.so"
    _run("Cython", [sys.executable, "-m", "cython", SOURCE, "-o", str(place / "_compiled.c")], root)
    options = [*FLAGS, *shlex.split(os.environ.get("CFLAGS", "")), f"-I{headers}"]
    _run(shlex.join(compiler), [*compiler, *options, str(place / "_compiled.c"), "-o", str(made)], root)
    return made


def _run(what: str, command: list[str], root: Path) -> None:
    done = subprocess.run(command, cwd=root, stdout=sys.stderr, check=False)  # noqa: S603 - both are above
    if done.returncode:
        raise NotCompiledError(f"{what} failed, exit code {done.returncode}")
