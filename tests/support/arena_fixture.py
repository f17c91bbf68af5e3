"""Arenas on the three nodes, as a fixture; see ``support.arena``."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge.lab.embedded import EmbeddedKafka
from support.arena import Arena, MakeArena, make_quarantine, make_status


@pytest.fixture
async def make_arena(cluster: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[MakeArena]:
    """Makes arenas; all are ended before the nodes are healed."""
    async with AsyncExitStack() as stack:

        async def make(
            settings: Mapping[str, Any] | None = None,
            *,
            topics: tuple[str, str] | None = None,
            bridge_bootstrap: str | None = None,
        ) -> Arena:
            bootstrap = cluster.bootstrap_servers
            topics = topics or (await make_status(bootstrap), await make_quarantine(bootstrap))
            return await stack.enter_async_context(
                Arena(
                    bootstrap,
                    tmp_path,
                    topics,
                    settings,
                    bridge_bootstrap=bridge_bootstrap,
                    log_dirs=[node.directory / "data" for node in cluster.nodes],
                )
            )

        yield make
