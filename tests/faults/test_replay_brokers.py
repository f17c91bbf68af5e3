"""A replay whose brokers die under it: it waits, goes on, or ends with words and can be taken up; nothing is there twice."""

import asyncio
import os
import re
from collections import Counter
from pathlib import Path
from subprocess import Popen

from support.replaying import event, make_topic, put_event, read_all, start, write

from bridge.deliver.partition import partition_for
from bridge.embedded import EmbeddedKafka

LONG = os.environ.get("BRIDGE_LONG") == "1"
RECORDS = 40_000 if LONG else 3_000
RATE = "300"
PATIENCE = "4"
SECONDS = 90.0


async def written(bootstrap: str, topic: str, more_than: int) -> int:
    """Wait until so many records are committed there; how many are."""
    async with asyncio.timeout(SECONDS):
        while (found := len(await asyncio.to_thread(read_all, bootstrap, topic, 3))) <= more_than:  # noqa: ASYNC110 - what is observed is another process
            await asyncio.sleep(0.1)
    return found


async def ended(process: Popen[bytes]) -> int:
    """Its exit code."""
    return await asyncio.wait_for(asyncio.to_thread(process.wait), SECONDS)


async def test_a_broker_dies_then_all_then_it_is_taken_up(cluster: EmbeddedKafka, tmp_path: Path) -> None:
    """With one gone it goes on by itself; with all gone it says so, and how to go on; each record is there once in the end."""
    bootstrap = cluster.bootstrap_servers
    topic = await asyncio.to_thread(make_topic, bootstrap, 3)
    target = await asyncio.to_thread(make_topic, bootstrap, 3)
    events = [event(f"m-{n}", ("Sent", "Delivered")[n % 2]) for n in range(RECORDS)]
    puts = [put_event(each, partition=partition_for(each.message_id.encode(), 3)) for each in events]
    await asyncio.to_thread(write, bootstrap, topic, puts)
    words = ["replay", "--to-topic", target, "--rate", RATE, "--patience", PATIENCE, "--execute"]
    process = start(bootstrap, topic, *words, "--patience", "60", directory=tmp_path)
    before = await written(bootstrap, target, 0)
    await cluster.node(1).kill()
    await written(bootstrap, target, before)
    assert process.poll() is None, (tmp_path / "error").read_text()
    process.terminate()
    assert await ended(process) == 128 + 15
    said = (tmp_path / "error").read_text()
    run = re.search(r"--resume (\S+) --execute", said)
    assert run is not None, said
    again = ["replay", "--resume", run[1], "--rate", RATE, "--patience", PATIENCE, "--execute"]
    process = start(bootstrap, topic, *again, directory=tmp_path)
    before = await written(bootstrap, target, len(await asyncio.to_thread(read_all, bootstrap, target, 3)))
    assert before < RECORDS
    await cluster.kill_all()
    assert await ended(process) == 1
    said = (tmp_path / "error").read_text().removeprefix(said)
    assert f"go on with: chatapp-bridge replay --resume {run[1]} --execute" in said
    await cluster.start()
    await cluster.wait_in_sync()
    process = start(bootstrap, topic, *again[:3], "--execute", directory=tmp_path)
    assert await ended(process) == 0, (tmp_path / "error").read_text()
    found = Counter(dict(record.headers)["ce_id"] for record in read_all(bootstrap, target, 3))
    assert found == Counter(each.event_id.encode() for each in events)
