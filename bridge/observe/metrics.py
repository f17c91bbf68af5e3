"""What the bridge measures, for ``/metrics``.

Counts are plain integers where they arise, read when scraped: a scrape sees them all at one moment, so that the accounting of
``deliver/delivery.py`` balances in it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX = "chatapp_bridge_"
# Around what matters: a healthy answer takes milliseconds, a journalled one half a second; 2 s is ours, 3 s the provider's.
_ACK_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)


class Measurements(Collector):
    """All of the bridge's metrics.

    Args:
        counters: reads the reports' accounting: name, help, labels, value of each counter.
        gauges: reads the gauges: name, help, labels, value.
    """

    def __init__(
        self,
        counters: Callable[[], Iterable[tuple[str, str, dict[str, str], float]]],
        gauges: Callable[[], Iterable[tuple[str, str, dict[str, str], float]]],
    ) -> None:
        self.callbacks: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self._counters = counters
        self._gauges = gauges
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.ack_latency = Histogram(
            _PREFIX + "ack_latency_seconds",
            "From a callback's arrival in the application to its answer of 200.",
            buckets=_ACK_BUCKETS,
            registry=self.registry,
        )

    def collect(self) -> Iterator[Metric]:
        """Read everything, for a scrape."""
        yield InfoMetricFamily(_PREFIX + "build", "The bridge's version.", {"version": version("chatapp-bridge")})
        answers = CounterMetricFamily(
            _PREFIX + "callbacks", "Callbacks by answer: the HTTP status, or aborted by the client.", labels=["answer"]
        )
        for answer, count in self.callbacks.items():
            answers.add_metric([answer], count)
        yield answers
        quarantined = CounterMetricFamily(
            _PREFIX + "reports_quarantined", "Reports that could not be understood, by reason.", labels=["reason"]
        )
        for reason, count in self.quarantined.items():
            quarantined.add_metric([reason], count)
        yield quarantined
        yield from _families(CounterMetricFamily, self._counters())
        yield from _families(GaugeMetricFamily, self._gauges())


def _families(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    readings: Iterable[tuple[str, str, dict[str, str], float]],
) -> Iterable[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for name, help_text, labels, value in readings:
        if name not in families:
            families[name] = kind(_PREFIX + name, help_text, labels=list(labels))
        families[name].add_metric(list(labels.values()), value)
    return families.values()
