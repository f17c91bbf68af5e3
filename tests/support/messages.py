"""A consumed message of confluent-kafka's: its own can't be made in Python before 2.10."""

from typing import Any, NamedTuple


class _Fields(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Any
    timestamp: tuple[int, int]


class Message:
    """The methods of ``confluent_kafka.Message`` that a reader asks, of one without an error."""

    def __init__(  # noqa: PLR0917 - as the real one
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Any = None,
        timestamp: tuple[int, int] = (0, 0),
    ) -> None:
        self._fields = _Fields(topic, partition, offset, key, value, headers, timestamp)

    def error(self) -> None:
        """There is none."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._fields, name)
        return lambda: found
