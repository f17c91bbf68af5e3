"""What the bridge puts on Kafka under load: every report once, each message's in order, in its partition, and accounted for."""

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from conftest import MakeTopic
from support.bridge_process import BridgeProcess, balance
from support.callbacks import SUCCESS, body, kept, make_topics, mark, report
from support.raw_http import connection, read_answer, request
from support.topics import consume_all

from bridge.deliver.partition import partition_for

NO_SPOOL = {"spool.enabled": False}
PARTITIONS = 5
CONNECTIONS, ROUNDS, MESSAGES = 40, 15, 25
STATES = ("Sent", "Delivered", "Read", "Failed")


async def test_every_report_of_many_callbacks_is_there_once_in_order_and_accounted_for(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """40 connections push at once, each with messages of its own and items that can't be understood among them.

    All records of a message are in the partition that Java's client would choose, in the order in which they were pushed,
    none is missing or there twice; at every scrape meanwhile the accounting balances, in the end with nothing waiting.
    """
    topics = await make_topics(kafka_bootstrap, partitions=PARTITIONS)
    done = asyncio.Event()
    scrapes = 0

    async def push(bridge: BridgeProcess, marked: str) -> None:
        """Callback after callback on one connection: of each, one more state of every message, in two reports, and one broken."""
        async with connection(bridge.port) as (reader, writer):
            for number in range(ROUNDS):
                state = f"{STATES[number % len(STATES)]}-{number}"
                reports: list[Any] = [report(f"{marked}-{message}", state) for message in range(MESSAGES)]
                reports[number] = {"MessageId": f"{marked}-{number}", "broken": number}
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

    marks = [mark() for _ in range(CONNECTIONS)]
    async with BridgeProcess(kafka_bootstrap, tmp_path, NO_SPOOL, topics) as bridge:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            scraping = group.create_task(scrape(bridge))
            async with asyncio.TaskGroup() as pushing:
                for marked in marks:
                    pushing.create_task(push(bridge, marked))
            done.set()
            await scraping
        metrics = await bridge.metrics()

    reports = CONNECTIONS * ROUNDS * MESSAGES
    broken = CONNECTIONS * ROUNDS
    assert scrapes > 5
    assert metrics["chatapp_bridge_reports_received_total"] == reports
    assert metrics["chatapp_bridge_reports_waiting"] == 0
    published = "chatapp_bridge_reports_published_total"
    assert (metrics[f'{published}{{topic="{topics[0]}"}}'], metrics[f'{published}{{topic="{topics[1]}"}}']) == (
        reports - broken,
        broken,
    )
    assert metrics['chatapp_bridge_reports_quarantined_total{reason="no_status"}'] == broken
    await assert_in_order(kafka_bootstrap, topics, marks)


async def assert_in_order(bootstrap: str, topics: tuple[str, str], marks: list[str]) -> None:
    """Each message's states as they were pushed, in its partition; each broken one once."""
    expected = {
        f"{marked}-{message}": [
            f"{STATES[number % len(STATES)]}-{number}" for number in range(ROUNDS) if number != message
        ]
        for marked in marks
        for message in range(MESSAGES)
    }
    states: dict[str, list[str]] = defaultdict(list)
    for record in await consume_all(bootstrap, topics[0]):
        assert record.partition == partition_for(record.key, PARTITIONS)
        states[record.key.decode()].append(json.loads(record.value)["provider_status"])
    assert states == expected
    broken = sorted(record.key.decode() for record in await consume_all(bootstrap, topics[1]))
    assert broken == sorted(f"{marked}-{number}" for marked in marks for number in range(ROUNDS))


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
