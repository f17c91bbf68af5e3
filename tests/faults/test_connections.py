"""A broker behind a proxy that holds what it was sent, and behind an authorizer that changes its mind."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from support.arena import PARTITIONS, Arena, Scrape, longer
from support.brokers import running
from support.proxy import Proxy
from support.topics import create_topic

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port

METADATA = 3
PASSWORD = "right"  # noqa: S105 - of a broker that lives as long as the test
SECURITY = {
    "kafka.security_protocol": "SASL_PLAINTEXT",
    "kafka.sasl_mechanism": "PLAIN",
    "kafka.sasl_plain_username": "bridge",
    "kafka.sasl_plain_password": PASSWORD,
}


@pytest.fixture(scope="module")
def _guarded() -> Iterator[tuple[EmbeddedKafka, Port]]:
    """One node, whose listener for the bridge is told of as the proxy's port, and wants a password and a permission."""
    door = Port()
    kafka = EmbeddedKafka(
        listeners={"GUARDED": "SASL_PLAINTEXT", "PLAIN": "PLAINTEXT"},
        properties={
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.guarded.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required user_bridge='{PASSWORD}';"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    kafka.nodes[0].advertised["GUARDED"] = door.address
    try:
        with running(kafka):
            yield kafka, door
    finally:
        door.release()


@pytest.fixture
async def proxy(_guarded: tuple[EmbeddedKafka, Port]) -> AsyncIterator[Proxy]:
    """Before the broker; the bridge knows no other way."""
    kafka, door = _guarded
    async with Proxy(lambda: kafka.nodes[0].port("GUARDED"), door) as proxy:
        yield proxy


@pytest.fixture
async def arena(_guarded: tuple[EmbeddedKafka, Port], proxy: Proxy, tmp_path: Path) -> AsyncIterator[Arena]:
    """A bridge on topics that it may use."""
    kafka, _ = _guarded
    plain = kafka.bootstrap("PLAIN")
    topics = await create_topic(plain, partitions=PARTITIONS), await create_topic(plain, partitions=3)
    await asyncio.to_thread(permit, plain, topics)
    # Sooner than the client tries again by itself, which its sequence numbers would make no repeat.
    settings = {**SECURITY, "delivery.producer_timeout_seconds": 0.8, "delivery.spool_after_ms": 300}
    disks = [node.directory / "data" for node in kafka.nodes]
    async with Arena(plain, tmp_path, topics, settings, bridge_bootstrap=proxy.address, log_dirs=disks) as arena:
        yield arena


def rules(topics: tuple[str, str], operation: AclOperation, permission: AclPermissionType) -> list[AclBinding]:
    """For the bridge's user, on both topics."""
    literal = ResourcePatternType.LITERAL
    return [
        AclBinding(ResourceType.TOPIC, topic, literal, "User:bridge", "*", operation, permission) for topic in topics
    ]


def permit(
    bootstrap: str,
    topics: tuple[str, str],
    operation: AclOperation = AclOperation.ALL,
    permission: AclPermissionType = AclPermissionType.ALLOW,
) -> None:
    """Add rules."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_acls(rules(topics, operation, permission)).values():
        future.result()


def withdraw(
    bootstrap: str,
    topics: tuple[str, str],
    operation: AclOperation = AclOperation.ALL,
    permission: AclPermissionType = AclPermissionType.ALLOW,
) -> None:
    """Remove rules."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    literal = ResourcePatternType.LITERAL
    filters = [
        AclBindingFilter(ResourceType.TOPIC, topic, literal, "User:bridge", "*", operation, permission)
        for topic in topics
    ]
    for future in admin.delete_acls(filters).values():
        assert future.result()


async def test_bytes_of_a_request_that_was_given_up_change_nothing_when_they_arrive(arena: Arena, proxy: Proxy) -> None:
    """Connections are held while new ones pass: requests are given up, their batches sent again by others, then they arrive.

    The brokers know them by their sequence numbers: nothing is repeated but what the provider repeats.
    """
    arena.load(longer(6, 60))
    rounds = int(longer(1, 8))
    await arena.until(lambda scrape: scrape.total("reports_published") > 300)
    for _ in range(rounds):
        held = await arena.until(lambda scrape: holds_something(proxy, scrape))
        await arena.until(partial(goes_on, held))
        assert proxy.held_bytes > 0
        proxy.release()
        await arena.until(lambda _: proxy.kept_bytes == 0)

    verdict = await arena.verdict()
    given = [report.event_id for entry in arena.ledger.entries.values() for report in entry.reports if report.event_id]
    assert verdict.checked.repeats == len(given) - len(set(given))
    assert arena.ledger.summary().answers.keys() == {"200"}


def goes_on(held: Scrape, scrape: Scrape) -> bool:
    """Whether other connections have taken over what waits, and more."""
    return (
        scrape.metrics["kafka_connections_opened_total"] > held.metrics["kafka_connections_opened_total"]
        and scrape.total("reports_published") > held.total("reports_published") + 500
        and scrape.waiting < 300
    )


def holds_something(proxy: Proxy, scrape: Scrape) -> bool:
    """Hold the connections of now, unless bytes are held already; a link may be changing to a new one."""
    if proxy.held_bytes == 0:
        proxy.hold()
    return proxy.held_bytes > 0 and scrape.waiting > 0


async def test_authorisation_lost_and_given_back(
    arena: Arena,
    proxy: Proxy,
    _guarded: tuple[EmbeddedKafka, Port],  # noqa: PT019 - its value is used
) -> None:
    """Writing is denied, then the topics are out of sight altogether: the spool takes what comes, and all of it goes later.

    Meanwhile brokers are not asked for metadata without end.
    """
    plain = _guarded[0].bootstrap("PLAIN")
    deny = (AclOperation.WRITE, AclPermissionType.DENY)
    arena.load(longer(9, 90))
    await arena.until(lambda scrape: scrape.total("reports_published") > 300)

    await asyncio.to_thread(permit, plain, arena.topics, *deny)
    await arena.until(lambda scrape: scrape.waiting > 1000)
    before, began = proxy.requests[METADATA], time.monotonic()
    await asyncio.sleep(longer(1.5, 30))
    asked = (proxy.requests[METADATA] - before) / (time.monotonic() - began)
    await asyncio.to_thread(withdraw, plain, arena.topics, *deny)
    await arena.until(lambda scrape: scrape.waiting < 300)

    await asyncio.to_thread(withdraw, plain, arena.topics)
    await arena.until(lambda scrape: scrape.waiting > 700)
    await asyncio.to_thread(permit, plain, arena.topics)

    await arena.verdict()
    assert arena.ledger.summary().answers.keys() == {"200"}
    assert asked < 60, f"{asked:.0f} metadata requests a second"
