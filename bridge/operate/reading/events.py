"""How the values of a topic are decoded here."""

import asyncio

from bridge.config import Registry, Settings
from bridge.consume import Decoder


def decoder_of(settings: Settings, topic: str) -> Decoder | None:
    """The decoder of a topic's events; None for the quarantine, whose values are none.

    It asks the registry of ``[registry]``, where there is one, for schemas that values name by its ids.
    """
    if topic == settings.topics.quarantine:
        return None
    if not settings.registry.urls:
        return Decoder(_none)
    return Decoder(lambda schema_id: asyncio.run(_schema(settings.registry, schema_id)))


def _none(_schema_id: int) -> str:
    """In place of a registry: the decoder's own words would be about Python."""
    raise ValueError("registry.url names none")


async def _schema(registry: Registry, schema_id: int) -> str:
    from bridge.registry.client import RegistryClient  # noqa: PLC0415 - needed by nobody who has no registry

    async with RegistryClient(registry) as client:
        schema = await client.schema_by_id(schema_id)
    if schema is None:
        raise LookupError(f"the registry has no schema {schema_id}")
    return schema
