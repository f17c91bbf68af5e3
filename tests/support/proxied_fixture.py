"""Arenas whose bridge reaches the three nodes through scripted proxies, as a fixture; see ``support.proxied``."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from bridge.lab.embedded import EmbeddedKafka
from support.arena import MakeArena
from support.kafka_proxy import KafkaProxy
from support.proxied import MakeProxied, ProxiedArena

pytest_plugins = ("support.arena_fixture",)


@pytest.fixture
async def make_proxied(cluster: EmbeddedKafka, make_arena: MakeArena) -> AsyncIterator[MakeProxied]:
    """Makes arenas behind a proxy each; what a script raised is raised at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            settings: Mapping[str, Any] | None = None, *, topics: tuple[str, str] | None = None
        ) -> ProxiedArena:
            proxy = await stack.enter_async_context(KafkaProxy([node.port for node in cluster.nodes]))
            arena = await make_arena(settings, topics=topics, bridge_bootstrap=proxy.bootstrap_servers)
            return ProxiedArena(arena, proxy)

        yield make
