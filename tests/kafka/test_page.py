"""The page for the person on call, what it reads, and the same in a terminal: on a real bridge, without a browser.

In headless Chromium: ``make check-page``.
"""

import asyncio
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from support.apart import run_apart
from support.arena import admin
from support.bridge_process import SECRET, BridgeProcess
from support.callbacks import SUCCESS, body, eventually, make_topics, report
from support.certificates import Authority
from support.raw_http import Answer, get
from support.topics import create_topic, unique_name

from bridge.lab.embedded.ports import HOST, Port

HTML = (Path(__file__).parents[2] / "bridge/health/page.html").read_text()
SCRIPT = HTML.partition("<script>")[2].partition("</script>")[0]


@pytest.fixture(scope="module")
def bridge(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """One with a spool, that took a callback with an item that can't be understood."""
    topics = run_apart(make_topics(kafka_bootstrap))
    directory = tmp_path_factory.mktemp("bridge")
    process = BridgeProcess(kafka_bootstrap, directory, {"topics.file": as_they_are(directory)}, topics)

    async def prepare() -> None:
        await process.start()
        assert (await process.post(body(report("m-1"), {"MessageId": "m-2", "To": "8613800000099"}))).body == SUCCESS

    try:
        run_apart(prepare())
        yield process
    finally:
        process.close()


OF_MAKE_TOPICS = "".join(
    f"[{name}]\npartitions = {partitions}\nreplication_factor = 1\n"
    f'[{name}.config]\n"min.insync.replicas" = 1\n"retention.ms" = 604800000\n'
    '"message.timestamp.after.max.ms" = 3600000\n'
    for name, partitions in (("status", 6), ("quarantine", 2))
)


def as_they_are(directory: Path) -> Path:
    """A ``topics.file`` that declares the topics of ``make_topics``, so that nothing is weak."""
    file = directory / "topics.toml"
    file.write_text(OF_MAKE_TOPICS)
    return file


async def status_of(bridge: BridgeProcess) -> dict[str, Any]:
    """What ``/status.json`` says."""
    answer = await get(bridge.admin_port, "/status.json")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    found: dict[str, Any] = answer.json()
    return found


async def status(*arguments: str) -> tuple[int, str, str]:
    """``chatapp-bridge status``: its code, and what it printed."""
    command = [sys.executable, "-m", "bridge", "status", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


# --- the page ---------------------------------------------------------------------------------------------------------


async def test_the_page_is_one_file_that_asks_for_nothing_else(bridge: BridgeProcess) -> None:
    """No script, style, font or picture from anywhere; the policy allows its own script and style and no other."""
    answer = await get(bridge.admin_port, "/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.decode() == HTML
    assert len(answer.body) < 30_000
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!data:)""", HTML) == []
    assert re.findall(r"@import|url\(|\bon\w+\s*=\s*[\"']|style\s*=\s*[\"']|innerHTML|eval\(", HTML) == []
    assert set(re.findall(r"https?://[^\"'`\s]+", HTML)) == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"fetch\(([^,)]+)", SCRIPT) == ['"status.json"']
    policy = directives(answer)
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name, element in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", HTML, re.DOTALL)
        hashed = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{hashed}'"


def directives(answer: Answer) -> dict[str, str]:
    """Of the content security policy."""
    pairs = (part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in pairs}


async def test_every_field_that_the_script_reads_is_there(bridge: BridgeProcess) -> None:
    """By its path from the whole status, from the spool's part, or from a row."""
    status = await status_of(bridge)
    roots: dict[str, Any] = {
        "s": status,
        "spool": status["spool"],
        "row": status["reports"][0],
        "group": status["lanes"][0],
        "lane": status["lanes"][0]["lanes"][0],
        "fault": status["quarantined"][0],
        "notice": {"text": "", "entry": ""},
    }
    paths = set(re.findall(rf"\b({'|'.join(roots)})((?:\.[a-z][a-z0-9_]*)+)", SCRIPT))
    assert len(paths) > 40
    for root, path in paths:
        value = roots[root]
        for name in path.strip(".").split("."):
            if isinstance(value, list | str):  # from here on it is a method
                break
            assert name in value, f"{root}{path}"
            value = value[name]


async def test_every_place_the_script_fills_is_on_the_page() -> None:
    """An id that is nowhere would end the script."""
    used = set(re.findall(r"(?:\$|put|tag|spark)\(\"([a-z0-9-]+)\"", SCRIPT))
    assert len(used) > 30
    assert used <= set(re.findall(r'\bid="([a-z0-9-]+)"', HTML))


# --- what it says -----------------------------------------------------------------------------------------------------


async def test_it_is_safe_and_says_since_when(bridge: BridgeProcess) -> None:
    """With Kafka up and nothing waiting."""

    async def safe() -> bool:
        return bool((await status_of(bridge))["verdict"] == "safe")

    await eventually(safe)
    status = await status_of(bridge)
    assert (status["word"], status["safe"], status["notices"]) == ("Safe", True, [])
    assert status["started_ms"] <= status["since_ms"] <= status["now_ms"]
    assert status["kafka"]["up"]
    assert status["ack"]["p99_seconds"] is not None
    topics = [bridge.settings["topics.status"], bridge.settings["topics.quarantine"]]
    assert topics == [group["topic"] for group in status["lanes"]]
    assert sum(row["total"] for row in status["reports"] if row["outcome"] != "quarantined") == 2


async def test_a_quarantined_item_is_told_without_its_data(bridge: BridgeProcess) -> None:
    """Reason, place, time, the callback's id; and no number, id or secret anywhere in what is said."""
    status = await status_of(bridge)
    (fault,) = status["quarantined"]
    assert (fault["reason"], fault["path"]) == ("no_status", "$[1].Status")
    assert set(fault) == {"at_ms", "reason", "path", "callback"}
    said = json.dumps(status)
    assert [
        each for each in ("m-1", "m-2", "8613800000099", "8613800000002", bridge.secret or "") if each in said
    ] == []


async def test_the_history_grows_a_value_a_second_and_not_without_end(bridge: BridgeProcess) -> None:
    """All of one length; what was taken and waits is in it."""

    async def several() -> bool:
        return len((await status_of(bridge))["history"]["taken"]) >= 3

    await eventually(several)
    history = (await status_of(bridge))["history"]
    assert len({len(values) for values in history.values()}) == 1
    assert sum(history["taken"]) == 1


async def things_to_do(bridge: BridgeProcess) -> set[tuple[str, str]]:
    """What wants a person: each text, with its entry in the runbook."""
    return {(notice["text"], notice["entry"]) for notice in (await status_of(bridge))["notices"]}


async def test_weak_topics_and_secrets_that_can_t_be_used_are_something_to_do(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Until they are mended: the first three weaknesses by name, in the status and in a terminal."""
    topics, secrets = await make_topics(kafka_bootstrap), tmp_path / "secrets"
    secrets.write_text(f"{SECRET}\n")
    settings = {
        "topics.file": as_they_are(tmp_path),
        "topics.check_seconds": 1,
        "access.path_secrets": None,
        "access.path_secrets_file": secrets,
    }
    weak = {
        "cleanup.policy": "compact,delete",
        "max.message.bytes": "1000000",
        "retention.ms": "60000",
        "unclean.leader.election.enable": "true",
    }

    async def are_listed(bridge: BridgeProcess, *entries: str) -> bool:
        metrics = await bridge.metrics()
        asked = metrics["chatapp_bridge_topics_checked_timestamp_seconds"] > 0
        return asked and sorted(entries) == sorted(entry for _, entry in await things_to_do(bridge))

    async with (
        BridgeProcess(kafka_bootstrap, tmp_path, settings, topics) as bridge,
        admin(kafka_bootstrap) as client,
    ):
        await eventually(partial(are_listed, bridge))
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics[0], configs=weak)])
        await eventually(partial(are_listed, bridge, "ChatappBridgeTopicSettingsDrift"))
        secrets.write_text("short\n")
        await eventually(partial(are_listed, bridge, "ChatappBridgeTopicSettingsDrift", "ChatappBridgeSecretsUnusable"))
        texts = {entry: text for text, entry in await things_to_do(bridge)}
        code, said, _ = await status("--url", bridge.admin_url)
        secrets.write_text(f"{SECRET}\n")
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics[0], configs={})])
        await eventually(partial(are_listed, bridge))
    assert (
        f"topic {topics[0]}, retention.ms: declared 604800000, found 60000; "
        in texts["ChatappBridgeTopicSettingsDrift"]
    )
    assert texts["ChatappBridgeTopicSettingsDrift"].endswith("; and 1 more.")
    assert texts["ChatappBridgeSecretsUnusable"].startswith("A file of secrets can't be used")
    words = " ".join(said.split())  # a terminal breaks lines
    assert (code, [text for text in texts.values() if f"! {text}" not in words]) == (0, [])


async def test_files_for_kafka_that_can_t_be_used_are_something_to_do(tmp_path: Path) -> None:
    """From the attempt that fails for them to the one that does not, in the status and in a terminal."""
    nowhere, cafile = Port(), tmp_path / "ca.pem"
    good = Authority(tmp_path, "an-authority").cafile.read_bytes()
    cafile.write_bytes(good)
    settings = {"kafka.security_protocol": "SSL", "kafka.ssl_cafile": cafile}
    notice = "The files for the connection to Kafka can't be used", "ChatappBridgeSecretsUnusable"

    async def is_listed(bridge: BridgeProcess, *, expected: bool) -> bool:
        return expected == any((text[: len(notice[0])], entry) == notice for text, entry in await things_to_do(bridge))

    try:
        async with BridgeProcess(nowhere.address, tmp_path, settings, wait="live") as bridge:
            assert await is_listed(bridge, expected=False)
            cafile.write_bytes(b"no certificate")
            await eventually(partial(is_listed, bridge, expected=True))
            code, said, _ = await status("--url", bridge.admin_url)
            cafile.write_bytes(good)
            await eventually(partial(is_listed, bridge, expected=False))
    finally:
        nowhere.release()
    assert (code, f"! {notice[0]}" in said, "docs/runbook.md#chatappbridgesecretsunusable" in said) == (0, True, True)


async def test_without_kafka_it_is_safe_on_disk_and_without_a_spool_it_refuses(tmp_path: Path) -> None:
    """The verdict turns, and says since when; a spool that is switched off is said to be."""
    nowhere = Port()
    spooling = BridgeProcess(nowhere.address, tmp_path / "with", wait="live")
    without = BridgeProcess(nowhere.address, tmp_path / "without", {"spool.enabled": False}, wait="live")
    try:
        async with spooling, without:
            assert (await spooling.post(body(report("m")))).body == SUCCESS
            on_disk, refusing = await status_of(spooling), await status_of(without)
            codes = [(await status("--url", bridge.admin_url))[0] for bridge in (spooling, without)]
    finally:
        nowhere.release()

    assert (on_disk["verdict"], on_disk["safe"], on_disk["kafka"]["up"]) == ("on_disk", True, False)
    assert (on_disk["waiting"]["reports"], on_disk["spool"]["rows"]) == (1, 1)
    assert {row["outcome"]: row["total"] for row in on_disk["reports"]}["spool"] == 1
    assert (refusing["verdict"], refusing["safe"], refusing["spool"]) == ("refusing", False, None)
    assert codes == [0, 1]


async def test_what_waits_on_disk_is_not_said_to_go_out_while_others_do(kafka_bootstrap: str, tmp_path: Path) -> None:
    """One topic is missing, the other takes records all the time: a lane waits, until the topic is made."""
    topics = await create_topic(kafka_bootstrap, partitions=6), unique_name("missing")
    said: list[str] = []

    async def says(bridge: BridgeProcess, why: str, times: int = 1) -> bool:
        assert (await bridge.post(body(report("m")))).body == SUCCESS
        said.append((await status_of(bridge))["why"])
        return sum(each.startswith(why) for each in said) >= times

    async with BridgeProcess(kafka_bootstrap, tmp_path, topics=topics) as bridge:
        await eventually(partial(says, bridge, "Every callback"))
        assert (await bridge.post(b"nothing that is understood")).body == SUCCESS
        said.clear()
        await eventually(partial(says, bridge, "1 of 15 lanes wait for Kafka", 100))
        await create_topic(kafka_bootstrap, topics[1])
        said.clear()
        await eventually(partial(says, bridge, "Every callback"))


# --- in a terminal ----------------------------------------------------------------------------------------------------


async def test_status_prints_the_same_for_people_and_for_programs(bridge: BridgeProcess) -> None:
    """The word first; every figure; 0 where it is safe. The address is that of the configuration unless it is given."""
    code, said, _ = await status(
        "--set", f"server.admin_port={bridge.admin_port}", "--set", f"server.admin_host={HOST}"
    )
    assert code == 0
    assert said.startswith("Safe")
    figures = ("ack latency", "callbacks", "reports", "waiting", "Kafka", "lanes", "spool", "versions")
    assert [part for part in (*figures, "no_status", "$[1].Status") if part not in said] == []
    code, text, _ = await status("--url", f"{bridge.admin_url}/", "--format", "json")
    assert code == 0
    assert set(json.loads(text)) == set(await status_of(bridge))


async def test_where_nobody_answers_it_says_so(bridge: BridgeProcess) -> None:
    """2, and words: nobody listens, the wrong port, no address at all."""
    nowhere = Port()
    for url, words in (
        (f"http://{nowhere.address}", "refused"),
        (f"http://{HOST}:{bridge.port}", "404"),
        ("localhost:8081", "--url"),
        ("http://localhost:no", "no bridge answers"),
    ):
        code, said, error = await status("--url", url)
        assert (code, said) == (2, ""), url
        assert words in error
        assert "Traceback" not in error
    nowhere.release()


@pytest.mark.long
async def test_what_kafka_refuses_is_kept_and_told_as_that(kafka_bootstrap: str, tmp_path: Path) -> None:
    """A compacted topic takes no record without a key: no dead letter, a verdict of its own, and all is published in the end."""
    topics = (
        await create_topic(kafka_bootstrap),
        await create_topic(kafka_bootstrap, config={"cleanup.policy": "compact"}),
    )

    async def refused(bridge: BridgeProcess) -> bool:
        return bool((await status_of(bridge))["verdict"] == "refused")

    async def published(bridge: BridgeProcess) -> bool:
        seen = await status_of(bridge)
        return bool(seen["verdict"] == "safe" and seen["waiting"]["reports"] == 0)

    async with BridgeProcess(kafka_bootstrap, tmp_path, topics=topics) as bridge:
        for number in range(5):
            assert (await bridge.post(b"no JSON %d" % number)).status == 200
        await eventually(partial(refused, bridge), seconds=60)
        seen, ready = await status_of(bridge), await get(bridge.admin_port, "/readyz")
        code, said, _ = await status("--url", bridge.admin_url)
        metrics = await bridge.metrics()
        async with admin(kafka_bootstrap) as client:
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics[1], configs={})])
        await eventually(partial(published, bridge), seconds=90)
        after = await bridge.metrics()

    assert "Kafka answers, but has refused the batches of" in seen["why"]
    assert "INVALID_RECORD (87)" in seen["why"]
    assert (seen["safe"], code, ready.status) == (False, 1, 200)
    assert "Refused by Kafka" in said
    assert metrics["chatapp_bridge_kafka_refused_lanes"] > 0
    assert after["chatapp_bridge_kafka_refused_lanes"] == after["chatapp_bridge_reports_dead_lettered_total"] == 0
