"""A directory to spool in, for every test of the spool."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.spools import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A directory to spool in."""
    house = House(tmp_path / "deep" / "spool")
    yield house
    await house.close()
