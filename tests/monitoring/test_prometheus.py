"""A real Prometheus that scrapes a real bridge while Kafka is killed and comes back: the alerts fire and clear.

The rules are those of ``config/prometheus``, with shorter times put in. Afterwards every query of the dashboard is run on what
that Prometheus has seen.
"""

import asyncio
import json
import re
import shutil
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.bridge_process import BridgeProcess
from support.brokers import running
from support.callbacks import SUCCESS, body, make_topics, report
from support.contract import ROOT
from support.raw_http import exchange, get, request
from support.topics import until

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.java import spawn
from bridge.lab.embedded.ports import HOST, Port

PROGRAM = shutil.which("prometheus") or "prometheus"
PROMTOOL = shutil.which("promtool") or "promtool"
TIMEOUT_SECONDS = 60.0
# What is empty while nothing is wrong, waits, or was started again.
MAY_BE_EMPTY = {"Oldest, and time until empty", "Starts", "Failed batches and new connections"}
# One broker can't give what is declared of the topics, and the alert says so as long as it lasts.
OF_ONE_BROKER = {"ChatappBridgeTopicSettingsDrift"}
EVERY = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}


def hastened(rules: str) -> str:
    """The same rules: what is waited for two minutes and longer is waited for two seconds, a window is ten."""
    rules = re.sub(r"\bfor: \d+[mh]", "for: 2s", rules)
    return re.sub(r"\[\d+[mhd]\]", "[10s]", rules)


class Prometheus:
    """One process, and what it is asked."""

    def __init__(self, directory: Path, targets: list[str]) -> None:
        self._port = Port()
        self._directory = directory
        (directory / "alerts.yaml").write_text(hastened((ROOT / "config/prometheus/alerts.yaml").read_text()))
        jobs = [{"job_name": "bridge", "static_configs": [{"targets": targets}]}]
        config = {"global": EVERY, "rule_files": ["alerts.yaml"], "scrape_configs": jobs}
        (directory / "prometheus.yaml").write_text(json.dumps(config))  # JSON is YAML

    def start(self) -> None:
        """With exemplars kept, and nothing else but what it does by itself."""
        arguments = [
            f"--config.file={self._directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={self._port.address}",
            "--enable-feature=exemplar-storage",
        ]
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = spawn([PROGRAM, *arguments], stdout=log, stderr=log)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._port.release()

    async def ask(self, path: str, **parameters: str) -> Any:
        """An answer's data.

        Raises:
            AssertionError: It is an error; says which.
        """
        answer = await get(self._port.number, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        said = answer.json()
        assert said["status"] == "success", (parameters, said)
        return said["data"]

    async def ready(self) -> bool:
        """Whether it has scraped a bridge."""
        try:
            return bool((await self.ask("query", query="chatapp_bridge_build_info"))["result"])
        except (OSError, ValueError):  # nothing yet, or words on why not
            return False

    async def firing(self) -> set[str]:
        """The alerts that fire now."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    """A broker of one's own, to be killed."""
    with running(EmbeddedKafka()) as kafka:
        yield kafka


@pytest.fixture
async def bridge(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[BridgeProcess]:
    """One with a spool, to which somebody pushes all the time, with a trace, a broken item now and then."""
    topics = await make_topics(kafka.bootstrap_servers)
    trace = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("Connection", "close")]

    async def push(bridge: BridgeProcess) -> None:
        number = 0
        while True:
            number += 1
            broken = [{"MessageId": "m"}] if number % 500 == 0 else []
            pushed = body(*(report(f"m-{number}-{each}") for each in range(3)), *broken)
            with suppress(OSError):  # it was killed, and is not back yet
                answer = await exchange(bridge.port, request("POST", bridge.path, pushed, trace))
                assert answer is None or answer.body == SUCCESS
            await asyncio.sleep(0.02)

    async with BridgeProcess(kafka.bootstrap_servers, tmp_path / "bridge", {"log.level": "info"}, topics) as bridge:
        pushing = asyncio.create_task(push(bridge))
        yield bridge
        assert not pushing.done(), pushing.exception()
        pushing.cancel()


@pytest.fixture
async def prometheus(bridge: BridgeProcess, tmp_path: Path) -> AsyncIterator[Prometheus]:
    """It scrapes that bridge."""
    prometheus = Prometheus(tmp_path, [f"{HOST}:{bridge.admin_port}"])
    prometheus.start()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await until(prometheus.ready)
        yield prometheus
    finally:
        prometheus.close()


async def fires(prometheus: Prometheus, alerts: set[str], others: set[str] | None = None) -> None:
    """Wait until all of ``alerts`` fire, and, where ``others`` is given, nothing but them and these."""

    async def holds() -> bool:
        firing = await prometheus.firing()
        return alerts <= firing and (others is None or firing <= alerts | others | OF_ONE_BROKER)

    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await until(holds)
    except TimeoutError:
        pytest.fail(f"waited for {alerts or 'none'}, but these fire: {await prometheus.firing()}")


async def test_alerts_fire_while_kafka_is_dead_and_clear_when_it_is_back(
    kafka: EmbeddedKafka, bridge: BridgeProcess, prometheus: Prometheus
) -> None:
    """None before; those of an outage, none that speaks of loss; none after; and every query of the dashboard has an answer."""
    await fires(prometheus, set(), set())
    await kafka.nodes[0].kill()
    await fires(prometheus, {"ChatappBridgeKafkaUnavailable", "ChatappBridgeSpooling"})
    loss = {"ChatappBridgeRefusing", "ChatappBridgeNotReady", "ChatappBridgeDown", "ChatappBridgeReportsUnreconciled"}
    assert not loss & await prometheus.firing()
    await kafka.nodes[0].start()
    await fires(prometheus, set(), set())

    await queries_are_answered(prometheus)
    exemplars = await prometheus.ask(
        "query_exemplars",
        query="chatapp_bridge_ack_latency_seconds_bucket",
        start=str(time.time() - 600),
        end=str(time.time()),
    )
    assert exemplars
    assert exemplars[0]["exemplars"][0]["labels"]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"

    bridge.kill()
    await fires(prometheus, {"ChatappBridgeDown", "ChatappBridgeAbsent"})
    await bridge.start()
    await fires(prometheus, set(), {"ChatappBridgeRestarting"})


async def queries_are_answered(prometheus: Prometheus) -> None:
    """Each of the dashboard, its variables put in as Grafana would: no error, and where something is to be seen, something."""
    (path,) = (ROOT / "config/grafana").glob("*.json")
    dashboard = json.loads(path.read_text())
    annotations = [each for each in dashboard["annotations"]["list"] if "target" in each]
    places = [(panel["title"], target) for panel in dashboard["panels"] for target in panel.get("targets", ())]
    places += [(each["name"], each["target"]) for each in annotations]
    for title, target in places:
        query = filled(target["expr"])
        ranged = {"start": str(time.time() - 60), "end": str(time.time()), "step": "5"}
        for found in (
            await prometheus.ask("query", query=query),
            await prometheus.ask("query_range", query=query, **ranged),
        ):
            assert found["result"] or title in MAY_BE_EMPTY, f"{title}: {query} gives nothing"
    # Nothing was passed over, in a row that is folded or wherever else.
    assert len(places) == path.read_text().count('"expr":') > 40
    looked_up = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    for query in looked_up:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert found, query
        assert await prometheus.ask(f"label/{found[2]}/values", **{"match[]": filled(found[1])}), query
    assert len(looked_up) == 2


def filled(query: str) -> str:
    """With what Grafana puts in where all is chosen."""
    query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
    assert "$" not in query
    return query


async def test_promtool_finds_nothing_to_say_about_the_metrics(bridge: BridgeProcess) -> None:
    """``promtool check metrics``: names, units and help texts are as Prometheus has them."""
    answer = await exchange(bridge.admin_port, request("GET", "/metrics", headers=[("Connection", "close")]))
    assert answer is not None
    pipe = asyncio.subprocess.PIPE
    command = [PROMTOOL, "check", "metrics"]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate(answer.body)
    assert (process.returncode, said.decode()) == (0, "")
