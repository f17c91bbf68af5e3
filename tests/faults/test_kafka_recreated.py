"""A Kafka that is created again without its data, under the same address, while bridges run.

It gives producer ids from 0 again, so two bridges may hold the same one: the id that one kept, and the id that the other was
given. A broker would take the records of one for a repeat of the other's, and they would be lost though they were acknowledged.
"""

import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from support.arena import LONG
from support.bridge_process import BridgeProcess
from support.callbacks import body, eventually, make_topics, report
from support.topics import consume_all, unique_name

from bridge.lab.embedded import EmbeddedKafka


@pytest.fixture
async def kafka() -> AsyncIterator[EmbeddedKafka]:
    """One node that nobody else uses."""
    async with EmbeddedKafka() as kafka:
        yield kafka


async def has(bridge: BridgeProcess, metric: str, value: float) -> bool:
    """Whether the metric has this value now."""
    return (await bridge.metrics())[f"chatapp_bridge_{metric}"] == value


async def publish(bridge: BridgeProcess, name: str) -> None:
    """Push a report, and wait until Kafka has acknowledged all that the bridge has."""
    assert (await bridge.post(body(report(name)))).status == 200
    await eventually(partial(has, bridge, "reports_waiting", 0))


@pytest.mark.parametrize("waiting", ["a report", *(["nothing"] if LONG else [])])
async def test_a_bridge_that_ran_through_and_one_that_started_later_lose_nothing(
    kafka: EmbeddedKafka, tmp_path: Path, waiting: str
) -> None:
    """Address, cluster id and the topics' names are the same, and each bridge writes its first record to the partition.

    With the same producer id these would be the same batch. A report that waits goes as soon as the topics are there, before the
    other bridge has a producer id.
    """
    topics = unique_name("status"), unique_name("quarantine")
    expected = {b"later", b"through"}
    await make_topics(kafka.bootstrap_servers, partitions=1, names=topics)
    async with BridgeProcess(kafka.bootstrap_servers, tmp_path / "through", topics=topics) as through:
        await eventually(partial(has, through, "kafka_up", 1))
        await kafka.kill_all()
        if waiting == "a report":
            assert (await through.post(body(report("waiting")))).status == 200
            expected.add(b"waiting")
        shutil.rmtree(kafka.nodes[0].directory / "data")
        await kafka.start()
        await make_topics(kafka.bootstrap_servers, partitions=1, names=topics)
        await eventually(partial(has, through, "reports_waiting", 0))
        async with BridgeProcess(kafka.bootstrap_servers, tmp_path / "later", topics=topics) as later:
            await publish(later, "later")
            await publish(through, "through")
            assert await has(later, "kafka_identity_changes_total", 0)
        assert await has(through, "kafka_identity_changes_total", 1)
        assert through.log().count('"cluster_changed"') == 1
    records = await consume_all(kafka.bootstrap_servers, topics[0])
    assert {record.key for record in records} == expected
