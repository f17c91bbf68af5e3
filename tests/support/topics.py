"""Make topics and read them back, with aiokafka and the broker's own word alone."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidReplicationFactorError, KafkaError, TopicAlreadyExistsError, for_code

from bridge.lab.embedded.metadata import ask

WAIT_SECONDS = 60.0
READ_SECONDS = 60.0
ASK_SECONDS = 2.0
POLL_SECONDS = 0.05
AGAIN_SECONDS = 0.2


def unique_name(stem: str = "topic") -> str:
    """A topic's name that no other test has."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


async def until(holds: Callable[[], Awaitable[bool]], every_seconds: float = POLL_SECONDS) -> None:
    """Ask again and again until the answer is yes; bounded by the caller's ``asyncio.timeout``."""
    while not await holds():  # noqa: ASYNC110  what is observed is another process
        await asyncio.sleep(every_seconds)


async def create_topic(
    bootstrap: str,
    name: str | None = None,
    *,
    partitions: int = 1,
    replication: int | None = None,
    config: Mapping[str, str] | None = None,
) -> str:
    """Make a topic and wait until every broker of ``bootstrap`` knows it, led and in sync.

    Args:
        bootstrap: Plaintext ``host:port``, comma-separated.
        name: A unique one unless given.
        partitions: How many.
        replication: Of each; as many as ``bootstrap`` names brokers unless given.
        config: The topic's own settings, such as ``{"min.insync.replicas": "2"}``.

    Returns:
        Its name.

    Raises:
        KafkaError: The broker refuses it for a reason that waiting does not mend.
        TimeoutError: It is not there after a minute.
    """
    name = name or unique_name()
    wanted = NewTopic(name, partitions, replication or len(bootstrap.split(",")), topic_configs=dict(config or {}))
    async with asyncio.timeout(WAIT_SECONDS):
        await until(lambda: _created(bootstrap, wanted), AGAIN_SECONDS)
        for address in bootstrap.split(","):
            await until(partial(asyncio.to_thread, _knows, address, name, partitions))
    return name


async def _created(bootstrap: str, wanted: NewTopic) -> bool:
    """Ask once; False where asking again can help. An answer that got lost may have made the topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    try:
        await admin.start()
        answer = await admin.create_topics([wanted])
        for _name, code, *_message in answer.topic_errors:
            if code:
                raise for_code(code)(str(_message))
    except TopicAlreadyExistsError:
        return True
    except InvalidReplicationFactorError:
        return False  # A broker that just started may not be counted yet.
    except KafkaError as error:
        if not error.retriable:
            raise
        return False
    finally:
        await admin.close()
    return True


def _knows(address: str, topic: str, partitions: int) -> bool:
    """Whether the broker there knows the whole topic, each partition led and in sync."""
    host, port = address.rsplit(":", 1)
    view = ask(host, int(port), ASK_SECONDS)
    known = [each for each in view.partitions if each.topic == topic] if view else []
    return len(known) == partitions and all(each.is_whole for each in known)


async def consume_all(
    bootstrap: str,
    topic: str,
    *,
    keep: Callable[[Any], Any] = lambda record: record,
    seconds: float = READ_SECONDS,
    **settings: Any,
) -> list[Any]:
    """Every record that the topic holds now, by partition and offset, read with no group.

    Args:
        bootstrap: ``host:port``, comma-separated.
        topic: Its name.
        keep: What is kept of a record, where all of them are too large; it has its ``partition`` and ``offset``.
        seconds: What reading may take.
        settings: Of the consumer besides, such as ``isolation_level`` or what SASL needs.

    Returns:
        aiokafka's ``ConsumerRecord``, keys and values in bytes, or what was kept of it.

    Raises:
        TimeoutError: The end, as it was at the beginning, is not reached in that time.
    """
    # Without a group, every partition of the topic is assigned at the start, for certain and at once.
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)
    records: list[Any] = []
    async with asyncio.timeout(seconds), consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                batches = await consumer.getmany(timeout_ms=200)
                records += [keep(record) for batch in batches.values() for record in batch]
    records = [each for each in records if each.offset < ends[TopicPartition(topic, each.partition)]]
    return sorted(records, key=lambda each: (each.partition, each.offset))
