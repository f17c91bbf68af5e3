"""The handler of a callback: in which order it decides, when it answers, and what it never does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.config import Settings, load
from bridge.errors import DeadlineExceeded, Overloaded
from bridge.receive.access import Access
from bridge.receive.callbacks import Callbacks
from bridge.receive.stats import CallbackStats
from bridge.record import Record

SECRET = "a-secret-of-the-tests-1"  # noqa: S105 - opens nothing
SETTINGS = load(environment={}).settings
REPORT = b'{"MessageId":"m","Status":"Sent"}'


class PendingAck:
    """What the handler waits for."""

    on_kafka = True

    def __init__(self) -> None:
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FakeDelivery:
    """Takes records and leaves their outcome to the test."""

    def __init__(self) -> None:
        self.submitted: list[tuple[list[Record], float]] = []
        self.acks: list[PendingAck] = []
        self.refuses: Exception | None = None

    def admit(self) -> None:
        """Refuse, if told to."""
        if self.refuses:
            raise self.refuses

    def submit(self, records: list[Record], deadline: float) -> PendingAck:
        """Keep them."""
        self.submitted.append((records, deadline))
        self.acks.append(PendingAck())
        return self.acks[-1]


class Handler:
    """A handler on a delivery of the test's own."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.delivery = FakeDelivery()
        self.stats = CallbackStats()
        self.callbacks = Callbacks(settings, Access([SECRET]), self.delivery, self.stats)  # type: ignore[arg-type]

    async def push(
        self,
        *chunks: bytes,
        path: str = f"/{SECRET}",
        method: str = "POST",
        headers: list[tuple[bytes, bytes]] | None = None,
        receive: Callable[[], Awaitable[Any]] | None = None,
    ) -> tuple[int, bytes, dict[bytes, bytes]]:
        """Handle one request; status, body and headers of its answer."""
        waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        if waiting:
            waiting[-1]["more_body"] = False
        messages = iter(waiting)

        async def give() -> dict[str, Any]:
            return next(messages, {"type": "http.disconnect"})

        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.callbacks({"path": path, "method": method, "headers": headers or []}, receive or give, send)
        start, body = sent
        return start["status"], body["body"], dict(start["headers"])


def said(counts: dict[str, int]) -> dict[str, int]:
    """What was counted at all."""
    return {name: count for name, count in counts.items() if count}


async def test_success_waits_for_the_outcome() -> None:
    """Not before every record is acknowledged or stored: until then there is no answer at all."""
    handler = Handler()
    pushing = asyncio.create_task(handler.push(b"[" + REPORT + b"]"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not pushing.done()
    assert handler.callbacks.active == 1

    handler.delivery.acks[0].outcome.set_result(None)

    assert (await pushing)[:2] == (200, b'{"code":0,"msg":"Success"}')
    assert (handler.callbacks.active, handler.callbacks.in_flight.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DeadlineExceeded("too late"), b"too late"),
        (Overloaded("too much"), b"too much"),
        (RuntimeError("with a secret"), b"Service Unavailable"),
    ],
)
async def test_an_outcome_that_fails_is_503(error: Exception, message: bytes) -> None:
    """Whatever it fails with, foreseen or not, it is pushed again; only what is meant for others is said."""
    handler = Handler()
    pushing = asyncio.create_task(handler.push(REPORT))
    await asyncio.sleep(0.01)
    handler.delivery.acks[0].outcome.set_exception(error)

    status, body, headers = await pushing

    assert (status, body) == (503, b'{"code":503,"msg":"%s"}' % message)
    assert headers[b"connection"] == b"close"
    assert {"503": 1} == said(handler.stats.callbacks)
    assert handler.callbacks.in_flight.bytes == 0


async def test_the_deadline_counts_from_the_request_s_arrival() -> None:
    """A body that took its time leaves less for the delivery."""
    handler = Handler()
    loop = asyncio.get_running_loop()

    async def slowly() -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return {"type": "http.request", "body": REPORT}

    arrived = loop.time()
    pushing = asyncio.create_task(handler.push(receive=slowly))
    while not handler.delivery.submitted:  # noqa: ASYNC110 - what is waited for is the handler itself
        await asyncio.sleep(0.01)

    _, deadline = handler.delivery.submitted[0]
    assert deadline == pytest.approx(arrived + SETTINGS.delivery.ack_deadline_seconds, abs=0.1)
    handler.delivery.acks[0].outcome.set_result(None)
    assert (await pushing)[0] == 200


async def test_a_stranger_learns_nothing_and_costs_nothing() -> None:
    """404 comes first: before method, headers, load and body, none of which is looked at."""
    handler = Handler()
    handler.delivery.refuses = Overloaded("busy")

    async def never() -> dict[str, Any]:
        pytest.fail("the body of a stranger was read")

    too_many = [(b"content-length", b"99999999999"), *((b"x", b"") for _ in range(1000))]
    for method in ("POST", "GET"):
        assert (await handler.push(path="/wrong", method=method, headers=too_many, receive=never))[0] == 404
    assert (await handler.push(method="GET", headers=too_many, receive=never))[0] == 405


async def test_an_overload_is_refused_before_the_body_is_read() -> None:
    """503 at once, by the delivery's word or for the bytes in flight: reading it would make things worse."""
    handler = Handler()

    async def never() -> dict[str, Any]:
        pytest.fail("the body was read")

    with handler.callbacks.in_flight.reserve(SETTINGS.limits.in_flight_bytes):
        assert (await handler.push(headers=[(b"content-length", b"1")], receive=never))[0] == 503
    handler.delivery.refuses = Overloaded("busy")
    assert (await handler.push(receive=never))[:2] == (503, b'{"code":503,"msg":"busy"}')


async def test_a_chunked_body_counts_until_it_is_delivered() -> None:
    """Its bytes are held while it waits for Kafka, announced or not."""
    handler = Handler()
    pushing = asyncio.create_task(handler.push(REPORT[:10], REPORT[10:]))
    await asyncio.sleep(0.01)
    assert handler.callbacks.in_flight.bytes == len(REPORT)

    handler.delivery.acks[0].outcome.set_result(None)
    await pushing
    assert handler.callbacks.in_flight.bytes == 0


async def test_what_was_cut_short_or_empty_is_never_submitted() -> None:
    """Nothing of it may be published."""
    handler = Handler()
    cut: list[dict[str, Any]] = [
        {"type": "http.request", "body": REPORT, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def gone() -> dict[str, Any]:
        return cut.pop(0)

    assert (await handler.push(receive=gone))[0] == 408
    assert (await handler.push(b""))[0] == 400
    assert handler.delivery.submitted == []
    assert {"aborted": 1, "400": 1} == said(handler.stats.callbacks)


async def test_an_empty_array_is_answered_without_a_delivery() -> None:
    """There is nothing to wait for."""
    handler = Handler()

    assert (await handler.push(b"[]"))[0] == 200
    assert handler.delivery.submitted == []


async def test_callbacks_have_ids_that_no_other_has() -> None:
    """One an accepted callback, unlike any other of this or of another instance."""
    ids = []
    for handler in (Handler(), Handler()):
        for _ in range(3):
            pushing = asyncio.create_task(handler.push(REPORT))
            await asyncio.sleep(0.01)
            handler.delivery.acks[-1].outcome.set_result(None)
            await pushing
        ids += [dict(records[0].headers)["bridge_callback"] for records, _ in handler.delivery.submitted]

    assert len(set(ids)) == 6


async def test_answers_quarantined_reports_and_latency_are_counted() -> None:
    """By status, by reason; latency of successes only, since a refusal's says nothing of Kafka."""
    handler = Handler()
    for chunk in (b"no JSON", b'[1,{"MessageId":"m"},%s]' % REPORT):
        pushing = asyncio.create_task(handler.push(chunk))
        await asyncio.sleep(0.01)
        handler.delivery.acks[-1].outcome.set_result(None)
        await pushing
    await handler.push(b"")

    assert {"not_json": 1, "not_an_object": 1, "no_status": 1} == said(handler.stats.quarantined)
    assert {"200": 2, "400": 1} == said(handler.stats.callbacks)
    assert sum(handler.stats.ack_latency.counts) == 2
    assert {"SENT": 1, "NONE": 3} == said(handler.stats.reports["kafka"])
    reasons = [(fault.reason, fault.path) for fault in handler.stats.faults]
    assert reasons == [("not_json", "$"), ("not_an_object", "$[0]"), ("no_status", "$[1].Status")]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_a_callback_is_a_line_at_debug_and_only_there(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the id that its records have, what was answered, what became of it; refusals with their reason."""
    monkeypatch.setattr(logging.getLogger("bridge.receive.callbacks"), "level", level)
    logging.getLogger("bridge.receive.callbacks")._cache.clear()  # type: ignore[attr-defined]
    handler = Handler()
    with capture_logs() as lines:
        pushing = asyncio.create_task(handler.push(b"[1,%s]" % REPORT))
        await asyncio.sleep(0.01)
        handler.delivery.acks[0].outcome.set_result(None)
        await pushing
        await handler.push(b"")
    if level > logging.DEBUG:
        assert lines == []
        return
    taken, refused = lines
    (records, _), *_ = handler.delivery.submitted
    assert taken["callback"] == dict(records[0].headers)["bridge_callback"].decode()
    assert {"answer": "200", "outcome": "kafka", "reports": 2, "quarantined": 1}.items() <= taken.items()
    assert (refused["answer"], refused["why"]) == ("400", "the body is empty")
    assert {line["log_level"] for line in lines} == {"debug"}


async def test_outcomes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledged, on disk alone, refused; a callback that was shed before it was read is none of its reports'."""
    handler = Handler()
    for on_kafka, outcome in ((True, None), (False, None), (False, DeadlineExceeded("too late"))):
        monkeypatch.setattr(PendingAck, "on_kafka", on_kafka, raising=False)
        pushing = asyncio.create_task(handler.push(REPORT))
        await asyncio.sleep(0.01)
        ack = handler.delivery.acks[-1]
        ack.outcome.set_exception(outcome) if outcome else ack.outcome.set_result(None)
        await pushing
    handler.delivery.refuses = Overloaded("too much")
    await handler.push(REPORT)

    assert [said(counts) for counts in handler.stats.reports.values()] == [{"SENT": 1}, {"SENT": 1}, {"SENT": 1}]
    assert {"200": 2, "503": 2} == said(handler.stats.callbacks)
