"""How much may come: each limit refuses what is beyond it, with the right status, and requeues what it had reserved."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from bridge.config import Limits, load
from bridge.errors import Overloaded
from bridge.receive.limits import Bodies, Disconnected, Head, InFlight, Refusal

LIMITS = msgspec.structs.replace(load(environment={}).settings.limits, header_bytes=1024, header_count=8)
Receive = Callable[[], Awaitable[dict[str, Any]]]


def head(*headers: tuple[bytes, bytes], limits: Limits = LIMITS) -> Head:
    """A request's head."""
    return Head(headers, limits)


def coming(*chunks: bytes, then: dict[str, Any] | None = None) -> Receive:
    """ASGI's receive: these chunks, the last one final unless something else follows; then nothing, for ever."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if then is None and messages:
        messages[-1]["more_body"] = False
    elif then is not None:
        messages.append(then)
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        message = next(waiting, None)
        return message if message is not None else await asyncio.get_running_loop().create_future()

    return receive


GONE = {"type": "http.disconnect"}


# --- headers ----------------------------------------------------------------------------------------------------------


def test_as_many_headers_as_allowed_are_taken_and_one_more_is_not() -> None:
    """The limit itself is allowed; beyond it 431."""
    assert len(head(*((b"x-%d" % n, b"") for n in range(8)))) == 8
    with pytest.raises(Refusal, match="more than 8 headers") as refused:
        head(*((b"x", b"") for _ in range(9)))
    assert refused.value.status == 431


def test_headers_are_counted_in_bytes_of_names_and_values() -> None:
    """1024 bytes of names and values are allowed, one more is not: 431."""
    assert head((b"name", b"v" * 1020))
    with pytest.raises(Refusal, match="larger than 1024 bytes") as refused:
        head((b"name", b"v" * 1021))
    assert refused.value.status == 431


def test_a_request_framed_in_two_ways_is_refused() -> None:
    """Content-Length and Transfer-Encoding: what stands between may have read it differently."""
    with pytest.raises(Refusal) as refused:
        head((b"content-length", b"2"), (b"transfer-encoding", b"chunked"))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "codings", [[b"gzip, chunked"], [b"gzip", b"chunked"], [b"chunked", b"chunked"], [b"identity"]]
)
def test_a_transfer_coding_that_is_not_undone_is_refused(codings: list[bytes]) -> None:
    """Only chunked is undone by the server: anything else would be taken for the body itself."""
    with pytest.raises(Refusal) as refused:
        head(*((b"transfer-encoding", coding) for coding in codings))
    assert refused.value.status == 501


def test_chunked_is_taken_in_any_case() -> None:
    """The coding's name has no case."""
    assert head((b"transfer-encoding", b"Chunked")).announced(10) == 0


@pytest.mark.parametrize("text", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1 2", b"\xb2", b"9" * 21])
def test_a_length_that_is_no_number_is_refused(text: bytes) -> None:
    """400, whatever an integer's parser would make of it."""
    with pytest.raises(Refusal) as refused:
        head((b"content-length", text)).announced(10)
    assert refused.value.status == 400


def test_what_is_announced_is_known_before_it_is_read() -> None:
    """Up to the limit; beyond it 413; nothing where the client doesn't say."""
    assert [
        head(*pairs).announced(10) for pairs in ((), ((b"content-length", b"0"),), ((b"content-length", b"10"),))
    ] == [0, 0, 10]
    with pytest.raises(Refusal) as refused:
        head((b"content-length", b"11")).announced(10)
    assert refused.value.status == 413


# --- bytes in flight --------------------------------------------------------------------------------------------------


def test_bytes_in_flight_are_held_to_their_limit() -> None:
    """Up to the limit, not beyond; a refusal reserves nothing; what is requeued may be taken again."""
    in_flight = InFlight(10)
    with in_flight.reserve(6) as first:
        with pytest.raises(Overloaded), in_flight.reserve(5):
            pass
        first.grow_to(10)
        assert in_flight.bytes == 10
        with pytest.raises(Overloaded):
            first.grow_to(11)
        assert in_flight.bytes == 10
    assert in_flight.bytes == 0


def test_a_reservation_never_shrinks_before_its_end() -> None:
    """A body shorter than announced keeps what was announced for it, until it is delivered."""
    in_flight = InFlight(10)
    with in_flight.reserve(6) as reservation:
        reservation.grow_to(2)
        assert in_flight.bytes == 6
    assert in_flight.bytes == 0


# --- the body ---------------------------------------------------------------------------------------------------------


async def test_a_body_is_its_chunks_in_order() -> None:
    """However it is cut; its bytes stay reserved after it was read, since it then waits for delivery."""
    for chunks in ((b"whole",), (b"a", b"", b"b", b"c")):
        in_flight = InFlight(10)
        with in_flight.reserve(0) as reservation:
            assert b"".join(chunks) == await Bodies(10, 1.0).read(coming(*chunks), reservation)
            assert len(b"".join(chunks)) == in_flight.bytes
        assert in_flight.bytes == 0


async def test_an_empty_body_is_refused() -> None:
    """There is nothing to keep, and no report to answer for: 400, whether it is announced as empty or ends at once."""
    for chunks in ((b"",), (b"", b"")):
        with InFlight(10).reserve(0) as reservation, pytest.raises(Refusal) as refused:
            await Bodies(10, 1.0).read(coming(*chunks), reservation)
        assert refused.value.status == 400


async def test_a_body_of_the_largest_size_is_taken_and_a_larger_one_is_not() -> None:
    """Also where it is announced nowhere: 413 at the first byte too many, and the rest is not read."""
    with InFlight(100).reserve(0) as reservation:
        assert await Bodies(10, 1.0).read(coming(b"12345", b"67890"), reservation) == b"1234567890"
    receive = coming(b"12345", b"678901", b"never read")
    with InFlight(100).reserve(0) as reservation, pytest.raises(Refusal) as refused:
        await Bodies(10, 1.0).read(receive, reservation)
    assert refused.value.status == 413
    assert (await receive())["body"] == b"never read"


async def test_a_body_that_would_pass_the_bytes_in_flight_is_refused() -> None:
    """A body that announces nothing counts as it comes."""
    in_flight = InFlight(7)
    with in_flight.reserve(3), in_flight.reserve(0) as reservation, pytest.raises(Overloaded):
        await Bodies(10, 1.0).read(coming(b"1234", b"5"), reservation)
    assert in_flight.bytes == 0


async def test_a_slow_body_is_refused_however_it_trickles() -> None:
    """The time is for all of the body: a byte now and then does not prolong it. 408."""

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    for receive in (coming(), coming(b"begun", then={"type": "http.request", "more_body": True}), trickle):
        with InFlight(10_000).reserve(0) as reservation, pytest.raises(Refusal) as refused:
            await Bodies(10_000, 0.1).read(receive, reservation)
        assert refused.value.status == 408


async def test_a_body_cut_short_is_no_body() -> None:
    """Whatever came of it: a part that happens to be JSON must never be published."""
    with InFlight(100).reserve(0) as reservation, pytest.raises(Disconnected):
        await Bodies(100, 1.0).read(coming(b"[]", then=GONE), reservation)


async def test_a_request_that_is_cancelled_is_not_answered_as_slow() -> None:
    """Whoever ends it does not mean the time that its body takes."""
    bodies = Bodies(100, 60.0)
    with InFlight(100).reserve(0) as reservation:
        reading = asyncio.create_task(bodies.read(coming(), reservation))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
