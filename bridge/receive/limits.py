"""How much may come: headers, body, bytes in flight, and the time a body may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Any, Self

from bridge.config import Limits
from bridge.errors import BridgeError, Overloaded

# No longer than a length can be, so that thousands of digits are never made a number.
_MOST_LENGTH_DIGITS = 20
# Resolution of the time that a body may take.
_TICK_SECONDS = 0.1

Receive = Callable[[], Awaitable[Any]]
Headers = Iterable[tuple[bytes, bytes]]


class Refusal(BridgeError):
    """A request that is answered with ``status`` and a word on why; nothing of it is kept."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Disconnected(BridgeError):
    """The client ended before its body was whole: there is nothing to keep, and perhaps nobody to answer."""


class LoopLagGuard:
    """How long the event loop has been at work without coming round: where it is late, so would every answer be.

    Args:
        seconds: beyond this much in one turn, callbacks are refused, which is cheap, until the loop has come round.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._began: float | None = None

    def check(self) -> None:
        """Called before work that takes long.

        Raises:
            Overloaded: more is asked than can be answered in time.
        """
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            self._loop.call_soon(self._end)
        elif now - self._began > self._seconds:
            raise Overloaded("more callbacks than can be answered in time")

    def _end(self) -> None:
        self._began = None


class InFlight:
    """Bytes of bodies being read or waiting for delivery."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0

    def reserve(self, count: int) -> "Reservation":
        """For one body, ``count`` bytes to begin with; all is given back at the end of its ``with``.

        Raises:
            Overloaded: the limit would be passed; nothing was reserved.
        """
        reservation = Reservation(self)
        reservation.grow_to(count)
        return reservation


class Reservation:
    """One body's share of the bytes in flight, until it is answered."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._bytes = 0

    def grow_to(self, count: int) -> None:
        """Hold at least ``count`` bytes.

        Raises:
            Overloaded: the limit would be passed; what was held is still held.
        """
        more = count - self._bytes
        if more <= 0:
            return
        if self._in_flight.bytes + more > self._in_flight.limit:
            raise Overloaded("too many bytes in flight")
        self._in_flight.bytes += more
        self._bytes = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in_flight.bytes -= self._bytes
        self._bytes = 0


class Head(dict[bytes, bytes]):
    """A request's headers by lower-case name, held to their limits."""

    def __init__(self, headers: Headers, limits: Limits) -> None:
        pairs = list(headers)
        if len(pairs) > limits.header_count:
            raise Refusal(431, f"more than {limits.header_count} headers")
        if sum(map(len, chain.from_iterable(pairs))) > limits.header_bytes:
            raise Refusal(431, f"headers larger than {limits.header_bytes} bytes")
        super().__init__(pairs)
        if b"transfer-encoding" in self:
            if b"content-length" in self:
                # What stands between may have read it differently. Granian 2.8 shows the application the latter alone, and
                # closes the connection after its answer, so that no request can hide behind the body.
                raise Refusal(400, "both Content-Length and Transfer-Encoding")
            if [value.lower() for name, value in pairs if name == b"transfer-encoding"] != [b"chunked"]:
                raise Refusal(501, "no Transfer-Encoding but chunked is supported")
        if self.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "Content-Encoding is not supported; send the body as it is")

    def announced(self, limit: int) -> int:
        """Bytes of body that the client announces; 0 where it doesn't say."""
        text = self.get(b"content-length", b"0")
        if not text.isdigit() or len(text) > _MOST_LENGTH_DIGITS:
            raise Refusal(400, "Content-Length is no number")
        if int(text) > limit:
            raise Refusal(413, f"body larger than {limit} bytes")
        return int(text)


class Bodies:
    """Reads bodies, each within its limits.

    Args:
        limit: most bytes of one.
        within_seconds: for all of it to arrive, and up to ``_TICK_SECONDS`` more.
    """

    def __init__(self, limit: int, within_seconds: float) -> None:
        self._limit = limit
        self._within_seconds = within_seconds
        self._loop = asyncio.get_running_loop()
        # Of each tick the requests whose time ends with it. One timer a tick: a request's own would cost more than its reading.
        self._reading: dict[int, dict[asyncio.Task[Any], bool]] = {}

    async def read(self, receive: Receive, reservation: Reservation) -> bytes:
        """The whole body, at least one byte.

        Args:
            receive: ASGI's.
            reservation: grows with the body where that was announced smaller, or not at all.

        Raises:
            Refusal: 400, empty; 408, too slow; 413, too large.
            Overloaded: too many bytes in flight.
            Disconnected: it was cut short.
        """
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - for the type checker: a coroutine runs in a task
        reading = self._due()
        reading[task] = False
        try:
            return await self._read(receive, reservation)
        except asyncio.CancelledError:
            if not reading[task] or task.uncancel():
                raise  # cancelled by somebody else, or by both
            raise Refusal(408, f"the body did not arrive within {self._within_seconds} s") from None
        finally:
            del reading[task]

    async def _read(self, receive: Receive, reservation: Reservation) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected("the body was cut short")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise Refusal(413, f"body larger than {self._limit} bytes")
            reservation.grow_to(size)
            chunks.append(chunk)
            if not message.get("more_body", False):
                break
        if not size:
            raise Refusal(400, "the body is empty")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _due(self) -> "dict[asyncio.Task[Any], bool]":
        """Those that are to be done by the same tick as one that begins now."""
        tick = int((self._loop.time() + self._within_seconds) / _TICK_SECONDS) + 1
        reading = self._reading.get(tick)
        if reading is None:
            reading = self._reading[tick] = {}
            self._loop.call_at(tick * _TICK_SECONDS, self._on_tick, tick)
        return reading

    def _on_tick(self, tick: int) -> None:
        reading = self._reading.pop(tick)
        for task in reading:
            reading[task] = True
            task.cancel()
