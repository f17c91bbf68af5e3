"""``chatapp-bridge redrive``: what was quarantined, through today's decoder; what that understands is published.

    quarantine ─► notes of earlier runs ─► plan ─┬─► (stops)
                                                 └─► --execute: events, a note, the group's offsets, in one transaction

Every run looks at all of the quarantine, so that what failed before is tried again by a better decoder; what was published
before is known by the notes (see markers.py) and left out. The transactional id is the same for all runs: one that starts ends
any other before it looks, so nothing is published twice, however runs die or meet.

With ``--at-least-once`` there is no transaction: the note follows when the events are acknowledged. A run that dies in between
leaves events that the next one publishes again, of one batch at most. Nothing ends another run then.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from bridge import config
from bridge.errors import ReplayError
from bridge.operate import console
from bridge.operate.console import counted
from bridge.operate.progress import Progress
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.reading.reader import Reader
from bridge.operate.redrive.markers import Published, is_note
from bridge.operate.redrive.redecode import Event, Failing, Redecoder
from bridge.operate.redrive.writer import Batch, Writer
from bridge.operate.replay.state import new_run_id

# Of one transaction, records that are looked at and events: so long those who read only what is committed wait for what
# stands behind. Also what is published between two notes, as the events of a record are not divided.
_BATCH_RECORDS: Final = 1_000
_FOR_EVER: Final = -1


def main(options: argparse.Namespace) -> int:
    """Show the plan and, if told to, carry it out. 0: done; 1: it could not go on, or counts don't agree.

    Raises:
        ReplayError: the topics can't be read or written.
        RegistryError: the schema's id can't be had.
    """
    settings = config.load(options.config, assignments=options.set).settings
    run = f"redrive-{new_run_id()}"
    with ClusterInspector(settings.kafka) as inspector:
        largest = _largest_record(settings, inspector)
        redecoder = Redecoder(settings, run, largest)
        # Before anything is looked at: from here on no other run in transactions can publish.
        at_least_once = options.at_least_once
        writer = Writer(settings, run, options.group, largest, at_least_once=at_least_once) if options.execute else None
        redrive = Redrive(settings, inspector, redecoder, options.max_listed)
    plan = redrive.look()
    console.show(*_described(settings, redrive, plan, options.group))
    if writer is not None and at_least_once and redrive.behind:
        raise ReplayError(
            f"{settings.topics.quarantine} has an open transaction, perhaps of a redrive that was cut short: notes behind it "
            "can't be read yet. Nothing was published; try again in a minute"
        )
    if at_least_once and plan.events:
        console.show(_repeats(plan))
    if writer is None:
        nothing = f"nothing was written; --execute publishes {counted(plan.events, 'event')}"
        console.show(nothing if plan.events else "nothing to publish")
        return 0
    done = redrive.publish(writer)
    console.show(*_summary(settings, run, done))
    if (done.looked_at, done.events, done.failing) == (plan.looked_at, plan.events, plan.failing):
        return 0
    planned = f"{plan.events:,} events of {plan.looked_at:,} records, {plan.failing:,} that still fail"
    console.show(f"counts don't agree: the plan was {planned}; see what expired meanwhile, and run it again")
    return 1


class RedriveCounts(msgspec.Struct):
    """What became of the records looked at: each is in exactly one of ``before``, ``published`` and ``failing``.

    ``partly`` of the published ones hold items that still fail; ``events`` is how many events they give, ``most`` how many
    one of them gives at most, ``old`` of them older than the status topic keeps anything. ``reasons`` and ``listed`` are of
    items that still fail.
    """

    before: int = 0
    published: int = 0
    failing: int = 0
    partly: int = 0
    events: int = 0
    old: int = 0
    most: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    listed: list[str] = msgspec.field(default_factory=list)

    @property
    def looked_at(self) -> int:
        """All of them."""
        return self.before + self.published + self.failing


class Redrive:
    """One run over the quarantine as it is now.

    Args:
        settings: the whole configuration.
        inspector: asked at once for where the quarantine begins and ends, and how long events are kept.
        redecoder: today's decoder.
        listed: how many that still fail are listed.

    Attributes:
        ranges: first offset and the one behind the last, by partition.
        behind: offsets that stand behind a transaction which is still open, and are not read.
    """

    def __init__(
        self, settings: config.Settings, inspector: ClusterInspector, redecoder: Redecoder, listed: int
    ) -> None:
        self._settings = settings
        self._topic = settings.topics.quarantine
        inspector.partitions(settings.topics.status)  # to be there, before anything is planned
        self._redecoder = redecoder
        self._listed = listed
        offsets = inspector.offsets(self._topic)
        self.ranges = {p: (each.earliest, each.end) for p, each in offsets.items()}
        self.behind = sum(each.high - each.end for each in offsets.values())
        self._before = {p: Published(settings.topics.status, *ends) for p, ends in self.ranges.items()}
        self._noted = False
        retention_ms = int(inspector.topic_configuration(settings.topics.status).get("retention.ms", _FOR_EVER))
        self._kept_since_ms = 0 if retention_ms == _FOR_EVER else time.time_ns() // 1_000_000 - retention_ms

    def look(self) -> RedriveCounts:
        """What could be done; nothing is written."""
        return self._pass(None)

    def publish(self, writer: Writer) -> RedriveCounts:
        """Do it."""
        counts = self._pass(writer)
        writer.finish({partition: end for partition, (_, end) in self.ranges.items()})
        return counts

    def _read_notes(self) -> None:
        """Notes stand behind what they are about, so they are read first."""
        for messages in self._messages():
            for message in messages:
                headers: Any = message.headers()
                partition: Any = message.partition()
                if is_note(headers) and not self._before[partition].take(message.value()):
                    raise ReplayError(
                        f"{self._topic}[{partition}]@{message.offset()} is a note of a redrive that can't be read, so what was "
                        "published before is not known: was it written by a newer chatapp-bridge? Use that one"
                    )
        self._noted = True

    def _messages(self, counts: RedriveCounts | None = None) -> Iterator[list[Message]]:
        """All of it, from the beginning; how far it is can be seen. ``counts``: where something is published."""
        total, read = sum(end - start for start, end in self.ranges.values()), 0
        with (
            Reader(self._settings.kafka, self._topic, self.ranges, batch_records=_BATCH_RECORDS) as reader,
            Progress(total) as progress,
        ):
            for messages in reader:
                yield messages
                read += len(messages)
                progress.show(read, counts.events if counts else 0, reader.left)

    def _pass(self, writer: Writer | None) -> RedriveCounts:
        if not self._noted:
            self._read_notes()
        counts, began = RedriveCounts(), time.monotonic()
        for messages in self._messages(counts if writer else None):
            batch = Batch()
            for message in messages:
                headers: Any = message.headers()
                if not is_note(headers):
                    self._look_at(message, counts, batch)
                if writer is not None and len(batch.events) >= _BATCH_RECORDS:
                    writer.write(batch)
                    batch = Batch()
            if writer is not None and batch.events:
                writer.write(batch)
        counts.seconds = time.monotonic() - began
        return counts

    def _look_at(self, message: Message, counts: RedriveCounts, batch: Batch) -> None:
        partition: Any = message.partition()
        offset: Any = message.offset()
        before = self._before[partition]
        if offset in before:
            counts.before += 1
            return
        paths = before.paths(offset)
        found = [each for each in self._redecoder.items(message) if each.path not in paths]
        events = [each for each in found if isinstance(each, Event)]
        failing = [each for each in found if isinstance(each, Failing)]
        for each in failing:
            counts.reasons[each.reason] += 1
            if len(counts.listed) < self._listed:
                counts.listed.append(f"{self._topic}[{partition}]@{offset} {each}")
        if events:
            batch.add(message, events, [*paths, *(each.path for each in events)] if failing else None)
            counts.published += 1
            counts.partly += bool(failing)
            counts.events += len(events)
            counts.most = max(counts.most, len(events))
            counts.old += sum(each.record.timestamp_ms < self._kept_since_ms for each in events)
        elif failing:
            counts.failing += 1
        else:
            counts.before += 1


def _largest_record(settings: config.Settings, inspector: ClusterInspector) -> int:
    """Of the status topic, in bytes: what the bridge keeps to, or the topic's own limit where that is lower."""
    limit = inspector.topic_configuration(settings.topics.status).get("max.message.bytes")
    return settings.kafka.max_record_bytes if limit is None else min(settings.kafka.max_record_bytes, int(limit))


# --- saying it --------------------------------------------------------------------------------------------------------


def _described(settings: config.Settings, redrive: Redrive, plan: RedriveCounts, group: str) -> Iterator[str]:
    names = settings.topics
    yield f"redrive {names.quarantine} to {names.status}, as {settings.events.format}; progress: group {group}"
    for partition, (start, end) in sorted(redrive.ranges.items()):
        gone = f"; what was before {start:,} has expired" if start else ""
        yield f"  partition {partition:<4} offsets {start:,} to {end:,}{gone}"
    if redrive.behind:
        yield f"  up to {redrive.behind:,} records stand behind a transaction that is still open, and are left for the next run"
    yield from _counts(plan, "to be published")
    yield from (f"    {line}" for line in plan.listed)
    number = plan.reasons.total()
    if number > len(plan.listed):
        yield f"    … and {number - len(plan.listed):,} more (--max-listed {number})"
    if plan.old:
        yield f"{plan.old:,} of the events are older than {names.status} keeps anything (retention.ms): it may remove them soon"
    if plan.events:
        yield f"it will take about {max(1, round(3 * plan.seconds))} s"


def _repeats(plan: RedriveCounts) -> str:
    events = counted(min(plan.events, _BATCH_RECORDS - 1 + plan.most), "event")
    return (
        f"at least once: if this run is cut short, the next one may publish up to {events} again, with the same ce_id"
    )


def _summary(settings: config.Settings, run: str, done: RedriveCounts) -> Iterator[str]:
    yield f"published {counted(done.events, 'event')} on {settings.topics.status}, marked bridge_redrive = {run}"
    yield from _counts(done, "published")
    parts = f"{done.before:,} before + {done.published:,} published + {done.failing:,} that still fail"
    yield f"{done.looked_at:,} looked at = {parts}"


def _counts(counts: RedriveCounts, published: str) -> Iterator[str]:
    gives = f", which give{'s' * (counts.published == 1)} {counted(counts.events, 'event')}" if counts.published else ""
    partly = f", {counts.partly:,} of them in part" if counts.partly else ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.reasons.most_common())
    yield f"  looked at          {counts.looked_at:>9,} records"
    yield f"  published before   {counts.before:>9,}"
    yield f"  {published:<18} {counts.published:>9,}{gives}{partly}"
    yield f"  still fail         {counts.failing:>9,}{'; items by reason: ' if reasons else ''}{reasons}"
