"""Reads a topic from the brokers' segment files and reports what is wrong with it.

    verdict = judge([node.directory / "data" for node in cluster.nodes], topic, entries=arena.ledger.entries.values())
    assert verdict.ok, verdict.describe()

A consumer sees only records. The segments also show the batches: which producer appended each one, in which epoch, with which
sequence numbers. In each partition the batches of an idempotent producer follow each other without a gap or a repeat, whatever
was lost and sent again on the way. So a defect in its bookkeeping shows here even if no record was lost. The simulator's
checker judges promises and order.

The brokers may be running, if their replicas are in sync and nobody writes. They may also be stopped or killed.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch

from bridge.lab.simulate.check import CheckResult, Consumed, check
from bridge.lab.simulate.identity import raw_sha256
from bridge.lab.simulate.ledger import Entry

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END = 12  # of the offset and the length
_CONTROL = 0x20
_SEQUENCES = 1 << 31
_SHOWN = 10


class Batch(NamedTuple):
    """A record batch as a segment holds it; ``data`` is all of it.

    ``base_sequence`` and ``producer_id`` are -1 where the producer was not idempotent. ``span`` is how many offsets and
    sequence numbers it takes.
    """

    base_offset: int
    leader_epoch: int
    attributes: int
    span: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    data: bytes

    @property
    def end_offset(self) -> int:
        """Of what follows."""
        return self.base_offset + self.span

    @property
    def sequence_end(self) -> int:
        """The sequence number of what follows; after the last one 0 comes again."""
        return (self.base_sequence + self.span) % _SEQUENCES

    @property
    def records(self) -> list[Any]:
        """As aiokafka reads them: ``offset``, ``key``, ``value``, ``headers``; none of a control batch."""
        return [] if self.attributes & _CONTROL else list(DefaultRecordBatch(self.data))

    def same_records(self, other: "Batch") -> bool:
        """Whether both hold the same records, byte for byte as they were compressed."""
        return self.data[_HEADER.size :] == other.data[_HEADER.size :]

    def __str__(self) -> str:
        last = (self.sequence_end - 1) % _SEQUENCES
        return f"sequences {self.base_sequence} to {last} at offset {self.base_offset}"


class DamagedSegmentError(Exception):
    """A segment holds something that is not a record batch of version 2, or a batch with a wrong checksum."""


def read_segment(path: Path, *, last: bool = True) -> Iterator[Batch]:
    """The batches of a file. In the ``last`` file of a partition an incomplete batch at the end is ignored.

    Raises:
        DamagedSegmentError: The message names the file and the byte.
    """
    data, at = path.read_bytes(), 0
    while at < len(data):
        where = f"{path.parent.name}/{path.name}, byte {at}"
        length = struct.unpack_from(">i", data, at + 8)[0] if at + _HEADER.size <= len(data) else None
        if length is None or at + _LENGTH_END + length > len(data):
            if last:
                return
            raise DamagedSegmentError(f"{where}: the batch is cut short")
        end = at + _LENGTH_END + length
        if length < _HEADER.size - _LENGTH_END:
            raise DamagedSegmentError(f"{where}: the length of the batch is {length}")
        offset, _, leader_epoch, magic, _, attributes, delta, _, _, producer, epoch, sequence, _ = _HEADER.unpack_from(
            data, at
        )
        whole = data[at:end]
        if magic != 2 or not DefaultRecordBatch(whole).validate_crc():
            raise DamagedSegmentError(f"{where}: magic {magic}, or a wrong checksum")
        yield Batch(offset, leader_epoch, attributes, delta + 1, producer, epoch, sequence, whole)
        at = end


def read_replica(directory: Path) -> list[Batch]:
    """A partition's batches on one broker. Raises DamagedSegmentError."""
    paths = sorted(directory.glob("*.log"))
    return [batch for path in paths for batch in read_segment(path, last=path == paths[-1])]


def read_topic(log_dirs: Iterable[Path], topic: str) -> dict[int, list[Batch]]:
    """The batches of each partition, of the replica that was appended to last.

    The others may lag, or end in what was never committed.

    Args:
        log_dirs: ``log.dirs`` of all brokers.
        topic: Its name.

    Raises:
        DamagedSegmentError: A segment is damaged.
        FileNotFoundError: None of the brokers has the topic.
    """
    replicas: defaultdict[int, list[list[Batch]]] = defaultdict(list)
    for log_dir in log_dirs:
        for directory in log_dir.glob(f"{topic}-*"):
            number = directory.name.removeprefix(f"{topic}-")
            if number.isdigit():
                replicas[int(number)].append(read_replica(directory))
    if not replicas:
        raise FileNotFoundError(f"no broker has a partition of {topic}")
    return {number: max(each, key=_appended_last) for number, each in sorted(replicas.items())}


def _appended_last(replica: list[Batch]) -> tuple[int, int]:
    return (replica[-1].leader_epoch, replica[-1].end_offset) if replica else (-1, -1)


# --- sequences ------------------------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """One thing that is wrong. ``kind`` is stable, ``detail`` is for people.

    Kinds: ``sequence start`` (a producer's first batch does not begin with 0 though the log is there from its beginning),
    ``late copy`` (a batch without numbers once more, behind a newer record of one of its keys),
    ``sequence gap``, ``sequence repeat`` (the same numbers and the same records once more, which a broker answers without
    appending), ``sequence overlap`` (numbers that were used, otherwise), ``producer epoch`` (an older epoch after a newer one),
    ``offset gap``, ``damaged segment``, ``repeats`` (more than allowed), and those of the simulator's checker.
    """

    kind: str
    detail: str


def judge_sequences(batches: Sequence[Batch], where: str) -> list[Finding]:
    """What is wrong in a partition's batches; ``where`` names the partition."""
    findings: list[Finding] = []
    from_beginning = not batches or batches[0].base_offset == 0
    seen: dict[tuple[int, int], list[Batch]] = {}
    following: dict[tuple[int, int], int] = {}
    epochs: dict[int, int] = {}
    findings += late_copies(batches, where)
    for before, batch in zip((None, *batches), batches, strict=False):
        if before is not None and batch.base_offset != before.end_offset:
            findings.append(
                Finding("offset gap", f"{where}: offset {batch.base_offset} follows {before.end_offset - 1}")
            )
        if batch.producer_id < 0 or batch.attributes & _CONTROL:
            continue
        producer = batch.producer_id, batch.producer_epoch
        name = f"{where}, producer {producer[0]} epoch {producer[1]}: {batch}"
        newest = epochs.setdefault(batch.producer_id, batch.producer_epoch)
        if batch.producer_epoch < newest:
            findings.append(Finding("producer epoch", f"{name}, after epoch {newest}"))
        epochs[batch.producer_id] = max(newest, batch.producer_epoch)
        findings += _judge_batch(batch, following.get(producer), seen.setdefault(producer, []), name, from_beginning)
        if producer not in following or not _is_older(batch, following[producer]):
            following[producer] = batch.sequence_end
        seen[producer].append(batch)
    return findings


def late_copies(batches: Sequence[Batch], where: str) -> Iterator[Finding]:
    """Batches without sequence numbers that are copies of an earlier one, behind a newer record of one of their keys."""
    unnumbered = [batch for batch in batches if batch.producer_id < 0]
    first: dict[bytes, int] = {}
    newest: dict[bytes | None, int] = {}
    for place, batch in enumerate(unnumbered):
        place_of_first = first.setdefault(batch.data[_HEADER.size :], place)
        keys = {record.key for record in batch.records}
        overtaken = [key for key in keys if newest.get(key, place_of_first) > place_of_first]
        if overtaken:
            yield Finding("late copy", f"{where}: offset {batch.base_offset}, behind newer records of {overtaken[:3]}")
        newest |= {key: max(newest.get(key, 0), place_of_first) for key in keys}


def _judge_batch(
    batch: Batch, expected: int | None, seen: Sequence[Batch], name: str, from_beginning: bool
) -> Iterator[Finding]:
    if expected is None:
        if batch.base_sequence != 0 and from_beginning:
            yield Finding("sequence start", f"{name}, its first")
    elif batch.base_sequence == expected:
        return
    elif not _is_before(batch.base_sequence, expected):
        yield Finding("sequence gap", f"{name}, where {expected} is next")
    else:
        same = [each for each in seen if each.base_sequence == batch.base_sequence and each.span == batch.span]
        twin = next((each for each in same if each.same_records(batch)), None)
        if twin is not None:
            yield Finding("sequence repeat", f"{name}, the same as at offset {twin.base_offset}")
        else:
            yield Finding("sequence overlap", f"{name}, where {expected} is next")


def _is_before(sequence: int, expected: int) -> bool:
    """Whether it was used before: numbers wrap, so that the nearer way round counts."""
    return 0 < (expected - sequence) % _SEQUENCES < _SEQUENCES // 2


def _is_older(batch: Batch, expected: int) -> bool:
    return batch.sequence_end == expected or _is_before(batch.sequence_end, expected)


# --- all of it ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        topic: Its name.
        partitions: How many it has on these disks.
        batches: How many were read.
        records: The same.
        producers: How many producers appended them, by id and epoch.
        unsequenced: Batches without sequence numbers.
        checked: Promises, order and repeats; None where no entries were given.
        findings: All that is wrong.
    """

    topic: str
    partitions: int
    batches: int
    records: int
    producers: int
    unsequenced: int
    checked: CheckResult | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def kinds(self) -> set[str]:
        """Of the findings."""
        return {finding.kind for finding in self.findings}

    def describe(self) -> str:
        """A text for people, with the first findings of each kind."""
        lines = [
            f"{self.topic}: {self.partitions} partitions, {self.batches} batches, {self.records} records",
            f"{self.producers} producers by id and epoch, {self.unsequenced} batches without sequence numbers",
        ]
        if self.checked is not None:
            lines.append(
                f"{self.checked.promised} promised, {self.checked.found} found, {self.checked.repeats} repeats, "
                f"order checked for {self.checked.ordered_keys} keys"
            )
        for kind in sorted(self.kinds):
            details = [finding.detail for finding in self.findings if finding.kind == kind]
            lines.append(f"{kind.upper()}: {len(details)}")
            lines += [f"  {detail}" for detail in details[:_SHOWN]]
            if len(details) > _SHOWN:
                lines.append(f"  … and {len(details) - _SHOWN} more")
        return "\n".join([*lines, "ok" if self.ok else "NOT OK"])


def judge(
    log_dirs: Iterable[Path],
    topic: str,
    *,
    entries: Iterable[Entry] | None = None,
    quarantine: str | None = None,
    ordered: bool = True,
    max_repeats: int | None = None,
) -> Verdict:
    """Judge the log of a topic of events.

    Args:
        log_dirs: ``log.dirs`` of all brokers.
        topic: Its name.
        entries: A ledger's, of all that was pushed: each promised event must be there, first occurrences in the order in which
            they were promised, and nothing else.
        quarantine: The name of the other topic: its sequences are judged too, and where there are entries, its promises.
        ordered: Whether an order was promised: between several bridges there is none.
        max_repeats: How many records may be there more than were needed; any number unless given. Needs entries.

    Raises:
        FileNotFoundError: None of the brokers has the topic.
    """
    log_dirs = list(log_dirs)
    findings: list[Finding] = []
    logs: dict[str, dict[int, list[Batch]]] = {}
    for name in [topic, *([quarantine] if quarantine else [])]:
        try:
            logs[name] = read_topic(log_dirs, name)
        except DamagedSegmentError as error:
            logs[name] = {}
            findings.append(Finding("damaged segment", str(error)))
        for number, batches in logs[name].items():
            findings += judge_sequences(batches, f"{name}/{number}")
    records = {name: list(_records(log)) for name, log in logs.items()}
    checked = None
    if entries is not None:
        raws = [raw_sha256(record.value) for _, record in records.get(quarantine or "", ())]
        checked = check(entries, map(_consumed, records[topic]), raws, ordered=ordered)
        findings += [Finding(damage.kind, damage.detail) for damage in checked.damages]
        if max_repeats is not None and checked.repeats > max_repeats:
            findings.append(Finding("repeats", f"{checked.repeats}, where {max_repeats} are allowed"))
    all_batches = [batch for log in logs.values() for batches in log.values() for batch in batches]
    return Verdict(
        topic=topic,
        partitions=len(logs[topic]),
        batches=len(all_batches),
        records=sum(map(len, records.values())),
        producers=len({(each.producer_id, each.producer_epoch) for each in all_batches if each.producer_id >= 0}),
        unsequenced=sum(each.producer_id < 0 for each in all_batches),
        checked=checked,
        findings=tuple(findings),
    )


def _records(log: dict[int, list[Batch]]) -> Iterator[tuple[int, Any]]:
    return ((number, record) for number, batches in log.items() for batch in batches for record in batch.records)


def _consumed(found: tuple[int, Any]) -> Consumed:
    partition, record = found
    return Consumed(dict(record.headers)["ce_id"].decode(), record.key.decode(), partition, record.offset)
