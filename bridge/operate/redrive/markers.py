"""What redrives published: notes that stand in the quarantine itself, in the partition of what they are about, behind it.

A group's offsets can't tell it: Kafka forgets them after a week without a member, and they say how far was looked, not what was
published. A note lives at least as long as the records it is about, since Kafka removes a partition's oldest records first. It
is written in the transaction that publishes, so it is there exactly when the events are.

A note is a record without a key. Headers: ``bridge_redrive`` (the run's id), ``quarantine_reason`` (``redriven``),
``quarantine_detail``, ``content-type``. Value: a JSON object, offsets of its own partition:

    {"topic": "chatapp.status.v1", "published": [[0, 17], [20, 20]], "partly": {"18": ["$[0]", "$[2]"]}}
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from bridge.headers import CONTENT_TYPE, QUARANTINE_DETAIL, QUARANTINE_REASON, REDRIVE
from bridge.operate.reading.select import Headers, header

_REASON: Final = (QUARANTINE_REASON, b"redriven")
_DETAIL: Final = (
    QUARANTINE_DETAIL,
    b"A note of chatapp-bridge redrive: which records before this one were published as events.",
)
_CONTENT_TYPE: Final = (CONTENT_TYPE, b"application/json")


class Note(msgspec.Struct, frozen=True):
    """What went to ``topic``: offsets whose items were all published, first and last of each stretch; of others, which items."""

    topic: str
    published: list[tuple[int, int]]
    partly: dict[int, list[str]]


_decode: Final = msgspec.json.Decoder(Note).decode
_encode: Final = msgspec.json.Encoder().encode


def is_note(headers: Headers | None) -> bool:
    """Whether a record of the quarantine is a note."""
    return header(headers, REDRIVE) is not None


def note_headers(run: str) -> list[tuple[str, bytes]]:
    """The headers of a run's notes."""
    return [(REDRIVE, run.encode()), _REASON, _DETAIL, _CONTENT_TYPE]


def note_value(topic: str, published: Sequence[int], partly: dict[int, list[str]]) -> bytes:
    """The value of a note; ``published`` ascends."""
    return _encode(Note(topic, _stretches(published), partly))


def _stretches(offsets: Sequence[int]) -> list[tuple[int, int]]:
    breaks = [0, *(i for i, (one, two) in enumerate(pairwise(offsets), 1) if two != one + 1), len(offsets)]
    return [(offsets[start], offsets[end - 1]) for start, end in pairwise(breaks) if start < end]


class Published:
    """What of one partition was published: a bit an offset, of a range.

    Args:
        topic: where to.
        start: the first offset that matters.
        end: the one after the last.
    """

    def __init__(self, topic: str, start: int, end: int) -> None:
        self._topic, self._start, self._end = topic, start, end
        self._bits = bytearray((end - start + 7) // 8)
        self._partly: dict[int, set[str]] = {}

    def take(self, value: bytes | None) -> bool:
        """Add what a note says, if it is about this topic; False where it can't be read."""
        try:
            note = _decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        if note.topic != self._topic:
            return True
        for first, last in note.published:
            self.whole(range(max(first, self._start), min(last + 1, self._end)))
        for offset, paths in note.partly.items():
            self._partly.setdefault(offset, set()).update(paths)
        return True

    def whole(self, offsets: Iterable[int]) -> None:
        """These were published."""
        for offset in offsets:
            place = offset - self._start
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, offset: int) -> bool:
        place = offset - self._start
        return bool(self._bits[place >> 3] & (1 << (place & 7)))

    def paths(self, offset: int) -> set[str]:
        """The items of a record that were published while others of it were not."""
        return self._partly.get(offset, set())
