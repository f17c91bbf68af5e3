"""The Java programs beside the tests, compiled once and run on the embedded Kafka's class path."""

import json
from pathlib import Path
from typing import Any

from bridge.lab.embedded import compile_java, run_java

SOURCES = Path(__file__).parents[1] / "java"
READ_SECONDS = 60


async def compile_programs(out: Path) -> Path:
    """Compile all of ``tests/java`` into ``out``."""
    return await compile_java(sorted(SOURCES.glob("*.java")), out)


class JavaPrograms:
    """The programs, by what they answer; ``classes`` is where ``compile_programs`` put them."""

    def __init__(self, classes: Path) -> None:
        self.classes = classes

    async def partitions(self, keys: list[bytes], counts: list[int]) -> dict[tuple[bytes, int], int]:
        """Where the Java client's partitioner puts each key, by key and number of partitions."""
        rows = await self._keys(keys, counts)
        return {(key, count): place for key, (_, places) in rows.items() for count, place in places.items()}

    async def murmur2(self, keys: list[bytes]) -> dict[bytes, int]:
        """The Java client's hash of each key, unsigned, 32 bits."""
        return {key: value for key, (value, _) in (await self._keys(keys, [])).items()}

    async def read(self, bootstrap: str, topic: str, count: int) -> list[dict[str, Any]]:
        """Read that many records of a topic from its beginning with the plain Java client.

        Returns:
            For each, in the order of reading: topic, partition, offset, timestamp (ms), key, value, and
            headers as [name, value] pairs; bytes as UTF-8 text, absent ones as None.

        Raises:
            EmbeddedError: They have not come within a minute; what the Java client said is in the message.
        """
        arguments = [bootstrap, topic, str(count), str(READ_SECONDS)]
        result = await run_java("ReadRecords", arguments, class_path=[self.classes], timeout_seconds=READ_SECONDS + 30)
        return [json.loads(line) for line in result.stdout.decode().splitlines()]

    async def _keys(self, keys: list[bytes], counts: list[int]) -> dict[bytes, tuple[int, dict[int, int]]]:
        """The hash of each key and its partitions by their number."""
        lines = "".join(f"{key.hex()}\n" for key in keys).encode()
        result = await run_java("Partitions", [str(each) for each in counts], class_path=[self.classes], stdin=lines)
        answers = {}
        for line in result.stdout.decode().splitlines():
            key, value, *places = line.split(",")
            by_count = dict(zip(counts, map(int, places), strict=True))
            answers[bytes.fromhex(key)] = (int(value) & 0xFFFFFFFF, by_count)
        return answers
