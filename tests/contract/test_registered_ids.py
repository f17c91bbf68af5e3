"""Ids looked up in a real registry, in the background, until it has them all."""

import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.callbacks import eventually
from support.topics import unique_name

from bridge import config
from bridge.lab.embedded import EmbeddedRegistry
from bridge.registry.client import RegistryClient
from bridge.registry.ids import FILE, RegisteredIds
from bridge.schemas import EventSchema, known_schemas, written_schema

OTHER = EventSchema('{"type": "record", "name": "Other", "fields": []}', b"another.")
NEWER = EventSchema(OTHER.text.replace("[]", '[{"name": "f", "type": "int", "default": 0}]'), OTHER.fingerprint)
"""Under one fingerprint, as releases are that differ in documentation (which this registry gives one id, and others two)."""
FINGERPRINT = written_schema().fingerprint


@pytest.fixture
def settings(registry: EmbeddedRegistry) -> config.Registry:
    """To the real one."""
    return config.load(environment={}, assignments=[f"registry.url={registry.url}"]).settings.registry


@asynccontextmanager
async def looking(
    settings: config.Registry, file: Path | None, *schemas: EventSchema
) -> AsyncIterator[tuple[RegisteredIds, list[str]]]:
    """Ids that are being looked up, and the errors that are logged."""
    with capture_logs() as logs:
        ids = RegisteredIds(settings, schemas or known_schemas(), file)
        ids.start()
        errors: list[str] = []
        try:
            yield ids, errors
        finally:
            await ids.stop()
            errors += [each.get("error", each["event"]) for each in logs if each["log_level"] == "error"]


async def register(settings: config.Registry, topic: str, schema: EventSchema) -> bytes:
    """Register it; the prefix that its id makes."""
    async with RegistryClient(settings) as client:
        return b"\0" + (await client.register(f"{topic}-value", schema.text)).to_bytes(4, "big")


def found(ids: RegisteredIds, topic: str, schema: bytes, prefix: bytes | None) -> Callable[[], Awaitable[bool]]:
    """Whether it is known so."""

    async def known() -> bool:
        return ids.prefix(topic, schema) == prefix

    return known


async def test_what_is_registered_later_is_found_then_and_kept(settings: config.Registry, tmp_path: Path) -> None:
    """Nothing is registered by looking; the file is its owner's alone."""
    topic = unique_name("status")
    async with looking(settings, tmp_path / FILE) as (ids, errors):
        ids.require(topic, FINGERPRINT)
        async with RegistryClient(settings) as client:
            assert await client.versions(f"{topic}-value") == []
        prefix = await register(settings, topic, written_schema())
        await eventually(found(ids, topic, FINGERPRINT, prefix))
        assert ids.ready
    assert all(f"{topic}-value" in each and "chatapp-bridge schema register" in each for each in errors)
    kept = {settings.url: {f"{topic}-value": {FINGERPRINT.hex(): int.from_bytes(prefix, "big")}}}
    assert kept == json.loads((tmp_path / FILE).read_bytes())
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


async def test_of_schemas_with_the_same_bytes_the_newest_that_is_registered_counts(settings: config.Registry) -> None:
    """A schema that only says more in its documentation need not be registered before the bridge that has it starts."""
    topic = unique_name("status")
    older = await register(settings, topic, OTHER)
    async with looking(settings, None, NEWER, OTHER) as (ids, _):
        await eventually(found(ids, topic, OTHER.fingerprint, older))
    newest = await register(settings, topic, NEWER)
    assert newest != older
    async with looking(settings, None, NEWER, OTHER) as (ids, _):
        await eventually(found(ids, topic, OTHER.fingerprint, newest))


async def test_one_that_is_not_registered_keeps_no_other_waiting(settings: config.Registry) -> None:
    """Each topic and each schema by itself."""
    topic, neighbour = unique_name("status"), unique_name("status")
    prefix = await register(settings, neighbour, OTHER)
    async with looking(settings, None, written_schema(), OTHER) as (ids, errors):
        ids.require(topic, FINGERPRINT)
        await eventually(found(ids, neighbour, OTHER.fingerprint, prefix))
        assert (ids.known, ids.missing, ids.ready) == (1, 1, False)
    assert any(f"{topic}-value" in each for each in errors)


async def test_the_registrys_word_counts_more_than_what_was_kept(settings: config.Registry, tmp_path: Path) -> None:
    """A registry that was set up anew gives another id, or has none; then no consumer could read what names the old one."""
    topic, gone = unique_name("status"), unique_name("status")
    prefix = await register(settings, topic, written_schema())
    stale = {FINGERPRINT.hex(): 99_999}
    (tmp_path / FILE).write_text(json.dumps({settings.url: {f"{topic}-value": stale, f"{gone}-value": stale}}))
    async with looking(settings, tmp_path / FILE) as (ids, errors):
        assert ids.prefix(topic, FINGERPRINT) == ids.prefix(gone, FINGERPRINT) == b"\0" + (99_999).to_bytes(4, "big")
        await eventually(found(ids, topic, FINGERPRINT, prefix))
        await eventually(found(ids, gone, FINGERPRINT, None))
    assert "schema_id_lost" in errors
    kept = json.loads((tmp_path / FILE).read_bytes())[settings.url]
    assert kept[f"{topic}-value"] == {FINGERPRINT.hex(): int.from_bytes(prefix, "big")}


async def test_a_file_that_can_not_be_written_is_no_hindrance(settings: config.Registry, tmp_path: Path) -> None:
    """It is said, and the id is used."""
    topic = unique_name("status")
    prefix = await register(settings, topic, written_schema())
    with capture_logs() as logs:
        ids = RegisteredIds(settings, known_schemas(), tmp_path / "missing" / FILE)
        ids.start()
        await eventually(found(ids, topic, FINGERPRINT, prefix))

        async def said() -> bool:
            return any(each["event"] == "schema_ids_not_kept" for each in logs)

        await eventually(said)
        await ids.stop()
