"""The logs of a whole run, at DEBUG: no telephone number, no message id, no secret, whatever came and whatever failed."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import SUCCESS, body, eventually, make_topics, report
from support.raw_http import chunked, connection, exchange, get, request
from support.topics import consume_all

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port

SECOND = "another-secret-of-the-tests-9876"
PASSWORD = "pass-phrase-9f8e7d6c5b"  # noqa: S105 - opens nothing
WRONG = "a-guess-at-the-secret-4711471147"
NUMBERS = ["8613812345678", "+49 151 23456789", "8613899999999"]
IDS = ["20230384705533980001", "wamid.HBgLNDkxNTEyMzQ1Njc4OTAVAgARGBI5"]
NAME = "Jane-Q-Example"
CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.fixture
async def kafka() -> AsyncIterator[EmbeddedKafka]:
    """A broker of one's own, to be paused and killed."""
    async with EmbeddedKafka() as kafka:
        yield kafka


def bodies() -> list[bytes]:
    """Every kind of body: as documented, odd, broken in each way, all full of numbers, ids and a name."""
    number, other, third = NUMBERS
    good = {**report(IDS[0]), "From": number, "To": other, "FromUserName": NAME, "OriginPhoneNumber": third}
    raw = json.dumps(good).encode()
    return [
        body(good),
        body({**good, "MessageId": IDS[1], "Status": "Read"}, {**good, "To": int(number), "Status": "Failed"}),
        raw,
        b"\xef\xbb\xbf" + raw,
        b"[" + raw,
        raw + raw,
        b"[" + raw.replace(b'"Sent"', b"Sent") + b"]",
        b"[" + raw.replace(NAME.encode(), b"\xc3\x28" + NAME.encode()) + b"]",
        b'"' + number.encode() + b'"',
        number.encode(),
        b"{" + number.encode() + b"}",
        body(number, None, 1, [good], {"To": number}),
        body({**good, "MessageId": {"id": IDS[0]}}),
        body({**good, "Status": {"x": other}}),
        body({**good, "Timestamp": number, "Extra": {number: IDS}}),
        body({**good, "Filler": "x" * 20_000}),
        b"To=" + number.encode() + b"&MessageId=" + IDS[0].encode(),
        b"<To>" + number.encode() + b"</To>",
        b"[" * 5000 + number.encode(),
        b"",
        b"[]",
        *stranger_ones(raw),
    ]


def stranger_ones(raw: bytes) -> list[bytes]:
    """What older senders, sibling callbacks and mistakes look like, and the provider's own examples."""
    number, other, third = NUMBERS
    name = NAME.encode()
    return [
        *(path.read_bytes() for path in sorted((Path(__file__).parents[1] / "fixtures").glob("page-*.json"))),
        json.dumps(json.dumps([{"MessageId": IDS[0], "To": number}])).encode(),
        body({"messageid ": IDS[1], " STATUS": "sent", "to": other, "Timestamp": "1691132091"}),
        body({"MessageId": int(IDS[0]), "Status": "Failed", "Error": f"OUT_OF_SERVICE to {number}", "To": third}),
        body({"MessageId": IDS[0], "Status": f"Played by {number}", "ErrorDescription": f"131026:{other}"}),
        b'[{"MessageId":"' + IDS[0].encode() + b'","MessageId":"' + IDS[1].encode() + b'","Status":"Read"}]',
        b'{"MessageId":"' + name + b'\\ud800","Status":"Sent"}',
        b'{"MessageId":"' + name + b'","Status":"Sent","Timestamp":' + number.encode() * 40 + b"}",
        b'{"' + name + b'":' + b'{"a":' * 2000 + number.encode() + b"}" * 2001,
        raw.replace(b'"Sent"', b"NaN"),
        raw[:-20],
        raw.decode().encode("utf-16"),
        raw + b"\x00" + name,
    ]


async def provoke(bridge: BridgeProcess) -> None:
    """Everything that a stranger or a provider could send."""
    paths = (bridge.path, f"/callbacks/chatapp/status/{SECOND}", f"/callbacks/chatapp/status/{WRONG}")
    answers = await asyncio.gather(*(bridge.post(pushed, path=path) for pushed in bodies() for path in paths))
    assert {answer.status for answer in answers} <= {200, 400, 404, 503}
    target = f"{bridge.path}?to={NUMBERS[0]}&id={IDS[0]}"
    good = bodies()[0]
    for data in (
        request("GET", target),
        request("POST", target, good, [("Content-Length", str(len(good) + 10))]),
        request("POST", target, chunked(good, final=False), [CHUNKED]),
        request(
            "POST", target, good, [("X-To", NUMBERS[0]), ("traceparent", IDS[0]), ("Content-Encoding", NUMBERS[0])]
        ),
        request("POST", target, good, [(f"x-{NUMBERS[0]}-{number}", NUMBERS[1]) for number in range(70)]),
        request("POST", target, b"zz" + good, [CHUNKED]),
        request("POST", f"/{NUMBERS[0]}/{SECRET}", good),
        f"POST /{NUMBERS[0]} {SECRET} {IDS[0]}\r\n\r\n".encode(),
    ):
        await exchange(bridge.port, data, end=True)
    async with connection(bridge.port) as (_, writer):
        writer.write(request("POST", bridge.path, good)[:-20])
        await writer.drain()


async def said(bridge: BridgeProcess, event: str) -> bool:
    """Whether it has logged this event."""
    return f'"event": "{event}"' in bridge.log()


def lines_of(bridge: BridgeProcess, event: str) -> list[dict[str, Any]]:
    """What it logged of that event."""
    said = (json.loads(line) for line in bridge.log().splitlines())
    return [line for line in said if line["event"] == event]


def assert_no_datum(text: str) -> None:
    """Nothing of this module's, whole or in part."""
    for datum in (*NUMBERS, *IDS, NAME, SECRET, SECOND, WRONG, PASSWORD, "15123456789"):
        assert datum not in text


def assert_nothing_betrayed(text: str) -> None:
    """No datum of this module, whole or in part, and no number as long as a telephone's."""
    assert_no_datum(text)
    # Times apart, whose fractions are digits, no run of them is as long as a number or an id.
    timeless = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "", text)
    # Nor is the id of a callback anybody's: sixteen hexadecimal digits and a number.
    timeless = re.sub(r'"callback": "[0-9a-f]{16}-\d+"', "", timeless)
    assert [] == [match for match in re.findall(r"\d{8,}", timeless) if match]


async def test_the_logs_of_a_whole_run_hold_no_data(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """All bodies with Kafka up, standing still, dead and up again, wrong secrets, cut requests, the end: nothing is betrayed.

    Two bridges, one with a spool and one without, both at DEBUG. What their admin ports say betrays as little.
    """
    topics = await make_topics(kafka.bootstrap_servers, names=("events", "quarantined"))
    settings = {
        "access.path_secrets": f"{SECRET},{SECOND}",
        "kafka.max_record_bytes": 16_384,
        "delivery.ack_deadline_seconds": 0.3,
        "delivery.spool_after_ms": 100,
        "delivery.producer_timeout_seconds": 1.0,
        "limits.body_read_seconds": 0.2,
    }
    node = kafka.nodes[0]
    spooling = BridgeProcess(kafka.bootstrap_servers, tmp_path / "spooling", settings, topics)
    without = BridgeProcess(kafka.bootstrap_servers, tmp_path / "without", {**settings, "spool.enabled": False}, topics)
    async with spooling, without:
        bridges = (spooling, without)
        await asyncio.gather(*map(provoke, bridges))
        node.pause()
        await asyncio.gather(*map(provoke, bridges))
        for bridge in bridges:
            await eventually(partial(said, bridge, "kafka_not_answering"))
        await node.kill()
        await asyncio.gather(*map(provoke, bridges))
        await node.start()
        for bridge in bridges:
            await eventually(partial(takes, bridge))
            await eventually(partial(said, bridge, "lane_healthy"))
            await eventually(partial(idle, bridge))
            for path in ("/", "/status.json", "/metrics"):
                assert_no_datum((await get(bridge.admin_port, path)).body.decode())
            answers = {name: count for name, count in (await bridge.metrics()).items() if "_callbacks_total{" in name}
            assert len(lines_of(bridge, "callback")) == sum(answers.values())
            assert (await bridge.stop()).code == 0

        for text in (bridge.log() for bridge in bridges):
            for event in ("serving", "lane_degraded", "kafka_not_answering", "lane_healthy", "stopping", "stopped"):
                assert f'"event": "{event}"' in text
            assert "Traceback" not in text
            # What a topic's settings are is told in numbers that are long, and nobody's.
            lines = [line for line in text.splitlines() if json.loads(line)["event"] != "topic_drift_detected"]
            assert_nothing_betrayed("\n".join(lines))
        await assert_ids_tie_lines_to_records(kafka.bootstrap_servers, topics, spooling)


async def assert_ids_tie_lines_to_records(bootstrap: str, topics: tuple[str, str], bridge: BridgeProcess) -> None:
    """The line of a callback has the id that its records have as a header."""
    lines = [line for line in lines_of(bridge, "callback") if line["reports"]]
    logged, taken = (
        {line["callback"] for line in lines if line["answer"] in answers} for answers in (("200", "503"), ("200",))
    )
    (own,) = {callback.partition("-")[0] for callback in logged}
    records = [record for topic in topics for record in await consume_all(bootstrap, topic)]
    published = {dict(record.headers)["bridge_callback"].decode() for record in records}
    assert taken <= {callback for callback in published if callback.startswith(own)} <= logged
    assert len(taken) > 50


async def idle(bridge: BridgeProcess) -> bool:
    """Whether nothing waits."""
    return (await bridge.metrics())["chatapp_bridge_reports_waiting"] == 0


async def takes(bridge: BridgeProcess) -> bool:
    """Whether a callback is a success again."""
    return (await bridge.post(bodies()[0])).body == SUCCESS


async def test_a_start_that_fails_betrays_no_secret(tmp_path: Path) -> None:
    """Wrong settings, files that can't be read, a port that is taken: what is said last of all is in the logs as well."""
    unreadable = tmp_path / "secrets"
    unreadable.write_bytes(f"{SECRET}\n".encode() + b"\xff")
    broken = tmp_path / "broken.pem"
    broken.write_text(f"-----BEGIN CERTIFICATE-----\n{PASSWORD}\n")
    taken, nowhere = Port(), Port()
    listener = await asyncio.start_server(lambda _, writer: writer.close(), taken.address.split(":")[0], taken.number)
    sasl = {
        "kafka.security_protocol": "SASL_SSL",
        "kafka.sasl_plain_username": "user",
        "kafka.sasl_plain_password": PASSWORD,
    }
    starts: list[dict[str, Any]] = [
        {"access.path_secrets": f"{SECRET} {SECOND}"},
        {"access.path_secrets": f"{SECRET},short"},
        {"access.path_secret": SECRET},
        {"access.allow_unauthenticated": True},
        {"access.path_secrets_file": unreadable},
        {"server.port": taken.number},
        {**sasl, "kafka.sasl_mechanism": "OAUTHBEARER"},
        {**sasl, "kafka.sasl_plain_password_file": broken},
        {**sasl, "kafka.ssl_cafile": broken},
        {**sasl, "kafka.sasl_plain_password": None, "kafka.sasl_plain_password_file": tmp_path / "missing"},
    ]
    try:
        processes = [
            BridgeProcess(nowhere.address, tmp_path / str(number), settings, wait="no")
            for number, settings in enumerate(starts)
        ]

        async def ends(process: BridgeProcess) -> tuple[int, str]:
            async with process:
                return await process.ended(), process.log()

        for code, text in await asyncio.gather(*map(ends, processes)):
            assert code == 2, text
            assert "chatapp-bridge: " in text
            assert "Traceback" not in text
            assert_nothing_betrayed(text.replace(str(tmp_path), ""))
    finally:
        listener.close()
        taken.release()
        nowhere.release()
