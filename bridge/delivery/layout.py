"""Which lanes there are, how they are numbered, and which of them a record belongs to.

A spool keeps the layout its rows were written with, as the text of a JSON array of topics and their numbers of lanes.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from bridge import compiled
from bridge.kafka.partition import partition_for
from bridge.record import Record

LAYOUT_KEY: Final = "lanes"
"""Where a spool's ``meta`` has the layout."""
_BASE: Final = 1 << 16


class Layout:
    """Topics and their numbers of lanes, in the order of the lanes' numbers."""

    def __init__(self, topics: list[tuple[str, int]]) -> None:
        self.topics = topics

    @classmethod
    def parse(cls, text: str | None) -> "Layout":
        """As a spool's ``meta`` has it; empty where it has none."""
        return cls(msgspec.json.decode(text or "[]", type=list[tuple[str, int]]))

    @property
    def text(self) -> str:
        """For a spool's ``meta``."""
        return msgspec.json.encode(self.topics).decode()

    def number_of(self, topic: str, index: int) -> int:
        """The number, in the spool, of a topic's lane; those of one topic never meet those of another."""
        return [name for name, _ in self.topics].index(topic) * _BASE + index

    def name_of(self, number: int) -> tuple[str, int]:
        """A lane's topic (``?`` where it is not known) and its number among the topic's."""
        base, index = divmod(number, _BASE)
        return (self.topics[base][0] if base < len(self.topics) else "?"), index

    def lanes_of(self, topic: str) -> int:
        """A topic's number of lanes; 0 where it is not in the layout."""
        return dict(self.topics).get(topic, 0)


def placed(record: Record, of: int) -> int:
    """Which of so many lanes, or partitions, the record belongs to: Java's, where there is a key.

    A record without a key has no order to keep; its value decides, so that a retry goes to the same place.
    """
    return partition_for(record.key if record.key is not None else record.value[:64], of)


_Lane = TypeVar("_Lane")


def by_lane_python(records: Sequence[Record], lanes: dict[str, list[_Lane]]) -> dict[_Lane, list[Record]]:
    """The records of each lane, in their order; ``lanes`` are those of each topic."""
    chosen: dict[_Lane, list[Record]] = {}
    for record in records:
        of_topic = lanes[record.topic]
        chosen.setdefault(of_topic[placed(record, len(of_topic))], []).append(record)
    return chosen


by_lane = compiled.module.by_lane if compiled.COMPILED else by_lane_python
"""The faster of the two."""
