"""The shape of what the bridge measures: readings, histograms, and what a scrape makes of them.

Counts are plain integers where they arise, read when scraped: a scrape sees them all at one moment, so that the reconciliation of
``deliver/delivery.py`` balances in it. The list of all metrics, which is a contract, is docs/metrics.md.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

PREFIX = "chatapp_bridge_"


class Reading(NamedTuple):
    """One sample: of one name all have the same labels. ``name`` is without prefix, and without a counter's ``_total``."""

    kind: Literal["counter", "gauge", "info"]
    name: str
    documentation: str
    value: float = 1.0
    labels: Mapping[str, str] = {}


class Histogram:
    """Counts by size, cheap enough for every callback.

    Args:
        name: without prefix.
        documentation: a sentence.
        bounds: upper bounds of the buckets, ascending; the last bucket, without a bound, comes by itself.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.documentation = documentation
        self.bounds = tuple(bounds)
        #: by bucket, not cumulated
        self.counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Count it; a trace becomes its bucket's exemplar."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self._sum += value
        if trace_id is not None:
            self._exemplars[bucket] = Exemplar({"trace_id": trace_id}, value, time.time())

    def family(self) -> HistogramMetricFamily:
        """For a scrape."""
        family = HistogramMetricFamily(PREFIX + self.name, self.documentation)
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        total = 0
        names = (*map(floatToGoString, self.bounds), "+Inf")
        for name, count, exemplar in zip(names, self.counts, self._exemplars, strict=True):
            total += count
            buckets.append((name, total) if exemplar is None else (name, total, exemplar))
        family.add_metric([], buckets, self._sum)
        return family


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """The value below which that share of the counted lies, as ``histogram_quantile`` reckons it; None where none is counted.

    What lies above the last bound is taken for the last bound.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below = 0
    for bucket, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            lower = bounds[bucket - 1] if bucket else 0.0
            return min(bounds[bucket], lower + (bounds[bucket] - lower) * (rank - below) / count)
        below += count
    return bounds[-1]


class Metrics(Collector):
    """Everything that a scrape sees.

    Args:
        read: gives all readings and histograms, as they are now.
    """

    def __init__(self, read: Callable[[], Iterable[Reading | Histogram]]) -> None:
        self._read = read
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Read everything, for a scrape."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily] = {}
        for reading in self._read():
            if isinstance(reading, Histogram):
                yield reading.family()
                continue
            family = families.get(reading.name)
            if family is None:
                family = families[reading.name] = _family(reading)
            _add(family, reading)
        yield from families.values()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """A scrape's body and its content type: OpenMetrics where ``accept``, the request's header, asks for it, else text."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _family(reading: Reading) -> CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily:
    name = PREFIX + reading.name
    if reading.kind == "counter":
        return CounterMetricFamily(name, reading.documentation, labels=list(reading.labels))
    if reading.kind == "gauge":
        return GaugeMetricFamily(name, reading.documentation, labels=list(reading.labels))
    return InfoMetricFamily(name, reading.documentation)


def _add(family: CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily, reading: Reading) -> None:
    if isinstance(family, InfoMetricFamily):
        family.add_metric([], dict(reading.labels))
    else:
        family.add_metric(list(reading.labels.values()), reading.value)
