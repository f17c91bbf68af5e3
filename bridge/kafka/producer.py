"""The produce path: takes batches of records from lanes, brings each into the log once, and tells the lanes.

A *round* is one request: when a broker's link is free and lanes have something for it, one batch of each of these lanes goes into
one Produce request, and all of them are settled when its answer comes. Nothing awaits in between, and nobody waits for this.
docs/decisions/produce-path.md says why there is no library's producer here.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from bridge.config import Kafka
from bridge.kafka.batch import Batch, Codec
from bridge.kafka.cluster import Cluster
from bridge.kafka.connection import MountedFiles, client_arguments
from bridge.kafka.errors import (
    CLOSED,
    DUPLICATE_SEQUENCE_NUMBER,
    MOVED,
    NOT_SENT,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    Action,
    ProduceError,
)
from bridge.kafka.link import Flight, Link, Role
from bridge.kafka.pacing import Pacing
from bridge.kafka.sequences import Sequences
from bridge.kafka.watch import Traffic, Watch
from bridge.kafka.wire import Connection, connect

log = structlog.get_logger(__name__)

# For connecting to a broker and logging in.
_OPEN_SECONDS: Final = 10.0
# Sources that could not be placed are looked at again so often.
_LOOK_SECONDS: Final = 0.2
# Brokers that were not heard for longer do not answer.
_SILENT_SECONDS: Final = 6.0
_LEAST_REQUEST_BYTES: Final = 16_384
# A request's bound that was halved is doubled after so long without another request lost.
_REGROW_SECONDS: Final = 60.0
_LOST_TO_HALVE: Final = 2
# A refusal by the cluster, or a missing right: it costs one small request to look again.
_SHORT_PAUSE_SECONDS, _LONG_PAUSE_SECONDS = 1.0, 30.0
# One line of the log for each error and topic in so many seconds.
_TELL_SECONDS: Final = 10.0
_REFUSALS: Final = {Action.REFUSE, Action.CLOCK, Action.RETRY, Action.RESEND}


class Source(Protocol):
    """Whoever has records to send, in an order of its own: a lane."""

    topic: str

    @property
    def role(self) -> Role:
        """Which links its batches go by."""

    def next_partition(self, partitions: int) -> int | None:
        """Where its next record goes, of so many partitions; None where it has none to send now."""

    def fill(self, producer: "Producer") -> Sequence[Batch]:
        """Its next batches, one a partition at most, each made by ``open_batch`` or failed before; then it waits for them all."""

    def resolved(self, batch: Batch, error: ProduceError | None) -> None:
        """What became of a batch. With an error it is the source's again: to be given once more, or taken apart."""

    def broken(self, error: Exception) -> None:
        """A call of the above raised; the source is to put itself in order."""


class Producer:
    """See the module's head. Idempotent, with acks=all.

    Args:
        settings: ``[kafka]``.
        topics: all topics that will be written.
        producer_timeout_seconds: after which a request without an answer is looked into.
        on_change: called when something new is known of the cluster.

    Attributes:
        traffic: what was acknowledged.
        batches_failed: by what was done about it and the error's name.
        connections_opened: to brokers, for Produce.
        throttled_until: the loop's time before which a broker is not to be written to, by its id.
    """

    def __init__(
        self,
        settings: Kafka,
        topics: Sequence[str],
        producer_timeout_seconds: float,
        on_change: Callable[["Producer"], None],
    ) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self.cluster = Cluster(settings, topics, self._cluster_changed)
        self.sequences = Sequences()
        self.traffic = Traffic()
        self.batches_failed: Counter[tuple[str, str]] = Counter()
        self.connections_opened = 0
        self.throttled_until: dict[int, float] = {}
        self._links: dict[int, list[Link]] = {}
        self._link_errors: dict[int, str] = {}
        self._offered: dict[Source, None] = {}
        self._parked: dict[Source, None] = {}
        self._touched: dict[Link, None] = {}
        self._round: asyncio.Handle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._pacing = Pacing(self.offer)
        self._watch = Watch(self, producer_timeout_seconds)
        self._codecs: dict[str, Codec] = {}
        self._most_request_bytes = settings.max_request_bytes
        self._lost_in_a_row, self._lost_at = 0, 0.0
        self._told: dict[tuple[str, str], float] = {}
        self._mounted = MountedFiles(settings)
        self._watcher: asyncio.Task[None] | None = None
        self._stopped = False

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect; returns at once, whatever Kafka is doing."""
        self.cluster.start()
        self._watch.start()
        self._watcher = asyncio.create_task(self._watch_credentials(), name="kafka-credentials")

    async def stop(self) -> None:
        """End every task and connection. What must be acknowledged has been waited for before."""
        self._stopped = True
        for timer in (self._round, self._look):
            if timer is not None:
                timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        self._pacing.stop()
        await self._watch.stop()
        await self.cluster.stop()
        for link in self.links():
            link.close("the bridge stops")

    async def _watch_credentials(self) -> None:
        """Connections live on with what they were made with; when the files change, new ones take over between requests."""
        while True:
            await asyncio.sleep(1.0)
            if await self._mounted.changed():
                log.info("kafka_credentials_changed")
                self.cluster.renew_connection()
                for link in self.links():
                    link.renew()

    # --- how it is ----------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a lane could send now: there is a producer id, and brokers answer."""
        return self.cluster.producer_id is not None and self.silent_seconds < _SILENT_SECONDS

    @property
    def silent_seconds(self) -> float:
        """Since a broker last answered: acknowledged a batch, or told of the cluster."""
        return self._loop.time() - max(self._watch.answered_at, self.cluster.answered_at)

    @property
    def in_flight(self) -> int:
        """Batches that are on their way."""
        return sum(len(link.flight.batches) for link in self.links() if link.flight is not None)

    @property
    def last_error(self) -> str:
        """Why there is no connection to Kafka, or to one of its brokers, in words; empty where there is."""
        return self.cluster.last_error or next(iter(self._link_errors.values()), "")

    @property
    def credentials_usable(self) -> bool:
        """Whether the files that a connection is made with could be used at the last attempt."""
        return self.cluster.credentials_usable

    @property
    def refuses_everything(self) -> bool:
        """Whether Kafka refused two lanes or more and has accepted nothing since: then it decides who tries again, and when."""
        return self._pacing.refuses_everything

    def links(self) -> list[Link]:
        """All of them."""
        return [link for links in self._links.values() for link in links]

    # --- what lanes do ------------------------------------------------------------------------------------------------

    def offer(self, source: Source) -> None:
        """The source has something to send, or something to send elsewhere; it is asked for it when a link is free."""
        self._offered[source] = None
        if self._round is None and not self._stopped:
            self._round = self._loop.call_soon(self._run)

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

    def open_batch(self, topic: str, partition: int, *, stamp_ms: int | None = None) -> Batch:
        """An empty batch for the partition; ``stamp_ms`` takes the place of the records' own times."""
        codec = self._codecs.get(topic, self._settings.compression_type)
        return Batch(topic, partition, codec, self._settings.max_batch_bytes, stamp_ms)

    def may_begin(self, topic: str, partition: int, batch: Batch | None = None) -> bool:
        """Whether a batch could go to the partition now; ``batch``: this one, which was sent before.

        The partition has a leader, and no other batch is on its way to it, or may be in its log.
        """
        return (
            self.cluster.leader(topic, partition) is not None
            and self.sequences.of(topic, partition).batch in {None, batch}
            and self.sequences.usable(topic, partition)
        )

    def renumber(self, batch: Batch) -> None:
        """The batch may be in the log, and is to be taken apart: its numbers must not be used for other records."""
        if batch.unresolved:
            self.sequences.raise_epoch(batch)

    def use_next_codec(self, batch: Batch) -> bool:
        """The broker does not take the batch's codec: another one from now on; False where there is none left."""
        current = self._codecs.get(batch.topic, self._settings.compression_type)
        if batch.codec == current:
            if current == "none":
                return False
            self._codecs[batch.topic] = current = "none" if current == "gzip" else "gzip"
            log.warning(
                "codec_not_supported", topic=batch.topic, codec=batch.codec, instead=current,
                remedy=f"set kafka.compression_type to {current}, or one that the brokers take",
            )  # fmt: skip
        batch.use_codec(current)
        return True

    # --- a round ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Give every source that was offered its place, then write to every link that is free."""
        self._round = None
        offered, self._offered = self._offered, {}
        for source in offered:
            self._place(source)
        touched, self._touched = self._touched, {}
        for link in touched:
            self._pump(link)

    def _place(self, source: Source) -> None:
        partitions = self.cluster.partitions(source.topic)
        try:
            partition = source.next_partition(partitions) if partitions else -1
        except Exception as error:  # noqa: BLE001 - a lane's fault must not end the others'
            source.broken(error)
            return
        if partition is None:
            return
        leader = self.cluster.leader(source.topic, partition)
        if leader is None or not self.sequences.usable(source.topic, partition):
            self._park(source)
            self._missing(source.topic, partition)
        elif (batch := self.sequences.of(source.topic, partition).batch) is not None and batch.source is not source:
            self._park(source)
        elif self._pacing.admits(source):
            link = self._link(leader, source.role)
            link.waiting[source] = None
            self._touched[link] = None

    def _missing(self, topic: str, partition: int) -> None:
        """No leader, no such topic, or no producer id: see to it that this becomes known."""
        if self.cluster.leader(topic, partition) is None:
            self.cluster.refresh()
        else:
            self.cluster.want_producer_id()

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
        request: list[Batch] = []
        room = self._most_request_bytes
        while link.queued and room > 0:
            batch = link.queued[0]
            if request and (batch.alone or batch.size > room):
                room = 0
                break
            link.queued.popleft()
            if self._is_current(link, batch):
                request.append(batch)
                room = 0 if batch.alone else room - batch.size
        for source in list(link.waiting) if room > 0 else ():
            del link.waiting[source]
            for batch in self._fill(source):
                target = self._target(batch, source)
                if target is not link or (request and (batch.alone or batch.size > room)):
                    target.queued.append(batch)
                    self._touch(target)
                else:
                    request.append(batch)
                    room = 0 if batch.alone else room - batch.size
            if room <= 0:
                break
        if request:
            self._write(link, request)

    def _write(self, link: Link, request: list[Batch]) -> None:
        now = time.perf_counter()
        for batch in request:
            self.sequences.give(batch)
            batch.sent_at = now
        link.send(request)

    def _fill(self, source: Source) -> Sequence[Batch]:
        try:
            batches = source.fill(self)
        except Exception as error:  # noqa: BLE001 - a lane's fault must not end the others'
            source.broken(error)
            return ()
        for batch in batches:
            batch.source = source
            self.sequences.of(batch.topic, batch.partition).batch = batch
        return batches

    def _target(self, batch: Batch, source: Source) -> Link:
        leader = self.cluster.leader(batch.topic, batch.partition)
        assert leader is not None  # noqa: S101 - the source asked may_begin in this turn of the loop
        large = batch.size > self._settings.max_request_bytes
        batch.alone = batch.alone or large
        return self._link(leader, Role.QUARANTINE if large else source.role)

    def _is_current(self, link: Link, batch: Batch) -> bool:
        """Whether a batch that was made for the link can still go there; else its source has it back."""
        leader = self.cluster.leader(batch.topic, batch.partition)
        if leader == link.node and self.sequences.usable(batch.topic, batch.partition):
            return True
        self._resolve(batch, NOT_SENT)
        return False

    def _touch(self, link: Link) -> None:
        self._touched[link] = None
        if self._round is None and not self._stopped:
            self._round = self._loop.call_soon(self._run)

    # --- what links and the watch tell --------------------------------------------------------------------------------

    async def open(self, node: int) -> Connection:
        """See ``Owner``."""
        broker = self.cluster.brokers.get(node)
        if broker is None:
            raise OSError(f"the cluster does not tell of broker {node} any more")
        self.connections_opened += 1
        return await connect(broker.host, broker.port, client_arguments(self._settings), _OPEN_SECONDS)

    def connected(self, link: Link, error: str) -> None:
        """See ``Owner``."""
        before = self._link_errors.pop(link.node, "")
        broker = self.cluster.brokers.get(link.node)
        if not error:
            return
        if broker is None:
            self._give_back(link)
            return
        why = f"broker {link.node}, which the cluster tells of as {broker.host}:{broker.port}: {error}"
        self._link_errors[link.node] = why
        if why != before:
            log.warning("kafka_connection_failed", error=why)
        self.cluster.refresh()

    def free(self, link: Link) -> None:
        """See ``Owner``."""
        if link.role is Role.SPARE and link.wanted and link.flight is None:
            self._give_back(link)
        if link.wanted and not link.closed:
            self._touch(link)

    def acknowledged(self, link: Link, flight: Flight, batch: Batch, seconds: float) -> None:
        """See ``Owner``."""
        del link
        self._watch.acknowledged(seconds)
        if flight.count > 1:
            self._lost_in_a_row = 0
        self._resolve(batch, None)

    def failed(self, batch: Batch, error: ProduceError) -> None:
        """See ``Owner``."""
        if error.is_answer:
            self._watch.answered()
            batch.closes = 0
        self._resolve(batch, error)

    def gone(self, link: Link, flight: Flight, error: ProduceError) -> None:
        """See ``Owner``."""
        del link
        self.cluster.refresh()
        batches = list(flight.batches.values())
        if flight.count > 1:
            for batch in batches:
                batch.alone = True
            self._request_lost()
        elif error is CLOSED:
            for batch in batches:
                batch.alone = True
                batch.closes += 1

    def moved(self, link: Link) -> None:
        """The cluster tells of other leaders: what is on its way to a former one goes to the new one at once."""
        flight = link.flight
        for batch in list(flight.batches.values()) if flight is not None else ():
            leader = self.cluster.leader(batch.topic, batch.partition)
            if leader is not None and leader != link.node:
                assert flight is not None  # noqa: S101 - for the type checker
                del flight.batches[batch.topic, batch.partition]
                self._resolve(batch, MOVED)
        for batch in list(link.queued):
            if self.cluster.leader(batch.topic, batch.partition) != link.node:
                link.queued.remove(batch)
                self._resolve(batch, NOT_SENT)

    def _request_lost(self) -> None:
        """A request of several batches was: where that repeats itself, they may be too large together."""
        self._lost_in_a_row += 1
        self._lost_at = self._loop.time()
        if self._lost_in_a_row >= _LOST_TO_HALVE and self._most_request_bytes > _LEAST_REQUEST_BYTES:
            self._lost_in_a_row = 0
            self._most_request_bytes = max(self._most_request_bytes // 2, _LEAST_REQUEST_BYTES)
            log.warning("kafka_requests_halved", most_bytes=self._most_request_bytes)

    def regrow(self) -> None:
        """Double the bound of a request that was halved, once that was long ago."""
        most = self._settings.max_request_bytes
        if self._most_request_bytes < most and self._loop.time() - self._lost_at > _REGROW_SECONDS:
            self._lost_at = self._loop.time()
            self._most_request_bytes = min(self._most_request_bytes * 2, most)

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
            self._resolve(link.queued.popleft(), NOT_SENT)

    def _cluster_changed(self) -> None:
        self.sequences.use(self.cluster.producer_id)
        for link in self.links():
            self.moved(link)
            for source in list(link.waiting):
                del link.waiting[source]
                self.offer(source)
            if link.node not in self.cluster.brokers:
                self._give_back(link)
                self._link_errors.pop(link.node, None)
        self._look_again()
        self._on_change(self)

    # --- what became of a batch ---------------------------------------------------------------------------------------

    def _resolve(self, batch: Batch, error: ProduceError | None) -> None:
        if error is not None and error.code == DUPLICATE_SEQUENCE_NUMBER and batch.unresolved:
            error = None  # the broker has it from an attempt before
        if error is None:
            self.sequences.acknowledged(batch)
            self._pacing.accepted()
            self.traffic.acknowledged(time.perf_counter() - batch.sent_at, len(batch.records))
        else:
            self._account(batch, error)
        self.sequences.of(batch.topic, batch.partition).batch = (
            batch if batch.unresolved and error is not None else None
        )
        if self._parked:
            self._look_again()
        try:
            batch.source.resolved(batch, error)
        except Exception as wrong:  # noqa: BLE001 - a lane's fault must not end the others'
            batch.source.broken(wrong)

    def _account(self, batch: Batch, error: ProduceError) -> None:
        """Keep the rule of ``sequences.py`` for a batch that was not acknowledged, and tell of it."""
        if error is NOT_SENT:
            if not batch.unresolved:
                batch.numbers = None
            return
        action = error.action
        self.batches_failed[action.value, error.name] += 1
        if error.is_answer and not error.of_the_leader and action in _REFUSALS:
            self._pacing.refused(batch.source, _SHORT_PAUSE_SECONDS if action is Action.RETRY else _LONG_PAUSE_SECONDS)
        if action is Action.RENUMBER or error.code == DUPLICATE_SEQUENCE_NUMBER:
            self._renumber(batch, error)
        elif not error.not_appended:
            batch.unresolved = True
        elif not batch.unresolved:
            batch.numbers = None
        if error.of_the_leader:
            self.cluster.refresh()
        self._tell(batch, error)

    def _renumber(self, batch: Batch, error: ProduceError) -> None:
        numbers = self.sequences.of(batch.topic, batch.partition)
        if error.code == OUT_OF_ORDER_SEQUENCE_NUMBER and numbers.acknowledged:
            log.error(
                "broker_lost_acknowledged_data", topic=batch.topic, partition=batch.partition, error=error.text,
                remedy="look at the brokers' logs: records that they acknowledged are not in the partition any more",
            )  # fmt: skip
        if error.code in {OUT_OF_ORDER_SEQUENCE_NUMBER, DUPLICATE_SEQUENCE_NUMBER}:
            self.sequences.raise_epoch(batch)
        else:
            self.sequences.forget_id(batch)
        if not self.sequences.usable(batch.topic, batch.partition):
            self.cluster.want_producer_id()

    def _tell(self, batch: Batch, error: ProduceError) -> None:
        key, now = (error.name, batch.topic), self._loop.time()
        if now - self._told.get(key, -_TELL_SECONDS) < _TELL_SECONDS:
            return
        self._told[key] = now
        log.warning(
            "batch_failed", topic=batch.topic, partition=batch.partition, records=len(batch.records), bytes=batch.size,
            error=error.text, action=error.action.value, failed=self.batches_failed[error.action.value, error.name],
        )  # fmt: skip
