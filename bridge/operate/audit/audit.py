"""``chatapp-bridge audit``: what the topics alone can prove of a stretch of time.

    read ─► index (rows on disk) ─► callbacks that are not whole · events out of order · repeats · foreign records · counts

All records of a callback have the time it was received at, on both topics, so a range of times cuts none in two. What can be
cut is left unjudged: callbacks as old as the oldest record of a partition whose head is gone, and those so young that some of
their records may be on their way.
"""

import argparse
import json
import math
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from bridge import config
from bridge.errors import ConfigurationError, ReplayError
from bridge.headers import CE_TIME, RECEIVED_AT
from bridge.operate import console
from bridge.operate.audit.index import (
    SLOTS_MS,
    AuditIndex,
    Count,
    Disorder,
    ForeignRecord,
    IncompleteCallback,
    Repeats,
    Topic,
)
from bridge.operate.console import time_text
from bridge.operate.progress import Progress
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.reading.reader import Reader

# What people are shown; with more minutes than that, hours, and then days.
_LINES: Final = 60
_TYPE_PREFIX: Final = "chatapp.status."
_STATUSES: Final = ("SENT", "DELIVERED", "READ", "FAILED", "DELETED", "UNKNOWN")
_OUTCOMES: Final = ("repeat", "quarantined", "replayed", "redriven")


def main(options: argparse.Namespace) -> int:
    """Read, judge, print. 0: nothing is wrong; 1: something is.

    Raises:
        ConfigurationError: the range ends before it begins.
        ReplayError: the topics can't be read, or there is no room for the temporary file.
    """
    settings = config.load(options.config, assignments=options.set).settings
    if options.since is not None and options.until is not None and options.since >= options.until:
        raise ConfigurationError(f"--from {time_text(options.since)} is not before --to {time_text(options.until)}")
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-audit-") as directory:
        index = AuditIndex(Path(directory) / "index.sqlite")
        try:
            audit = Audit(settings, options.since, options.until, options.settle_seconds)
            audit.read(index)
            findings = audit.findings(index, options.max_listed)
            slot_ms = _slot_ms(options, index)
            print_ = _print_json if options.format == "json" else _print_text
            print_(findings, index.counts(slot_ms), slot_ms)
        except sqlite3.Error as error:
            raise ReplayError(
                f"the temporary file in {directory}: {error}; TMPDIR names another place for it"
            ) from error
        finally:
            index.close()
    return 1 if findings.wrong else 0


class Findings(msgspec.Struct, frozen=True):
    """What was found. Times are milliseconds since the epoch; lists hold the first of what their numbers count."""

    topics: list[str]
    since_ms: int | None
    until_ms: int | None
    #: Callbacks received between these are judged.
    judged_since_ms: int
    judged_until_ms: int
    records: int
    callbacks: int
    #: Not whole, and to be explained by nothing the topics know.
    not_whole: int
    #: Not whole, but pushed again, and whole then.
    pushed_again: int
    #: Not whole, at an edge, where they can't be judged.
    unjudged: int
    not_whole_list: list[IncompleteCallback]
    ordered_keys: int
    out_of_order: int
    out_of_order_list: list[Disorder]
    repeats: Repeats
    #: Records without the bridge's headers.
    foreign: int
    foreign_list: list[ForeignRecord]
    #: Offsets that expired while they were to be read.
    expired: int
    #: Records of the quarantine that a redrive left there about what it published.
    notes: int

    @property
    def wrong(self) -> bool:
        """Whether anything is."""
        return bool(self.not_whole or self.out_of_order or self.foreign)


class Audit:
    """One audit.

    Args:
        settings: the whole configuration.
        since: of what was received at that time and later; None: from the oldest there is.
        until: of what was received before that; None: now.
        settle_seconds: how old a callback must be to be judged.
    """

    def __init__(self, settings: config.Settings, since: int | None, until: int | None, settle_seconds: float) -> None:
        self._settings = settings
        self._since, self._until = since, until
        self._settle_ms = int(settle_seconds * 1000)
        self._judged_since = 0
        self._expired = 0
        self._others = 0
        self._now_ms = time.time_ns() // 1_000_000

    @property
    def _topics(self) -> dict[Topic, str]:
        names = self._settings.topics
        return {Topic.STATUS: names.status, Topic.QUARANTINE: names.quarantine}

    def read(self, index: AuditIndex) -> None:
        """Every record of the range, of both topics, up to where they end now."""
        ranges, heads = {}, {}
        with ClusterInspector(self._settings.kafka) as inspector:
            for topic, name in self._topics.items():
                offsets = inspector.offsets(name)
                starts: dict[int, int | None] = {partition: each.earliest for partition, each in offsets.items()}
                if self._since is not None:
                    starts = inspector.offsets_at(name, list(offsets), self._since)
                ends = {partition: each.end for partition, each in offsets.items()}
                ranges[topic] = {p: (ends[p] if start is None else start, ends[p]) for p, start in starts.items()}
                # Only where it is read from the very beginning can what was there before be missed.
                heads[topic] = {p for p, each in offsets.items() if 0 < each.earliest == starts[p]}
        left = sum(end - start for each in ranges.values() for start, end in each.values())
        with Progress(left) as progress:
            for topic, name in self._topics.items():
                with Reader(self._settings.kafka, name, ranges[topic]) as reader:
                    left -= reader.left
                    for messages in self._judgeable(reader, heads[topic]):
                        self._take(topic, messages, index)
                        progress.show(index.records + self._others, index.records, left + reader.left)
        index.complete()

    def _judgeable(self, reader: Reader, cut: set[int]) -> Iterator[list[Message]]:
        """What is read; notes from when on it can be judged.

        Args:
            reader: of one topic.
            cut: partitions of which something older than the next record is missing.
        """
        gaps = 0
        for messages in reader:
            for gap in reader.gaps[gaps:]:
                gaps += 1
                cut.add(gap.partition)
                self._expired += gap.end - gap.start
            for message in messages if cut else ():
                partition: Any = message.partition()
                if partition in cut:
                    cut.discard(partition)
                    self._judged_since = max(self._judged_since, received_ms(message) + self._settle_ms)
            yield messages

    def _take(self, topic: Topic, messages: list[Message], index: AuditIndex) -> None:
        """Add what was received in the range."""
        for message in messages:
            time_ms = received_ms(message)
            if (self._since is not None and time_ms < self._since) or (
                self._until is not None and time_ms >= self._until
            ):
                self._others += 1
                continue
            partition: Any = message.partition()
            offset: Any = message.offset()
            headers: Any = message.headers()
            index.add(topic, partition, offset, time_ms, key=message.key(), value=message.value(), headers=headers)

    def findings(self, index: AuditIndex, listed: int) -> Findings:
        """What was read, judged."""
        judged_until = self._now_ms - self._settle_ms
        number: Counter[str] = Counter()
        not_whole: list[IncompleteCallback] = []
        for incomplete in index.incomplete():
            if incomplete.again is not None:
                number["again"] += 1
            elif self._judged_since <= incomplete.time_ms < judged_until or incomplete.contradictory:
                number["not whole"] += 1
                if len(not_whole) < listed:
                    not_whole.append(incomplete)
            else:
                number["unjudged"] += 1
        disorder = index.disorder(self._judged_since)
        out_of_order = list(islice(disorder, listed))
        return Findings(
            topics=list(self._topics.values()),
            since_ms=self._since,
            until_ms=self._until,
            judged_since_ms=self._judged_since,
            judged_until_ms=judged_until,
            records=index.records,
            callbacks=index.callbacks,
            not_whole=number["not whole"],
            pushed_again=number["again"],
            unjudged=number["unjudged"],
            not_whole_list=not_whole,
            ordered_keys=index.ordered_keys(self._judged_since),
            out_of_order=len(out_of_order) + sum(1 for _ in disorder),
            out_of_order_list=out_of_order,
            repeats=index.repeats(),
            foreign=index.foreign_records,
            foreign_list=index.foreign[:listed],
            expired=self._expired,
            notes=index.notes,
        )


def received_ms(message: Message) -> int:
    """When the callback of a record was received: the record's time, unless the broker put its own there."""
    kind, time_ms = message.timestamp()
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        return time_ms  # type: ignore[no-any-return]
    headers: Any = message.headers() or ()
    named = {name: (value or b"").decode(errors="replace") for name, value in headers}
    if (digits := named.get(RECEIVED_AT, "")).isdecimal():
        return int(digits)
    try:
        return math.floor(datetime.fromisoformat(named.get(CE_TIME, "")).timestamp() * 1000 + 0.5)
    except ValueError:
        return time_ms  # type: ignore[no-any-return]


# --- saying it --------------------------------------------------------------------------------------------------------


def _slot_ms(options: argparse.Namespace, index: AuditIndex) -> int:
    if options.bucket:
        return SLOTS_MS[options.bucket]
    if options.format == "text":
        for slot_ms in SLOTS_MS.values():
            if index.slots(slot_ms) <= _LINES:
                return slot_ms
        return SLOTS_MS["day"]
    return SLOTS_MS["minute"]


def _word(count: Count) -> str:
    """A status, or a reason."""
    return count.word.removeprefix(_TYPE_PREFIX).upper() if count.word.startswith(_TYPE_PREFIX) else count.word


def _print_json(findings: Findings, counts: Iterator[Count], slot_ms: int) -> None:
    found = msgspec.to_builtins(findings) | {"wrong": findings.wrong, "slot_seconds": slot_ms // 1000}
    found["counts"] = [{**msgspec.to_builtins(count), "word": _word(count)} for count in counts]
    console.show(json.dumps(found))


def _print_text(findings: Findings, counts: Iterator[Count], slot_ms: int) -> None:
    console.show(*_summary(findings), "", *_table(counts, slot_ms), "", *_faults(findings))


def _summary(found: Findings) -> Iterator[str]:
    since = "the oldest there is" if found.since_ms is None else time_text(found.since_ms)
    until = "now" if found.until_ms is None else time_text(found.until_ms)
    yield f"{' and '.join(found.topics)}, received from {since} to {until}"
    judged = f"before {time_text(found.judged_until_ms)}"
    if found.judged_since_ms:
        judged = f"from {time_text(found.judged_since_ms)}, as older records are gone, and {judged}"
    whole = found.callbacks - found.not_whole - found.pushed_again - found.unjudged
    repeats = found.repeats
    own = repeats.events - repeats.pushed_again
    rows = {
        "records": f"{found.records:,}",
        "judged": f"what was received {judged}",
        "callbacks": f"{found.callbacks:,}: {whole:,} whole, {found.pushed_again:,} not whole but pushed again and whole then, "
        f"{found.unjudged:,} not whole at an edge, {found.not_whole:,} not whole",
        "order": f"{found.ordered_keys:,} keys with several events of one process; {found.out_of_order:,} events out of order",
        "events": f"{repeats.distinct:,} different",
        "repeats": f"{repeats.records:,} records of {repeats.events:,} events: {repeats.pushed_again:,} were pushed again, "
        f"{own:,} published again by the bridge",
        "foreign": f"{found.foreign:,} records without the headers of the bridge",
    }
    if found.notes:
        rows["notes"] = f"{found.notes:,} of redrives, in the quarantine"
    if found.expired:
        rows["expired"] = f"{found.expired:,} offsets, while they were to be read"
    yield from (f"  {name:<10} {text}" for name, text in rows.items())


def _table(counts: Iterator[Count], slot_ms: int) -> Iterator[str]:
    slots: dict[int, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for count in counts:
        name = _word(count) if count.outcome == "event" else count.outcome
        slots.setdefault(count.time_ms, Counter())[name] += count.records
        if count.outcome == "quarantined":
            reasons[count.word] += count.records
    total = sum(slots.values(), Counter())
    columns = [*_STATUSES, *sorted(set(total) - {*_STATUSES, *_OUTCOMES}), *_OUTCOMES]
    columns = [column for column in columns if total[column]]
    slot = next(name for name, ms in SLOTS_MS.items() if ms == slot_ms)
    body = [(time_text(at), slots[at]) for at in sorted(slots)]
    rows = [[name, *(f"{records[column]:,}" for column in columns)] for name, records in [*body, ("all", total)]]
    yield from console.table([[f"{slot:<20}", *columns], *rows], indent="", to_the_left=lambda column, _: column == 0)
    if reasons:
        yield "quarantined: " + ", ".join(f"{reason} {number:,}" for reason, number in reasons.most_common())


def _faults(found: Findings) -> Iterator[str]:
    if not found.wrong:
        yield "nothing is wrong"
        return
    for incomplete in found.not_whole_list:
        missing = f"{incomplete.found} of {incomplete.total} records are there"
        how = "its records contradict each other" if incomplete.contradictory else missing
        yield f"not whole: callback {incomplete.callback}, received {time_text(incomplete.time_ms)}: {how}"
    yield from _more(found.not_whole, len(found.not_whole_list))
    for each in found.out_of_order_list:
        yield (
            f"out of order: {found.topics[0]}[{each.partition}]@{each.offset}, place {each.position} of callback "
            f"{each.callback}, stands behind @{each.behind_offset}, place {each.behind_position} of {each.behind_callback}"
        )
    yield from _more(found.out_of_order, len(found.out_of_order_list))
    for foreign in found.foreign_list:
        name = found.topics[Topic[foreign.topic.upper()]]
        yield f"not the bridge's: {name}[{foreign.partition}]@{foreign.offset} lacks its headers"
    yield from _more(found.foreign, len(found.foreign_list))
    if found.not_whole:
        yield (
            "a callback that is not whole was never answered 200, or waits in part in a spool (chatapp-bridge spool show), "
            "or was lost: see docs/replay.md"
        )
    yield "something is wrong"


def _more(number: int, listed: int) -> Iterator[str]:
    if number > listed:
        yield f"  … and {number - listed:,} more (--max-listed {number})"
