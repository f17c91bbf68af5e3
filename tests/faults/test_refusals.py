"""Errors with which a broker refuses batches: nothing is lost, and only the record that is at fault becomes a dead letter."""

import asyncio
import json
import time
from collections import Counter

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from support.arena import LONG, longer
from support.callbacks import report
from support.kafka_frames import BatchHead, Request
from support.kafka_proxy import Fault
from support.proxied import MOST_CONNECTIONS, RATE, MakeProxied, refused
from support.topics import consume_all

pytest_plugins = ("support.proxied_fixture",)

NONE, GZIP, LZ4 = 0, 1, 3
THROTTLED, INVALID_TIMESTAMP, INVALID_RECORD, UNKNOWN = 44, 32, 87, -1
NO_CODE_OF_KAFKA = 999
REFUSED_SECONDS = longer(8, 60)
MOST_PROBES = longer(60, 150)
"""Produce requests while everything is refused: the lanes find that out one by one, then one of them probes."""


# --- everything is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "appended"),
    [(THROTTLED, False)]
    + ([(UNKNOWN, True), (UNKNOWN, False), (NO_CODE_OF_KAFKA, False), (NO_CODE_OF_KAFKA, True)] if LONG else []),
)
async def test_a_refusal_of_everything_is_waited_for(make_proxied: MakeProxied, code: int, *, appended: bool) -> None:
    """It costs no dead letter, no producer id, no connection and few requests; then all is published once, in order.

    A broker may have appended what it answers with an error that does not say otherwise.
    """
    proxied = await make_proxied()
    proxied.arena.load(REFUSED_SECONDS + 2, RATE)
    await proxied.published(300)
    before = proxied.cost
    proxied.on_produce = lambda request: Fault(codes=code) if appended else refused(request, code)
    await proxied.until(lambda scrape: scrape.metrics["kafka_refused_lanes"] > 1, 5)
    await asyncio.sleep(REFUSED_SECONDS)  # the fault's length
    proxied.on_produce = None
    spent = proxied.cost - before

    await proxied.finish()
    assert spent.producer_ids == 0, spent
    assert spent.connections <= MOST_CONNECTIONS, spent
    assert spent.requests <= MOST_PROBES, spent
    proxied.assert_told(code)
    assert proxied.arena.watcher.scrapes[-1].metrics["kafka_refused_lanes"] == 0


async def test_a_refusal_of_one_partition_holds_up_no_other(make_proxied: MakeProxied) -> None:
    """A service may throttle one partition: its reports wait, and all others are published as before."""
    proxied = await make_proxied()
    arena, (status, _) = proxied.arena, proxied.arena.topics
    arena.load(REFUSED_SECONDS + 2, RATE)
    await proxied.published(300)
    before = proxied.cost
    proxied.on_produce = lambda request: refused(request, THROTTLED, lambda partition, _: partition == (status, 0))
    await proxied.until(lambda scrape: scrape.metrics["kafka_refused_lanes"] == 1, 10)
    published = arena.watcher.scrapes[-1].total("reports_published")
    # Of the load, a twelfth is held up.
    await proxied.published(published + RATE * REFUSED_SECONDS / 2, REFUSED_SECONDS)
    assert arena.watcher.scrapes[-1].metrics["kafka_refused_lanes"] == 1
    proxied.on_produce = None
    spent = proxied.cost - before

    await proxied.finish()
    assert spent.producer_ids == 0, spent
    assert spent.connections <= MOST_CONNECTIONS, spent
    proxied.assert_told(THROTTLED)


# --- what the batches are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "codecs"), [(43, [LZ4]), (76, [LZ4, GZIP]), *([(76, [LZ4])] if LONG else [])])
async def test_a_codec_that_the_broker_lacks_is_left(make_proxied: MakeProxied, code: int, codecs: list[int]) -> None:
    """From the first record on: gzip is used then, and no codec where that is refused, too. Each is told once, with the key."""
    proxied, taken = await make_proxied(), Counter[int]()

    def script(request: Request) -> Fault | None:
        found = [BatchHead.read(batch).codec for batch in request.batches.values()]
        taken.update(codec for codec in found if codec not in codecs)
        return refused(request, code, lambda _, batch: BatchHead.read(batch).codec in codecs)

    proxied.on_produce = script
    proxied.arena.load(longer(3, 30), RATE)

    await proxied.finish()
    assert proxied.proxy.done["withhold"] > 0
    assert taken[GZIP if GZIP not in codecs else NONE] > 0, taken
    lines = proxied.events("codec_not_supported")
    assert len(codecs) == len(lines), lines
    assert all("kafka.compression_type" in str(line) for line in lines), lines
    assert proxied.cost.producer_ids <= 2
    proxied.assert_told(code)


async def test_an_old_timestamp_is_replaced_once(make_proxied: MakeProxied) -> None:
    """The topic takes no record older than two seconds. What waited for longer gets the time at which it is sent."""
    proxied = await make_proxied()
    arena = proxied.arena

    def bounded(request: Request) -> Fault | None:
        bound = time.time() * 1000 - 2000
        return refused(request, INVALID_TIMESTAMP, lambda _, batch: BatchHead.read(batch).first_timestamp < bound)

    proxied.on_produce = lambda request: refused(request, THROTTLED)
    arena.load(longer(4, 30), RATE)
    await proxied.until(lambda scrape: scrape.metrics["oldest_waiting_seconds"] > 3, 10)
    oldest = int(time.time() * 1000) - 2900
    proxied.on_produce = bounded

    await proxied.finish()
    proxied.assert_told(INVALID_TIMESTAMP)
    records = await consume_all(arena.bootstrap, arena.topics[0])
    assert min(record.timestamp for record in records) > oldest
    assert min(json.loads(record.value)["received_at"] for record in records) < oldest  # the event keeps its own time


async def test_timestamps_that_are_always_refused_make_no_dead_letter(make_proxied: MakeProxied) -> None:
    """The broker's clock or its bound is wrong: everything waits, and the log says what to look at."""
    proxied = await make_proxied()
    proxied.arena.load(longer(8, 30), RATE)
    await proxied.published(200)
    before = proxied.cost
    proxied.on_produce = lambda request: refused(request, INVALID_TIMESTAMP)
    await proxied.until(lambda scrape: scrape.metrics["oldest_waiting_seconds"] > longer(6, 20), 30)
    proxied.on_produce = None
    spent = proxied.cost - before

    await proxied.finish()
    assert spent.producer_ids == 0, spent
    proxied.assert_told(INVALID_TIMESTAMP)
    assert any("clock" in line for line in proxied.lines_with(f"({INVALID_TIMESTAMP})"))


async def test_a_record_that_the_answer_names_becomes_a_dead_letter_at_once(make_proxied: MakeProxied) -> None:
    """INVALID_RECORD with the record's place in the batch: what is before and behind it is published, in order."""
    proxied = await make_proxied()
    arena, named = proxied.arena, 0

    def script(request: Request) -> Fault | None:
        nonlocal named
        for partition, batch in request.batches.items():
            values = [record.value for record in DefaultRecordBatch(batch)]
            places = [place for place, value in enumerate(values) if b"a-note-nobody-wants" in value]
            if places:
                named += 1
                errors = [(place, "the note is not allowed") for place in places]
                return Fault(withhold=[partition], codes={partition: INVALID_RECORD}, record_errors=errors)
        return None

    proxied.on_produce = script
    arena.load(longer(4, 30), RATE)
    await proxied.published(200)
    notes = {"Sent": "fine", "Delivered": "a-note-nobody-wants", "Read": "fine"}
    body = json.dumps([report("one-of-three", status, Note=note) for status, note in notes.items()])
    assert (await arena.bridge.post(body.encode())).status == 200
    await arena.until(lambda scrape: scrape.total("reports_dead_lettered") > 0, 5)

    verdict = await proxied.finish(dead_letters=1, but={"invented"})
    assert named == 1
    # The checker knows only what the provider pushed; "invented" are the two that this test pushed.
    assert all("with key one-of-three," in damage.detail for damage in verdict.checked.damages)
    records = await consume_all(arena.bootstrap, arena.topics[0])
    ours = [json.loads(record.value)["status"] for record in records if record.key == b"one-of-three"]
    assert ["SENT", "READ"] == ours
    proxied.assert_told(INVALID_RECORD)
