"""What a run is and how far it came: what a checkpoint beside a file holds, and what a group's offsets carry on Kafka."""

import secrets
import time
from typing import Any, Final

import msgspec
from confluent_kafka import TopicPartition

from bridge.errors import ReplayError
from bridge.operate.reading.select import Filters

# What brokers take of an offset's metadata unless told otherwise (offset.metadata.max.bytes).
_METADATA_BYTES: Final = 4096


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for, once and for all.

    ``from_ms`` and ``to_ms`` are the times that a record's timestamp must lie in, the first included and the last not; None where
    that side was not given as a time. ``asked`` holds the options as they were typed. ``file`` or ``target`` names the
    destination, where there is one.
    """

    id: str
    topic: str
    made_at_ms: int
    from_ms: int | None = None
    to_ms: int | None = None
    filters: Filters = Filters()
    asked: dict[str, Any] = {}
    file: str | None = None
    target: str | None = None

    @property
    def at_least_once(self) -> bool:
        """Whether it writes without transactions."""
        return bool(self.asked.get("at_least_once"))


class State(msgspec.Struct, kw_only=True):
    """How far a run came.

    ``ranges``: by partition, the first offset and the one after the last. ``positions``: the offset to go on from.
    ``read``, ``written``, ``undecodable``: records.
    """

    run: Run
    ranges: dict[int, tuple[int, int]]
    positions: dict[int, int]
    read: int = 0
    written: int = 0
    undecodable: int = 0

    @property
    def total(self) -> int:
        """Offsets in all ranges."""
        return sum(end - start for start, end in self.ranges.values())

    @property
    def left(self) -> int:
        """Offsets still to be read."""
        return sum(self.ranges[partition][1] - position for partition, position in self.positions.items())

    @property
    def is_sound(self) -> bool:
        """Whether each partition is where its range can have it."""
        return self.positions.keys() == self.ranges.keys() and all(
            start <= self.positions[partition] <= end for partition, (start, end) in self.ranges.items()
        )

    @property
    def rest(self) -> dict[int, tuple[int, int]]:
        """What is still to be read, by partition."""
        return {partition: (position, self.ranges[partition][1]) for partition, position in self.positions.items()}


def group_of(client_id: str, run_id: str) -> str:
    """The consumer group whose offsets are the progress of a run into a topic; its transactional id as well."""
    return f"{client_id}-replay-{run_id}"


def new_run_id() -> str:
    """Sorts by time, and is not given twice: ``20260101T120000Z-3f9a1c``."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


# --- as the offsets of a group ----------------------------------------------------------------------------------------


class _Metadata(msgspec.Struct, omit_defaults=True):
    """Of one partition; what is the run's own is the same in each."""

    run: Run
    start: int
    end: int
    read: int = 0
    written: int = 0


def to_offsets(state: State) -> list[TopicPartition]:
    """Offsets to commit, which carry all of the state.

    Raises:
        ReplayError: what was asked for is too long for that.
    """
    offsets = []
    for partition, position in state.positions.items():
        metadata = _Metadata(state.run, *state.ranges[partition], state.read, state.written)
        text = msgspec.json.encode(metadata).decode()
        if len(text) > _METADATA_BYTES:
            raise ReplayError(
                "there are more filters than a run on Kafka can keep with its offsets; divide it into several runs"
            )
        offsets.append(TopicPartition(state.run.topic, partition, position, text))
    return offsets


def from_offsets(offsets: list[TopicPartition]) -> State:
    """The state that committed offsets carry.

    Raises:
        ReplayError: they are not those of a run.
    """
    try:
        found = {place.partition: msgspec.json.decode(place.metadata or "", type=_Metadata) for place in offsets}
    except msgspec.DecodeError as error:
        raise ReplayError(f"the group's offsets are not those of a replay: {error}") from error
    one = next(iter(found.values()))
    return State(
        run=one.run,
        ranges={partition: (each.start, each.end) for partition, each in found.items()},
        positions={place.partition: place.offset for place in offsets},
        read=one.read,
        written=one.written,
    )
