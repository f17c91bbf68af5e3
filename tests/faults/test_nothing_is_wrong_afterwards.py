"""An audit after faults finds nothing wrong where nothing was lost, and a tail beside them misses nothing."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.arena import MakeArena
from support.replaying import arguments, start
from support.topics import consume_all

from bridge.lab.embedded import EmbeddedKafka

pytest_plugins = ("support.arena_fixture",)


async def test_nothing_is_wrong_after_brokers_and_the_bridge_were_killed(
    cluster: EmbeddedKafka, make_arena: MakeArena, tmp_path: Path
) -> None:
    """Callbacks cut by the death of the bridge were pushed again and are whole then; the tail saw every event meanwhile."""
    arena = await make_arena()
    directory = tmp_path / "tail"
    directory.mkdir()
    words = ("tail", "--from", "earliest", "--format", "json")
    tail = start(cluster.bootstrap_servers, arena.topics[0], *words, directory=directory)
    try:
        arena.load(seconds=3)
        await arena.until(lambda scrape: scrape.total("reports_published") > 300)
        async with asyncio.timeout(60):
            while not seen(directory):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        await cluster.kill_all()
        await arena.until(lambda scrape: scrape.waiting > 300)
        arena.bridge.kill()
        await arena.bridge.start()
        await logged(directory, "no broker answers")
        await cluster.start()
        await arena.verdict()
        there = {(r.partition, r.offset) for r in await consume_all(arena.bootstrap, arena.topics[0])}
        async with asyncio.timeout(60):
            while len(seen(directory)) < len(there):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        assert there == seen(directory)
        await logged(directory, "brokers answer again")
        tail.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(tail.wait, 30) == 0
    finally:
        tail.kill()
        tail.wait()
    code, found = await audit(arena.bootstrap, arena.topics)
    assert (code, found["not_whole"], found["out_of_order"], found["foreign"]) == (0, 0, 0, 0), found
    assert found["ordered_keys"] > 0
    assert found["repeats"]["records"] + found["repeats"]["distinct"] == len(there)


async def logged(directory: Path, words: str) -> None:
    """Wait until the tail says so."""
    async with asyncio.timeout(60):
        while words not in (directory / "error").read_text():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


def seen(directory: Path) -> set[tuple[int, int]]:
    """What the tail printed: partition and offset of each."""
    lines = (directory / "out").read_bytes().split(b"\n")[:-1]
    return {(each["partition"], each["offset"]) for each in map(json.loads, lines)}


async def audit(bootstrap: str, topics: tuple[str, str]) -> tuple[int, dict[str, Any]]:
    """Exit code and findings; all is judged, as nothing is on its way any more."""
    words = ["audit", "--format", "json", "--settle-seconds", "0", "--set", f"topics.quarantine={topics[1]}"]
    command = [sys.executable, "-m", "bridge", *arguments(bootstrap, topics[0], words)]
    run = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, timeout=90, check=False)
    return run.returncode, json.loads(run.stdout)
