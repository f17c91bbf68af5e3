"""Rounds: which batches go when, by which link.

When a link is free and lanes have something for its broker, one batch of each of these lanes goes into one Produce request.
Nothing awaits in between. What can't be placed, as its partition has no leader, is looked at again when the cluster tells
something new, and five times a second.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from bridge.config import Kafka
from bridge.kafka.batch import Batch
from bridge.kafka.cluster import Cluster
from bridge.kafka.errors import CLOSED, MOVED, NOT_SENT, NOT_WRITTEN, TIMED_OUT, ProduceError
from bridge.kafka.link import Flight, Link, Role
from bridge.kafka.pacing import Pacing
from bridge.kafka.sequences import Sequences
from bridge.kafka.sizes import Sizes
from bridge.kafka.wire import Connection

log = structlog.get_logger(__name__)

# Sources that could not be placed are looked at again so often.
_LOOK_SECONDS: Final = 0.2


class Source(Protocol):
    """Whoever has records to send, in an order of its own: a lane."""

    topic: str

    @property
    def role(self) -> Role:
        """Which links its batches go by."""

    def next_partition(self, partitions: int) -> int | None:
        """Where its next record goes, of so many partitions; None where it has none to send now."""

    def fill(self) -> Sequence[Batch]:
        """Its next batches, one a partition at most, each made by ``open_batch`` or failed before; then it waits for them all."""

    def resolved(self, batch: Batch, error: ProduceError | None) -> None:
        """What became of a batch. With an error it is the source's again: to be given once more, or taken apart."""

    def broken(self, error: Exception) -> None:
        """A call of the above raised; the source is to put itself in order."""


class Resolver(Protocol):
    """What rounds ask of the producer they are of."""

    async def open(self, node: int) -> Connection:
        """A new connection to the broker."""

    def answered(self, node: int, sent_at: float) -> None:
        """The broker answered a request that was written then, by the loop's time."""

    def resolve(self, batch: Batch, error: ProduceError | None) -> None:
        """It is known what became of a batch."""


class _Request:
    """Batches for one Produce request, of so many bytes together; a first one always fits."""

    def __init__(self, most_bytes: int) -> None:
        self.batches: list[Batch] = []
        self._room = most_bytes

    @property
    def full(self) -> bool:
        """Whether no batch fits any more."""
        return self._room <= 0

    def has_room_for(self, batch: Batch) -> bool:
        """Whether the batch can go with those that are in it."""
        return not self.batches or not (self.full or batch.alone or batch.size > self._room)

    def add(self, batch: Batch) -> None:
        """Take it in."""
        self.batches.append(batch)
        self._room = 0 if batch.alone else self._room - batch.size


class Rounds:
    """See the module's head.

    Args:
        settings: ``[kafka]``.
        cluster: who leads what.
        sequences: the numbers of batches.
        sizes: how large requests may be.
        resolver: told what became of batches.

    Attributes:
        pacing: who may try while Kafka refuses everything.
        link_errors: why there is no connection to a broker, in words, by its id.
        throttled_until: the loop's time before which a broker is not to be written to, by its id.
    """

    def __init__(
        self, settings: Kafka, cluster: Cluster, sequences: Sequences, sizes: Sizes, resolver: Resolver
    ) -> None:
        self._settings, self._cluster, self._sequences = settings, cluster, sequences
        self._sizes, self._resolver = sizes, resolver
        self._loop = asyncio.get_running_loop()
        self.pacing = Pacing(self.offer)
        self.link_errors: dict[int, str] = {}
        self.throttled_until: dict[int, float] = {}
        self._links: dict[int, list[Link]] = {}
        self._offered: dict[Source, None] = {}
        self._parked: dict[Source, None] = {}
        self._touched: dict[Link, None] = {}
        self._round: asyncio.Handle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._stopped = False

    def stop(self) -> None:
        """Write nothing more, close every connection."""
        self._stopped = True
        for timer in (self._round, self._look):
            if timer is not None:
                timer.cancel()
        self.pacing.stop()
        for link in self.links():
            link.close("the bridge stops")

    def links(self) -> list[Link]:
        """All of them."""
        return [link for links in self._links.values() for link in links]

    # --- what sources do ----------------------------------------------------------------------------------------------

    def offer(self, source: Source) -> None:
        """The source has something to send, or something to send elsewhere; it is asked for it when a link is free."""
        self._offered[source] = None
        self._run_soon()

    def withdraw(self, source: Source) -> None:
        """It has a new role, or nothing any more: wherever it waits, it does not."""
        self._offered.pop(source, None)
        self._parked.pop(source, None)
        for link in self.links():
            link.waiting.pop(source, None)

    def leave(self, batches: Sequence[Batch]) -> None:
        """A healthy lane waits for these for too long: their links are the degraded lanes' from now on."""
        for link in self.links():
            flight = link.flight
            if link.role is Role.HEALTHY and flight and any(b in batches for b in flight.batches.values()):
                others = [each for each in self._links[link.node] if each.role is Role.DEGRADED]
                link.role = Role.SPARE if others else Role.DEGRADED
                self._give_back(link)

    # --- a round ------------------------------------------------------------------------------------------------------

    def _run_soon(self) -> None:
        if self._round is None and not self._stopped:
            self._round = self._loop.call_soon(self._run)

    def _run(self) -> None:
        """Give every source that was offered its place, then write to every link that is free."""
        self._round = None
        offered, self._offered = self._offered, {}
        for source in offered:
            self._place(source)
        touched, self._touched = self._touched, {}
        for link in touched:
            try:
                self._pump(link)
            except Exception:
                log.exception("kafka_round_failed", broker=link.node)

    def _place(self, source: Source) -> None:
        partitions = self._cluster.partitions(source.topic)
        try:
            partition = source.next_partition(partitions) if partitions else -1
        except Exception as error:  # noqa: BLE001 - a lane's fault must not end the others'
            source.broken(error)
            return
        if partition is None:
            return
        leader = self._cluster.leader(source.topic, partition)
        if leader is None or not self._sequences.usable(source.topic, partition):
            self._park(source)
            self._missing(source.topic, partition)
        elif (batch := self._sequences.of(source.topic, partition).batch) is not None and batch.source is not source:
            self._park(source)
        elif self.pacing.admits(source):
            link = self._link(leader, source.role)
            link.waiting[source] = None
            self._touch(link)

    def _missing(self, topic: str, partition: int) -> None:
        """No leader, no such topic, or no producer id: see to it that this becomes known."""
        if self._cluster.leader(topic, partition) is None:
            self._cluster.refresh()
        else:
            self._cluster.want_producer_id()

    def _park(self, source: Source) -> None:
        self._parked[source] = None
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        parked, self._parked = self._parked, {}
        for source in parked:
            self.offer(source)

    def _link(self, node: int, role: Role) -> Link:
        """The broker's link for the role: the one that has it, or a spare one, or a new one."""
        links = self._links.setdefault(node, [])
        for link in links:
            if link.role is role:
                return link
        for link in links:
            if link.role is Role.SPARE and link.flight is None:
                link.role = role
                return link
        link = Link(node, role, self, self._settings.request_timeout_ms)
        links.append(link)
        return link

    def _pump(self, link: Link) -> None:
        """Write the next request of the link, if it is free and has something to write."""
        if not link.wanted or not link.is_free():
            return
        request = _Request(self._sizes.most_request_bytes)
        while link.queued and request.has_room_for(link.queued[0]):
            batch = link.queued.popleft()
            if self._is_current(link, batch):
                request.add(batch)
        for source in list(link.waiting) if not link.queued else ():
            if request.full:
                break
            del link.waiting[source]
            self._take(link, source, request)
        if request.batches:
            self._write(link, request.batches)

    def _take(self, link: Link, source: Source, request: "_Request") -> None:
        """Take the source's batches into the request, or into the queue of the link that they go by."""
        batches = self._fill(source)
        if not batches:
            self._park(source)  # another lane's batch took the partition in this very round
        for batch in batches:
            target = self._target(batch, source)
            if target is link and request.has_room_for(batch):
                request.add(batch)
            else:
                target.queued.append(batch)
                self._touch(target)

    def _write(self, link: Link, request: list[Batch]) -> None:
        now = time.perf_counter()
        try:
            for batch in request:
                self._sequences.give(batch)
                batch.sent_at = now
            link.send(request)
        except Exception:
            log.exception("kafka_request_not_written", broker=link.node)
            link.drop("a request could not be written")
            for batch in request:
                self._resolver.resolve(batch, NOT_WRITTEN)

    def _fill(self, source: Source) -> Sequence[Batch]:
        try:
            batches = source.fill()
        except Exception as error:  # noqa: BLE001 - a lane's fault must not end the others'
            source.broken(error)
            return ()
        ready = []
        for batch in batches:
            batch.source = source
            self._sequences.of(batch.topic, batch.partition).batch = batch
            try:
                batch.compress()
            except Exception:
                log.exception("batch_not_compressed", topic=batch.topic, codec=batch.codec)
                self._resolver.resolve(batch, NOT_WRITTEN)
            else:
                ready.append(batch)
        return ready

    def _target(self, batch: Batch, source: Source) -> Link:
        leader = self._cluster.leader(batch.topic, batch.partition)
        assert leader is not None  # noqa: S101 - the source asked may_begin in this turn of the loop
        large = batch.size > self._settings.max_request_bytes
        batch.alone = batch.alone or large
        return self._link(leader, Role.QUARANTINE if large else source.role)

    def _is_current(self, link: Link, batch: Batch) -> bool:
        """Whether a batch that was made for the link can still go there; else its source has it back."""
        leader = self._cluster.leader(batch.topic, batch.partition)
        if leader == link.node and self._sequences.usable(batch.topic, batch.partition):
            return True
        self._resolver.resolve(batch, NOT_SENT)
        return False

    def _touch(self, link: Link) -> None:
        self._touched[link] = None
        self._run_soon()

    # --- what links tell ----------------------------------------------------------------------------------------------

    async def open(self, node: int) -> Connection:
        """See ``Owner``."""
        return await self._resolver.open(node)

    def connected(self, link: Link, error: str) -> None:
        """See ``Owner``."""
        before = self.link_errors.pop(link.node, "")
        broker = self._cluster.brokers.get(link.node)
        if not error:
            return
        if broker is None:
            self._give_back(link)
            return
        why = f"broker {link.node}, advertised as {broker.host}:{broker.port}: {error}"
        self.link_errors[link.node] = why
        if why != before:
            log.warning("kafka_connection_failed", error=why)
        self._cluster.refresh()

    def free(self, link: Link) -> None:
        """See ``Owner``."""
        if link.role is Role.SPARE and link.wanted and link.flight is None:
            self._give_back(link)
        if link.wanted and not link.closed:
            self._touch(link)

    def accepted(self, link: Link, flight: Flight) -> None:
        """See ``Owner``."""
        self._resolver.answered(link.node, flight.sent_at)
        self._sizes.accepted(link.node, flight.size, flight.count)

    def settled(self, batch: Batch, error: ProduceError | None) -> None:
        """See ``Owner``."""
        if error is not None and error.is_answer:
            batch.closes = batch.timeouts = 0
        self._resolver.resolve(batch, error)

    def gone(self, link: Link, flight: Flight, error: ProduceError) -> None:
        """See ``Owner``."""
        del link
        self._cluster.refresh()
        batches = list(flight.batches.values())
        for batch in batches:
            batch.timeouts += error is TIMED_OUT
        if flight.count > 1:
            for batch in batches:
                batch.alone = True
            self._sizes.request_lost()
        elif error is CLOSED:
            for batch in batches:
                batch.alone = True
                batch.closes += 1

    # --- what the cluster and the watch tell --------------------------------------------------------------------------

    def cluster_changed(self) -> None:
        """Leaders or brokers are others, or there is a producer id: place everything anew that waits."""
        for link in self.links():
            self.moved(link)
            if link.node not in self._cluster.brokers:
                self._give_back(link)
                self.link_errors.pop(link.node, None)
            for source in list(link.waiting):
                del link.waiting[source]
                self.pacing.admit(source)
                self.offer(source)
        for node in self._cluster.leaders():
            for link in self._links.get(node) or [self._link(node, Role.HEALTHY)]:
                if link.role is Role.HEALTHY:
                    link.prepare()
        self._look_again()

    def drop_connections(self, why: str) -> None:
        """Close every connection; afterwards no batch is on its way, and none waits at a link."""
        for link in self.links():
            link.drop_all(why)
            self._give_back(link)

    def batch_resolved(self) -> None:
        """A partition is free for the next batch: perhaps somebody waits for just that."""
        if self._parked:
            self._look_again()

    def moved(self, link: Link) -> None:
        """The cluster tells of other leaders: what is on its way to a former one goes to the new one at once."""
        flight = link.flight
        for batch in list(flight.batches.values()) if flight is not None else ():
            leader = self._cluster.leader(batch.topic, batch.partition)
            if leader is not None and leader != link.node:
                assert flight is not None  # noqa: S101 - for the type checker
                del flight.batches[batch.topic, batch.partition]
                self._resolver.resolve(batch, MOVED)
        if flight is not None and not flight.batches and link.role is not Role.SPARE:
            # Nothing depends on its answer any more: nobody waits behind it.
            link.role = Role.SPARE
            self._give_back(link)
        for batch in list(link.queued):
            if self._cluster.leader(batch.topic, batch.partition) != link.node:
                link.queued.remove(batch)
                self._resolver.resolve(batch, NOT_SENT)

    def prune(self, link: Link, why: str) -> None:
        """Close a link that nobody uses."""
        link.close(why)
        self._links[link.node].remove(link)

    def _give_back(self, link: Link) -> None:
        """The link can't serve what waits for it: let it be placed anew."""
        for source in list(link.waiting):
            del link.waiting[source]
            self.offer(source)
        while link.queued:
            self._resolver.resolve(link.queued.popleft(), NOT_SENT)
