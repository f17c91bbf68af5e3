"""What lanes hold and tell: entries, the callbacks that wait for them, and what all lanes know together."""

from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridge import compiled
from bridge.record import Record

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from bridge.delivery.lane import Lane

# What a record costs in memory beside its key and value: headers, objects.
_RECORD_OVERHEAD_BYTES = 1500


class Outcome(Protocol):
    """What a lane tells of its entries; the delivery counts and answers by it."""

    def safe(self, entry: "LaneEntry") -> None:
        """The entry is stored in the spool, and was not acknowledged by Kafka before."""

    def acknowledged(self, entry: "LaneEntry", topic: str) -> None:
        """Kafka has acknowledged the whole entry, which is safe and published from now on."""

    def not_stored(self, entry: "LaneEntry", error: BaseException) -> None:
        """The spool did not take the entry, and it is not acknowledged."""

    async def give_away(self, entry: "LaneEntry", record: Record, reason: str, *, too_large: bool) -> None:
        """Kafka refuses ``record`` for good; returns when it is kept elsewhere, where it is counted from then on."""

    def damaged(self, reports: int) -> None:
        """So many reports were in the spool, and could not be read back: their rows became dead letters."""


class SchemaIds(Protocol):
    """The ids that a registry has for schemas; records that lack theirs wait until it is known."""

    def start(self) -> None:
        """Begin to look them up, in the background."""

    async def stop(self) -> None:
        """End that."""

    @property
    def ready(self) -> bool:
        """Whether what is encoded now could be sent."""

    def prefix(self, topic: str, schema: bytes) -> bytes | None:
        """What goes before a bare value of ``topic``, by the fingerprint of its schema; None while it is not known."""


class LaneEntry:
    """The records of one callback in one lane; ``reports`` of them count. A row of the spool."""

    __slots__ = (
        "ack",
        "dropped",
        "flying",
        "journalled",
        "published",
        "records",
        "refused",
        "reports",
        "safe",
        "seq",
        "size",
        "spool_at",
        "unsent",
    )  # fmt: skip

    def __init__(self, records: list[Record], ack: "PendingAck | None", spool_at: float) -> None:
        self.records = records
        self.ack = ack
        self.spool_at = spool_at
        self.reports = len(records)
        self.size = size_in_memory(records)
        self.seq = 0
        # records not yet acknowledged, in order
        self.unsent: Sequence[Record] = records
        # in a batch that is on its way
        self.flying = False
        # given to the spool
        self.journalled = False
        # acknowledged or stored: its callback need not wait for it
        self.safe = False
        # acknowledged, the whole of it
        self.published = False
        # its callback was answered 503
        self.refused = False
        # refused and forgotten: won't be sent
        self.dropped = False


class PendingAck:
    """What became of one callback: ``outcome`` is done when it may be answered."""

    __slots__ = (
        "dead_lettered",
        "deadline",
        "entries",
        "on_kafka",
        "open",
        "outcome",
        "published",
        "refused",
        "reports",
        "settled",
    )  # fmt: skip

    def __init__(self, outcome: "asyncio.Future[None]", deadline: float, reports: int) -> None:
        self.outcome = outcome
        self.deadline = deadline
        self.reports = reports
        self.entries: list[tuple[Lane, LaneEntry]] = []
        # entries neither acknowledged nor stored yet
        self.open = 0
        # reports acknowledged before the outcome was known, by topic
        self.published: dict[str, int] = {}
        # dead letters before
        self.dead_lettered = 0
        self.settled = False
        self.refused = False
        # False as soon as something of it was stored in the spool before Kafka acknowledged it
        self.on_kafka = True


def bytes_of_python(records: list[Record]) -> int:
    """Bytes of the keys and values."""
    return sum(len(r.value) + len(r.key or b"") for r in records)


bytes_of = compiled.module.bytes_of if compiled.COMPILED else bytes_of_python
"""The faster of the two."""


def size_in_memory(records: list[Record]) -> int:
    """Bytes that ``records`` are reckoned to take in memory, from above."""
    return bytes_of(records) + _RECORD_OVERHEAD_BYTES * len(records)


class Memory:
    """Bytes that all lanes hold together, as each reckons."""

    def __init__(self) -> None:
        self.bytes = 0


class Taken:
    """When Kafka last accepted a batch of each lane, in the loop's time: tells one refused record from a refusal of everything.

    ``last_refusal`` is the error of the last refused batch of any lane, empty before the first.
    """

    def __init__(self) -> None:
        self._at: dict[int, float] = {}
        self.last_refusal = ""

    def note(self, lane: int, now: float) -> None:
        """A batch of this lane was acknowledged."""
        self._at[lane] = now

    def elsewhere(self, lane: int, since: float) -> bool:
        """Whether one of another lane was, since then."""
        return any(at >= since for other, at in self._at.items() if other != lane)


class Refusal(NamedTuple):
    """What Kafka last refused a lane's batch with."""

    error: str
    #: Wall clock, seconds since the epoch, of the first in a row.
    since: float
