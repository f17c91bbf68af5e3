"""What a replay would do, found out without doing it, and said in words."""

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.config import Kafka
from bridge.errors import ReplayError
from bridge.operate.console import counted, duration, table, time_text
from bridge.operate.ndjson import Lines
from bridge.operate.reading.inspector import ClusterInspector, PartitionOffsets
from bridge.operate.reading.reader import Reader
from bridge.operate.reading.select import EARLIEST, Bound
from bridge.operate.replay.state import State
from bridge.operate.replay.transfer import Choose

_SAMPLED_RECORDS: Final = 24_000
_SAMPLE_SECONDS: Final = 3.0
_LEAST_RATE: Final = 1_000.0


class Ranges(msgspec.Struct, frozen=True):
    """What is to be read, of what there is.

    ``chosen``: by partition, the first offset and the one after the last. ``notes``: what is other than was asked, or should be
    known. ``gone``: offsets that were asked for by number and have expired.
    """

    chosen: dict[int, tuple[int, int]]
    offsets: dict[int, PartitionOffsets]
    notes: list[str]
    gone: int

    @property
    def total(self) -> int:
        """Offsets; of records, no more than that."""
        return sum(end - start for start, end in self.chosen.values())


def find_ranges(inspector: ClusterInspector, topic: str, low: Bound, high: Bound) -> Ranges:
    """Look up where the bounds are now; the end of each partition is taken here, and kept.

    Raises:
        ReplayError: a partition that was named is not there, or the bounds name different ones; or of the inspector.
    """
    there = inspector.partitions(topic)
    offsets = inspector.offsets(topic, _partitions(there, topic, low, high))
    starts = {} if low.time_ms is None else inspector.offsets_at(topic, list(offsets), low.time_ms)
    notes: list[str] = []
    gone = 0
    chosen = {}
    for partition, now in offsets.items():
        asked = _asked(low, partition)
        if asked is not None:
            start = min(max(asked, now.earliest), now.end)
            if asked < now.earliest:
                notes.append(f"partition {partition}: asked from {asked:,}, oldest is {now.earliest:,}")
                gone += now.earliest - asked
            elif asked > now.end:
                notes.append(f"partition {partition}: asked from {asked:,}, the end is {now.end:,}")
        elif low.time_ms is not None:
            found = starts[partition]
            start = now.end if found is None else min(max(found, now.earliest), now.end)
            if start == now.earliest > 0:
                notes.append(
                    f"partition {partition}: what stood before {now.earliest:,} has expired, and may have lain in the range"
                )
        else:
            start = now.earliest if low.edge == EARLIEST else now.end
        chosen[partition] = (start, max(start, _end(high, partition, now, notes)))
        if now.high > now.end:
            notes.append(
                f"partition {partition}: up to {now.high - now.end:,} records from {now.end:,} on stand behind an open "
                "transaction; they are not read"
            )
    return Ranges(chosen, offsets, notes, gone)


def _partitions(there: Sequence[int], topic: str, low: Bound, high: Bound) -> list[int]:
    named = [bound.partitions for bound in (low, high) if bound.partitions is not None]
    if len(named) > 1 and named[0] != named[1]:
        raise ReplayError("--from and --to name different partitions; name the same in both, or none in one of them")
    if not named:
        return list(there)
    if missing := sorted(named[0] - set(there)):
        raise ReplayError(
            f"topic {topic} has partitions 0 to {there[-1]}, and none of number {', '.join(map(str, missing))}"
        )
    return sorted(named[0])


def _asked(bound: Bound, partition: int) -> int | None:
    return None if bound.offsets is None else bound.offsets.get(partition, bound.offsets.get(None))


def _end(high: Bound, partition: int, now: PartitionOffsets, notes: list[str]) -> int:
    asked = _asked(high, partition)
    if asked is None:
        # By time the last one wanted may stand anywhere: what was drained after an outage is older than what is before it.
        return now.earliest if high.edge == EARLIEST else now.end
    if asked > now.end:
        notes.append(f"partition {partition}: asked to {asked:,}, the end is {now.end:,}")
    return min(asked, now.end)


# --- estimates --------------------------------------------------------------------------------------------------------


class Sample(msgspec.Struct, frozen=True):
    """What was seen at the beginning of each partition's range; ``whole``: that was all there is."""

    read: int
    wanted: int
    seconds: float
    whole: bool


def take_sample(kafka: Kafka, topic: str, ranges: Ranges, choose: Choose | None, lines: Lines) -> Sample:
    """Read a little, for seconds at most, and write nothing."""
    each = max(1, _SAMPLED_RECORDS // max(1, len(ranges.chosen)))
    few = {partition: (start, min(end, start + each)) for partition, (start, end) in ranges.chosen.items()}
    read = wanted = 0
    began: float | None = None
    deadline = time.monotonic() + _SAMPLE_SECONDS
    with Reader(kafka, topic, few, timeout_seconds=_SAMPLE_SECONDS) as reader:
        for batch in reader:
            began = began or time.monotonic()
            chosen = batch if choose is None else choose(batch)
            lines.encode(chosen)
            read += len(batch)
            wanted += len(chosen)
            if time.monotonic() > deadline:
                break
        whole = few == ranges.chosen and reader.left == 0
    return Sample(read, wanted, max(1e-3, time.monotonic() - (began or time.monotonic())), whole)


def expectation(ranges: Ranges, sample: Sample, *, filtered: bool, cost: float, rate: float | None) -> list[str]:
    """How many records, and how long, in words; what is an estimate is called one. ``cost``: of the destination."""
    total = ranges.total
    share = sample.wanted / sample.read if sample.read else 0.0
    if sample.whole:
        lines = [f"records     {sample.wanted:,}, counted"]
        wanted = float(sample.wanted)
    else:
        lines = [f"records     at most {total:,}, as many as there are offsets"]
        wanted = total * share
        if filtered:
            seen = f"{sample.wanted:,} of the first {sample.read:,}"
            lines.append(
                f"            what the range of time and the filters leave is not known before it is read: {seen} fit,"
            )
            lines.append(f"            so an estimate is {wanted:,.0f}; --count counts them")
    pace = max(_LEAST_RATE, sample.read / sample.seconds)
    seconds = total / pace * (1 + (cost - 1) * share)
    if rate is not None:
        seconds = max(seconds, wanted / rate)
    if total:
        lines.append(f"time        an estimate: {duration(seconds)}, after a sample of {sample.read:,} records")
    return lines


# --- words ------------------------------------------------------------------------------------------------------------


def described(state: State, ranges: Ranges, low: Bound, high: Bound, destination: str) -> list[str]:
    """What is to be read and where it goes, a line each."""
    run = state.run
    by_time = run.from_ms is not None or run.to_ms is not None
    lines = [
        f"run         {run.id}",
        f"read        {run.topic}, {counted(len(ranges.chosen), 'partition')}, as they stood at {time_text(run.made_at_ms)}",
        f"range       from {low} to {high}",
    ]
    if by_time:
        lines.append("            every record whose timestamp lies in it, wherever it stands: read on to the end")
    if run.filters:
        lines.append(f"filters     {run.filters}")
    lines.append(f"write       {destination}")
    if ranges.chosen:
        lines += ["", *_ranges(ranges), ""]
    lines += [f"note        {note}" for note in ranges.notes]
    return lines


def _ranges(ranges: Ranges) -> list[str]:
    rows = [["partition", "from", "to", "at most", "oldest", "end"]]
    rows += [
        [str(partition), *(f"{number:,}" for number in (start, end, end - start, now.earliest, now.end))]
        for partition, (start, end) in sorted(ranges.chosen.items())
        for now in (ranges.offsets[partition],)
    ]
    return table(rows)
