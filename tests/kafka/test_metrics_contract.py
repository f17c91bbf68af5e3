"""``docs/metrics.md`` is what a scrape holds: name, type, labels, bounded values, in both directions."""

import json
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from support.apart import run_apart
from support.bridge_process import BridgeProcess, balance
from support.callbacks import SUCCESS, body, eventually, make_topics, report
from support.contract import promised
from support.raw_http import Answer, exchange, request

from bridge.compiled import COMPILED
from bridge.kafka.errors import Action

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Has no series before the first failure: its errors can't be listed.
FAILED = "chatapp_bridge_kafka_batches_failed_total"
# What the text format calls gauge, OpenMetrics knows more of.
APPENDED = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@pytest.fixture(scope="module")
def bridge(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """One with a spool, that took every kind of callback."""
    process = BridgeProcess(
        kafka_bootstrap, tmp_path_factory.mktemp("bridge"), topics=run_apart(make_topics(kafka_bootstrap))
    )

    async def connected() -> bool:
        return (await process.metrics())["chatapp_bridge_kafka_up"] == 1

    async def prepare() -> None:
        await process.start()
        await eventually(connected)  # a spool makes it ready before Kafka is
        traced = [("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")]
        items = [
            report("m", status)
            for status in ("Sent", "Delivered", "Read", "Failed", "Deleted", "Subscribed", "Unsubscribed", "Played")
        ]
        assert (await process.post(body(*items, 1), headers=traced)).body == SUCCESS
        assert (await process.post(b"")).status == 400

    try:
        run_apart(prepare())
        yield process
    finally:
        process.close()


async def scraped(bridge: BridgeProcess, accept: str = "") -> Answer:
    """A scrape's answer, asked for by that Accept header."""
    headers = [("Connection", "close"), *([("Accept", accept)] if accept else [])]
    answer = await exchange(bridge.admin_port, request("GET", "/metrics", headers=headers))
    assert answer is not None
    assert answer.status == 200
    return answer


def openmetrics_of(answer: Answer) -> list[Metric]:
    """As prometheus_client's own parser, which refuses what is not OpenMetrics, reads it."""
    return list(openmetrics_families(answer.body.decode()))  # type: ignore[no-untyped-call]


async def families(bridge: BridgeProcess) -> dict[str, Metric]:
    """Those of the bridge, by the name of the contract."""
    parsed = text_string_to_metric_families((await scraped(bridge)).body.decode())
    own = {family.name: family for family in parsed if family.name.startswith("chatapp_bridge_")}
    return {name + ("_total" if family.type == "counter" else ""): family for name, family in own.items()}


async def test_every_metric_is_in_the_list_and_the_list_names_no_other(bridge: BridgeProcess) -> None:
    """A new one is written down; one that goes leaves the list."""
    assert set(promised()) == set(await families(bridge)) | {FAILED}


async def test_types_and_labels_are_as_promised(bridge: BridgeProcess) -> None:
    """Each sample of a metric has its labels and no other; of a bounded one exactly the values of the list."""
    for name, family in (await families(bridge)).items():
        row = promised()[name]
        assert row.kind == family.type, name
        suffix = name.removesuffix("_total")
        assert {sample.name.removeprefix(suffix) for sample in family.samples} <= set(APPENDED[row.kind]), name
        values: dict[str, set[str]] = {}
        for sample in family.samples:
            labels = {label: value for label, value in sample.labels.items() if label != "le"}
            assert set(labels) == set(row.labels), name
            for label, value in labels.items():
                values.setdefault(label, set()).add(value)
        for label, bounded in row.labels.items() if name != FAILED else ():
            assert not bounded or bounded == values[label], (name, label)


def test_every_action_after_a_failed_batch_is_in_the_list() -> None:
    """Those of the errors, and what becomes of a record that Kafka will not take."""
    labels = promised()[FAILED].labels
    assert labels == {"action": {*(action.value for action in Action), "dead_letter"}, "error": set()}


async def test_a_help_text_is_the_beginning_of_what_the_list_says(bridge: BridgeProcess) -> None:
    """Whoever finds a metric finds what it means: a sentence of its own."""
    helps = {name: family.documentation for name, family in (await families(bridge)).items()}
    assert len(set(helps.values())) == len(helps)
    assert [name for name, text in helps.items() if not text.endswith(".")] == []
    assert all(row.unit and row.meaning for row in promised().values())


async def test_openmetrics_is_given_where_it_is_asked_for(bridge: BridgeProcess) -> None:
    """By the Accept header; a strict parser takes it, and the samples are those of the text format."""
    text, openmetrics = await scraped(bridge), await scraped(bridge, f"{OPENMETRICS},text/plain;q=0.5")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.body.endswith(b"# EOF\n")
    parsed = openmetrics_of(openmetrics)
    of_text = text_string_to_metric_families(text.body.decode())
    assert {sample.name for family in of_text for sample in family.samples} == {
        sample.name for family in parsed for sample in family.samples
    }


async def test_an_exemplar_names_the_trace_of_a_callback(bridge: BridgeProcess) -> None:
    """On the ack latency's bucket, and nowhere in the text format, which knows none."""
    parsed = openmetrics_of(await scraped(bridge, OPENMETRICS))
    exemplars = [
        (sample.name, sample.exemplar) for family in parsed for sample in family.samples if sample.exemplar is not None
    ]
    assert [(name, found.labels) for name, found in exemplars] == [
        ("chatapp_bridge_ack_latency_seconds_bucket", {"trace_id": TRACE})
    ]
    assert exemplars[0][1].value > 0
    assert TRACE not in (await scraped(bridge)).body.decode()


async def test_what_was_pushed_is_counted(bridge: BridgeProcess) -> None:
    """Outcome and status of every report, reasons, batches; and the reconciliation balances."""
    seen = await bridge.metrics()
    answered = {
        status: seen[f'chatapp_bridge_reports_answered_total{{outcome="kafka",status="{status}"}}']
        for status in promised()["chatapp_bridge_reports_answered_total"].labels["status"]
    }
    assert answered == dict.fromkeys(answered, 1)
    paths = {path: seen[f'chatapp_bridge_reports_encoded_total{{path="{path}"}}'] for path in ("fast", "slow")}
    documented = len(answered) - len(["UNKNOWN", "NONE"])
    assert paths == {"fast": documented * COMPILED, "slow": len(answered) - documented * COMPILED}
    assert seen['chatapp_bridge_reports_quarantined_total{reason="not_an_object"}'] == 1
    assert seen['chatapp_bridge_callbacks_total{answer="400"}'] == 1
    assert seen["chatapp_bridge_kafka_up"] == seen["chatapp_bridge_kafka_producer_ids_total"] == 1
    assert seen["chatapp_bridge_kafka_connections_opened_total"] >= 1
    assert seen["chatapp_bridge_kafka_epochs_raised_total"] == 0
    assert seen["chatapp_bridge_kafka_batch_latency_seconds_count"] >= 2
    assert seen["chatapp_bridge_kafka_batch_records_sum"] == len(answered)
    assert seen["chatapp_bridge_last_callback_timestamp_seconds"] > seen["chatapp_bridge_start_timestamp_seconds"]
    assert balance(seen).taken == balance(seen).accounted == len(answered)


async def test_no_series_holds_what_was_pushed(bridge: BridgeProcess) -> None:
    """No number, id or secret is a label's value."""
    said = (await scraped(bridge, OPENMETRICS)).body.decode()
    sent = report("m")
    assert [value for value in (sent["From"], sent["To"], bridge.secret) if json.dumps(value) in said] == []
