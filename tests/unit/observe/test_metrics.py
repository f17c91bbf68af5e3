"""Metrics: what is read where it arises, at one moment, in Prometheus's own formats."""

import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from bridge.observe.metrics import Histogram, Metrics, Reading, quantile
from bridge.receive.stats import CallbackStats

BOUNDS = (0.1, 0.2, 0.5, 1.0)


def scraped(read: Callable[[], Iterable[Reading | Histogram]]) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus reads them."""
    families = text_string_to_metric_families(Metrics(read).exposition()[0].decode())
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


def test_readings_are_read_at_the_scrape_and_not_before() -> None:
    """What is scraped is what holds now: no copy is kept that could be older."""
    state = {"received": 1.0, "waiting": 5.0}

    def read() -> list[Reading]:
        return [
            Reading("counter", "reports_received", "Help.", state["received"]),
            Reading("gauge", "reports_waiting", "Help.", state["waiting"]),
        ]

    for received, waiting in ((1, 5), (2, 4)):
        state.update(received=received, waiting=waiting)
        seen = scraped(read)
        assert seen["chatapp_bridge_reports_received_total"] == received
        assert seen["chatapp_bridge_reports_waiting"] == waiting


def test_readings_of_one_name_are_one_family_with_labels() -> None:
    """Lanes by state, records by topic: one help text, a sample each."""
    readings = [
        Reading("gauge", "lanes", "Help.", 1, {"state": "degraded"}),
        Reading("gauge", "lanes", "Help.", 2, {"state": "healthy"}),
    ]

    seen = scraped(lambda: readings)
    assert (seen["chatapp_bridge_lanes state=degraded"], seen["chatapp_bridge_lanes state=healthy"]) == (1, 2)
    assert Metrics(lambda: readings).exposition()[0].decode().count("# TYPE chatapp_bridge_lanes gauge") == 1


def test_latency_is_told_apart_around_what_was_promised() -> None:
    """Buckets end at our deadline of 2 s and at the provider's of 3 s, and are fine where a healthy answer lies."""
    latency = CallbackStats().ack_latency
    for seconds in (0.001, 1.999, 2.0, 2.001, 2.999, 3.001, 100):
        latency.observe(seconds)

    seen = scraped(lambda: [latency])
    found = {
        end: seen[f"chatapp_bridge_ack_latency_seconds_bucket le={end}"] for end in ("0.002", "2.0", "3.0", "+Inf")
    }
    assert found == {"0.002": 1, "2.0": 3, "3.0": 5, "+Inf": 7}
    assert seen["chatapp_bridge_ack_latency_seconds_count"] == 7
    assert seen["chatapp_bridge_ack_latency_seconds_sum"] == pytest.approx(112.001)


def test_a_trace_is_an_exemplar_of_its_bucket_the_last_one_stays() -> None:
    """In OpenMetrics; an observation without a trace leaves the one that is there."""
    histogram = Histogram("seconds", "Help.", BOUNDS)
    for seconds, trace in ((0.15, "a"), (0.16, "b"), (0.17, None), (0.9, "c"), (0.01, None), (7.0, "d")):
        histogram.observe(seconds, trace)

    body, _ = Metrics(lambda: [histogram]).exposition("application/openmetrics-text; version=1.0.0")
    parsed = openmetrics_families(body.decode())  # type: ignore[no-untyped-call]
    (family,) = (each for each in parsed if each.name == "chatapp_bridge_seconds")
    found = {
        sample.labels["le"]: (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for sample in family.samples
        if sample.exemplar
    }
    assert found == {"0.2": ("b", 0.16), "1.0": ("c", 0.9), "+Inf": ("d", 7.0)}


def test_two_bridges_in_one_process_do_not_share_their_metrics() -> None:
    """Each has a registry of its own, and nothing of prometheus_client's global one but what the process is."""
    one = scraped(lambda: [Reading("counter", "callbacks", "Help.", 1)])
    other = scraped(list)
    assert set(one) - set(other) == {"chatapp_bridge_callbacks_total"}
    assert [name for name in other if not name.startswith("process_")] == []


@given(st.lists(st.floats(0, 2), min_size=1), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_that_holds_it(values: list[float], share: float) -> None:
    """Between the bounds of the bucket with that value; above the last bound, the last bound."""
    histogram = Histogram("seconds", "Help.", BOUNDS)
    for value in values:
        histogram.observe(value)

    found = quantile(share, BOUNDS, histogram.counts)

    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    upper = next((bound for bound in BOUNDS if exact <= bound), BOUNDS[-1])
    assert found is not None
    assert max((bound for bound in (0.0, *BOUNDS) if bound < upper), default=0.0) <= found <= upper


def test_a_quantile_of_nothing_is_nothing() -> None:
    """Neither 0 nor an error."""
    assert quantile(0.99, BOUNDS, [0] * 5) is None
