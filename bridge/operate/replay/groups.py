"""``chatapp-bridge replay groups``: how far a team's consumer group is, and moving it, with a way back.

A group is moved only while nobody is in it, and what it had is on disk before anything is changed.
"""

import argparse
import json
import os
import shlex
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from bridge import config
from bridge.errors import BridgeError, ConfigurationError, ReplayError
from bridge.operate import console
from bridge.operate.console import counted, table, time_text
from bridge.operate.reading.errors import in_words
from bridge.operate.reading.inspector import ClusterInspector, PartitionOffsets
from bridge.operate.reading.reader import first_times
from bridge.operate.reading.select import Bound, topic_named

_EMPTY: Final = frozenset({ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD})
_IN_USE: Final = frozenset(
    {
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)
Offsets = dict[int, int]


class Saved(msgspec.Struct, kw_only=True):
    """What a reset saves: the offsets the group had in a topic; null where it had none.

    ``others``: what it had in other topics, which a reset leaves; the group may have to be made anew for it.
    """

    group: str
    topic: str
    saved_at: str
    offsets: dict[int, int | None]
    others: dict[str, Offsets] = {}


class _Group:
    """A group as it is now.

    ``state``: Kafka's word. ``members``: who is in it, None where Kafka does not say. ``committed``: offsets by topic and
    partition.
    """

    def __init__(self, inspector: ClusterInspector, group: str) -> None:
        self.id = group
        self._inspector = inspector
        described = inspector.until_answered(self._describe, f"asking about group {group}")
        self.state: Any = described.state
        self.members: Sequence[Any] | None = described.members
        self._type = ConsumerGroupType.CLASSIC
        if self.state == ConsumerGroupState.DEAD:
            # The client describes groups of the classic protocol alone; all others are dead to it.
            listed = inspector.until_answered(self._listed, f"asking for the list of groups, for {group}")
            if listed is None:
                inspector.until_answered(self._refuse_other_kinds, f"asking which kind of group {group} is")
            elif listed.type != ConsumerGroupType.CLASSIC:
                self.state, self._type = listed.state, listed.type
                self.members = [] if listed.state in _EMPTY else None
        self.committed: dict[str, Offsets] = {}
        for place in inspector.group_offsets(group):
            if place.offset >= 0:
                self.committed.setdefault(place.topic, {})[place.partition] = place.offset

    def _describe(self) -> Any:
        (future,) = self._inspector.admin.describe_consumer_groups(
            [self.id], request_timeout=self._inspector.request_seconds
        ).values()
        try:
            return future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError._INVALID_ARG:  # noqa: SLF001 - its public codes
                self._refuse_other_kinds()
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            return argparse.Namespace(state=ConsumerGroupState.DEAD, members=[])

    def _listed(self) -> Any:
        """What the list of groups says of it, which has its state and its type; None where it is not in the list."""
        found = self._inspector.admin.list_consumer_groups(request_timeout=self._inspector.request_seconds).result()
        for listed in found.valid:
            if listed.group_id == self.id:
                return listed
        if found.errors:  # of a broker, on which it may be
            raise found.errors[0]
        return None

    def _refuse_other_kinds(self) -> None:
        """Refuse a group that is there, and is in no list of consumer groups: of Kafka Connect, share groups and others.

        Raises:
            ReplayError: it is of another kind; names that where Kafka does.
        """
        with warnings.catch_warnings():
            # The newer questions know consumer groups alone.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = self._inspector.admin.list_groups(self.id, timeout=self._inspector.request_seconds)
        if found:
            kind = f"its protocol is {found[0].protocol_type}" if found[0].protocol_type else "it may be a share group"
            raise ReplayError(
                f"group {self.id} is not a consumer group ({kind}); only consumer groups are shown and moved"
            )

    @property
    def is_there(self) -> bool:
        return bool(self.committed or self.members or self.state != ConsumerGroupState.DEAD)

    @property
    def in_use(self) -> bool:
        return bool(self.members) or self.state not in _EMPTY

    @property
    def name_of_state(self) -> str:
        if self.state == ConsumerGroupState.UNKNOWN:
            return "in a state that this client does not know"
        return str(self.state.name).lower().replace("_", " ")

    @property
    def number_of_members(self) -> str:
        if self.members is None:
            new = self._type == ConsumerGroupType.CONSUMER
            kind = "of the consumer protocol (KIP-848)" if new else "of a type that this client does not know"
            return f"{kind}, members not known"
        return counted(len(self.members), "member")

    def owner(self, topic: str, partition: int) -> str:
        for member in self.members or ():
            if any((p.topic, p.partition) == (topic, partition) for p in member.assignment.topic_partitions):
                return f"{member.client_id} at {member.host.lstrip('/')}"
        return ""


# --- show -------------------------------------------------------------------------------------------------------------


def show(options: argparse.Namespace) -> int:
    """Print a group: its members, and how far it is in each partition; exit code 1 where there is no such group."""
    settings = config.load(options.config, assignments=options.set).settings
    with ClusterInspector(settings.kafka, options.timeout) as inspector:
        group = _Group(inspector, options.group)
        if not group.is_there:
            raise ReplayError(f"group {group.id}: there is none, with members or offsets; look at its name")
        console.show(f"group {group.id}: {group.name_of_state}, {group.number_of_members}")
        assigned = {p.topic for member in group.members or () for p in member.assignment.topic_partitions}
        chosen = (
            [topic_named(options.topic, settings.topics)] if options.topic else sorted({*group.committed, *assigned})
        )
        for topic in chosen or [settings.topics.status]:
            _show_topic(inspector, settings, group, topic)
    return 0


def _show_topic(inspector: ClusterInspector, settings: config.Settings, group: _Group, topic: str) -> None:
    offsets = inspector.offsets(topic)
    committed = group.committed.get(topic, {})
    within = {p: at for p, at in committed.items() if p in offsets and offsets[p].earliest <= at < offsets[p].end}
    times = first_times(settings.kafka, topic, {p: (at, offsets[p].end) for p, at in within.items()})
    rows = [["partition", "committed", "end", "lag", "next record is of", "member"]]
    lag = 0
    for partition, now in offsets.items():
        at = committed.get(partition)
        behind = now.end - max(at or 0, now.earliest) if at is not None else now.end - now.earliest
        lag += max(0, behind)
        next_of = _next_of(at, now, times.get(partition))
        shown = "none" if at is None else f"{at:,}"
        rows.append(
            [str(partition), shown, f"{now.end:,}", f"{max(0, behind):,}", next_of, group.owner(topic, partition)]
        )
    console.show("", f"{topic}: {lag:,} behind")
    console.show(*table(rows))


def _next_of(at: int | None, now: PartitionOffsets, time_ms: int | None) -> str:
    if at is None:
        return "its auto.offset.reset decides"
    if at < now.earliest:
        return f"expired: oldest is {now.earliest:,}"
    if at > now.end:
        return f"beyond the end, {now.end:,}"
    if at == now.end:
        return "at the end"
    return "?" if time_ms is None else time_text(time_ms)


# --- reset ------------------------------------------------------------------------------------------------------------


def reset(options: argparse.Namespace) -> int:
    """Show what moving a group would mean; with ``--execute`` save what it has and move it.

    Raises:
        ReplayError: somebody is in it, or Kafka refuses; nothing was changed.
    """
    settings = config.load(options.config, assignments=options.set).settings
    saved = _read_saved(options.undo, options.group, options.topic) if options.undo else None
    topic = saved.topic if saved else topic_named(options.topic, settings.topics)
    with ClusterInspector(settings.kafka, options.timeout) as inspector:
        group = _Group(inspector, options.group)
        if group.in_use:
            raise ReplayError(_in_use(group))
        now = inspector.offsets(topic)
        wanted = _wanted(inspector, options, topic, now, saved)
        _print_plan(group, topic, now, wanted)
        has = group.committed.get(topic, {})
        lost = {} if saved is None or group.committed else saved.others
        if lost:
            console.show(f"It gets back what it had in other topics: {json.dumps(lost)}")
        if not lost and wanted == {p: has.get(p) for p in wanted}:
            console.show("The group is there already; nothing is to be done.")
            return 0
        if not options.execute:
            console.show("This is the plan; nothing was changed. --execute does it.")
            return 0
        path = options.undo_file or Path(f"{_as_file_name(group.id)}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.undo.json")
        undo = Saved(
            others={name: offsets for name, offsets in group.committed.items() if name != topic},
            group=group.id,
            topic=topic,
            saved_at=time_text(int(time.time() * 1000)),
            offsets={p: has.get(p) for p in wanted},
        )
        _save(undo, path)
        console.show(f"What it had is saved in {path}: {_shown(undo.offsets)}")
        _move(inspector, group, topic, wanted, lost)
        console.show(
            f"Moved. The way back: {_words('chatapp-bridge replay groups reset', group.id, '--undo', path, '--execute')}"
        )
    return 0


def _wanted(
    inspector: ClusterInspector,
    options: argparse.Namespace,
    topic: str,
    now: dict[int, PartitionOffsets],
    saved: Saved | None,
) -> dict[int, int | None]:
    """The offset to move to, by partition; None: to have none."""
    if saved is not None:
        if missing := sorted(set(saved.offsets) - set(now)):
            raise ReplayError(f"{options.undo}: topic {topic} has no partition {', '.join(map(str, missing))} any more")
        return dict(saved.offsets)
    if options.to_time is not None:
        found = inspector.offsets_at(topic, list(now), options.to_time.time_ms)
        return {p: each.end if (at := found[p]) is None else min(at, each.end) for p, each in now.items()}
    if options.to_offset is not None:
        return _by_offset(options.to_offset, topic, now)
    return {p: each.earliest if options.to_earliest else each.end for p, each in now.items()}


def _by_offset(bound: Bound, topic: str, now: dict[int, PartitionOffsets]) -> dict[int, int | None]:
    asked = bound.offsets or {}
    if unknown := sorted(p for p in asked if p is not None and p not in now):
        raise ReplayError(
            f"topic {topic} has partitions 0 to {max(now)}, and none of number {', '.join(map(str, unknown))}"
        )
    wanted: dict[int, int | None] = {}
    for partition, each in now.items():
        at = asked.get(partition, asked.get(None))
        if at is None:
            continue
        if not each.earliest <= at <= each.end:
            console.show(
                f"partition {partition}: asked for {at:,}, there is {each.earliest:,} to {each.end:,}; the nearest is taken"
            )
        wanted[partition] = min(max(at, each.earliest), each.end)
    return wanted


def _print_plan(group: _Group, topic: str, now: dict[int, PartitionOffsets], wanted: dict[int, int | None]) -> None:
    has = group.committed.get(topic, {})
    rows = [["partition", "has", "gets", "reads again", "skips", "oldest", "end"]]
    again = skipped = 0
    for partition, to in wanted.items():
        each, at = now[partition], has.get(partition)
        back = forth = 0
        if at is not None and to is not None:
            back, forth = max(0, min(at, each.end) - to), max(0, to - max(at, each.earliest))
        again, skipped = again + back, skipped + forth
        cells = ["none" if at is None else f"{at:,}", "none" if to is None else f"{to:,}", f"{back:,}", f"{forth:,}"]
        rows.append([str(partition), *cells, f"{each.earliest:,}", f"{each.end:,}"])
    console.show(f"group {group.id}: {group.name_of_state}, without members; topic {topic}")
    console.show("", *table(rows), "")
    left = sum(now[p].end - max(to, now[p].earliest) for p, to in wanted.items() if to is not None)
    console.show(
        f"It reads up to {again:,} records again and skips up to {skipped:,}; then up to {left:,} are before it."
    )


def _move(
    inspector: ClusterInspector, group: _Group, topic: str, wanted: dict[int, int | None], lost: dict[str, Offsets]
) -> None:
    """Set the offsets; where one has to go, the group is made anew, as Kafka's clients can't take a single one away.

    ``lost``: what it had in other topics, where all of the group is gone, as after an undo that was cut short in between.
    """
    gone = {p for p, to in wanted.items() if to is None and p in group.committed.get(topic, {})}
    kept = {
        (name, p): at
        for name, offsets in group.committed.items()
        for p, at in offsets.items()
        if name != topic or p not in wanted
    }
    places = {(name, p): at for name, offsets in lost.items() for p, at in offsets.items()}
    places |= {(topic, p): to for p, to in wanted.items() if to is not None}
    if gone:
        _ask(
            group,
            lambda: inspector.admin.delete_consumer_groups(
                [group.id], request_timeout=inspector.request_seconds
            ).values(),
        )
        places |= kept
    if not places:
        return
    request = ConsumerGroupTopicPartitions(group.id, [TopicPartition(name, p, at) for (name, p), at in places.items()])
    for result in _ask(group, lambda: inspector.admin.alter_consumer_group_offsets([request]).values()):
        failed = [place for place in result.topic_partitions if place.error is not None]
        if failed:
            raise _refusal(group, failed[0].error)


def _ask(group: _Group, call: Callable[[], Iterable[Any]]) -> list[Any]:
    try:
        return [future.result() for future in call()]
    except KafkaException as error:
        raise _refusal(group, error.args[0]) from error


def _refusal(group: _Group, error: KafkaError) -> BridgeError:
    if error.code() in _IN_USE:
        return ReplayError(
            f"group {group.id}: somebody joined it meanwhile ({error.name()}); stop its consumers, and try again"
        )
    return in_words(error, f"moving group {group.id}")


def _in_use(group: _Group) -> str:
    who = ", ".join(sorted({f"{member.client_id} at {member.host.lstrip('/')}" for member in group.members or ()}))
    members = group.number_of_members
    described = members if group.members is None else f"with {members} ({who or 'nobody yet'})"
    return (
        f"group {group.id} is {group.name_of_state}, {described}; stop its consumers first: they would go on from where they "
        "are, and commit that"
    )


# --- the undo ---------------------------------------------------------------------------------------------------------


def _save(saved: Saved, path: Path) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}; nothing was changed. --undo-file names another place") from error


def _read_saved(path: Path, group: str, topic: str | None) -> Saved:
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    except OSError as error:
        raise ConfigurationError(f"--undo: {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"--undo: {path} was not saved by `replay groups reset`: {error}") from error
    if saved.group != group:
        raise ConfigurationError(f"--undo: {path} is of group {saved.group}, not of {group}")
    if topic not in {None, saved.topic}:
        raise ConfigurationError(f"--topic: {path} is of topic {saved.topic}; leave --topic out")
    return saved


def _words(start: str, *words: str | Path) -> str:
    """A command that can be pasted."""
    return f"{start} {shlex.join(map(str, words))}"


def _shown(offsets: dict[int, int | None]) -> str:
    return json.dumps(offsets)


def _as_file_name(group: str) -> str:
    return "".join(each if each.isalnum() or each in "-_." else "_" for each in group).lstrip(".") or "group"
