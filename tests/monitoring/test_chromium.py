"""The operators' page in headless Chromium, on a real bridge: healthy, Kafka down, draining, the spool full, the bridge gone.

What is read is what Chromium shows after the script has run. With ``BRIDGE_PICTURES=DIR`` each state is also pictured there, on a
desk's width and a telephone's, light and dark.
"""

import asyncio
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.bridge_process import BridgeProcess
from support.brokers import running
from support.callbacks import body, make_topics, report
from support.raw_http import get
from support.topics import until

from bridge.health.page import Page
from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import HOST

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
PICTURES = Path(os.environ["BRIDGE_PICTURES"]).absolute() if "BRIDGE_PICTURES" in os.environ else None
SIZES = {"desk": (1280, 1010), "telephone": (390, 2150)}
# preferredColorScheme of Blink: 0 dark, 1 light.
SCHEMES = {"dark": 0, "light": 1}
TIMEOUT_SECONDS = 60.0
MIB = 1 << 20


async def chromium(url: str, *arguments: str, dark: int = 1, size: tuple[int, int] = SIZES["desk"]) -> str:
    """Load it, let its script run for some seconds of Chromium's own time, and give what it prints."""
    with tempfile.TemporaryDirectory(prefix="chatapp-bridge-chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
            "--virtual-time-budget=3000", f"--window-size={size[0]},{size[1]}", f"--blink-settings=preferredColorScheme={dark}",
            "--enable-logging=stderr", "--v=0", *arguments, url,
        ]  # fmt: skip
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                out, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    # What the page's console says: a script that fails, something that the policy forbids.
    complaints = re.findall(r"CONSOLE.*", said.decode(errors="replace"))
    assert [each for each in complaints if "favicon" not in each and "Failed to load resource" not in each] == []
    return out.decode(errors="replace")


class Shown:
    """What the page shows."""

    def __init__(self, document: str) -> None:
        self._document = document

    def text(self, name: str) -> str:
        """Of the element with that id, without its elements."""
        found = re.search(rf'<(\w+)[^>]*\bid="{name}"[^>]*>(.*?)</\1>', self._document, re.DOTALL)
        assert found, f"#{name} is not on the page"
        return " ".join(re.sub(r"<[^>]+>", " ", found[2]).split())

    def look(self, name: str) -> str:
        """The class of the element with that id."""
        (tag,) = re.findall(rf'<[^>]*\bid="{name}"[^>]*>', self._document)
        return "".join(re.findall(r'class="([^"]*)"', tag))

    def number(self, name: str) -> float:
        """The first number of its text."""
        return float(re.findall(r"[\d.]+", self.text(name).replace(",", ""))[0])


async def shown(url: str, state: str) -> Shown:
    """The page as it is now; pictured where that is wanted."""
    if PICTURES:
        for (size, pixels), (scheme, number) in itertools.product(SIZES.items(), SCHEMES.items()):
            file = PICTURES / f"{state}-{size}-{scheme}.png"
            await chromium(url, f"--screenshot={file}", dark=number, size=pixels)
    return Shown(await chromium(url, "--dump-dom"))


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    """A broker of one's own, to be killed."""
    with running(EmbeddedKafka()) as kafka:
        yield kafka


@pytest.fixture
async def bridge(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[BridgeProcess]:
    """With a spool that is soon full."""
    topics = await make_topics(kafka.bootstrap_servers)
    settings = {"spool.max_bytes": 32 * MIB, "spool.min_free_bytes": MIB, "log.level": "info"}
    async with BridgeProcess(kafka.bootstrap_servers, tmp_path, settings, topics) as bridge:
        yield bridge


async def eventually(holds: Callable[[], Awaitable[bool]], every_seconds: float = 0.1) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await until(holds, every_seconds)


async def metric(bridge: BridgeProcess, name: str) -> float:
    """One of a scrape."""
    return (await bridge.metrics())[f"chatapp_bridge_{name}"]


async def push(bridge: BridgeProcess, status: int, **fields: str) -> None:
    """A callback of three reports, one of which can't be understood, answered so."""
    answer = await bridge.post(body(report("m-1", **fields), report("m-2"), {"MessageId": "m-3"}))
    assert answer.status == status


async def test_each_state_is_shown_for_what_it_is(kafka: EmbeddedKafka, bridge: BridgeProcess) -> None:
    """By a word, by a look that goes with it, and by the figures behind it."""

    async def connected() -> bool:
        return await metric(bridge, "kafka_up") == 1

    await eventually(connected)
    for _ in range(150 if PICTURES else 20):
        await push(bridge, 200)
        await asyncio.sleep(0.1 if PICTURES else 0)
    await healthy(bridge)
    await kafka.nodes[0].kill()
    await down(bridge)
    await full(bridge)
    await drained(kafka, bridge)


async def healthy(bridge: BridgeProcess) -> None:
    """Kafka takes everything."""

    async def quiet() -> bool:
        return await metric(bridge, "reports_waiting") == 0 and await metric(bridge, 'lanes{state="degraded"}') == 0

    await eventually(quiet)
    page = await shown(bridge.admin_url, "healthy")
    assert (page.text("word"), page.look("verdict")) == ("Safe", "good")
    assert re.fullmatch(r"since [\d:]+, [\d.]+ (ms|s|min)", page.text("since"))
    assert page.text("live").startswith("live, updated ")
    assert (page.text("kafka-state"), page.look("kafka-state")) == ("answers", "tag good")
    assert page.text("spool-state") == "empty, ready"
    assert page.number("waiting") == 0
    assert page.text("ack-p99").endswith("p99")
    assert "healthy, 0 degraded" in page.text("lanes")
    assert "no status $[2].Status" in page.text("quarantined")
    # One broker can't give what is declared of the topics.
    assert page.text("notices").startswith("Missing, or weaker than declared: ")
    assert page.text("notices").endswith("docs/runbook.md#chatappbridgetopicsettingsdrift")
    assert "8613" not in page.text("quarantined")


async def down(bridge: BridgeProcess) -> None:
    """Kafka was killed; what comes is stored."""
    for _ in range(10):
        await push(bridge, 200)

    async def away() -> bool:
        return await metric(bridge, "kafka_up") == 0

    await eventually(away)
    page = await shown(bridge.admin_url, "down")
    assert (page.text("word"), page.look("verdict")) == ("Safe, on disk", "warn")
    assert page.text("why").startswith("Kafka does not answer")
    assert page.text("kafka-state") == "does not answer"
    assert page.text("spool-state") == "in use"
    assert page.number("waiting") >= 30


async def full(bridge: BridgeProcess) -> None:
    """The spool is at its bound."""
    refusing_since = math.inf

    async def refuses() -> bool:
        """For two seconds on end: what the spool's own upkeep requeues at first is filled again."""
        nonlocal refusing_since
        for count in (1000, 100, 10, 1):
            await bridge.post(body(*(report(f"m-{number}", Filler="x" * 2000) for number in range(count))))
        refusing_since = math.inf if await metric(bridge, "ready") == 1 else min(refusing_since, time.monotonic())
        return time.monotonic() - refusing_since > 2.0

    await eventually(refuses)
    page = await shown(bridge.admin_url, "full")
    assert (page.text("word"), page.look("verdict")) == ("Refusing", "bad")
    assert "503" in page.text("why")
    assert page.text("spool-state") == "takes nothing"
    assert "The spool takes nothing" in page.text("notices")
    assert "docs/runbook.md#chatappbridgespoolnotwritable" in page.text("notices")


async def drained(kafka: EmbeddedKafka, bridge: BridgeProcess) -> None:
    """Kafka is back: what waits goes out. That is over before a browser has started, so it is shown what the bridge said."""
    said: dict[str, Any] = {}

    async def refusals_are_over() -> bool:
        """As long as there were any of late, the page speaks of them, and they may be of the time before."""
        status = (await get(bridge.admin_port, "/status.json")).json()
        return bool(status["callbacks"]["refused_per_second"] == 0)

    async def draining() -> bool:
        nonlocal said
        said = (await get(bridge.admin_port, "/status.json")).json()
        return bool(said["why"].startswith("Kafka takes records"))

    await eventually(refusals_are_over)
    # It may be over a moment after the node is up, and before that is known here.
    await asyncio.gather(eventually(draining, 0.01), kafka.nodes[0].start())
    async with served(said) as url:
        page = await shown(url, "draining")
    assert (page.text("word"), page.look("verdict")) == ("Safe, on disk", "warn")
    assert "is being published" in page.text("why")
    assert page.text("kafka-state") == "answers"
    assert page.number("waiting") > 0

    async def safe() -> bool:
        return bool((await get(bridge.admin_port, "/status.json")).json()["verdict"] == "safe")

    await eventually(safe)


@asynccontextmanager
async def served(status: dict[str, Any] | None) -> AsyncIterator[str]:
    """The page as the bridge serves it, with that status, or none; where it is."""
    page = Page()

    def answered(path: str) -> tuple[int, str, bytes, dict[str, str]]:
        if path == "/":
            return 200, "text/html; charset=utf-8", page.body, page.headers
        if path == "/status.json" and status is not None:
            return 200, "application/json", json.dumps(status).encode(), {}
        return 503, "text/plain", b"", {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        code, kind, content, headers = answered(path)
        lines = {"content-type": kind, "content-length": str(len(content)), "connection": "close", **headers}
        head = f"HTTP/1.1 {code} -\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(head.encode() + b"\r\n" + content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def test_a_bridge_that_does_not_answer_is_not_shown_as_safe() -> None:
    """The word is Unknown, and the page says that it is not live."""
    async with served(None) as url:
        page = await shown(url, "silent")
    assert (page.text("word"), page.look("verdict")) == ("Unknown", "bad")
    assert page.text("live") == "not live: asking again"
