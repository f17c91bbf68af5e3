"""What contestants are built into: Go programs and virtual environments, outside of the checkout."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent
PEERS = BENCHMARKS / "peers"


class BuildError(Exception):
    """A contestant can't be had on this machine; the message says what is missing."""


def cache() -> Path:
    """Where they lie."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base) / "chatapp-bridge" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def go_program(source: Path) -> Path:
    """A Go program, built; Go's own cache makes that quick where nothing changed.

    Raises:
        BuildError: there is no Go, or it refuses.
    """
    go = shutil.which("go")
    if go is None:
        raise BuildError(f"{source.name} needs Go, and there is none")
    program = cache() / source.name
    command = [go, "build", "-C", str(source), "-trimpath", "-buildvcs=false", "-ldflags=-s", "-o", str(program), "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "CGO_ENABLED": "0"})  # noqa: S603
    if done.returncode:
        raise BuildError(f"{source.name} does not build:\n{done.stderr}")
    return program


def python_of(requirements: Path) -> Path:
    """The Python of a virtual environment with what is locked there; made anew when the lock changes.

    Raises:
        BuildError: pip refuses.
    """
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    directory = cache() / f"{requirements.parent.name}-{digest}"
    python, ready = directory / "bin" / "python", directory / "ready"
    if not ready.exists():
        install = [
            str(python),
            *["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"],
        ]
        for command in ([sys.executable, "-m", "venv", "--clear", str(directory)], [*install, str(requirements)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                raise BuildError(f"{requirements.parent.name} can't be installed:\n{done.stderr}")
        ready.touch()
    return python
