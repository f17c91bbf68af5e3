"""A real registry finds compatible what the check without one finds compatible, and hands out ids as clients expect."""

import uuid

import pytest
from support.evolutions import EVOLUTIONS

from bridge import config
from bridge.errors import RegistryError
from bridge.lab.embedded import EmbeddedRegistry
from bridge.registry.client import RegistryClient
from bridge.schemas import written_schema


@pytest.fixture
def client(registry: EmbeddedRegistry) -> RegistryClient:
    """A client of the session's registry."""
    settings = config.load(environment={}, assignments=[f"registry.url={registry.url}"]).settings
    return RegistryClient(settings.registry)


async def test_the_registry_and_the_check_without_it_agree(client: RegistryClient) -> None:
    """Every evolution, in each direction."""
    answers: dict[str, tuple[bool, ...]] = {}
    async with client:
        for name, evolution in EVOLUTIONS.items():
            subject = f"{name}-{uuid.uuid4()}"
            await client.register(subject, evolution.old)
            bearable = []
            for level in ("BACKWARD_TRANSITIVE", "FORWARD_TRANSITIVE"):
                await client.set_compatibility(level, subject)
                bearable.append(await client.compatible(subject, evolution.new) == [])
            answers[name] = tuple(bearable)

    assert {name: (each.backward, each.forward) for name, each in EVOLUTIONS.items()} == answers


async def test_what_is_registered_is_found_again_however_it_is_asked_for(client: RegistryClient) -> None:
    """By schema, whatever its layout, by id, by version; once however often it is registered; not before it is."""
    schema, subject = written_schema().text, f"found/again-{uuid.uuid4()}"
    async with client:
        assert await client.lookup(subject, schema) is None
        assert await client.versions(subject) == []
        assert await client.compatible(subject, schema) == []
        assert await client.schema_by_version(subject, 1) is None

        registered = await client.register(subject, schema)

        assert registered == await client.register(subject, schema.replace("\n", "\n  "))
        assert registered == await client.lookup(subject, schema.replace(": ", ":"))
        assert await client.versions(subject) == [1]
        by_id, by_version = await client.schema_by_id(registered), await client.schema_by_version(subject, 1)
        assert by_id == by_version
        assert by_id is not None
        assert registered == await client.lookup(subject, by_id)
        assert await client.schema_by_id(2**31 - 1) is None


async def test_a_registry_refuses_what_it_would_not_bear(client: RegistryClient) -> None:
    """Incompatible, no schema, no level: an error that says what to do, and nothing is registered."""
    evolution, subject = EVOLUTIONS["added without"], f"refused-{uuid.uuid4()}"
    async with client:
        await client.register(subject, evolution.old)
        await client.set_compatibility("FULL_TRANSITIVE", subject)

        with pytest.raises(RegistryError, match=rf"subject {subject}: .*schema check"):
            await client.register(subject, evolution.new)
        with pytest.raises(RegistryError, match=rf"subject {subject}: refuses \(422"):
            await client.register(subject, '{"type": "nope"}')
        with pytest.raises(RegistryError, match=rf"subject {subject}: refuses \(422"):
            await client.set_compatibility("SOME", subject)

        assert await client.versions(subject) == [1]
        assert await client.compatibility(subject) == "FULL_TRANSITIVE"
