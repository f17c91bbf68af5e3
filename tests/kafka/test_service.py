"""What the bridge puts on Kafka under load: every report once, each message's in order, in its partition, and accounted for."""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

from conftest import MakeTopic
from support.bridge_process import BridgeProcess, balance
from support.callbacks import SUCCESS, body, kept, make_topics, mark, report
from support.raw_http import connection, read_answer, request
from support.topics import consume_all

from bridge.kafka.partition import partition_for

NO_SPOOL = {"spool.enabled": False}
PARTITIONS = 5
CONNECTIONS, ROUNDS, MESSAGES = 40, 8, 25


async def test_every_report_of_many_callbacks_is_there_once_in_order_and_accounted_for(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """40 connections push at once, all of them of the same messages, twice in a callback, with a broken item in each.

    All records of a message are in the partition that Java's client would choose, in the order in which the bridge received
    them, none is missing or there twice; at every scrape meanwhile the reconciliation balances, in the end with nothing waiting.
    """
    topics = await make_topics(kafka_bootstrap, partitions=PARTITIONS)
    marked = mark()
    done = asyncio.Event()
    scrapes = 0

    async def push(bridge: BridgeProcess, client: int) -> None:
        """Callback after callback on one connection."""
        async with connection(bridge.port) as (reader, writer):
            for number in range(ROUNDS):
                reports: list[Any] = [
                    report(f"{marked}-{message}", f"{client}/{number}/{half}")
                    for half in "ab"
                    for message in range(MESSAGES)
                ]
                reports.insert(number, {"MessageId": f"{marked}-{client}-{number}", "broken": number})
                writer.write(request("POST", bridge.path, body(*reports)))
                answer = await read_answer(reader)
                assert answer is not None
                assert answer.body == SUCCESS

    async def scrape(bridge: BridgeProcess) -> None:
        nonlocal scrapes
        while not done.is_set():
            metrics = await bridge.metrics()
            assert balance(metrics).taken == balance(metrics).accounted, metrics
            scrapes += 1

    async with BridgeProcess(kafka_bootstrap, tmp_path, NO_SPOOL, topics) as bridge:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            scraping = group.create_task(scrape(bridge))
            async with asyncio.TaskGroup() as pushing:
                for client in range(CONNECTIONS):
                    pushing.create_task(push(bridge, client))
            done.set()
            await scraping
        metrics = await bridge.metrics()

    callbacks, events = CONNECTIONS * ROUNDS, CONNECTIONS * ROUNDS * MESSAGES * 2
    assert scrapes > 5
    assert metrics["chatapp_bridge_reports_received_total"] == events + callbacks
    assert metrics["chatapp_bridge_reports_waiting"] == 0
    published = [metrics[f'chatapp_bridge_reports_published_total{{topic="{name}"}}'] for name in topics]
    assert published == [events, callbacks]
    assert metrics['chatapp_bridge_reports_quarantined_total{reason="no_status"}'] == callbacks
    await assert_in_order(kafka_bootstrap, topics, marked)


async def assert_in_order(bootstrap: str, topics: tuple[str, str], marked: str) -> None:
    """Each message's records by callback and position, in its partition, whole; each broken item once."""
    states: dict[str, list[str]] = defaultdict(list)
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for record in await consume_all(bootstrap, topics[0]):
        assert record.partition == partition_for(record.key, PARTITIONS)
        found = kept(record)
        key = record.key.decode()
        states[key].append(found.event["provider_status"])
        # Callbacks are numbered in the order in which the bridge takes them on.
        places[key].append((int(found.callback.rpartition("-")[2]), int(found.position.partition("/")[0])))
    expected = sorted(
        f"{client}/{number}/{half}" for client in range(CONNECTIONS) for number in range(ROUNDS) for half in "ab"
    )
    assert {key: sorted(each) for key, each in states.items()} == {f"{marked}-{n}": expected for n in range(MESSAGES)}
    assert [key for key, each in places.items() if each != sorted(each)] == []
    broken = sorted(record.key.decode() for record in await consume_all(bootstrap, topics[1]))
    assert broken == sorted(f"{marked}-{client}-{number}" for client in range(CONNECTIONS) for number in range(ROUNDS))


async def test_two_reports_of_one_message_in_one_callback_keep_their_order(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """A thousand states of one message in one body stand in the topic as they stood in it; a callback id ties them together."""
    status, quarantine = await topic(partitions=3), await topic()
    marked = mark()
    async with BridgeProcess(kafka_bootstrap, tmp_path, NO_SPOOL, (status, quarantine)) as bridge:
        pushed = body(*(report(marked, f"state-{number}") for number in range(1000)))
        assert (await bridge.post(pushed)).body == SUCCESS

    records = await consume_all(kafka_bootstrap, status)
    assert [f"state-{number}" for number in range(1000)] == [kept(each).event["provider_status"] for each in records]
    assert [f"{number}/1000" for number in range(1, 1001)] == [kept(each).position for each in records]
    assert len({kept(each).callback for each in records}) == 1
    assert len({each.partition for each in records}) == 1


async def test_a_trace_is_carried_on_and_nonsense_in_its_place_is_not(
    kafka_bootstrap: str, topic: MakeTopic, tmp_path: Path
) -> None:
    """A request's traceparent becomes the record's, if it is one."""
    status, quarantine = await topic(), await topic()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with BridgeProcess(kafka_bootstrap, tmp_path, NO_SPOOL, (status, quarantine)) as bridge:
        for given in (trace, "00-0-0-00", f"ff{trace[2:]}", "x" * 1000):
            answer = await bridge.post(body(report(mark())), headers=[("traceparent", given)])
            assert answer.body == SUCCESS

    headers = [dict(record.headers) for record in await consume_all(kafka_bootstrap, status)]
    assert [trace.encode(), None, None, None] == [each.get("traceparent") for each in headers]
