"""From single rounds to what is said: medians, their spread, ratios, and whether something was lost."""

import statistics
from collections.abc import Iterable

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One round of one contestant. Times are of the answer, from when it was due."""

    contestant: str
    #: closed, open, outage, …: which part of the whole it belongs to
    leg: str
    #: in a callback
    reports: int
    #: callbacks/s; 0 where the next is sent when the last is answered
    rate: float
    requests_per_second: float
    reports_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    #: µs of CPU a report: of the service, of Kafka, of the load generator
    cpu_us: float
    kafka_cpu_us: float
    load_cpu_us: float
    rss_mib: float
    acknowledged: int
    #: None where nothing is to be delivered
    delivered: int | None
    #: answers that were not 200, by status
    other: dict[str, int]
    #: were due, and could not be sent
    unsent: int = 0


class Spread(msgspec.Struct, frozen=True):
    """The median over rounds, the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


def spread(samples: Iterable[Sample], name: str) -> Spread:
    """Of an attribute of the samples."""
    return Spread.of(getattr(sample, name) for sample in samples)


def ratio(ours: list[Sample], theirs: list[Sample], name: str) -> Spread:
    """Ours by theirs, round by round, so that a busy moment of the machine strikes both."""
    pairs = zip(ours, theirs, strict=True)
    return Spread.of(getattr(one, name) / max(getattr(other, name), 1e-9) for one, other in pairs)


def verdict(samples: list[Sample], *, exact: bool) -> str:
    """Whether what was acknowledged was delivered, in words for a table."""
    if any(sample.delivered is None for sample in samples):
        return "-"
    acknowledged = sum(sample.acknowledged for sample in samples)
    delivered = sum(sample.delivered or 0 for sample in samples)
    refused = sum(sum(sample.other.values()) for sample in samples)
    lost = sum(max(0, sample.acknowledged - (sample.delivered or 0)) for sample in samples)
    words = []
    if lost:
        words.append(f"**{lost:,} of {acknowledged:,} lost**")
    elif delivered > acknowledged and exact and not refused:
        words.append(f"{delivered - acknowledged:,} more")
    else:
        words.append("all")
    if refused:
        words.append(f"{refused:,} not 200")
    return ", ".join(words)
