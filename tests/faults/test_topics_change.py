"""Topics that come late, grow, or refuse what they are sent: the bridge goes on, and the order of every key is kept."""

import asyncio
import json

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from support.arena import RATE, STATUS_CONFIG, MakeArena, admin, longer, make_quarantine, make_status
from support.topics import consume_all, unique_name

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.simulate.campaign import Mix
from bridge.lab.simulate.identity import raw_sha256

pytest_plugins = ("support.arena_fixture",)


async def test_topics_missing_at_the_start_and_grown_while_spooled_and_live(
    cluster: EmbeddedKafka, make_arena: MakeArena
) -> None:
    """The spool takes what comes until the topic is made; 12 partitions become 24 in mid-drain with callbacks arriving.

    Keys move to other partitions then, as with any producer; in each partition a key's events are in order, and none is lost.
    """
    topics = unique_name("status"), unique_name("quarantine")
    # Soon enough for this test: running producers learn of partitions when they ask anew.
    arena = await make_arena({"kafka.metadata_max_age_ms": 1000}, topics=topics)
    arena.load(longer(8, 60))
    seen = await arena.until(lambda scrape: scrape.waiting > RATE * longer(2, 20))
    assert seen.metrics["ready"] == 1
    assert seen.total("reports_published") == 0
    bootstrap = cluster.bootstrap_servers
    await make_quarantine(bootstrap, topics[1])
    await make_status(bootstrap, topics[0])
    await arena.until(lambda scrape: scrape.total("reports_published") > 0)
    async with admin(bootstrap) as client:
        await client.create_partitions({topics[0]: NewPartitions(24)})

    await arena.verdict(but={"split key"})
    assert arena.ledger.summary().answers.keys() == {"200"}
    records = await consume_all(bootstrap, topics[0])
    assert {record.partition for record in records} == set(range(24))


async def test_what_a_topic_refuses_as_too_large_is_bisected_and_only_that_is_quarantined(
    cluster: EmbeddedKafka, make_arena: MakeArena
) -> None:
    """max.message.bytes is lowered below a batch and requeued: nothing else is lost or reordered, and the lanes go on."""
    arena = await make_arena({"kafka.compression_type": "none"})
    bootstrap, (status, _) = cluster.bootstrap_servers, arena.topics
    arena.load(longer(7, 60), mix=Mix.plain())
    await arena.until(lambda scrape: scrape.total("reports_published") > 500)
    async with admin(bootstrap) as client:
        await allow_bytes(client, status, 4000)
        large = json.dumps([{"MessageId": "large", "Status": "Sent", "Note": "x" * 6000}]).encode()
        sample = f'reports_published_total{{topic="{arena.topics[1]}"}}'
        # A broker takes the new limit to heart some time after it has confirmed it.
        while (await arena.watcher.next()).metrics[sample] == 0:
            assert (await arena.bridge.post(large)).status == 200
        await asyncio.sleep(longer(2, 20))
        await allow_bytes(client, status, 1_048_588)

    await arena.loaded()
    await arena.drained()
    quarantined = await consume_all(bootstrap, arena.topics[1])
    assert {(r.key, dict(r.headers)["quarantine_reason"]) for r in quarantined} == {(b"large", b"too_large")}
    verdict = await arena.verdict(but={"invented"}, extra={raw_sha256(r.value) for r in quarantined})
    assert all(
        "with key large," in damage.detail for damage in verdict.checked.damages
    )  # pushed here, not by the provider
    assert arena.ledger.summary().answers.keys() == {"200"}
    last = await arena.watcher.next()
    assert last.total("reports_dead_lettered") == 0


async def allow_bytes(client: AIOKafkaAdminClient, topic: str, count: int) -> None:
    """Set a topic's largest batch; the other settings stay."""
    config = {**STATUS_CONFIG, "max.message.bytes": str(count)}
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])
