"""The embedded registry: a real one, that keeps what was registered whatever is done to its process."""

import json
import uuid

import pytest

from bridge import config
from bridge.errors import RegistryUnavailable
from bridge.lab.embedded import EmbeddedRegistry
from bridge.registry.client import RegistryClient

SCHEMA = json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]})


def client(registry: EmbeddedRegistry, **settings: str) -> RegistryClient:
    """A client of it."""
    chosen = {"url": registry.url, "timeout_seconds": "10", **settings}
    assignments = [f"registry.{key}={value}" for key, value in chosen.items()]
    return RegistryClient(config.load(environment={}, assignments=assignments).settings.registry)


async def test_a_kill_loses_nothing_that_was_registered(registry: EmbeddedRegistry) -> None:
    """What was acknowledged is there after SIGKILL at once and a start, at the same address, under the same id."""
    subject = f"kept-{uuid.uuid4()}"
    async with client(registry) as asking:
        registered = await asking.register(subject, SCHEMA)
        await registry.kill()
        assert not registry.running
        with pytest.raises(RegistryUnavailable):
            await asking.lookup(subject, SCHEMA)

        await registry.start()

        assert registered == await asking.lookup(subject, SCHEMA)
        assert await asking.compatibility() == "BACKWARD"


async def test_a_paused_registry_keeps_silent_until_it_is_resumed(registry: EmbeddedRegistry) -> None:
    """It takes connections, as a machine that hangs does, and answers nothing; then it goes on."""
    async with client(registry, timeout_seconds="0.5") as asking:
        registry.pause()
        with pytest.raises(RegistryUnavailable, match=r"no answer within 0\.5 s"):
            await asking.versions("any")
        assert registry.paused

    registry.resume()
    async with client(registry) as asking:
        assert await asking.versions(f"none-{uuid.uuid4()}") == []
