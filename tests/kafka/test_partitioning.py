"""A key lives in the same partition whoever produces it: our hash and partition are the Java client's own."""

import random
from collections.abc import Awaitable, Callable

from support.java import JavaPrograms

from bridge.kafka.partition import murmur2, partition_for

SEED = 20_260_711
COUNTS = [1, 2, 3, 6, 7, 12, 16, 50, 100, 1_000, 65_536]
LONGEST = 64
TEXTS = [
    "",
    "a",
    "Zoë",
    "naïve café",
    "Straße",
    "日本語のキー",
    "🚀🚀",
    "é" * 40,
    "+31612345678",
    "01J-message-id",
]


def keys() -> list[bytes]:
    """Keys of every length to 64: random, all high bytes, all zeros, counting up; and texts beyond ASCII."""
    source = random.Random(SEED)  # noqa: S311  the same keys in every run
    found = {text.encode() for text in TEXTS}
    for length in range(LONGEST + 1):
        found |= {source.randbytes(length) for _ in range(20)}
        found |= {bytes(source.randrange(0x80, 0x100) for _ in range(length)) for _ in range(5)}
        found |= {b"\xff" * length, b"\x80" * length, b"\x00" * length, bytes(range(length))}
    return sorted(found)


async def test_our_murmur2_is_javas(java: JavaPrograms) -> None:
    """Every key hashes to the value of Kafka's own ``Utils.murmur2``."""
    expected = await java.murmur2(keys())

    assert len(expected) > LONGEST * 20
    assert expected == {key: murmur2(key) for key in keys()}


async def test_our_partition_is_javas(
    java_partitions: Callable[[list[bytes], list[int]], Awaitable[dict[tuple[bytes, int], int]]],
) -> None:
    """Every key goes where Kafka's ``BuiltInPartitioner.partitionForKey`` puts it, in topics of any size."""
    expected = await java_partitions(keys(), COUNTS)

    assert len(expected) == len(keys()) * len(COUNTS)
    assert expected == {(key, count): partition_for(key, count) for key in keys() for count in COUNTS}
