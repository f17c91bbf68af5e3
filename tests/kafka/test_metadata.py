"""What the bridge reads of a real broker's metadata, beside what librdkafka reads of the same."""

import asyncio
from typing import Any

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient
from support.topics import create_topic, unique_name

from bridge.kafka import messages
from bridge.kafka.metadata import Broker, Metadata, Topic, ask_metadata
from bridge.kafka.wire import connect

SECONDS = 10.0
UNKNOWN_TOPIC = 3


async def asked(bootstrap: str, topics: list[str], *, newest: int | None = None) -> Metadata:
    """The broker's answer, in the version with topic ids or in an older one."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    connection = await connect(host, int(port), {"client_id": "test", "security_protocol": "PLAINTEXT"}, SECONDS)
    assert connection.versions[messages.METADATA][1] >= 10
    if newest is not None:
        connection.versions[messages.METADATA] = (0, newest)
    try:
        async with asyncio.timeout(SECONDS):
            return await ask_metadata(connection, topics)
    finally:
        connection.abort("done")


def _of_librdkafka(bootstrap: str, topic: str) -> tuple[str, dict[int, Broker], Topic]:
    admin: Any = AdminClient({"bootstrap.servers": bootstrap})
    cluster = admin.describe_cluster().result(SECONDS)
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(SECONDS)
    leaders = {each.id: each.leader.id for each in described.partitions}
    brokers = {node.id: Broker(node.host, node.port) for node in cluster.nodes}
    topic_id = str(described.topic_id).translate(str.maketrans("+/", "-_"))  # Kafka's own tools show it so
    return cluster.cluster_id, brokers, Topic(topic, 0, topic_id, leaders)


@pytest.mark.parametrize("newest", [None, 5])
async def test_the_cluster_and_its_topics_are_read_as_librdkafka_reads_them(
    kafka_bootstrap: str, newest: int | None
) -> None:
    """Ids and all, in the form that it shows; older versions have no topic ids."""
    topic, missing = await create_topic(kafka_bootstrap, partitions=3), unique_name()
    cluster_id, brokers, described = await asyncio.to_thread(_of_librdkafka, kafka_bootstrap, topic)
    expected = described if newest is None else described._replace(topic_id="")
    metadata = await asked(kafka_bootstrap, [topic, missing], newest=newest)
    assert (metadata.cluster_id, metadata.brokers) == (cluster_id, brokers)
    by_name = {each.name: each for each in metadata.topics}
    assert by_name == {topic: expected, missing: Topic(missing, UNKNOWN_TOPIC, "", {})}
