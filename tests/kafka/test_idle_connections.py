"""Connections that nothing goes by for minutes: the bridge keeps them alive, the commands' clients close them."""

import asyncio
from collections import Counter
from functools import partial

import pytest
from support.callbacks import eventually
from support.kafka_frames import Request
from support.kafka_proxy import KafkaProxy
from support.topics import create_topic

from bridge.config import Kafka, load
from bridge.kafka import librdkafka, messages, watch
from bridge.kafka.producer import Producer
from bridge.operate.reading.inspector import ClusterInspector


def through(proxy: KafkaProxy) -> Kafka:
    """``[kafka]`` by way of the proxy."""
    return load(environment={}, assignments=[f"kafka.bootstrap_servers={proxy.bootstrap_servers}"]).settings.kafka


async def test_the_bridge_keeps_a_quiet_connection_to_each_leader(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 0.3 s for the three minutes: it asks something small on the same connections, and opens no others."""
    monkeypatch.setattr(watch, "_IDLE_SECONDS", 0.3)
    topic = await create_topic(kafka_bootstrap)
    greetings: Counter[int] = Counter()

    def script(request: Request) -> None:
        greetings[request.connection] += request.api_key == messages.API_VERSIONS

    async def kept_alive(times: int) -> bool:
        return max(greetings.values(), default=0) > times

    async with KafkaProxy([lambda: int(kafka_bootstrap.rpartition(":")[2])], script) as proxy:
        producer = Producer(through(proxy), [topic], 6.0, lambda _: None)
        producer.start()
        await eventually(partial(kept_alive, 1))
        before = set(greetings)
        await eventually(partial(kept_alive, 5))
        assert set(greetings) == before
        assert producer.connections_opened == 1
        await producer.stop()


@pytest.mark.long
async def test_a_command_closes_a_quiet_connection_and_opens_it_again(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a hosted service does it, which the library would report as an error."""
    monkeypatch.setattr(librdkafka, "_IDLE_MS", 300)
    topic = await create_topic(kafka_bootstrap)

    async def none_open() -> bool:
        return proxy.open_connections == 0

    async with KafkaProxy([lambda: int(kafka_bootstrap.rpartition(":")[2])]) as proxy:
        with ClusterInspector(through(proxy), 10) as inspector:
            assert await asyncio.to_thread(inspector.partitions, topic)
            await eventually(none_open)
            assert await asyncio.to_thread(inspector.partitions, topic)
