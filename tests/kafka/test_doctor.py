"""``chatapp-bridge doctor`` on real brokers, plain and as services offer them: what it says to set, and what it leaves."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient
from support.arena import LONG
from support.callbacks import make_topics
from support.kafka_answers import READABLE, topics_refused, versions_capped
from support.kafka_frames import API_VERSIONS, CREATE_TOPICS, METADATA, PRODUCE, Request
from support.kafka_proxy import Fault, KafkaProxy
from support.services import ApsaraMQ, EventHubs, LoginKafka, Service
from support.signals import ctrl_c_heeded
from support.topics import create_topic

from bridge.operate.doctor.session import PREFIX

SECONDS = 180.0
# Of the bridge's configuration: a latency that is good also on a machine that does other work.
PATIENT = {"delivery.ack_deadline_seconds": 30.0, "delivery.spool_after_ms": 10_000}


class Said(NamedTuple):
    """How a run ended."""

    code: int
    report: dict[str, Any]
    errors: str

    def finding(self, name: str) -> dict[str, Any]:
        """The check of that name."""
        (found,) = (check for check in self.report["checks"] if check["name"] == name)
        return dict(found)

    @property
    def outcomes(self) -> dict[str, str]:
        """By check."""
        return {check["name"]: check["outcome"] for check in self.report["checks"]}


async def start(settings: Mapping[str, Any], *arguments: str) -> asyncio.subprocess.Process:
    """Run it as people do."""
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    with ctrl_c_heeded():
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", "doctor", *pairs, *arguments, env=environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip


async def doctor(settings: Mapping[str, Any], *arguments: str) -> Said:
    """Its exit code and its report."""
    process = await start(settings, "--format", "json", "--timeout", "150", *arguments)
    async with asyncio.timeout(SECONDS):
        printed, errors = await process.communicate()
    return Said(process.returncode or 0, json.loads(printed or b"{}"), errors.decode())


def own(bootstrap: str) -> set[str]:
    """The topics and groups on Kafka that a doctor made."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    groups = [group.group_id for group in admin.list_consumer_groups(request_timeout=10).result().valid]
    return {name for name in [*admin.list_topics(timeout=10).topics, *groups] if name.startswith(PREFIX)}


async def named(bootstrap: str) -> dict[str, str]:
    """The settings that name new topics of a bridge."""
    status, quarantine = await make_topics(bootstrap)
    return {"topics.status": status, "topics.quarantine": quarantine}


async def test_on_a_plain_kafka_all_is_good_and_nothing_is_left(kafka_bootstrap: str) -> None:
    """Every check is done; what cannot be deleted is listed, and is all that is there."""
    settings = {"kafka.bootstrap_servers": kafka_bootstrap, **await named(kafka_bootstrap), **PATIENT}
    said = await doctor(settings)
    assert said.code == 0, said
    assert len(said.outcomes) == 12
    # The topics of the test are not replicated.
    assert {name for name, outcome in said.outcomes.items() if outcome != "good"} <= {"topics"}, said.report
    assert said.report["toml"] == ""
    assert [left["kind"] for left in said.report["left"]] == ["transactional id"]
    assert own(kafka_bootstrap) == set()


async def test_what_it_says_makes_it_content(kafka_bootstrap: str, tmp_path: Path) -> None:
    """A codec is refused in the service's own words, requests are cut off, and answers take their time."""

    def script(request: Request) -> Fault | None:
        if request.api_key != PRODUCE:
            return None
        codecs = {batch[22] & 7 for batch in request.batches.values()}  # the attributes' low byte
        slow = 0.6 if request.size < 5000 and codecs == {1} else 0.0
        if codecs - {0, 1}:
            return Fault(ask_broker=False, codes=87, message="only gzip here", delay_seconds=slow)
        return Fault(delay_seconds=slow)

    port = int(kafka_bootstrap.rpartition(":")[2])
    async with KafkaProxy([lambda: port], script) as proxy:
        proxy.max_request_bytes = 300_000
        settings = {"kafka.bootstrap_servers": proxy.bootstrap_servers, **await named(kafka_bootstrap)}
        settings["delivery.ack_deadline_seconds"] = "30"
        said = await doctor(settings)
        assert said.code == 1, said
        advice = said.report["set"]
        limits = [advice.pop(f"kafka.max_{what}_bytes") for what in ("request", "batch", "record")]
        assert all(280_000 < limit < 300_000 for limit in limits)
        assert advice.pop("delivery.spool_after_ms") >= 1800
        assert advice == {"kafka.compression_type": "gzip"}
        assert "INVALID_RECORD (87): only gzip here" in said.finding("compression")["seen"]
        assert "the broker closed the connection" in said.finding("sizes")["seen"]

        file = tmp_path / "advice.toml"
        file.write_text(said.report["toml"])
        again = await doctor(settings, "--config", str(file))
        assert again.code == 0, again
        assert again.report["set"] == {}
    assert own(kafka_bootstrap) == set()


async def test_a_policy_and_a_broker_that_cannot_be_reached_are_named(kafka_bootstrap: str) -> None:
    """No topic is made, and the checks that need none are done. Nothing is written to a topic of the bridge."""

    def script(request: Request) -> Fault | None:
        if request.api_key == API_VERSIONS:
            return versions_capped({**READABLE, METADATA: 5})
        if request.api_key == CREATE_TOPICS:
            return topics_refused(44, "Topics are made in the console.")
        if request.api_key == METADATA:
            return Fault(rewrite_answer=with_another_broker)
        return None

    port = int(kafka_bootstrap.rpartition(":")[2])
    async with KafkaProxy([lambda: port], script) as proxy:
        settings = {"kafka.bootstrap_servers": proxy.bootstrap_servers, **await named(kafka_bootstrap)}
        said = await doctor(settings)
        assert said.code == 1, said
        assert said.report["set"] == {"topics.manage": "external"}
        assert "POLICY_VIOLATION (44): Topics are made in the console." in said.finding("test topic")["seen"]
        assert "broker 77, advertised as 127.0.0.1:1: " in said.finding("brokers")["seen"]
        assert {name for name, outcome in said.outcomes.items() if outcome == "not tried"} == {
            "write", "compression", "sizes", "latency", "read back",
        }  # fmt: skip
        assert said.outcomes["transaction"] == said.outcomes["groups"] == "good"

        refused = await doctor(settings, "--topic", settings["topics.status"])
        assert (refused.code, refused.report) == (2, {})
        assert "is a topic of the bridge" in refused.errors


def with_another_broker(request: Request, body: bytes) -> bytes:
    """The answer to Metadata up to version 5, with a broker at an address where nothing listens."""
    at = 0 if request.api_version < 3 else 4
    count = int.from_bytes(body[at : at + 4], "big")
    host = b"127.0.0.1"
    rack = b"\xff\xff" if request.api_version else b""
    broker = (77).to_bytes(4, "big") + len(host).to_bytes(2, "big") + host + (1).to_bytes(4, "big") + rack
    return body[:at] + (count + 1).to_bytes(4, "big") + broker + body[at + 4 :]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), *([(signal.SIGTERM, 143)] if LONG else [])])
async def test_a_signal_ends_it_and_what_it_made_is_removed(
    kafka_bootstrap: str, number: signal.Signals, code: int
) -> None:
    """While a broker does not answer a record; the rest of Kafka does."""
    waiting = asyncio.Event()

    def script(request: Request) -> Fault | None:
        if request.api_key != PRODUCE or request.size < 100_000:
            return None
        waiting.set()
        return Fault(delay_seconds=SECONDS)

    port = int(kafka_bootstrap.rpartition(":")[2])
    async with KafkaProxy([lambda: port], script) as proxy:
        process = await start({"kafka.bootstrap_servers": proxy.bootstrap_servers})
        async with asyncio.timeout(SECONDS):
            await waiting.wait()
            assert len(own(kafka_bootstrap)) == 1
            process.send_signal(number)
            printed, errors = await process.communicate()
        assert process.returncode == code
        assert printed == b""
        assert errors.decode().splitlines()[-1] == "chatapp-bridge: stopped; left on Kafka: nothing"
    assert own(kafka_bootstrap) == set()


# --- services ---------------------------------------------------------------------------------------------------------


GZIP_ONLY = {"kafka.compression_type": "gzip", "kafka.max_request_bytes": 1_044_480}
WITHOUT_IDS = {"kafka.idempotence": "false", "topics.manage": "external"}


# What ApsaraMQ needs is also in test_services.
@pytest.mark.parametrize(
    ("service", "advice"), [(EventHubs(), GZIP_ONLY), *([(ApsaraMQ(), WITHOUT_IDS)] if LONG else [])]
)
async def test_what_a_service_needs_is_named(
    login_kafka: LoginKafka, service: Service, advice: dict[str, Any], tmp_path: Path
) -> None:
    """With it in force, nothing more is to be set. A wrong password is told from a Kafka that is down by its words."""
    bootstrap = login_kafka.kafka.bootstrap_servers
    topic = ["--topic", await create_topic(bootstrap)] if isinstance(service, ApsaraMQ) else []
    async with service.before(login_kafka.ports) as proxy:
        login = {"kafka.bootstrap_servers": proxy.bootstrap_servers, **login_kafka.login(service)}
        settings = {**login, **await named(bootstrap), **PATIENT, "kafka.max_request_bytes": 1_400_000}
        said = await doctor(settings, *topic)
        assert said.code == 1, said
        file = tmp_path / "advice.toml"
        file.write_text(said.report["toml"])
        del settings["kafka.max_request_bytes"]
        again = await doctor(settings, *topic, "--config", str(file))
        assert again.code == 0, again
        assert again.report["set"] == {}
        assert bool(again.finding("topics")["facts"]["left_to_owner"]) == isinstance(service, ApsaraMQ)
        wrong = await doctor({**login, "kafka.sasl_plain_password": "wrong"})
    assert wrong.code == 3, wrong
    assert "the broker refuses the login" in wrong.finding("connection")["seen"]
    limit = said.report["set"].pop("kafka.max_request_bytes", 0)
    assert limit <= (advice.pop("kafka.max_request_bytes", 0)), said.report
    assert said.report["set"] == advice
    assert (said.outcomes["transaction"] == "advice") == isinstance(service, ApsaraMQ)
    assert own(bootstrap) == set()
