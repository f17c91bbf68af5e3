"""What to read: bounds by offset or by time, and filters.

The parsers are types for argparse: what they can't read ends the command with exit code 2 and words.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from bridge.config import Topics
from bridge.headers import CE_TYPE, QUARANTINE_REASON
from bridge.operate.console import time_text
from bridge.report.symbols import ErrorCategory, Status

Headers = Sequence[tuple[str, bytes | None]]
Predicate = Callable[[bytes | None, Headers | None, bytes | None], bool]
"""Key, headers, value of a record: whether it is wanted. Headers are None where a record has none."""

EARLIEST: Final = "earliest"
LATEST: Final = "latest"

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_AGO: Final = re.compile(r"-((?:\d+[smhdw])+)", re.ASCII)
_OFFSETS: Final = re.compile(r"\d+|\d+:\d+(?:,\d+:\d+)*", re.ASCII)
# An offset as large as the milliseconds since the epoch is none.
_LEAST_EPOCH_MS: Final = 10**12
_WANTED: Final = (
    "2023-08-03T06:20:38Z or with +08:00, -6h (s, m, h, d, w), now, "
    "earliest, latest, an offset such as 1200, or 3:1200 for partition 3 alone"
)


# --- bounds -----------------------------------------------------------------------------------------------------------


class Bound(msgspec.Struct, frozen=True):
    """One end of a range; exactly one of the three is there.

    ``offsets`` by partition, under None for all of them; ``time_ms`` since the epoch; ``edge``: the oldest there is, or the end.
    """

    text: str
    offsets: dict[int | None, int] | None = None
    time_ms: int | None = None
    edge: str | None = None

    @property
    def partitions(self) -> set[int] | None:
        """The partitions it names; None where it speaks of all."""
        return {p for p in self.offsets if p is not None} or None if self.offsets else None

    def __str__(self) -> str:
        if self.time_ms is None:
            return self.text
        shown = time_text(self.time_ms)
        return shown if re.match(r"\d{4}-", self.text) and self.text.endswith("Z") else f"{shown} ({self.text})"


def parse_bound(text: str, now_ms: int | None = None) -> Bound:
    """An end of a range, as it is typed: an offset, offsets by partition, a time, ``earliest`` or ``latest``.

    Raises:
        argparse.ArgumentTypeError: it is none of these, or a time whose zone nobody knows.
    """
    text = text.strip()
    if text in {EARLIEST, LATEST}:
        return Bound(text, edge=text)
    if _OFFSETS.fullmatch(text):
        return Bound(text, offsets=_offsets(text))
    return Bound(text, time_ms=parse_time(text, now_ms))


def _offsets(text: str) -> dict[int | None, int]:
    if ":" not in text:
        if int(text) >= _LEAST_EPOCH_MS:
            raise argparse.ArgumentTypeError(
                f"{text} is no offset; if it means milliseconds since the epoch, write {time_text(int(text))}"
            )
        return {None: int(text)}
    pairs = [tuple(map(int, part.split(":"))) for part in text.split(",")]
    found: dict[int | None, int] = dict(pairs)  # type: ignore[arg-type]  # pairs of two by the pattern
    if len(found) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text} names a partition twice; one offset each")
    return found


def parse_time(text: str, now_ms: int | None = None) -> int:
    """A time, in milliseconds since the epoch: ISO 8601 with its zone, so long ago (``-6h``, ``-1d12h``), or ``now``.

    Raises:
        argparse.ArgumentTypeError: it is none of these, or its zone is missing.
    """
    text = text.strip()
    now_ms = _now_ms() if now_ms is None else now_ms
    if text == "now":
        return now_ms
    if match := _AGO.fullmatch(text):
        parts = re.findall(r"(\d+)([smhdw])", match[1])
        return max(0, now_ms - sum(int(count) * _UNITS_MS[unit] for count, unit in parts))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an offset nor a time; write {_WANTED}") from None
    if moment.tzinfo is None:
        day = moment.isoformat(timespec="seconds")
        raise argparse.ArgumentTypeError(
            f"{text!r} has no zone, so it could mean times a day apart; write {day}Z for UTC, or {day}+08:00"
        )
    return max(0, round((moment - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000))


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def topic_named(name: str | None, topics: Topics) -> str:
    """The topic that ``--topic`` means: ``status``, ``quarantine``, or one by its own name."""
    return {None: topics.status, "status": topics.status, "quarantine": topics.quarantine}.get(name) or str(name)


def take_times(parser: argparse.ArgumentParser) -> None:
    """Let ``--from -6h`` be a value, as ``--from -6`` is: argparse takes what begins with a minus for an option."""
    parser._negative_number_matcher = re.compile(r"-\d")  # noqa: SLF001 - no other way


# --- filters ----------------------------------------------------------------------------------------------------------


class Decode(Protocol):
    """Turns a value into an event: a mapping of its fields, or an object that has them; None where it can't be read as one."""

    def __call__(self, value: bytes | None, headers: Headers | None, /) -> Any:
        """Never raises for what is in the value."""


class _Fields(msgspec.Struct):
    """What filters look at."""

    status: Any = None
    error_category: Any = None
    template_code: Any = None
    template_name: Any = None
    sender: Any = None


class Filters(msgspec.Struct, frozen=True):
    """What a record must have: one of each kind that is given."""

    keys: frozenset[bytes] = frozenset()
    statuses: frozenset[str] = frozenset()
    error_categories: frozenset[str] = frozenset()
    templates: frozenset[str] = frozenset()
    senders: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return any((self.keys, *self._by_event, self.reasons))

    @property
    def _by_event(self) -> tuple[frozenset[str], ...]:
        return (self.statuses, self.error_categories, self.templates, self.senders)

    @property
    def need_an_event(self) -> bool:
        """Whether only events can pass: what is quarantined has no status, sender or template."""
        return any(self._by_event)

    def __str__(self) -> str:
        named = {
            "key": {key.decode(errors="replace") for key in self.keys},
            "status": self.statuses,
            "error category": self.error_categories,
            "template": self.templates,
            "sender": self.senders,
            "reason": self.reasons,
        }
        return "; ".join(f"{name} {' or '.join(sorted(values))}" for name, values in named.items() if values)

    def predicate(self, decode: Decode | None = None) -> Predicate:
        """A test of a record's key, headers and value; the value is decoded only where the others don't decide.

        Args:
            decode: reads values that are no JSON as well; without it, only JSON.
        """
        read: Decode = decode or json_fields
        of_event = bool(self.error_categories or self.templates or self.senders)
        types = {b"chatapp.status." + status.lower().encode() for status in self.statuses}

        def wanted(key: bytes | None, headers: Headers | None, value: bytes | None) -> bool:
            if self.keys and key not in self.keys:
                return False
            if (
                self.reasons
                and (header(headers, QUARANTINE_REASON) or b"").decode(errors="replace") not in self.reasons
            ):
                return False
            undecided = of_event
            if types:
                kind = header(headers, CE_TYPE)
                if kind is None:
                    undecided = True
                elif kind not in types:
                    return False
            return not undecided or self._admits(read(value, headers))

        return wanted

    def _admits(self, event: Any) -> bool:
        if event is None:
            return False
        get = event.get if isinstance(event, Mapping) else partial(getattr, event)
        return (
            (not self.statuses or get("status") in self.statuses)
            and (not self.error_categories or get("error_category") in self.error_categories)
            and (not self.senders or get("sender") in self.senders)
            and (not self.templates or get("template_code") in self.templates or get("template_name") in self.templates)
        )


_fields: Final = msgspec.json.Decoder(_Fields)


def json_fields(value: bytes | None, _headers: Headers | None = None, /) -> Any:
    """What filters look at, of a JSON value; None where it is none."""
    try:
        return _fields.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def header(headers: Headers | None, name: str) -> bytes | None:
    """A header's value; of one that is there more than once, the last, as Kafka's clients have it."""
    for known, value in reversed(headers or ()):
        if known == name:
            return value
    return None


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the filters, the same wherever records are chosen; read them with :func:`filters_of`."""
    group = parser.add_argument_group(
        "filters",
        "each may be given more than once, or with commas: one of its values must fit; of different ones all must",
    )
    group.add_argument("--key", action="append", default=[], metavar="KEY", help="the record's key: the MessageId")
    group.add_argument(
        "--status", action="append", default=[], type=_one_of(Status), metavar="STATUS", help=_names(Status)
    )
    group.add_argument(
        "--error-category",
        action="append",
        default=[],
        type=_one_of(ErrorCategory),
        metavar="CATEGORY",
        help=_names(ErrorCategory),
    )
    group.add_argument(
        "--template", action="append", default=[], metavar="TEMPLATE", help="template_code or template_name"
    )
    group.add_argument(
        "--sender", action="append", default=[], metavar="SENDER", help="the number or id it was sent from"
    )
    group.add_argument(
        "--reason",
        action="append",
        default=[],
        metavar="REASON",
        help="of the quarantine: the header quarantine_reason",
    )


def filters_of(options: argparse.Namespace) -> Filters:
    """The filters that were given."""
    return Filters(
        # A key may hold a comma; it is taken as it stands.
        keys=frozenset(key.encode() for key in options.key),
        statuses=frozenset(value for values in options.status for value in values),
        error_categories=frozenset(value for values in options.error_category for value in values),
        templates=frozenset(options.template),
        senders=frozenset(options.sender),
        reasons=frozenset(value for text in options.reason for value in text.split(",")),
    )


def _one_of(names: type[StrEnum]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        values = [part.strip().upper().replace("-", "_") for part in text.split(",") if part.strip()]
        for value in values:
            if value not in names.__members__:
                raise argparse.ArgumentTypeError(f"{value} is none of {_names(names)}")
        return values

    return parse


def _names(names: type[StrEnum]) -> str:
    return ", ".join(name.value for name in names)
