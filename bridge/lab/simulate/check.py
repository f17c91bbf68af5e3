"""The ledger against what a consumer read: was anything lost, invented, or put out of order?

What is required follows from what was answered, nothing else:

* Every report of a push that was answered 200, in time or late, at whichever attempt, is on its topic: an
  event with its id, or a quarantined record with its raw bytes. One never answered 200 may be there or not.
* Nothing is there that was never pushed, and each event has the key it was pushed with, in one partition.
* For each key, first occurrences stand in the order received, wherever that order is known: an event promised
  before another was sent at all stands before it, and so does an event before those behind it in the same
  push, unless another push may have brought those first. Repeats may stand anywhere.

Pure functions over structs.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bridge.lab.simulate.ledger import Entry

if TYPE_CHECKING:
    from bridge.lab.simulate.push import Report

_SHOWN = 10


class Consumed(NamedTuple):
    """A record of the status topic: ``event_id`` as its value or header gives it, ``key`` as text."""

    event_id: str
    key: str
    partition: int
    offset: int


class Damage(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    ``kind`` is stable; ``detail`` is for people, without telephone numbers. ``lost`` and ``lost quarantined``
    are promised and absent, ``invented`` and ``invented quarantined`` were never pushed. A ``wrong key`` is
    not the MessageId it was pushed with; a ``split key`` is in several partitions; then ``out of order``.
    """

    kind: str
    detail: str


class CheckResult(msgspec.Struct, frozen=True):
    """What was found. ``ordered_keys`` counts the keys of which a part of the order was known and checked.

    ``promised`` and ``found`` count distinct events and quarantined records; ``unpromised`` is how many of
    those found were in pushes never answered 200; ``repeats`` is how many records were more than one was
    needed.
    """

    pushes: int
    promised: int
    found: int
    unpromised: int
    repeats: int
    ordered_keys: int
    damages: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages

    def describe(self) -> str:
        """A text for people, with the first of each kind of damage."""
        lines = [
            f"{self.pushes} pushes: {self.promised} promised by a 200",
            f"{self.found} found, {self.unpromised} of them without a promise, and {self.repeats} repeats",
            f"order checked for {self.ordered_keys} keys",
        ]
        kinds = Counter(damage.kind for damage in self.damages)
        for kind, count in kinds.items():
            lines.append(f"{kind.upper()}: {count}")
            details = [damage.detail for damage in self.damages if damage.kind == kind]
            lines += [f"  {detail}" for detail in details[:_SHOWN]]
            if count > _SHOWN:
                lines.append(f"  … and {count - _SHOWN} more")
        lines.append("ok" if self.ok else "NOT OK")
        return "\n".join(lines)


class _Fact:
    """An event or a quarantined record that was pushed, over all pushes with it."""

    __slots__ = ("entries", "key", "promised_at", "sent_at", "status")

    def __init__(self, key: str, status: str) -> None:
        self.key = key
        self.status = status
        self.entries: list[Entry] = []
        self.sent_at = math.inf
        self.promised_at = math.inf

    def pushed_in(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.sent_at = min(self.sent_at, entry.sent_at)
        self.promised_at = min(self.promised_at, entry.promised_at)


def check(
    entries: Iterable[Entry],
    statuses: Iterable[tuple[str, str, int, int]],
    quarantined: Iterable[str],
    *,
    ordered: bool = True,
) -> CheckResult:
    """Compare.

    ``entries``: ``ledger.entries.values()``, of several ledgers of one machine too. ``statuses``:
    ``Consumed`` or such tuples, in any order. ``quarantined``: the SHA-256 (hex) of each quarantined record's
    value. ``ordered=False`` leaves the order out: between several replicas none is promised.
    """
    entries = list(entries)
    events, raws = _pushed(entries)
    records = [Consumed(*record) for record in statuses]
    hashes = Counter(quarantined)
    seen = Counter(record.event_id for record in records)
    damages = [
        *_lost(events, raws, seen, hashes),
        *_invented(events, raws, records, hashes),
        *_keys(events, records),
    ]
    ordered_keys = 0
    if ordered:
        first = _first_occurrences(events, records)
        ordered_keys, out_of_order = _order(entries, events, first)
        damages += out_of_order
    facts = [events[event] for event in seen if event in events] + [raws[raw] for raw in hashes if raw in raws]
    return CheckResult(
        pushes=len(entries),
        promised=sum(fact.promised_at < math.inf for known in (events, raws) for fact in known.values()),
        found=len(facts),
        unpromised=sum(fact.promised_at == math.inf for fact in facts),
        repeats=seen.total() - len(seen) + hashes.total() - len(hashes),
        ordered_keys=ordered_keys,
        damages=tuple(damages),
    )


def _pushed(entries: list[Entry]) -> tuple[dict[str, _Fact], dict[str, _Fact]]:
    """All that was pushed: by event id, and by raw hash."""
    events: dict[str, _Fact] = {}
    raws: dict[str, _Fact] = {}
    for entry in entries:
        for report in entry.reports:
            known, identity = (raws, report.raw_sha256) if report.event_id is None else (events, report.event_id)
            if identity is None:
                raise ValueError(f"push {entry.number} has a report with neither an event id nor a raw hash")
            fact = known.get(identity)
            if fact is None:
                fact = known[identity] = _Fact(report.message_id, report.status)
            fact.pushed_in(entry)
    return events, raws


def _lost(
    events: dict[str, _Fact], raws: dict[str, _Fact], seen: Counter[str], hashes: Counter[str]
) -> Iterable[Damage]:
    for event, fact in events.items():
        if fact.promised_at < math.inf and event not in seen:
            where = ", ".join(str(entry.number) for entry in fact.entries)
            yield Damage("lost", f"event {event} ({fact.status} of message {fact.key}), push {where}")
    for raw, fact in raws.items():
        if fact.promised_at < math.inf and raw not in hashes:
            where = ", ".join(str(entry.number) for entry in fact.entries)
            yield Damage("lost quarantined", f"raw bytes of SHA-256 {raw}, push {where}")


def _invented(
    events: dict[str, _Fact], raws: dict[str, _Fact], records: list[Consumed], hashes: Counter[str]
) -> Iterable[Damage]:
    for record in records:
        if record.event_id not in events:
            where = f"partition {record.partition}, offset {record.offset}"
            yield Damage("invented", f"event {record.event_id} with key {record.key}, {where}")
    for raw in hashes:
        if raw not in raws:
            yield Damage("invented quarantined", f"raw bytes of SHA-256 {raw}")


def _keys(events: dict[str, _Fact], records: list[Consumed]) -> Iterable[Damage]:
    partitions: defaultdict[str, set[int]] = defaultdict(set)
    for record in records:
        fact = events.get(record.event_id)
        if fact is not None and fact.key != record.key:
            yield Damage("wrong key", f"event {record.event_id} of message {fact.key} has key {record.key}")
        partitions[record.key].add(record.partition)
    for key, used in partitions.items():
        if len(used) > 1:
            yield Damage("split key", f"key {key} is in partitions {sorted(used)}")


def _first_occurrences(events: dict[str, _Fact], records: list[Consumed]) -> dict[str, dict[str, int]]:
    """For each key, its events in the order of their first occurrence, each with its position there.

    Keys with too little to compare are left out, and those split over partitions, which is a damage of its
    own.
    """
    by_key: defaultdict[str, list[Consumed]] = defaultdict(list)
    for record in records:
        if record.event_id in events:
            by_key[record.key].append(record)
    first: dict[str, dict[str, int]] = {}
    for key, of_key in by_key.items():
        if len({record.partition for record in of_key}) > 1:
            continue
        in_order = dict.fromkeys(record.event_id for record in sorted(of_key, key=lambda record: record.offset))
        if len(in_order) > 1:
            first[key] = {event: position for position, event in enumerate(in_order)}
    return first


def _order(
    entries: list[Entry], events: dict[str, _Fact], first: dict[str, dict[str, int]]
) -> tuple[int, list[Damage]]:
    """How many keys had an order to check, and where it was broken."""
    damages: list[Damage] = []
    checked: set[str] = set()
    for key, positions in first.items():
        checked |= {key} if _between_pushes(key, list(positions), events, damages) else set()
    for entry in entries:
        if entry.promised_at < math.inf:
            checked |= _within_push(entry, events, first, damages)
    return len(checked), damages


def _between_pushes(key: str, in_order: list[str], events: dict[str, _Fact], damages: list[Damage]) -> bool:
    """Of one key: an event promised before another was first sent has to stand before it."""
    facts = [events[event] for event in in_order]
    latest, latest_sent = 0, -math.inf
    for position, fact in enumerate(facts):
        if fact.promised_at < latest_sent:
            damages.append(_out_of_order(key, in_order[position], in_order[latest], "was promised before it was sent"))
        if fact.sent_at > latest_sent:
            latest, latest_sent = position, fact.sent_at
    return min(fact.promised_at for fact in facts) < latest_sent


def _within_push(
    entry: Entry, events: dict[str, _Fact], first: dict[str, dict[str, int]], damages: list[Damage]
) -> set[str]:
    """Events of one key in one push keep their order, unless another may have brought the later one."""
    checked: set[str] = set()
    last: dict[str, str] = {}
    # Only first occurrences have an order to keep: of a push that repeats itself, the later ones do not count.
    firsts: dict[str | None, Report] = {}
    for report in entry.reports:
        firsts.setdefault(report.event_id, report)
    for report in firsts.values():
        event = report.event_id
        positions = first.get(report.message_id)
        if event is None or positions is None or event not in positions:
            continue
        fact, before = events[event], last.get(report.message_id)
        if before is None:
            last[report.message_id] = event
        elif before != event and all(e is entry or e.sent_at > entry.promised_at for e in fact.entries):
            checked.add(report.message_id)
            if positions[event] < positions[before]:
                damages.append(_out_of_order(report.message_id, before, event, "stood before it in one push"))
            else:
                last[report.message_id] = event
        elif positions[event] > positions[before]:
            last[report.message_id] = event
    return checked


def _out_of_order(key: str, earlier: str, later: str, why: str) -> Damage:
    return Damage("out of order", f"key {key}: event {earlier} {why}, and stands behind event {later}")
