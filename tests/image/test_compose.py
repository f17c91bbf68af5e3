"""``compose.yaml``: its stack is started and probed as its head says; what is not run is well formed, its files exist."""

import asyncio
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.apart import run_apart
from support.topics import consume_all, until

pytest_plugins = ("support.image",)
# The first test builds the image.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).parents[2]
KAFKA, BRIDGE = "localhost:29092", "http://localhost:8080/callbacks/chatapp/status/not-a-secret-but-an-example"


def compose() -> list[str]:
    """The plug-in of Docker's client, else the program of that name."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    program = shutil.which("docker-compose")
    assert program, "neither `docker compose` nor docker-compose is here"
    return [program]


def run(*arguments: str) -> str:
    """Compose, to its end; what it printed."""
    command = [*compose(), "--file", str(ROOT / "compose.yaml"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture
def project(image: str) -> Iterator[str]:
    """The stack, up and ready, from the image of this checkout; removed afterwards with its volumes."""
    assert image == "chatapp-bridge:dev", "compose.yaml names this image"
    project = f"bridge-{uuid.uuid4().hex[:8]}"
    try:
        run("--project-name", project, "up", "--detach")
        run_apart(_ready())
        yield project
    finally:
        run("--project-name", project, "down", "--volumes", "--timeout", "20")


async def _ready() -> None:
    async def answers() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get("http://localhost:8081/readyz")).is_success
        except httpx.HTTPError:
            return False

    async with asyncio.timeout(120):
        await until(answers, 0.5)


def test_the_stack_works_as_its_head_says(project: str) -> None:
    """A callback becomes an event that this machine can read, and the probe finds its own."""
    assert "read back from chatapp.status.v1" in run("--project-name", project, "run", "--rm", "probe")
    answer = httpx.post(BRIDGE, content='[{"MessageId":"m-1","Status":"Delivered"}]', timeout=10)
    assert answer.json() == {"code": 0, "msg": "Success"}
    records = run_apart(consume_all(KAFKA, "chatapp.status.v1"))
    assert "m-1" in {record.key.decode() for record in records}


def test_every_service_is_well_formed_and_its_files_exist() -> None:
    """Those of the profile `more` too, whose images are not run here."""
    document: dict[str, Any] = yaml.safe_load(run("--profile", "more", "--profile", "probe", "config"))
    services = document["services"]
    assert set(services) == {"kafka", "topics", "bridge", "probe", "registry", "prometheus", "grafana"}
    written = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    binds = [volume.partition(":")[0] for each in written.values() for volume in each.get("volumes", [])]
    assert [path for path in binds if path.startswith(".") and not (ROOT / path).exists()] == []
    assert all(":" in each["image"] and not each["image"].endswith(":latest") for each in services.values())
