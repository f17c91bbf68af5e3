"""A broker with TLS, SCRAM, client certificates and an authorizer: who is let in, what is said where not, and nothing is lost."""

import asyncio
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import GroupAuthorizationFailedError
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from support.bridge_process import BridgeProcess, balance
from support.brokers import running
from support.callbacks import body, eventually, make_topics, report
from support.certificates import Authority
from support.secured import SecuredKafka, everything, token
from support.token_endpoint import SECRET, TokenEndpoint
from support.topics import consume_all, create_topic, unique_name

from bridge.cli import main
from bridge.config import Kafka, load
from bridge.kafka.connection import client_arguments
from bridge.kafka.librdkafka import librdkafka_arguments
from bridge.kafka.producer import Producer as BridgeProducer
from bridge.lab.embedded.java import run_java
from bridge.operate.reading.client import make
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.transactions import Transactions

PASSWORD, CHANGED = "right-until-it-is-changed", "right-from-then-on"
PASSPHRASE = "the-passphrase-of-a-key"  # noqa: S105 - opens nothing
SOON = {"topics.check_seconds": 1, "delivery.spool_after_ms": 200, "delivery.producer_timeout_seconds": 2}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """One for the module."""
    secured = SecuredKafka(tmp_path_factory.mktemp("secured"))
    with running(secured.kafka):
        yield secured


@pytest.fixture
async def user(secured: SecuredKafka) -> AsyncIterator[str]:
    """One who can log in with ``PASSWORD``, and may do nothing."""
    name = unique_name("user")
    await secured.set_password(name, PASSWORD)
    yield name
    await secured.forget(name)


def kafka_of(settings: Mapping[str, Any]) -> Kafka:
    """``[kafka]`` of these settings."""
    return load(environment={}, assignments=[f"{key}={value}" for key, value in settings.items()]).settings.kafka


async def command(settings: Mapping[str, Any], *words: str) -> tuple[int, str]:
    """Run ``chatapp-bridge topics``; its exit code and what it printed, complaints included."""
    said = io.StringIO()
    assignments = [f"{key}={value}" for key, value in settings.items()]
    arguments = [part for assignment in assignments for part in ("--set", assignment)]

    def run() -> int:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return main(["topics", *words, *arguments])

    return await asyncio.to_thread(run), said.getvalue()


def named(topics: tuple[str, str]) -> dict[str, Any]:
    """The settings that name these topics."""
    return {"topics.status": topics[0], "topics.quarantine": topics[1]}


async def printed(topics: tuple[str, str], *words: str) -> list[AclBinding]:
    """What ``topics acls`` prints for machines, as rules."""
    code, text = await command(named(topics), "acls", "--format", "json", *words)
    assert code == 0
    return [
        AclBinding(
            ResourceType[acl["resource_type"]],
            acl["resource_name"],
            ResourcePatternType[acl["pattern_type"]],
            acl["principal"],
            acl["host"],
            AclOperation[acl["operation"]],
            AclPermissionType[acl["permission"]],
        )
        for acl in json.loads(text)
    ]


async def published(bridge: BridgeProcess, count: int) -> bool:
    """Whether so many reports were acknowledged, none waits, and the reconciliation balances."""
    metrics = await bridge.metrics()
    assert balance(metrics).taken == balance(metrics).accounted
    total = sum(value for name, value in metrics.items() if name.startswith("chatapp_bridge_reports_published_total"))
    return total == count and metrics["chatapp_bridge_reports_waiting"] == 0


async def metric(bridge: BridgeProcess, name: str, holds: Callable[[float], bool]) -> bool:
    """Whether a sample is as it should be."""
    return holds((await bridge.metrics())[f"chatapp_bridge_{name}"])


async def said(bridge: BridgeProcess, words: str, times: int = 1) -> bool:
    """Whether the log has these words, so often at least."""
    return bridge.log().count(words) >= times


async def push(bridge: BridgeProcess, *names: str) -> None:
    """A report of each name, in a callback of its own, each answered 200."""
    answers = await asyncio.gather(*(bridge.post(body(report(name))) for name in names))
    assert {answer.status for answer in answers} == {200}


async def names_on(secured: SecuredKafka, topic: str) -> set[bytes | None]:
    """The keys of a topic's records."""
    return {record.key for record in await consume_all(secured.internal, topic)}


# --- rights -----------------------------------------------------------------------------------------------------------


async def test_the_rights_printed_for_the_bridge_are_enough_and_each_is_needed(
    secured: SecuredKafka, user: str, tmp_path: Path
) -> None:
    """Kafka's own tool takes the commands as printed; without one of them what comes is kept and the log says why."""
    topics = await make_topics(secured.internal)
    settings = {**secured.connecting(user, PASSWORD), **named(topics), **SOON}
    async with BridgeProcess("", tmp_path, settings) as bridge:
        await push(bridge, "before")
        await eventually(
            partial(said, bridge, "no ACL lets this user write to a topic (see `chatapp-bridge topics acls`)")
        )
        await eventually(partial(said, bridge, "idempotence_not_available"))

        asked = {**named(topics), "kafka.bootstrap_servers": secured.internal}
        _, text = await command(asked, "acls", "--bridge", user)
        await granted(text)
        await eventually(partial(published, bridge, 1))
        await push(bridge, "allowed")
        assert (await bridge.post(b"[1]")).status == 200
        await eventually(partial(published, bridge, 3))
        await eventually(partial(metric, bridge, "kafka_idempotent", lambda value: value == 1))
        await eventually(partial(metric, bridge, "topics_checked_timestamp_seconds", lambda at: at > 0))

        rules = await printed(topics, "--bridge", f"User:{user}")
        write, describe = (
            [rule for rule in rules if rule.operation == operation and rule.name == topics[0]]
            for operation in (AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS)
        )
        assert len(rules) == 4
        await secured.disallow(describe)
        await eventually(partial(said, bridge, f"the settings of topic {topics[0]} can't be read"))
        await push(bridge, "unchecked")
        await eventually(partial(published, bridge, 4))

        await secured.disallow(write)
        await eventually(partial(metric_after_push, bridge))
        assert (await bridge.metrics())["chatapp_bridge_ready"] == 1
        await secured.allow(write)
        await eventually(partial(settled, bridge))
        count = sum(value for name, value in (await bridge.metrics()).items() if "reports_received_total" in name)
    records = await consume_all(secured.internal, topics[0])
    assert len({dict(record.headers)["ce_id"] for record in records}) == count - 1
    assert "unknown" not in {record.key for record in records}


async def test_older_brokers_get_the_right_that_an_idempotent_producer_needs_there(
    secured: SecuredKafka, user: str
) -> None:
    """Kafka's own tool takes it, for the cluster; the bridge alone asks for less where it does without producer ids."""
    topics = await make_topics(secured.internal, partitions=1)
    asked = {**named(topics), "kafka.bootstrap_servers": secured.internal}
    _, text = await command(asked, "acls", "--bridge", user, "--kafka-before-2.8")
    line = text.splitlines()[-1]
    assert line.endswith("--operation IdempotentWrite --cluster")
    await granted(line)
    _, text = await command({**asked, "kafka.idempotence": "false"}, "acls", "--kafka-before-2.8")
    assert "IdempotentWrite" not in text


async def granted(text: str) -> None:
    """Run the commands that ``topics acls`` printed."""
    for line in text.splitlines():
        if not line.startswith("#") and line:
            tool, *arguments = shlex.split(line)
            assert tool == "kafka-acls"
            await run_java("org.apache.kafka.tools.AclCommand", arguments)


async def metric_after_push(bridge: BridgeProcess) -> bool:
    """Push until something waits: a broker takes a right back in its own time."""
    await push(bridge, unique_name("denied"))
    return (await bridge.metrics())["chatapp_bridge_reports_waiting"] > 0


async def settled(bridge: BridgeProcess) -> bool:
    """Whether nothing waits."""
    metrics = await bridge.metrics()
    return metrics["chatapp_bridge_reports_waiting"] == 0


async def test_the_operators_rights_make_the_topics_and_change_them(secured: SecuredKafka, user: str) -> None:
    """``topics apply`` with exactly what is printed; without a right it says which topic was refused, or is hidden."""
    topics = unique_name("status"), unique_name("quarantine")
    settings = {**secured.connecting(user, PASSWORD), **named(topics)}
    code, text = await command(settings, "apply", "--single-broker")
    assert (code, "could not be created: Authorization failed" in text) == (1, True), text

    rules = await printed(topics, "--operator", f"User:{user}")
    await secured.allow(rules)
    for words, expected in ((["plan"], 1), (["apply"], 0), (["plan"], 0), (["check"], 1)):
        code, text = await command(settings, *words, *(["--single-broker"] if words != ["check"] else []))
        assert code == expected, text
    own = secured.directory / "own.toml"
    own.write_text('[status]\npartitions = 14\n[status.config]\n"retention.ms" = 3024000001\n')
    changed = {**settings, "topics.file": own}
    alter = [rule for rule in rules if rule.operation == AclOperation.ALTER_CONFIGS]
    await secured.disallow(alter)
    code, text = await command(changed, "apply", "--single-broker", "--add-partitions")
    assert (code, f"topic {topics[0]} could not be changed" in text) == (1, True), text
    await secured.allow(alter)
    code, text = await command(changed, "apply", "--single-broker", "--add-partitions")
    assert (code, "retention.ms: 3024000000 -> 3024000001" in text) == (0, True), text
    assert (await command(changed, "plan", "--single-broker"))[0] == 0

    await secured.disallow([rule for rule in rules if rule.operation != AclOperation.CREATE])
    code, text = await command(settings, "apply", "--single-broker")
    assert (code, "does this user have the right Describe?" in text) == (1, True), text


async def test_the_rights_of_a_consumer_let_a_group_read(secured: SecuredKafka, user: str) -> None:
    """Aiokafka's reads and commits with what is printed; a group of another name does not."""
    topics = await make_topics(secured.internal, partitions=1)
    write(secured, topics[0], b"value")
    await secured.allow(await printed(topics, "--consumer", f"User:{user}", "--group", "a-team"))
    connecting = client_arguments(kafka_of(secured.connecting(user, PASSWORD)))

    consumer = AIOKafkaConsumer(topics[0], group_id="a-team", auto_offset_reset="earliest", **connecting)
    async with asyncio.timeout(30), consumer:
        assert (await consumer.getone()).value == b"value"
        await consumer.commit()
    with pytest.raises(GroupAuthorizationFailedError):
        async with asyncio.timeout(30), AIOKafkaConsumer(topics[0], group_id="another", **connecting) as consumer:
            await consumer.getone()


async def test_the_rights_of_replay_are_enough_for_its_commands(
    secured: SecuredKafka, user: str, tmp_path: Path
) -> None:
    """Into a topic in transactions, out of the quarantine with notes there, an audit; without transactional ids, words."""
    topics = await make_topics(secured.internal, partitions=1)
    target = await create_topic(secured.internal)
    event = body(report("a-message")).strip(b"[]")
    headers = {
        "quarantine_reason": "undecodable", "quarantine_detail": "An older bridge could not.", "quarantine_path": "$[0]",
        "bridge_callback": "0123456789abcdef-1", "bridge_position": "1/1", "received_at": "1691132091000",
    }  # fmt: skip
    write(secured, topics[1], event, headers)
    settings = {**secured.connecting(user, PASSWORD), **named(topics)}
    rules = await printed(topics, "--replay", f"User:{user}", "--target", target)
    await secured.allow(rules)

    run = partial(tool, tmp_path, settings)
    code, said = await run("redrive", "--execute")
    assert code == 0, said
    # A transaction is committed some time before its readers see that.
    await eventually(partial(committed, secured, topics[0], b"a-message"))
    code, said = await run("replay", "--to-topic", target, "--execute")
    assert code == 0, said
    await eventually(partial(committed, secured, target, b"a-message"))
    code, said = await run("audit")
    assert code == 0, said

    await secured.disallow([rule for rule in rules if rule.restype == ResourceType.TRANSACTIONAL_ID])
    code, said = await run("replay", "--to-topic", target, "--execute")
    assert code != 0
    assert "this user may not use the transactional id" in said, said
    assert "--at-least-once writes without them" in said, said
    # What they write is judged elsewhere: records of 2023 are soon gone from these topics.
    for words in (("redrive",), ("replay", "--to-topic", target)):
        code, said = await run(*words, "--at-least-once", "--execute")
        assert code == 0, said


async def test_the_doctor_names_the_rights_that_are_missing_and_needs_no_others(
    secured: SecuredKafka, user: str, tmp_path: Path
) -> None:
    """With the bridge's rights it tries what the bridge needs, and with a few more everything; it finds the mechanism, too."""
    topics = await make_topics(secured.internal, partitions=1)
    patient = {"delivery.ack_deadline_seconds": 30, "delivery.spool_after_ms": 10_000}
    settings = {**secured.connecting(user, PASSWORD), **named(topics), **patient}
    topic = await create_topic(secured.internal, partitions=1)
    principal, own = f"User:{user}", "chatapp-bridge-doctor-"

    def rule(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
        pattern = ResourcePatternType.LITERAL if name == topic else ResourcePatternType.PREFIXED
        return AclBinding(kind, name, pattern, principal, "*", operation, AclPermissionType.ALLOW)

    await secured.allow(await printed(topics, "--bridge", user))
    await secured.allow([rule(ResourceType.TOPIC, topic, AclOperation.WRITE)])
    plain = {**settings, "kafka.sasl_mechanism": "PLAIN"}
    code, said = await tool(tmp_path, plain, "doctor", "--topic", topic)
    assert code == 1, said
    assert 'sasl_mechanism = "SCRAM-SHA-512"' in said
    found = outcomes(said)
    assert {name for name, outcome in found.items() if outcome == "broken"} == set(), said
    assert {found[name] for name in ("read back", "transaction", "groups")} == {"advice"}, said
    assert "`chatapp-bridge topics acls --replay` lists the rights" in said

    await secured.allow(await printed(topics, "--replay", user))
    wanted = [AclOperation.CREATE, AclOperation.DELETE, AclOperation.WRITE, AclOperation.READ]
    await secured.allow(
        [*(rule(ResourceType.TOPIC, own, each) for each in wanted), rule(ResourceType.GROUP, own, AclOperation.DELETE)]
    )
    code, said = await tool(tmp_path, settings, "doctor")
    assert code == 0, said
    assert set(outcomes(said).values()) <= {"good", "advice"}, said
    assert {outcomes(said)[name] for name in ("read back", "transaction", "groups")} == {"good"}, said
    assert f"left on Kafka: topic {own}" not in said
    assert f"left on Kafka: group {own}" not in said


def outcomes(said: str) -> dict[str, str]:
    """What the doctor prints of each check."""
    return {
        name.strip(): outcome
        for outcome, name in re.findall(r"^(good|advice|broken|not tried) +(.{11}) ", said, re.MULTILINE)
    }


async def committed(secured: SecuredKafka, topic: str, key: bytes) -> bool:
    """Whether readers of what is committed see exactly this record."""
    records = await consume_all(secured.internal, topic, isolation_level="read_committed")
    return [key] == [record.key for record in records]


async def tool(directory: Path, settings: Mapping[str, Any], *words: str) -> tuple[int | None, str]:
    """Run a command of the bridge's in this directory: its exit code and all it wrote."""
    assignments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", *words, *assignments, cwd=directory,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "XDG_STATE_HOME": str(directory)},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


def write(
    secured: SecuredKafka, topic: str, value: bytes, headers: Mapping[str, str] | None = None, *, count: int = 1
) -> None:
    """One record, or so many, by the tests' own hands."""
    producer = Producer({"bootstrap.servers": secured.internal, "log_level": 0})
    for _ in range(count):
        producer.produce(topic, value, b"key", headers={name: text.encode() for name, text in (headers or {}).items()})
    assert producer.flush(20) == 0


# --- words ------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[SecuredKafka, Authority, str], tuple[dict[str, Any], str]]] = {
    "another authority": lambda secured, stranger, user: (
        {**secured.connecting(user, PASSWORD), "kafka.ssl_cafile": stranger.cafile},
        "the broker's certificate is refused: unable to get local issuer certificate; look at kafka.ssl_cafile",
    ),
    "expired": lambda secured, _, __: (
        secured.by_certificate(None, "EXPIRED"),
        "the broker's certificate is refused: certificate has expired",
    ),
    "another host": lambda secured, _, __: (
        secured.by_certificate(None, "OTHER"),
        "IP address mismatch, certificate is not valid for '127.0.0.1'; look at kafka.bootstrap_servers",
    ),
    "wrong password": lambda secured, _, user: (
        secured.connecting(user, "wrong"),
        "the broker refuses the login: Authentication failed during authentication due to invalid credentials",
    ),
    "another mechanism": lambda secured, _, user: (
        {**secured.connecting(user, PASSWORD), "kafka.sasl_mechanism": "PLAIN"},
        "the broker does not offer kafka.sasl_mechanism",
    ),
    "no certificate": lambda secured, _, __: (
        secured.by_certificate(None),
        "look at kafka.security_protocol and kafka.ssl_certfile",
    ),
    "a stranger's certificate": lambda secured, stranger, __: (
        secured.by_certificate(stranger.client("the-bridge")),
        "look at kafka.security_protocol and kafka.ssl_certfile",
    ),
    "TLS where there is none": lambda secured, _, __: (
        {**secured.by_certificate(None), "kafka.bootstrap_servers": secured.internal},
        "the broker hung up; look at kafka.security_protocol",
    ),
    "no TLS where there is": lambda secured, _, __: (
        {"kafka.bootstrap_servers": secured.kafka.bootstrap("MTLS")},
        "): the port speaks TLS or another protocol; look at kafka.security_protocol",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_connection_says_which_key_to_look_at(
    secured: SecuredKafka, user: str, tmp_path: Path, case: str
) -> None:
    """Address, reason, key; no password."""
    settings, words = REFUSED[case](secured, Authority(tmp_path, "stranger"), user)

    said = await error_of(settings, "any")
    assert said.startswith(settings["kafka.bootstrap_servers"] + ": ")
    assert words in said
    assert "wrong" not in said
    assert PASSWORD not in said


async def test_a_broker_that_is_told_of_by_a_name_that_leads_nowhere_is_named(secured: SecuredKafka) -> None:
    """The first connection works, those to what the cluster tells of do not: advertised.listeners, most often."""
    settings = secured.by_certificate(None, bootstrap_servers=f"127.0.0.1:{secured.kafka.nodes[0].port('ASTRAY')}")
    topic = await create_topic(secured.internal)
    await secured.allow(everything("User:ANONYMOUS", (topic, unique_name("other"))))
    assert (await error_of(settings, topic)).startswith("broker 1, advertised as 127.0.0.1:1: ")


async def test_a_name_in_no_certificate_may_be_allowed(secured: SecuredKafka) -> None:
    """``ssl_check_hostname = false``: the authority is asked for, the name is not."""
    settings = kafka_of(secured.by_certificate(None, "OTHER", ssl_check_hostname="false"))
    async with producing(settings, "any") as producer:
        await eventually(partial(happened, lambda: bool(producer.cluster.brokers)))


async def happened(holds: Callable[[], bool]) -> bool:
    """For what is asked without waiting."""
    return holds()


@contextlib.asynccontextmanager
async def producing(settings: Kafka, topic: str) -> AsyncIterator[BridgeProducer]:
    """A producer that has begun to connect."""
    producer = BridgeProducer(settings, [topic], 6.0, lambda _: None)
    producer.start()
    yield producer
    await producer.stop()


async def error_of(settings: Mapping[str, Any], topic: str) -> str:
    """Why a producer can't connect, in its own words."""
    async with producing(kafka_of(settings), topic) as producer:
        # A broker that is slow to refuse is said to be slow first.
        slow = {"", "no answer yet"}
        await eventually(partial(happened, lambda: producer.last_error.partition(" from ")[0] not in slow))
        return producer.last_error


@pytest.mark.parametrize("how", ["password", "certificate", "another host", "token"])
async def test_the_commands_other_client_connects_by_the_same_keys(
    secured: SecuredKafka, user: str, tmp_path: Path, how: str
) -> None:
    """librdkafka, of replay and of `topics apply`: SCRAM, an encrypted key, a host name that is not asked for, a token."""
    (tmp_path / "token").write_text(token(user, 600))
    settings = {
        "password": lambda: secured.connecting(user, PASSWORD),
        "certificate": lambda: secured.by_certificate(
            secured.authority.client("somebody", password=PASSPHRASE), ssl_password=PASSPHRASE
        ),
        "another host": lambda: secured.by_certificate(None, "OTHER", ssl_check_hostname="false"),
        "token": lambda: secured.by_token(tmp_path / "token"),
    }[how]()

    admin = make(AdminClient, {**librdkafka_arguments(kafka_of(settings)), "log_level": 0})
    assert list((await asyncio.to_thread(admin.list_topics, timeout=20)).brokers) == [1]


# --- secrets that change ----------------------------------------------------------------------------------------------


async def test_certificates_are_rotated_while_it_runs_and_a_half_done_rotation_costs_nothing(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    """Mutual TLS with an encrypted key. A wrong authority at first, a new certificate, a key of another: kept, told, mended."""
    topics = await make_topics(secured.internal)
    await secured.allow(everything("User:the-bridge", topics))
    first, second = (secured.authority.client("the-bridge", password=PASSPHRASE) for _ in range(2))
    mounted = {name: tmp_path / name for name in ("ca.pem", "tls.crt", "tls.key", "passphrase")}
    mounted["ca.pem"].write_bytes(Authority(tmp_path, "stranger").cafile.read_bytes())
    mounted["tls.crt"].write_bytes(first.certfile.read_bytes())
    mounted["tls.key"].write_bytes(first.keyfile.read_bytes())
    mounted["passphrase"].write_text(PASSPHRASE)
    settings = secured.by_certificate(
        None, ssl_cafile=mounted["ca.pem"], ssl_certfile=mounted["tls.crt"], ssl_keyfile=mounted["tls.key"],
        ssl_password_file=mounted["passphrase"],
    )  # fmt: skip
    # Nothing but the files is to bring another connection.
    patient = {**SOON, "delivery.spool_after_ms": 1500}
    async with BridgeProcess("", tmp_path, {**settings, **named(topics), **patient}) as bridge:
        await push(bridge, "while-the-authority-is-wrong")
        await eventually(partial(said, bridge, "unable to get local issuer certificate; look at kafka.ssl_cafile"))
        mounted["ca.pem"].write_bytes(secured.authority.cafile.read_bytes())
        await eventually(partial(published, bridge, 1))

        mounted["tls.crt"].write_bytes(second.certfile.read_bytes())
        await eventually(partial(metric, bridge, 'secrets_loaded{source="kafka"}', lambda usable: usable == 0))
        await push(bridge, "half-done")
        await eventually(partial(published, bridge, 2))
        mounted["tls.key"].write_bytes(second.keyfile.read_bytes())
        await eventually(partial(metric, bridge, 'secrets_loaded{source="kafka"}', lambda usable: usable == 1))
        await push(bridge, "with-the-new-one")
        await eventually(partial(published, bridge, 3))
        log = bridge.log()
    assert await names_on(secured, topics[0]) == {b"while-the-authority-is-wrong", b"half-done", b"with-the-new-one"}
    assert "they can't be used together" in log
    assert PASSPHRASE not in log


async def test_a_password_changed_at_the_broker_costs_nothing(secured: SecuredKafka, user: str, tmp_path: Path) -> None:
    """Logins end every two seconds; then the password is another: what comes is on disk until the file has it."""
    topics = await make_topics(secured.internal)
    await secured.allow(everything(f"User:{user}", topics))
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    settings = {
        **secured.connecting(user, "", "EXPIRING"),
        "kafka.sasl_plain_password_file": file,
        **named(topics),
        **SOON,
    }
    pushed: list[str] = []

    async def keep_pushing(bridge: BridgeProcess) -> None:
        while True:
            pushed.append(unique_name("message"))
            await push(bridge, pushed[-1])
            await asyncio.sleep(0.02)

    async with BridgeProcess("", tmp_path, settings) as bridge:
        pushing = asyncio.create_task(keep_pushing(bridge))
        try:
            # Through two ends of a login with the password as it is.
            await eventually(
                partial(metric, bridge, f'reports_published_total{{topic="{topics[0]}"}}', lambda n: n > 100)
            )
            await secured.set_password(user, CHANGED)
            await eventually(partial(said, bridge, "the broker refuses the login"))
            await eventually(partial(metric, bridge, "reports_waiting", lambda waiting: waiting > 20))
            (tmp_path / "next").write_text(CHANGED + "\n")
            (tmp_path / "next").replace(file)
            await eventually(partial(metric, bridge, "reports_waiting", lambda waiting: waiting < 20))
        finally:
            pushing.cancel()
        await asyncio.wait([pushing])
        with contextlib.suppress(asyncio.CancelledError):
            await pushing
        await eventually(partial(settled, bridge))
        log = bridge.log()
    assert {name.encode() for name in pushed[:-1]} <= await names_on(secured, topics[0])
    assert PASSWORD not in log
    assert CHANGED not in log


@pytest.mark.long
async def test_a_renewed_token_is_taken_and_an_expired_one_costs_nothing(secured: SecuredKafka, tmp_path: Path) -> None:
    """OAUTHBEARER: logins end every two seconds; a token expires before it is renewed, then its file is empty, then gone."""
    topics = await make_topics(secured.internal)
    await secured.allow(everything("User:by-token", topics))
    file, beside = tmp_path / "token", tmp_path / "next"
    pushed: list[str] = []

    def renew(seconds: float) -> str:
        issued = token("by-token", seconds)
        beside.write_text(issued + " \n\n")
        beside.replace(file)
        return issued

    async def keep_pushing(bridge: BridgeProcess) -> None:
        while True:
            pushed.append(unique_name("message"))
            await push(bridge, pushed[-1])
            await asyncio.sleep(0.02)

    async def waits(bridge: BridgeProcess, *, expected: bool) -> bool:
        waiting = (await bridge.metrics())["chatapp_bridge_reports_waiting"]
        return waiting > 50 if expected else waiting < 20

    tokens = [renew(600)]
    async with BridgeProcess("", tmp_path, {**secured.by_token(file), **named(topics), **SOON}) as bridge:
        pushing = asyncio.create_task(keep_pushing(bridge))
        # Through ends of logins with a token that is good, and on with another.
        published = f'reports_published_total{{topic="{topics[0]}"}}'
        await eventually(partial(metric, bridge, published, lambda count: count > 100))
        tokens.append(renew(3))
        await eventually(partial(waits, bridge, expected=True))
        tokens.append(renew(600))
        await eventually(partial(waits, bridge, expected=False))
        for spoil in (partial(file.write_text, "\n"), file.unlink):
            spoil()
            await eventually(partial(metric, bridge, 'secrets_loaded{source="kafka"}', lambda usable: usable == 0))
            tokens.append(renew(600))
            await eventually(partial(metric, bridge, 'secrets_loaded{source="kafka"}', lambda usable: usable == 1))
        pushing.cancel()
        await asyncio.wait([pushing])
        await eventually(partial(settled, bridge))
        log = bridge.log()
    assert {name.encode() for name in pushed[:-1]} <= await names_on(secured, topics[0])
    assert [issued for issued in tokens if issued in log or issued.split(".")[1] in log] == []
    assert (log.count("is empty; write the token there") > 0, "Traceback" in log) == (True, False)


async def test_the_bridge_renews_its_tokens_on_living_connections(secured: SecuredKafka, tmp_path: Path) -> None:
    """Of an OIDC provider: tokens live three seconds, logins two at most. No connection is replaced, nothing is sent again."""
    topics = await make_topics(secured.internal)
    await secured.allow(everything("User:by-client", topics))
    with provider(secured, "by-client") as endpoint:
        settings = {**secured.by_client(endpoint), **named(topics), "delivery.spool_after_ms": 1900}
        async with BridgeProcess("", tmp_path, settings) as bridge:
            count = 0

            async def published_since(tokens: int) -> bool:
                nonlocal count
                count += 1
                await push(bridge, f"message-{count}")
                return len(endpoint.issued) >= tokens

            await eventually(partial(published_since, 1))
            await eventually(partial(published, bridge, count))
            before = connections(bridge, secured.kafka.bootstrap("TOKEN"))
            assert before
            await eventually(partial(published_since, len(endpoint.issued) + 3))
            await eventually(partial(published, bridge, count))
            assert before <= connections(bridge, secured.kafka.bootstrap("TOKEN"))
            log = bridge.log()
    assert [word for word in ("kafka_request_lost", "batch_failed", "kafka_login_not_renewed") if word in log] == []
    assert SECRET not in log
    assert [issued for issued in endpoint.issued if issued in log or issued.split(".")[1] in log] == []
    assert len(await names_on(secured, topics[0])) == count


def provider(secured: SecuredKafka, user: str) -> TokenEndpoint:
    """An OIDC provider whose tokens are that user's, and live three seconds."""
    endpoint = TokenEndpoint(partial(token, user), secured.authority.server_context(secured.authority.server()))
    endpoint.seconds = 3
    return endpoint


def connections(bridge: BridgeProcess, address: str) -> set[str]:
    """The bridge's open connections to that address, by their own ports, as the kernel has them."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{bridge.pid}/fd").iterdir() if link.is_symlink()}
    other, open_ = f":{int(address.rpartition(':')[2]):04X}", "01"
    rows = (line.split() for line in Path(f"/proc/{bridge.pid}/net/tcp").read_text().splitlines()[1:])
    return {row[1] for row in rows if row[2].endswith(other) and row[3] == open_ and f"socket:[{row[9]}]" in sockets}


async def test_commands_that_ask_nothing_for_longer_than_a_token_lives_go_on(secured: SecuredKafka, user: str) -> None:
    """What asks, and what writes: both get the next tokens meanwhile."""
    topics = await make_topics(secured.internal, partitions=1)
    await secured.allow(await printed(topics, "--replay", f"User:{user}"))
    with provider(secured, user) as endpoint:
        kafka = kafka_of(secured.by_client(endpoint))

        def work() -> None:
            transactions = Transactions(
                kafka, f"chatapp-bridge-{user}", batch_bytes=1000, beginning="beginning", fenced="", timeout_seconds=5
            )
            with ClusterInspector(kafka, 5) as inspector:
                assert inspector.partitions(topics[0]) == [0]
                deadline, expected = time.monotonic() + 30, len(endpoint.issued) + 2
                while len(endpoint.issued) < expected:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                assert inspector.offsets(topics[0])[0].high == 0
                transactions.write(topics[0], [{"value": b"{}"}], "writing")
                transactions._flush("writing")
                transactions.close()

        await asyncio.to_thread(work)
    assert len(endpoint.asked) == len(endpoint.issued)


async def test_replay_logs_in_by_a_token(secured: SecuredKafka, user: str, tmp_path: Path) -> None:
    """Its reader, its questions and its transactions, longer than a token lives; without the file it says which key names it."""
    topics = await make_topics(secured.internal, partitions=1)
    target = await create_topic(secured.internal)
    await secured.allow(await printed(topics, "--replay", f"User:{user}", "--target", target))
    write(secured, topics[0], b"{}", count=60)
    file = tmp_path / "token"
    run = partial(tool, tmp_path, {**secured.by_token(file), **named(topics)})
    replay = ("replay", "--to-topic", target, "--execute")
    code, said = await run(*replay)
    assert (code, said.startswith("chatapp-bridge: kafka.sasl_oauth_token_file: can't read ")) == (2, True), said
    file.write_text(token(user, 600))
    code, said = await run(*replay)
    assert (code, "60 records read, 60 written" in said) == (0, True), said
    with provider(secured, user) as endpoint:
        code, said = await tool(tmp_path, {**secured.by_client(endpoint), **named(topics)}, *replay, "--rate", "12")
        assert (code, "60 records read, 60 written" in said, "token" in said) == (0, True, False), said
        assert len(endpoint.issued) >= 2
        endpoint.secret = PASSWORD
        code, said = await tool(tmp_path, {**secured.by_client(endpoint), **named(topics)}, *replay)
        assert (code, "gives no token (401 invalid_client" in said, SECRET in said) == (2, True, False), said
    file.write_text(token(user, -30))
    code, said = await run(*replay, "--timeout", "3")
    assert code != 0
    assert "credentials" in said, said


async def test_topics_are_made_and_changed_with_a_token(secured: SecuredKafka, user: str, tmp_path: Path) -> None:
    """By both clients: one makes them, the other changes their settings."""
    topics = unique_name("status"), unique_name("quarantine")
    await secured.allow(await printed(topics, "--operator", f"User:{user}"))
    (tmp_path / "token").write_text(token(user, 600))
    settings = {**secured.by_token(tmp_path / "token"), **named(topics)}
    code, text = await command(settings, "apply", "--single-broker")
    assert code == 0, text
    own = tmp_path / "own.toml"
    own.write_text('[status.config]\n"retention.ms" = 3024000001\n')
    code, text = await command({**settings, "topics.file": own}, "apply", "--single-broker")
    assert (code, "retention.ms: 3024000000 -> 3024000001" in text) == (0, True), text
