"""An arena whose bridge reaches Kafka through a scripted proxy: how Kafka answers Produce, what that cost, what the bridge said.

    async def test_one_refusal(make_proxied: MakeProxied) -> None:
        proxied = await make_proxied()
        proxied.arena.load(3, 300)
        proxied.on_produce = lambda request: refused(request, 44)
        ...
        proxied.on_produce = None
        await proxied.finish()

``finish`` fails when a report was lost, repeated, published out of order or made a dead letter, and when a callback was not
answered 200 in time. The fixture is there in modules that say ``pytest_plugins = ("support.proxied_fixture",)``.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

from support.arena import Arena, Scrape, Verdict, longer
from support.kafka_frames import PRODUCE, BatchHead, Partition, Request
from support.kafka_proxy import Fault, KafkaProxy, Script

RATE = 300.0
"""Reports a second: enough for batches in every lane."""
DRAIN_SECONDS = longer(30, 600)
MOST_CONNECTIONS = 12
"""For Produce: three for each of three brokers, and one that the healthy lanes left while it waits for its last answer."""
_FAILED = re.compile(r'kafka_batches_failed_total\{action="([^"]*)",error="([^"]*)"\}')

Chosen = Callable[[Partition, bytes], bool]
"""Takes a partition and its batch."""


def refused(request: Request, code: int, chosen: Chosen = lambda _partition, _batch: True) -> Fault | None:
    """Answer these batches with the code and append the others, as a broker does that refuses before it appends."""
    partitions = [partition for partition, batch in request.batches.items() if chosen(partition, batch)]
    return Fault(withhold=partitions, codes=dict.fromkeys(partitions, code)) if partitions else None


class Resends:
    """Tells batches that were sent before from new ones, by their sequence numbers."""

    def __init__(self) -> None:
        self._seen: set[tuple[Partition, int, int, int]] = set()

    def seen(self, request: Request) -> list[Partition]:
        """The partitions whose batch was sent before. Called once for each request."""
        numbered = {partition: _numbers(partition, batch) for partition, batch in request.batches.items()}
        known = [partition for partition, numbers in numbered.items() if numbers in self._seen]
        self._seen.update(numbered.values())
        return known


def _numbers(partition: Partition, batch: bytes) -> tuple[Partition, int, int, int]:
    head = BatchHead.read(batch)
    return partition, head.producer_id, head.producer_epoch, head.base_sequence


class Cost(NamedTuple):
    """What the bridge used: connections opened, producer ids in its batches, Produce requests."""

    connections: int
    producer_ids: int
    requests: int

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(now - then for now, then in zip(self, other, strict=True)))


class ProxiedArena:
    """An arena and the proxy between its bridge and Kafka.

    Attributes:
        on_produce: Decides about each Produce request; None passes it on.
        on_other: The same for all other requests.
        produce_connections: The numbers of the connections that carried a Produce request.
    """

    def __init__(self, arena: Arena, proxy: KafkaProxy) -> None:
        self.arena, self.proxy = arena, proxy
        self.on_produce: Script | None = None
        self.on_other: Script | None = None
        self.produce_connections: set[int] = set()
        self._producer_ids: set[int] = set()
        proxy.script = self._script

    def _script(self, request: Request) -> Fault | None:
        if request.api_key != PRODUCE:
            return self.on_other and self.on_other(request)
        assert request.understood, f"the proxy cannot read Produce of version {request.api_version}"
        self.produce_connections.add(request.connection)
        self._producer_ids.update(BatchHead.read(batch).producer_id for batch in request.batches.values())
        return self.on_produce and self.on_produce(request)

    @property
    def cost(self) -> Cost:
        """Until now."""
        requests = self.proxy.requests
        return Cost(self.proxy.connections, len(self._producer_ids), requests[PRODUCE])

    # --- what the bridge says -----------------------------------------------------------------------------------------

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of the bridge's log with that event."""
        return [line for line in self._lines() if line.get("event") == name]

    def lines_with(self, words: str) -> list[str]:
        """The lines of the bridge's log, as text, that hold these words."""
        return [line for line in self.arena.bridge.log().splitlines() if words in line]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.arena.bridge.log().splitlines() if line.startswith("{")]

    def failed_batches(self) -> Counter[tuple[str, str]]:
        """How many, by action and error."""
        found = ((_FAILED.fullmatch(name), value) for name, value in self.arena.watcher.scrapes[-1].metrics.items())
        return Counter({(match[1], match[2]): int(value) for match, value in found if match})

    def assert_told(self, code: int) -> None:
        """The log and the metric of failed batches give an error's number."""
        number = f"({code})"
        assert self.lines_with(number), f"no line of the log has {number}"
        errors = {error for (_, error), count in self.failed_batches().items() if count}
        assert any(error.endswith(number) for error in errors), errors

    # --- the end ------------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[Scrape], bool], seconds: float = 20.0, *, dead_letters: int = 0) -> Scrape:
        """``Arena.until``, which fails as soon as there are more dead letters than these."""
        return await self.arena.until(lambda scrape: holds(_no_dead_letter(scrape, dead_letters)), seconds)

    async def published(self, count: float, seconds: float = 20.0) -> Scrape:
        """Wait until Kafka acknowledged this many reports since the start, without a dead letter."""
        return await self.until(lambda scrape: scrape.total("reports_published") >= count, seconds)

    async def drained(self, *, dead_letters: int = 0, seconds: float = DRAIN_SECONDS) -> Scrape:
        """Wait for the end of the load, and until no report waits; fail as soon as there are more dead letters."""
        await self.arena.loaded()
        return await self.until(lambda scrape: scrape.waiting == 0, seconds, dead_letters=dead_letters)

    async def finish(
        self,
        *,
        dead_letters: int = 0,
        but: Collection[str] = (),
        extra: Collection[str] = (),
        repeats: bool = False,
    ) -> Verdict:
        """Drain, then judge everything.

        Args:
            dead_letters: How many there must be.
            but: As ``Arena.verdict`` takes it.
            extra: As ``Arena.verdict`` takes it.
            repeats: Whether the bridge may publish again what it published before.
        """
        await self.drained(dead_letters=dead_letters)
        verdict = await self.arena.verdict(but=but, extra=extra)
        assert self.arena.watcher.scrapes[-1].total("reports_dead_lettered") == dead_letters
        assert verdict.log is not None
        assert verdict.log.unsequenced == 0, f"{verdict.log.unsequenced} batches have no sequence numbers"
        assert verdict.summary.answers.keys() == {"200"}, verdict.summary.answers
        if not repeats:
            more = verdict.checked.repeats - self.repeats_pushed()
            assert more <= 0, f"the bridge published {more} records again"
        return verdict

    def repeats_pushed(self) -> int:
        """How many records more than one of each the provider pushed."""
        reports = (report for entry in self.arena.ledger.entries.values() for report in entry.reports)
        pushed = Counter(report.event_id or report.raw_sha256 for report in reports)
        return pushed.total() - len(pushed)


def _no_dead_letter(scrape: Scrape, allowed: int) -> Scrape:
    dead = scrape.total("reports_dead_lettered")
    assert dead <= allowed, f"{dead:g} dead letters, where {allowed} are right"
    return scrape


class MakeProxied(Protocol):
    """Starts a bridge in an arena behind the proxy."""

    async def __call__(
        self, settings: Mapping[str, Any] | None = None, *, topics: tuple[str, str] | None = None
    ) -> ProxiedArena:
        """Topics as they are declared, of unique names, are made unless names are given."""
