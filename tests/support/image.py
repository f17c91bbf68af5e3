"""The container image of this checkout, for the tests that run it."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def docker(*arguments: str | Path, succeed: bool = True) -> str:
    """Run Docker's client; what it printed, both streams."""
    command = ["docker", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if succeed:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def image() -> str:
    """The image of this checkout; ``BRIDGE_TEST_IMAGE`` names one that was built elsewhere."""
    given = os.environ.get("BRIDGE_TEST_IMAGE")
    if given:
        return given
    docker("build", "--tag", "chatapp-bridge:dev", "--build-arg", "VERSION=1.2.3", ROOT)
    return "chatapp-bridge:dev"
