"""Pushing, as the provider does it."""

import asyncio
import gc
import ssl
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.simulate_server import (
    OK,
    SUCCESS,
    Behaviour,
    Exchange,
    Server,
    hang,
    pieces,
    push,
    report,
    says,
    sends,
    serving,
    status,
    succeed,
)

from bridge.errors import ConfigurationError
from bridge.lab.simulate.connection import Target
from bridge.lab.simulate.ledger import Attempt, Ledger, Summary
from bridge.lab.simulate.provider import Provider, ProviderOptions
from bridge.lab.simulate.push import Push

SCALE = 1 / 3000  # a minute is 20 ms
MINUTE = 60 * SCALE
TIMER = 0.0015  # timers are this coarse
CERTIFICATE = Path(__file__).parent / "localhost.pem"


async def _run(url: str, pushes: Iterable[Push], **options: Any) -> Ledger:
    """Push all, with waits short enough for a test."""
    ledger = Ledger()
    options = {"retry_scale": SCALE, "late_answer_seconds": 0.0} | options
    await Provider(Target.parse(url), ledger, ProviderOptions(**options)).run(pushes)
    return ledger


async def _push_to(*script: Behaviour, pushes: Iterable[Push] | None = None, **options: Any) -> tuple[Server, Ledger]:
    async with serving(*script) as server:
        return server, await _run(server.url, [push(0)] if pushes is None else pushes, **options)


def _attempts(ledger: Ledger, number: int = 0) -> list[Attempt]:
    return ledger.entries[number].attempts


async def test_a_callback_is_an_http_post_of_the_body() -> None:
    """The request is a plain POST with a length, and the answer acknowledges it."""
    server, ledger = await _push_to()
    assert [exchange.body for exchange in server.exchanges] == [b"[0]"]
    [attempt] = _attempts(ledger)
    assert (attempt.number, attempt.status, attempt.error, attempt.gave_up) == (1, 200, None, False)
    assert attempt.sent_at <= attempt.ended_at
    assert ledger.entries[0].acknowledged
    assert ledger.summary().ok


async def test_it_is_pushed_again_after_one_and_five_minutes_and_then_never() -> None:
    """Three attempts of the same bytes, with the documented waits between them; then it is lost."""
    server, ledger = await _push_to(status(503))
    assert [exchange.body for exchange in server.exchanges] == [b"[0]"] * 3
    first, second, third = _attempts(ledger)
    assert second.sent_at - first.ended_at >= MINUTE - TIMER
    assert third.sent_at - second.ended_at >= 5 * MINUTE - TIMER
    assert [(attempt.error, attempt.gave_up) for attempt in (first, second, third)] == [
        ("status", False),
        ("status", False),
        ("status", True),
    ]
    summary = ledger.summary()
    assert (summary.lost, summary.lost_reports, summary.unresolved) == (1, 1, 0)
    assert summary.answers == {"503": 3}
    assert not summary.ok


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_retry_that_is_answered_ends_it(failures: int) -> None:
    """No attempt follows an acknowledgement, and it counts as one after a retry."""
    server, ledger = await _push_to(*[status(503)] * failures, succeed)
    assert len(server.exchanges) == failures + 1
    summary = ledger.summary()
    assert (summary.acknowledged_first, summary.acknowledged_after_retry, summary.lost) == (0, 1, 0)
    assert {"200": 1, "503": failures} == summary.answers


async def _close(exchange: Exchange) -> None:
    exchange.close()


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


@pytest.mark.parametrize(
    ("behaviour", "error", "answer"),
    [
        (_close, "closed", "closed"),
        (_reset, "closed", "closed"),
        (sends(OK[:10]), "cut short", "cut short"),
        (sends(OK[:-1]), "cut short", "cut short"),
        (sends(b"220 mail ready\r\n\r\n"), "malformed", "malformed"),
        (status(500), "status", "500"),
        (status(204), "status", "204"),
        (status(302), "status", "302"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "body", "200 with a wrong body"),
        (
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + b'{"code":1}'),
            "body",
            "200 with a wrong body",
        ),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"), "body", "200 with a wrong body"),
        (sends(b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"\xff"'), "body", "200 with a wrong body"),
    ],
)
async def test_anything_but_the_documented_answer_is_a_failure(behaviour: Behaviour, error: str, answer: str) -> None:
    """However an attempt fails, it is written down as what it was and made again, on a sound connection."""
    _, ledger = await _push_to(behaviour, succeed)
    assert [error, None] == [attempt.error for attempt in _attempts(ledger)]
    assert {"200": 1, answer: 1} == ledger.summary().answers


@pytest.mark.parametrize(
    "behaviour",
    [
        pieces(OK),
        pieces(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\n" + SUCCESS + b"\r\n0\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\n\r\n" + SUCCESS),
        sends(b"HTTP/1.0 200 OK\r\nContent-Length: 26\r\n\r\n" + SUCCESS),
        says(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"code" : 0  }'),
        says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    ],
)
async def test_the_documented_answer_counts_however_it_comes(behaviour: Behaviour) -> None:
    """Slowly, in chunks, without a length, spaced otherwise: success is success, twice in a row."""
    server, ledger = await _push_to(behaviour, pushes=[push(0), push(1)], connections=1)
    assert len(server.exchanges) == 2
    assert ledger.summary().acknowledged_first == 2


async def test_no_answer_in_time_is_a_failure() -> None:
    """A mute server costs the timeout, no more and no less, and the retry uses another connection."""
    server, ledger = await _push_to(hang, succeed, answer_timeout_seconds=0.05)
    first, second = _attempts(ledger)
    assert (first.status, first.error) == (None, "timeout")
    assert 0.05 - TIMER <= first.ended_at - first.sent_at < 1
    assert second.error is None
    assert [exchange.connection for exchange in server.exchanges] == [0, 1]


async def test_an_answer_that_drips_too_slowly_is_too_late() -> None:
    """The answer has to be whole in time: its first byte is not enough."""

    async def drip(exchange: Exchange) -> None:
        await exchange.send(OK[:-1])
        await exchange.until_closed()

    _, ledger = await _push_to(drip, succeed, answer_timeout_seconds=0.05)
    assert [attempt.error for attempt in _attempts(ledger)] == ["timeout", None]


async def test_a_late_answer_is_seen_and_does_not_count() -> None:
    """A 200 after the timeout is noted as late; the push is retried, the connection not used again."""
    retried, hung_up = asyncio.Event(), asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await retried.wait()
        await exchange.send(OK)
        await exchange.until_closed()
        hung_up.set()

    async def retry(exchange: Exchange) -> None:
        retried.set()
        await exchange.send(OK)

    _, ledger = await _push_to(late, retry, answer_timeout_seconds=0.05, late_answer_seconds=30.0)
    entry = ledger.entries[0]
    assert [attempt.error for attempt in entry.attempts] == ["timeout", None]
    [answer] = entry.late
    assert (answer.number, answer.status) == (1, 200)
    assert answer.at > entry.attempts[0].ended_at
    assert (
        ledger.summary().acknowledged_first,
        ledger.summary().acknowledged_after_retry,
        ledger.summary().late_answers,
    ) == (0, 1, 1)
    await asyncio.wait_for(hung_up.wait(), 5)


async def test_late_answers_are_not_waited_for_without_end() -> None:
    """After a while the connection is closed, and the run ends without a late answer."""
    _, ledger = await _push_to(hang, answer_timeout_seconds=0.01, late_answer_seconds=0.01)
    assert (ledger.summary().lost, ledger.summary().late_answers) == (1, 0)


async def test_nobody_listening_is_a_failure() -> None:
    """A refused connection is an attempt that failed."""
    async with serving() as server:
        url = server.url
    ledger = await _run(url, [push(0)])
    assert [attempt.error for attempt in _attempts(ledger)] == ["refused"] * 3


async def test_connections_are_kept_alive_and_no_more_of_them_opened_than_needed() -> None:
    """Pushes one at a time share one connection, however many there might be."""
    server, ledger = await _push_to(pushes=[push(n, at=n / 500) for n in range(20)], connections=50)
    assert ledger.summary().acknowledged_first == 20
    assert server.connections < 20
    server, _ = await _push_to(pushes=[push(n) for n in range(50)], connections=1)
    assert server.connections == 1


async def test_a_connection_closed_while_idle_is_replaced() -> None:
    """A server that closes after each answer costs a new connection, not an attempt."""

    async def answer_and_close(exchange: Exchange) -> None:
        await exchange.send(OK)
        exchange.close()

    pushes = [push(n, at=n / 50) for n in range(4)]
    server, ledger = await _push_to(answer_and_close, pushes=pushes, connections=1)
    assert ledger.summary().acknowledged_first == 4
    assert server.connections == 4


async def test_a_connection_idle_for_long_is_not_used_again() -> None:
    """The other side may be closing it just then, which would look like a push without an answer."""
    for idle_seconds, connections in ((0.0, 3), (60.0, 1)):
        pushes = [push(n, at=n / 50) for n in range(3)]
        server, ledger = await _push_to(pushes=pushes, connections=1, idle_seconds=idle_seconds)
        assert ledger.summary().acknowledged_first == 3
        assert server.connections == connections


async def test_an_early_answer_ends_a_long_upload() -> None:
    """An answer that does not wait for the body counts; the half-written connection isn't used again."""
    received = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        await received.wait()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    large = Push(0, None, b"x" * 30_000_000, (report("a"),))
    ledger = await _run(url, [large])
    received.set()
    listener.close()
    assert ledger.summary().answers == {"413": 3}


async def test_an_open_loop_waits_for_nobody() -> None:
    """A push goes at its time although the one before is still unanswered."""
    arrived = asyncio.Event()

    async def until_the_next_arrives(exchange: Exchange) -> None:
        await arrived.wait()
        await exchange.send(OK)

    async def next_one(exchange: Exchange) -> None:
        arrived.set()
        await exchange.send(OK)

    pushes = [push(0, at=0.0), push(1, at=0.02)]
    _, ledger = await _push_to(until_the_next_arrives, next_one, pushes=pushes, connections=2)
    [first], [second] = _attempts(ledger, 0), _attempts(ledger, 1)
    assert second.sent_at < first.ended_at
    assert 0.02 - 2 * TIMER <= second.intended_at - first.intended_at < 0.5


async def test_latency_counts_from_the_intended_time() -> None:
    """A push that had to wait for a connection waited for the bridge: its latency shows it."""

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)  # the server's slowness, which is what is measured
        await exchange.send(OK)

    _, ledger = await _push_to(slow, succeed, pushes=[push(0, at=0.0), push(1, at=0.0)], connections=1)
    [first], [second] = _attempts(ledger, 0), _attempts(ledger, 1)
    assert second.sent_at >= first.ended_at
    assert second.latency_seconds >= 0.05 > second.ended_at - second.sent_at


async def test_without_times_never_more_are_in_flight_than_connections() -> None:
    """The closed loop keeps every connection busy and opens no more."""
    in_flight = peak = 0
    full = asyncio.Event()

    async def counted(exchange: Exchange) -> None:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        if in_flight == 5:
            full.set()
        await full.wait()
        in_flight -= 1
        await exchange.send(OK)

    _, ledger = await _push_to(counted, pushes=[push(n) for n in range(100)], connections=5)
    assert peak == 5
    assert ledger.summary().acknowledged_first == 100


async def test_without_times_an_outage_does_not_burn_the_whole_campaign() -> None:
    """While pushes wait for their retries only a bounded number of others is begun."""
    asked = 0

    def pushes() -> Iterable[Push]:
        nonlocal asked
        for number in range(1000):
            asked += 1
            yield push(number)

    bound_reached = asyncio.Event()

    async def fail(exchange: Exchange) -> None:
        if exchange.number == 31:
            bound_reached.set()
        await exchange.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    async with serving(fail) as server:
        running = asyncio.create_task(_run(server.url, pushes(), connections=1, retry_scale=1.0))
        await bound_reached.wait()
        for _ in range(200):  # turns of the loop, in which a 33rd would come
            await asyncio.sleep(0)
        assert 32 <= asked <= 33
        assert len(server.exchanges) == 32
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


def _overlaps(messages: int) -> tuple[Behaviour, list[str], dict[str, list[int]]]:
    """A behaviour that fails at times, the messages it had in flight twice, and the order of each one."""
    in_flight: Counter[str] = Counter()
    twice: list[str] = []
    order: dict[str, list[int]] = {}

    async def behave(exchange: Exchange) -> None:
        number = int(exchange.body.strip(b"[]"))
        key = f"message-{number % messages}"
        order.setdefault(key, []).append(number)
        in_flight[key] += 1
        if in_flight[key] > 1:
            twice.append(key)
        for _ in range(3):
            await asyncio.sleep(0)
        in_flight[key] -= 1
        await exchange.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" if exchange.number % 7 == 0 else OK)

    return behave, twice, order


@pytest.mark.parametrize("at", [None, 0.0])
async def test_ordered_pushes_of_a_message_never_overlap(at: float | None) -> None:
    """With ``ordered`` a message's pushes go one after the other, through retries; without, they do not."""
    pushes = [push(n, report(f"message-{n % 5}", f"status {n}"), at=at) for n in range(60)]
    behave, twice, order = _overlaps(5)
    _, ledger = await _push_to(behave, pushes=pushes, ordered=True)
    assert twice == []
    assert ledger.summary().unresolved == 0
    for numbers in order.values():
        assert numbers == sorted(numbers)
    for entry in ledger.entries.values():
        before = ledger.entries.get(entry.number - 5)
        assert before is None or before.attempts[-1].ended_at <= entry.sent_at
    behave, twice, _ = _overlaps(5)
    await _push_to(behave, pushes=pushes, ordered=False)
    assert twice != []


async def test_what_this_side_holds_back_is_no_latency() -> None:
    """A held push is measured from when it was let go: it was not the bridge that held it."""

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)  # the server's slowness, which must not be counted twice
        await exchange.send(OK)

    pushes = [push(0, report("a", "Sent"), at=0.0), push(1, report("a", "Read"), at=0.0)]
    _, ledger = await _push_to(slow, succeed, pushes=pushes, ordered=True)
    [first], [second] = _attempts(ledger, 0), _attempts(ledger, 1)
    assert second.intended_at >= first.ended_at


async def test_https_is_spoken_and_the_certificate_checked() -> None:
    """With the right authority it is pushed; without, that is a failed attempt."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    async with serving(tls=tls) as server:
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        ledger = await _run(server.url, [push(0), push(1)], tls=trusting, connections=1)
        assert ledger.summary().acknowledged_first == 2
        assert server.connections == 1
        ledger = await _run(server.url, [push(0)])
        assert [attempt.error for attempt in _attempts(ledger)] == ["connect"] * 3


async def test_a_run_that_is_cancelled_leaves_nothing_behind() -> None:
    """What was under way is unresolved in the ledger, and every connection is closed."""
    hung_up = asyncio.Event()

    async def hanging(exchange: Exchange) -> None:
        running.cancel()
        await exchange.until_closed()
        hung_up.set()

    ledger = Ledger()
    async with serving(hanging) as server:
        running = asyncio.create_task(Provider(Target.parse(server.url), ledger).run([push(0)]))
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(hung_up.wait(), 5)
    assert ledger.summary().unresolved == 1
    assert not ledger.summary().ok


async def test_what_the_campaign_raises_comes_out() -> None:
    """An error in the pushes, or in the ledger, ends the run as itself."""

    def pushes() -> Iterable[Push]:
        yield push(0)
        raise LookupError("no more")

    async with serving() as server:
        with pytest.raises(LookupError, match="no more"):
            await _run(server.url, pushes())


def test_it_works_the_same_on_uvloop() -> None:
    """The command runs on uvloop, whose transports are its own: acknowledged, retried, timed out, late."""

    async def everything() -> Summary:
        async with serving(succeed, status(503), hang, sends(OK[:-1]), succeed) as server:
            pushes = [push(n) for n in range(4)]
            ledger = await _run(
                server.url, pushes, connections=1, answer_timeout_seconds=0.05, late_answer_seconds=0.05
            )
            return ledger.summary()

    summary = uvloop.run(everything())
    gc.collect()
    assert summary.answers == {"200": 4, "503": 1, "timeout": 1, "cut short": 1}
    assert (summary.acknowledged_first, summary.acknowledged_after_retry, summary.lost) == (1, 3, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"connections": 0},
        {"answer_timeout_seconds": 0.0},
        {"retry_scale": -1.0},
        {"late_answer_seconds": -1.0},
    ],
)
def test_what_makes_no_provider_is_refused_by_name(options: dict[str, Any]) -> None:
    """A wrong option stops with its name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ProviderOptions(**options)
