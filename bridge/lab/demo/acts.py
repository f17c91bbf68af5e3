"""The story, in acts."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from bridge.headers import CE_ID
from bridge.lab.demo.campaign import RETRY_SCALE, Pushing
from bridge.lab.demo.consumers import Audit, Billing, Consumer
from bridge.lab.demo.dashboard import milliseconds
from bridge.lab.demo.reckoning import Reckoning, reckon
from bridge.lab.demo.screen import Screen
from bridge.lab.demo.stage import DemoFailedError, Stage
from bridge.lab.demo.tool import typed
from bridge.lab.simulate.ledger import Attempt

Act = Callable[[Stage, Screen], Awaitable[None]]


async def campaign(stage: Stage, screen: Screen) -> None:
    """Act 1."""
    screen.act(
        1,
        "a campaign, and three teams that follow it",
        "Look at the three teams: each reads the same events at its own pace and has a table of its own.",
    )
    screen.say(
        f"the provider pushes the reports of {stage.options.messages:,} messages, {stage.options.rate:,.0f} a second, "
        "some twice, some out of order, some nonsense; what is not answered it pushes again after "
        f"{60 * RETRY_SCALE:.0f} and {300 * RETRY_SCALE:.0f} s (the real one: 1 and 5 minutes)"
    )
    async with stage.pushing(stage.options.messages, seed=1) as pushing:
        pass
    await settled(stage)
    summary = pushing.ledger.summary()
    screen.say(
        f"{summary.reports:,} reports in {summary.pushes:,} callbacks; half were answered within "
        f"{milliseconds(summary.latency.p50_seconds)}, 99 % within {milliseconds(summary.latency.p99_seconds)}"
    )


async def outage(stage: Stage, screen: Screen) -> None:
    """Act 2."""
    title = "Kafka is killed, then the bridge, too"
    if stage.kafka is None:
        screen.act(2, title, "Left out: it kills Kafka, and this Kafka is yours. Without --bootstrap it is played.")
        return
    screen.act(
        2,
        title,
        "Look at the answers, which go on being 200, and at the spool, which keeps on disk what Kafka can't take.",
    )
    lead = stage.options.messages // 2
    async with stage.pushing(None, seed=2) as pushing:
        await pushed(stage, pushing, lead)
        away_from = len(_attempts(pushing))
        await stage.kill_kafka()
        screen.say("Kafka is killed (SIGKILL), in mid-campaign", "red")
        await waiting(stage, 2 * lead)
        await _kill_bridge(stage, screen)
        await waiting(stage, 3 * lead)
        away = _attempts(pushing)[away_from:]
        await stage.start_kafka()
        screen.say("Kafka is back, at the same address, with the data it had", "green")
        _say_answers(screen, away)
        await drained(stage)
        screen.say("the spool is empty; callbacks go to Kafka directly again", "green")
        await pushed(stage, pushing, pushing.ledger.reports + lead)
        pushing.stop()
    await settled(stage)


async def rewind(stage: Stage, screen: Screen) -> None:
    """Act 3."""
    screen.act(
        3,
        "a team starts over, and another arrives late",
        "Look at the plans, which come before anything is done, and at billing, which counts up to the same total.",
    )
    if not stage.campaigns:
        async with stage.pushing(stage.options.messages, seed=1):
            pass
        await settled(stage)
    before = await _start_over(stage, screen)
    await _arrive_late(stage, screen, before)


async def _start_over(stage: Stage, screen: Screen) -> int:
    """Billing goes back to before all it knew; its total."""
    billing = next(group for group in stage.groups if isinstance(group.consumer, Billing))
    before = billing.consumer.total
    began = datetime.fromtimestamp(stage.began_at - 1, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    screen.say(
        f"billing loses its table of {before:,} charges; its consumer is stopped, and its group moved back", "yellow"
    )
    await stage.leave(billing)
    reset = ("replay", "groups", "reset", billing.group_id, "--to-time", began)
    await _type(stage, screen, *reset)
    undo = str(stage.directory / "billing.undo.json")
    await _type(stage, screen, *reset, "--undo-file", undo, "--execute", lines=2)
    billing.start_over(Billing())
    stage.follow(billing)
    await settled(stage)
    _same(screen, billing.consumer, before)
    return before


async def _arrive_late(stage: Stage, screen: Screen, before: int) -> None:
    """A team loads what there is from a file, and follows from then on."""
    screen.say(
        "a team nobody planned for arrives, and takes all there is, from the first event on, as a file", "yellow"
    )
    file = stage.directory / "events.ndjson"
    replay = ("replay", "--from", "earliest", "--to-file", str(file))
    await _type(stage, screen, *replay)
    await _type(stage, screen, *replay, "--execute", lines=0)
    audit = Audit()
    for line in file.read_bytes().splitlines():
        record = _decode_line(line)
        audit.receive(record.headers[CE_ID], bytes(record.value))
    screen.say(f"it loaded {audit.events + audit.repeats:,} lines")
    _same(screen, audit, before)
    stage.join(audit)
    screen.say("now it follows with a group of its own, and drops what it has by the event's id")
    await settled(stage)
    _same(screen, audit, before)


ACTS: dict[int, Act] = {1: campaign, 2: outage, 3: rewind}


async def reckoned(stage: Stage) -> Reckoning:
    """All counts, beside what an independent reader finds on Kafka now."""
    return reckon(
        stage.entries(),
        await stage.read_status(),
        await stage.read_quarantine(),
        [group.consumer for group in stage.groups],
        stage.deaths,
    )


# --- what is waited for -----------------------------------------------------------------------------------------------


async def pushed(stage: Stage, pushing: Pushing, reports: int) -> None:
    """Until so many reports were pushed."""

    async def so_many() -> bool:
        return pushing.ledger.reports >= reports

    await stage.until(so_many, f"{reports} reports to be pushed")


async def waiting(stage: Stage, reports: int) -> None:
    """Until so many wait in the bridge."""

    async def so_many() -> bool:
        return stage.reading is not None and stage.reading.waiting >= reports

    await stage.until(so_many, f"{reports} reports to wait in the bridge")


async def drained(stage: Stage) -> None:
    """Until the bridge has brought all it kept to Kafka."""

    async def nothing_left() -> bool:
        reading = await stage.bridge.read()
        return reading is not None and reading.degraded == reading.spool_rows == 0

    await stage.until(nothing_left, "the spool to be empty")


async def settled(stage: Stage) -> None:
    """Until all that was pushed is on Kafka, and every team has read up to its end."""

    async def nothing_waits() -> bool:
        reading = await stage.bridge.read()
        return reading is not None and reading.drained

    await stage.until(nothing_waits, "everything to be on Kafka")
    ends: dict[int, int] = {}
    for record in await stage.read_status():
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)

    async def all_caught_up() -> bool:
        return all(group.caught_up(ends) for group in stage.groups)

    await stage.until(all_caught_up, f"the groups to catch up: {', '.join(g.group_id for g in stage.groups)}")


# --- parts of acts ----------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct):
    """Of a line that a replay wrote: all the team needs."""

    headers: dict[str, str]
    value: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


async def _type(stage: Stage, screen: Screen, *words: str, lines: int | None = None) -> None:
    """Run a command and show what it said, or its last lines."""
    said = (await stage.tool.run(*words)).splitlines()
    shown = said if lines is None else said[len(said) - lines :]
    screen.quote("\n".join(f"    {line}".rstrip() for line in (f"$ {typed(words)}", *shown)))


async def _kill_bridge(stage: Stage, screen: Screen) -> None:
    screen.say("the bridge is killed, too (SIGKILL), and started again", "red")
    await stage.kill_bridge()
    killed_at, ready_at = stage.deaths[-1]
    await stage.until(lambda: _read(stage), "the bridge to tell what it found")
    found = stage.reading.waiting if stage.reading else 0
    screen.say(
        f"it takes callbacks again after {ready_at - killed_at:.1f} s, with {found:,} reports from its spool; what the "
        f"provider found nobody for it pushes again",
        "yellow",
    )


async def _read(stage: Stage) -> bool:
    return stage.reading is not None


def _attempts(pushing: Pushing) -> list[Attempt]:
    attempts = [attempt for entry in pushing.ledger.entries.values() for attempt in entry.attempts]
    return sorted(attempts, key=lambda attempt: attempt.ended_at)


def _say_answers(screen: Screen, attempts: list[Attempt]) -> None:
    answered = [attempt for attempt in attempts if attempt.status is not None]
    good = [attempt for attempt in answered if attempt.error is None]
    slowest = max((attempt.latency_seconds for attempt in answered), default=0.0)
    screen.say(
        f"while it was away the bridge gave {len(answered):,} answers, {len(good):,} of them 200, the slowest after "
        f"{milliseconds(slowest)}; the provider waits 3,000 ms"
    )


def _same(screen: Screen, consumer: Consumer, before: int) -> None:
    if consumer.total != before:
        raise DemoFailedError(f"{consumer.name} comes to {consumer.total:,}, not to {before:,} as billing did before")
    screen.say(f"{consumer.name} comes to the same {consumer.total:,}", "green")
