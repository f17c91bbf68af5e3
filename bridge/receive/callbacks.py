"""The handler of a callback: the whole story on one page.

    who may push ─► how much ─► read ─► decode ─► encode ─► deliver ─► answer
    404, 405, 429   431 413 503  408    (never fails)       503        200

One deadline, counted from here, covers reading, delivery and answer.
"""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog

from bridge.config import Settings
from bridge.delivery.delivery import Delivery
from bridge.encode.records import RecordEncoder
from bridge.encode.values import value_format
from bridge.errors import DeliveryError
from bridge.receive.access import Access
from bridge.receive.answers import CLOSE, CUT_SHORT, NOT_ALLOWED, SUCCESS, Answer, json_answer
from bridge.receive.gate import Gate
from bridge.receive.limits import Bodies, Disconnected, Head, InFlight, LoopLagGuard, Refusal
from bridge.receive.stats import ABORTED, CallbackStats, Fault
from bridge.report.catalogue import Catalogue

if TYPE_CHECKING:
    from bridge.delivery.entry import PendingAck

log = structlog.get_logger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_TRACE_ID = slice(3, 35)
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


_LOOK_SECONDS = 0.01
# Of the deadline: how long one turn of the loop may take before callbacks are refused.
_LOOP_LAG_SHARE = 0.125


class _Visit:
    """One request on its way through the handler: what is counted and told of it at its end."""

    __slots__ = ("ack", "arrived", "began", "callback", "quarantined", "statuses", "trace_id", "why")

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        # uvloop's time, that of ``arrived``, is of whole milliseconds, good for deadlines only
        self.began = time.perf_counter()
        self.callback = ""
        self.trace_id: str | None = None
        self.statuses: list[str | None] = []
        self.quarantined = 0
        self.ack: PendingAck | None = None
        self.why = ""


class Callbacks:
    """Takes callbacks; an ASGI application for one path.

    Args:
        settings: the whole configuration.
        access: who may push.
        delivery: where records go.
        stats: where answers are counted.
        catalogue: of error codes; None for the one that the bridge comes with.
    """

    def __init__(
        self,
        settings: Settings,
        access: Access,
        delivery: Delivery,
        stats: CallbackStats,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._limits = settings.limits
        self._deadline_seconds = settings.delivery.ack_deadline_seconds
        self.gate = Gate(settings, access, stats)
        self._loop_lag = LoopLagGuard(settings.delivery.ack_deadline_seconds * _LOOP_LAG_SHARE)
        self._delivery = delivery
        self.stats = stats
        self._tells_each = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
        self._encoder = RecordEncoder(
            settings.topics.status,
            settings.topics.quarantine,
            settings.events.source,
            settings.kafka.max_record_bytes,
            value_format(settings.events.format, registry=bool(settings.registry.url)),
            catalogue=catalogue,
            max_items=settings.limits.body_items,
        )
        self._loop = asyncio.get_running_loop()
        # Ids of callbacks: unique over replicas and restarts, and cheap.
        self._instance = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._bodies = Bodies(self._limits.body_bytes, self._limits.body_read_seconds)
        self.in_flight = InFlight(settings.limits.in_flight_bytes)
        self.active = 0

    async def finished(self, deadline: float) -> None:
        """Wait until no callback is being handled, until ``deadline`` (the loop's time) at most."""
        while self.active and self._loop.time() < deadline:  # noqa: ASYNC110 - rare, and cheaper than an event a request
            await asyncio.sleep(_LOOK_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in time, whatever it is."""
        visit = _Visit(self._loop.time())
        self.active += 1
        try:
            answer = await self._answer(scope, receive, visit)
        except Exception:
            # The provider pushes it again; nothing was promised.
            log.exception("callback_failed", callback=visit.callback)
            answer = json_answer(503, "Service Unavailable", headers=CLOSE)
        finally:
            self.active -= 1
        self._count(visit, answer)
        await send(answer[0])
        await send(answer[1])

    def _count(self, visit: _Visit, answer: Answer) -> None:
        seconds = time.perf_counter() - visit.began
        said = ABORTED if answer is CUT_SHORT else str(answer[0]["status"])
        outcome = "refused"
        self.stats.answered(said)
        if answer is SUCCESS:
            outcome = "kafka" if visit.ack is None or visit.ack.on_kafka else "spool"
            self.stats.acknowledged(seconds, visit.trace_id)
        if visit.statuses:
            self.stats.reported(outcome, visit.statuses)
        if self._tells_each:
            log.debug(
                "callback",
                callback=visit.callback,
                answer=said,
                outcome=outcome,
                reports=len(visit.statuses),
                quarantined=visit.quarantined,
                seconds=round(seconds, 4),
                why=visit.why,
            )

    async def _answer(self, scope: Scope, receive: Receive, visit: _Visit) -> Answer:
        refused = self.gate.refuses(scope)
        if refused is not None:
            return refused
        if scope["method"] != "POST":
            return NOT_ALLOWED
        try:
            head = Head(scope["headers"], self._limits)
            announced = head.announced(self._limits.body_bytes)
            self._loop_lag.check()
            self._delivery.admit()
            with self.in_flight.reserve(announced) as reservation:
                body = await self._bodies.read(receive, reservation)
                self._loop_lag.check()
                await self._publish(body, head, visit)
        except Disconnected:
            return CUT_SHORT
        except Refusal as refusal:
            visit.why = str(refusal)
            return json_answer(refusal.status, str(refusal), headers=CLOSE)
        except DeliveryError as error:
            visit.why = str(error)
            return json_answer(503, str(error), headers=CLOSE)
        return SUCCESS

    async def _publish(self, body: bytes, head: Head, visit: _Visit) -> None:
        """Every report of ``body`` on Kafka or safe on disk, when this returns.

        Raises:
            DeliveryError: it can't be had within the deadline.
        """
        received_at_ms = time.time_ns() // 1_000_000
        traceparent: bytes | None = head.get(b"traceparent")
        if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
            traceparent = None
        if traceparent is not None:
            visit.trace_id = traceparent[_TRACE_ID].decode()
        visit.callback = f"{self._instance}-{next(self._numbers)}"
        encoded = self._encoder.encode_body(
            body, callback_id=visit.callback, received_at_ms=received_at_ms, traceparent=traceparent
        )
        if not encoded.records:
            return
        visit.ack = self._delivery.submit(encoded.records, visit.arrived + self._deadline_seconds)
        visit.statuses = encoded.statuses
        self.stats.encoded(encoded.fast, len(encoded.records) - encoded.fast)
        if encoded.faults:
            self.stats.quarantine([Fault(received_at_ms, *fault, visit.callback) for fault in encoded.faults])
            visit.quarantined = len(encoded.faults)
        await visit.ack.outcome
