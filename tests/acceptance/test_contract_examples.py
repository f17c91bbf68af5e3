"""The examples of ``avro/CONTRACT.md`` that need a Kafka, run as they stand there but for address, topic and group."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from conftest import MakeTopic
from support.contract_document import blocks
from support.topics import unique_name

from bridge.encode.records import RecordEncoder
from bridge.lab.embedded.java import spawn
from bridge.report.report import read_body

EXAMPLE_SECONDS = 60.0
REPORTS = [
    {"MessageId": "m-1", "Status": "Sent", "To": "15550000001"},
    {"MessageId": "m-1", "Status": "Read", "To": "15550000001"},
    {"MessageId": "m-1", "Status": "Sent", "To": "15550000001"},
    {"MessageId": "m-2", "Status": "BridgeTest", "To": "15550000001"},
    {"MessageId": "m-2", "Status": "Failed", "To": "15550000002", "ErrorCode": "131026"},
]


@pytest.fixture
async def events(kafka_bootstrap: str, topic: MakeTopic) -> str:
    """A topic with a few events, a repeat and a check among them, as the bridge encodes them."""
    name = await topic(partitions=2)
    encoder = RecordEncoder(name, "unused", "/callbacks/chatapp/status", 1_000_000)
    items = read_body(json.dumps(REPORTS).encode(), 1_764_000_000_007)
    records = encoder.encode(items, callback_id="cb-1", received_at_ms=1_764_000_000_007, traceparent=None)
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        for record in records:
            await producer.send_and_wait(name, record.value, record.key, headers=record.headers)
    return name


def put_in_place(example: str, bootstrap: str, topic: str) -> str:
    """The example, for this Kafka and topic."""
    for there, here in (("localhost:9092", bootstrap), ("chatapp.status.v1", topic)):
        assert there in example
        example = example.replace(there, here)
    return example


async def test_the_python_example_prints_each_event_once(kafka_bootstrap: str, events: str, tmp_path: Path) -> None:
    """Without the repeat and the check, as a program of its own."""
    [example] = blocks("python")
    assert '"crm"' in example
    program = tmp_path / "example.py"
    program.write_text(put_in_place(example, kafka_bootstrap, events).replace('"crm"', f'"{unique_name("crm")}"'))
    process = spawn([sys.executable, str(program)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(EXAMPLE_SECONDS):
            lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(3)]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert sorted(line.decode().strip() for line in lines) == [
        "m-1 15550000001 READ 3",
        "m-1 15550000001 SENT 1",
        "m-2 15550000002 FAILED 0",
    ]


async def test_the_kcat_examples_print_keys_headers_and_categories(kafka_bootstrap: str, events: str) -> None:
    """Where kcat is installed; where it isn't, that they are there is all that can be said."""
    keys, categories = blocks("sh")[0].strip().splitlines()
    kcat = shutil.which("kcat")
    if kcat is None:
        print("kcat is not installed here: its examples are not run")  # noqa: T201  so that a log says it
        assert keys.startswith("kcat ")
        assert categories.startswith("kcat ")
        return
    out = [await _shell(put_in_place(line, kafka_bootstrap, events)) for line in (keys, categories)]
    lines = [line.split(" ", 3) for line in out[0].splitlines()]
    assert Counter(key for _, _, key, _ in lines) == {"m-1": 3, "m-2": 2}
    types = Counter(re.findall(r"ce_type=([a-z.]+)", out[0]))
    assert types == {
        f"chatapp.status.{name}": count for name, count in (("sent", 2), ("read", 1), ("unknown", 1), ("failed", 1))
    }
    for *_, headers in lines:
        assert re.search(r"ce_specversion=1\.0,ce_id=[0-9a-f]{32},ce_source=/callbacks/chatapp/status,", headers)
    assert out[1].split() == ["4", '"error_category":"NONE"', "1", '"error_category":"UNDELIVERABLE"']


async def _shell(line: str) -> str:
    """What the line prints."""
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-ec", line], capture_output=True, text=True, check=True, timeout=EXAMPLE_SECONDS
    )
    return done.stdout
