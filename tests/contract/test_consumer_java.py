"""A consuming team in Java reads what the bridge made of the provider's own examples."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from support.bridge_process import BridgeProcess
from support.callbacks import SUCCESS, make_topics
from support.page import PAGE_MESSAGE, PAGE_TEMPLATE

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.simulate.identity import event_id

FIXTURES = Path(__file__).parents[1] / "fixtures"
SOURCE = "/callbacks/chatapp/status/account-1"
MESSAGE, TEMPLATE = PAGE_MESSAGE["message_id"], PAGE_TEMPLATE["message_id"]
EXPECTED = [
    {**PAGE_MESSAGE, "recipient": "86138*******8"},
    {**PAGE_MESSAGE, "recipient": "86138*******1"},
    {**PAGE_TEMPLATE, "recipient": "86138*******8"},
    {**PAGE_TEMPLATE, "recipient": "86137*******8"},
]


async def test_java_reads_the_provider_s_examples_from_three_nodes(
    cluster: EmbeddedKafka,
    java_read: Callable[[str, str, int], Awaitable[list[dict[str, Any]]]],
    tmp_path: Path,
) -> None:
    """Both examples of the page, pushed byte for byte: four records, with the keys, headers and every field as documented."""
    topics = await make_topics(cluster.bootstrap_servers, partitions=12)
    settings = {"events.source": SOURCE, "spool.directory": tmp_path / "spool"}
    async with BridgeProcess(cluster.bootstrap_servers, tmp_path, settings, topics) as bridge:
        for name in ("page-message.json", "page-template.json"):
            answer = await bridge.post((FIXTURES / name).read_bytes(), headers=[("Content-Type", "text/plain")])
            assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", SUCCESS)
        assert (await bridge.stop()).code == 0

    records = await java_read(cluster.bootstrap_servers, topics[0], 4)

    records.sort(key=lambda each: (each["key"] != MESSAGE, each["offset"]))
    assert [each["key"] for each in records] == [MESSAGE, MESSAGE, TEMPLATE, TEMPLATE]
    for position, (record, expected) in enumerate(zip(records, EXPECTED, strict=True)):
        assert_as_documented(record, expected, f"{position % 2 + 1}/2")
    assert [len({each["headers"][-2][1] for each in pair}) for pair in (records[:2], records[2:], records)] == [1, 1, 2]


def assert_as_documented(record: dict[str, Any], expected: dict[str, Any], position: str) -> None:
    """The value holds every field, the headers are CloudEvents', and both name the same event."""
    value = json.loads(record["value"])
    identity = event_id(
        expected["message_id"], expected["recipient"], expected["provider_status"], expected["error_code"]
    )
    received = value.pop("received_at")
    assert value.pop("event_id") == identity
    assert value == expected
    assert record["timestamp"] == received

    headers = dict(record["headers"])
    assert len(headers) == len(record["headers"])
    callback, time = headers.pop("bridge_callback"), headers.pop("ce_time")
    assert callback
    assert len("2026-01-01T00:00:00.000Z") == len(time)
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": identity,
        "ce_source": SOURCE,
        "ce_type": f"chatapp.status.{expected['status'].lower()}",
        "ce_subject": expected["message_id"],
        "content-type": "application/json",
        "bridge_position": position,
    }
