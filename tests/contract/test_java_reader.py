"""A consumer in another language sees a record as it was sent."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from conftest import MakeTopic
from support.topics import consume_all


async def test_java_reads_what_python_wrote(
    kafka_bootstrap: str,
    topic: MakeTopic,
    java_read: Callable[[str, str, int], Awaitable[list[dict[str, Any]]]],
) -> None:
    """Key, value, headers, time and place come out the same in both languages, absent ones too."""
    name = await topic(partitions=2, config={"retention.ms": "-1"})  # its records are old
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        headers = [("ce_id", "Zoë-1".encode()), ("ce_id", b"again"), ("empty", b"")]
        await producer.send_and_wait(name, "été".encode(), b"key", 0, 1_784_000_000_123, headers)
        await producer.send_and_wait(name, None, b"tombstone", 0)
        await producer.send_and_wait(name, b"{}", None, 1)

    records = sorted(await java_read(kafka_bootstrap, name, 3), key=lambda each: (each["partition"], each["offset"]))

    assert records == [
        {
            "topic": name,
            "partition": each.partition,
            "offset": each.offset,
            "timestamp": each.timestamp,
            "key": each.key and each.key.decode(),
            "value": each.value and each.value.decode(),
            "headers": [[header, value.decode()] for header, value in each.headers],
        }
        for each in await consume_all(kafka_bootstrap, name)
    ]
    assert (records[0]["value"], records[0]["timestamp"]) == ("été", 1_784_000_000_123)
    assert records[0]["headers"] == [["ce_id", "Zoë-1"], ["ce_id", "again"], ["empty", ""]]
    assert [(each["key"], each["value"]) for each in records[1:]] == [("tombstone", None), (None, "{}")]
