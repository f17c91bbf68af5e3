"""A consuming team in Java reads what the bridge made of the provider's own examples."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from support.bridge_process import BridgeProcess
from support.callbacks import SUCCESS, make_topics

from bridge.embedded import EmbeddedKafka
from bridge.simulate.identity import event_id

FIXTURES = Path(__file__).parents[1] / "fixtures"
SOURCE = "/callbacks/chatapp/status/account-1"
MESSAGE, TEMPLATE = "2023038470553398*******8", "2023078469463703*******3"
DESCRIPTION = "131026:Receiver is incapable of receiving this message(Message Undeliverable.)"

NOTHING = {
    "sender_user_id": None,
    "sender_parent_user_id": None,
    "sender_user_name": None,
    "status_description": None,
    "conversation_expires_at": None,
    "task_id_defaulted": False,
    "message_time_source": "PROVIDER",
    "extras": None,
}
READ = {
    **NOTHING,
    "message_id": MESSAGE,
    "task_id": "2023068473353098*******8",
    "sender": "86131*******8",
    "origin_phone_number": "86131*******8",
    "status": "READ",
    "provider_status": "Read",
    "status_rank": 3,
    "message_time": 1691132091000,
    "error_code": None,
    "error_description": None,
    "error_category": "NONE",
    "error_retry": "NONE",
    "conversation_id": "72222201111****",
    "conversation_type": "service",
    "message_frame_type": "message",
    "content_type": "interactive",
    "template_code": None,
    "template_name": None,
    "template_language": None,
}
FAILED = {
    **NOTHING,
    "message_id": TEMPLATE,
    "task_id": "202307030171*******9",
    "sender": "86131*******8",
    "origin_phone_number": "86130*******8",
    "status": "FAILED",
    "provider_status": "Failed",
    "status_rank": 0,
    "message_time": 1691043638000,
    "error_code": "131026",
    "error_description": DESCRIPTION,
    "error_category": "UNDELIVERABLE",
    "error_retry": "NO",
    "conversation_id": None,
    "conversation_type": None,
    "message_frame_type": "template",
    "content_type": "template",
    "template_code": "820561547132813184",
    "template_name": "wa_otp_v_0_0_3",
    "template_language": "id",
}
EXPECTED = [
    {**READ, "recipient": "86138*******8"},
    {**READ, "recipient": "86138*******1"},
    {**FAILED, "recipient": "86138*******8"},
    {**FAILED, "recipient": "86137*******8"},
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
