"""Metrics: what is read where it arises, at one moment, in Prometheus's own format."""

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.observe.metrics import Measurements

Reading = tuple[str, str, dict[str, str], float]


def scraped(measurements: Measurements) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus reads them."""
    families = text_string_to_metric_families(generate_latest(measurements.registry).decode())
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_and_gauges_are_read_at_the_scrape_and_not_before() -> None:
    """What is scraped is what holds now: no copy is kept that could be older."""
    state = {"received": 1.0, "waiting": 5.0}

    def counters() -> Iterator[Reading]:
        yield "reports_received", "Help.", {}, state["received"]

    def gauges() -> Iterator[Reading]:
        yield "reports_waiting", "Help.", {}, state["waiting"]

    measurements = Measurements(counters, gauges)
    for received, waiting in ((1, 5), (2, 4)):
        state.update(received=received, waiting=waiting)
        seen = scraped(measurements)
        assert seen["chatapp_bridge_reports_received_total"] == received
        assert seen["chatapp_bridge_reports_waiting"] == waiting


def test_readings_of_one_name_are_one_family_with_labels() -> None:
    """Lanes by state, records by topic: one help text, a sample each."""

    def gauges() -> Iterator[Reading]:
        yield "lanes", "Help.", {"state": "sick"}, 1
        yield "lanes", "Help.", {"state": "healthy"}, 2

    measurements = Measurements(list, gauges)

    seen = scraped(measurements)
    assert (seen["chatapp_bridge_lanes state=sick"], seen["chatapp_bridge_lanes state=healthy"]) == (1, 2)
    assert generate_latest(measurements.registry).decode().count("# TYPE chatapp_bridge_lanes gauge") == 1


def test_answers_and_reasons_are_counters_by_label() -> None:
    """Each status that was answered, each reason there was."""
    measurements = Measurements(list, list)
    measurements.callbacks.update(["200", "200", "503"])
    measurements.quarantined.update(["not_json"])

    seen = scraped(measurements)
    assert seen["chatapp_bridge_callbacks_total answer=200"] == 2
    assert seen["chatapp_bridge_callbacks_total answer=503"] == 1
    assert seen["chatapp_bridge_reports_quarantined_total reason=not_json"] == 1


def test_latency_is_told_apart_around_what_was_promised() -> None:
    """Buckets end at our deadline of 2 s and at the provider's of 3 s, and are fine where a healthy answer lies."""
    measurements = Measurements(list, list)
    for seconds in (0.001, 1.999, 2.001, 2.999, 3.001):
        measurements.ack_latency.observe(seconds)

    seen = scraped(measurements)
    found = {
        end: seen[f"chatapp_bridge_ack_latency_seconds_bucket le={end}"] for end in ("0.002", "2.0", "3.0", "+Inf")
    }
    assert found == {"0.002": 1, "2.0": 2, "3.0": 4, "+Inf": 5}


def test_two_bridges_in_one_process_do_not_share_their_metrics() -> None:
    """Each has a registry of its own, and nothing of prometheus_client's global one."""
    one, other = Measurements(list, list), Measurements(list, list)
    one.callbacks["200"] += 1

    assert "chatapp_bridge_callbacks_total answer=200" not in scraped(other)
    assert [name for name in scraped(other) if not name.startswith("chatapp_bridge_")] == []


def test_every_metric_has_a_help_text_of_its_own() -> None:
    """Whoever finds a metric finds what it means."""
    families = text_string_to_metric_families(generate_latest(Measurements(list, list).registry).decode())

    helps = {family.name: family.documentation for family in families if not family.name.endswith("_created")}
    assert len(helps) >= 4
    assert all(text.endswith(".") for text in helps.values())
    assert len(set(helps.values())) == len(helps)
