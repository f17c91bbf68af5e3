"""A replay whose brokers die under it: it waits, goes on, or ends with words and can be taken up; nothing is there twice."""

import asyncio
import os
import re
from collections import Counter
from pathlib import Path
from subprocess import Popen

import pytest
from support.replaying import event, make_topic, put_event, read_all, start, write

from bridge.kafka.partition import partition_for
from bridge.lab.embedded import EmbeddedKafka

LONG = os.environ.get("BRIDGE_LONG") == "1"
RECORDS = 6_000 if LONG else 2_400
RATE = "300"
TIMEOUT = "4"
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


async def filled(cluster: EmbeddedKafka) -> tuple[str, str, Counter[bytes]]:
    """A topic, an empty one for what is replayed, and the ids of the first one's events."""
    bootstrap = cluster.bootstrap_servers
    topic = await asyncio.to_thread(make_topic, bootstrap, 3)
    target = await asyncio.to_thread(make_topic, bootstrap, 3)
    events = [event(f"m-{n}", ("Sent", "Delivered")[n % 2]) for n in range(RECORDS)]
    puts = [put_event(each, partition=partition_for(each.message_id.encode(), 3)) for each in events]
    await asyncio.to_thread(write, bootstrap, topic, puts)
    return topic, target, Counter(each.event_id.encode() for each in events)


def ids(bootstrap: str, topic: str) -> Counter[bytes | None]:
    """Those of all that is committed."""
    return Counter(dict(record.headers)["ce_id"] for record in read_all(bootstrap, topic, 3))


@pytest.mark.long
async def test_all_brokers_die_it_says_so_and_is_taken_up(cluster: EmbeddedKafka, tmp_path: Path) -> None:
    """It ends when its timeout does, with the words for going on; each record is there once in the end."""
    topic, target, expected = await filled(cluster)
    bootstrap = cluster.bootstrap_servers
    words = ["replay", "--to-topic", target, "--rate", RATE, "--timeout", TIMEOUT, "--execute"]
    process = start(bootstrap, topic, *words, directory=tmp_path)
    await written(bootstrap, target, 0)
    await cluster.kill_all()
    assert await ended(process) == 1
    said = (tmp_path / "error").read_text()
    run = re.search(r"go on with: chatapp-bridge replay --resume (\S+) --execute", said)
    assert run is not None, said
    await cluster.start()
    process = start(bootstrap, topic, "replay", "--resume", run[1], "--execute", directory=tmp_path)
    assert await ended(process) == 0, (tmp_path / "error").read_text()
    assert ids(bootstrap, target) == expected


@pytest.mark.parametrize("number", [1, 2, 3] if LONG else [1])
async def test_it_goes_on_when_one_broker_dies(cluster: EmbeddedKafka, tmp_path: Path, number: int) -> None:
    """Whichever leads, coordinates, or both: by itself, and with each record once."""
    topic, target, expected = await filled(cluster)
    bootstrap = cluster.bootstrap_servers
    words = ["replay", "--to-topic", target, "--rate", RATE, "--execute"]
    process = start(bootstrap, topic, *words, directory=tmp_path)
    before = await written(bootstrap, target, 0)
    assert before < RECORDS
    await cluster.node(number).kill()
    assert await ended(process) == 0, (tmp_path / "error").read_text()
    assert ids(bootstrap, target) == expected
