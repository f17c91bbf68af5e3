"""Replicas share nothing but Kafka: any of them may die at any time, and the others go on."""

from collections.abc import Callable
from pathlib import Path

from support.arena import Scrape, longer, make_quarantine, make_status
from support.replicas import Replicas

from bridge.lab.embedded import EmbeddedKafka

REPLICAS = 3
LONGEST_SECONDS = 1200.0


async def kill_in_turn(replicas: Replicas, when: Callable[[Scrape], bool], count: int = REPLICAS) -> None:
    """``kill -9`` each when that holds for it, and start it again at once; the others have its callbacks meanwhile."""
    for arena in replicas.arenas[:count]:
        await arena.until(when)
        arena.bridge.kill()
        await arena.bridge.start()


async def test_three_replicas_killed_in_turn_lose_nothing_and_each_keeps_its_order(
    cluster: EmbeddedKafka, tmp_path: Path
) -> None:
    """Under load: while healthy, while journalling with Kafka away, and in mid-drain; there is always one that answers."""
    bootstrap = cluster.bootstrap_servers
    topics = await make_status(bootstrap), await make_quarantine(bootstrap)
    rounds = int(longer(1, 4))
    async with Replicas(bootstrap, tmp_path, topics, count=REPLICAS) as replicas:
        replicas.load(LONGEST_SECONDS, longer(400, 1500))
        for _ in range(rounds):
            await kill_in_turn(replicas, lambda scrape: scrape.total("reports_published") > 100)
        await cluster.kill_all()
        for _ in range(rounds):
            await kill_in_turn(replicas, lambda scrape: scrape.metrics["spool_rows"] > 0 and scrape.waiting > 200)
        for arena in replicas.arenas:
            await arena.until(lambda scrape: scrape.total("reports_recovered") > 100)  # of its former life
        await cluster.start()
        for _ in range(rounds):
            await kill_in_turn(replicas, lambda scrape: scrape.total("reports_published") > 0, int(longer(1, REPLICAS)))
        replicas.enough()
        verdict = await replicas.verdict()

    assert verdict.summary.lost == verdict.summary.unresolved == 0
    assert replicas.front.passed_over > 0  # callbacks came while a replica was away, and another one took them
    assert min(verdict.lives) > 2 * rounds
