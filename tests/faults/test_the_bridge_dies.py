"""However and whenever the bridge dies, what it answered 200 is on Kafka in the end, in order; repeats have the same id."""

import asyncio
import random
import re
from pathlib import Path

from support.arena import Arena, MakeArena, longer
from support.bridge_process import BridgeProcess
from support.raw_http import connection, request
from support.topics import until

from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port

pytest_plugins = ("support.arena_fixture",)

GRACE_SECONDS = 6.0


async def kill_rounds(arena: Arena, rounds: int, chance: random.Random) -> None:
    """``kill -9`` at random moments of its first second of life, and a new start at once."""
    for _ in range(rounds):
        await asyncio.sleep(chance.uniform(0.05, 0.8))
        arena.bridge.kill()
        await arena.bridge.start()


async def test_kill_9_in_a_loop_loses_nothing_with_kafka_up_and_down(
    cluster: EmbeddedKafka, make_arena: MakeArena
) -> None:
    """Under load: while healthy, while journalling with Kafka away, and in mid-drain."""
    arena = await make_arena()
    chance = random.Random(5)  # noqa: S311 - has to be repeatable
    rounds = int(longer(2, 12))
    # Each round takes about a second and a half: half of it until it listens again.
    arena.load(longer(10, 75), longer(700, 1500))
    await arena.until(lambda scrape: scrape.total("reports_published") > 500)
    await kill_rounds(arena, rounds, chance)
    await cluster.kill_all()
    await kill_rounds(arena, rounds, chance)
    # More than what waits for its turn to be journalled, so that the next process has much to take over, however fast the drain.
    await arena.until(lambda scrape: scrape.waiting > 1000)
    arena.bridge.kill()
    await arena.bridge.start()
    await cluster.start()
    for _ in range(rounds):
        await arena.until(lambda scrape: 0 < scrape.total("reports_published") or scrape.waiting == 0)
        arena.bridge.kill()
        await arena.bridge.start()

    verdict = await arena.verdict()
    found = max(scrape.total("reports_recovered") for scrape in arena.watcher.scrapes)
    assert found > 500  # taken over from the former process
    print(f"\n  {3 * rounds + 1} times kill -9; at most {found:.0f} reports taken over")  # noqa: T201 - the report
    assert verdict.summary.pushes > 0


async def test_sigterm_ends_within_its_bound_in_each_state(cluster: EmbeddedKafka, make_arena: MakeArena) -> None:
    """Healthy, with frozen brokers, with none, and in mid-drain: it ends by itself in time, and the next start goes on.

    What is in flight is answered or journalled; no connection that waits for Kafka holds it up.
    """
    arena = await make_arena({"server.shutdown_seconds": GRACE_SECONDS})
    arena.load(longer(8, 60))
    await arena.until(lambda scrape: scrape.total("reports_published") > 500)
    took = {"healthy": await stopped(arena)}
    await arena.until(lambda scrape: scrape.total("reports_published") > 500)
    for node in cluster.nodes:
        node.pause()
    await asyncio.sleep(0.3)  # before spool_after_ms: batches are on their way, nothing is journalled
    took["frozen"] = await stopped(arena)
    await arena.until(lambda scrape: scrape.metrics["spool_rows"] > 0)
    took["without Kafka"] = await stopped(arena)
    for node in cluster.nodes:
        node.resume()
    await arena.until(lambda scrape: scrape.total("reports_published") > 0)
    took["draining"] = await stopped(arena)

    print(f"\n  {took}")  # noqa: T201 - the report
    await arena.verdict()
    assert max(took.values()) < GRACE_SECONDS + 0.5
    assert took["healthy"] < GRACE_SECONDS / 2


async def stopped(arena: Arena) -> float:
    """Seconds from SIGTERM to the end; then it is started again."""
    stopped = await arena.bridge.stop()
    assert stopped.code == 0
    await arena.bridge.start()
    return stopped.seconds


async def shows(bridge: BridgeProcess, name: str, least: float) -> bool:
    """Whether a metric is that high."""
    return (await bridge.metrics())[f"chatapp_bridge_{name}"] >= least


async def test_a_client_that_goes_away_while_waiting_leaves_a_balanced_reconciliation(tmp_path: Path) -> None:
    """Its callback was read whole: it is kept like any other, counted once, and found by the next start."""
    nobody = Port()
    async with BridgeProcess(nobody.address, tmp_path, {"delivery.spool_after_ms": 400}) as bridge:
        pushed = request("POST", bridge.path, b'[{"MessageId":"m","Status":"Sent"},{"MessageId":"n","Status":"Sent"}]')
        async with connection(bridge.port) as (_, writer):
            writer.write(pushed)
            await writer.drain()
            await until(lambda: shows(bridge, "reports_received_total", 2), 0.01)
        await until(lambda: shows(bridge, "spool_rows", 1), 0.01)
        metrics = await bridge.metrics()
        assert metrics["chatapp_bridge_reports_waiting"] == 2
        bridge.kill()
        await bridge.start()
        metrics = await bridge.metrics()
        assert metrics["chatapp_bridge_reports_recovered_total"] == metrics["chatapp_bridge_reports_waiting"] == 2
    assert not re.search(r"Traceback|Exception", bridge.log())
    nobody.release()
