"""How much may come: headers, body, bytes in flight, and the time a body may take."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from bridge.config import Limits
from bridge.errors import BridgeError, Overloaded

# No longer than a length can be, so that thousands of digits are never made a number.
_MOST_LENGTH_DIGITS = 20

Receive = Callable[[], Awaitable[Any]]
Headers = Iterable[tuple[bytes, bytes]]


class Refusal(BridgeError):
    """A request that is answered with ``status`` and a word on why; nothing of it is kept."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Disconnected(BridgeError):
    """The client went away before its body was whole: there is nobody to answer, and nothing to keep."""


class InFlight:
    """Bytes of bodies being read or waiting for delivery."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0

    def take(self, count: int) -> None:
        """Reserve ``count`` bytes.

        Raises:
            Overloaded: the limit would be passed; nothing was reserved.
        """
        if self.bytes + count > self.limit:
            raise Overloaded("too many bytes in flight")
        self.bytes += count

    def give_back(self, count: int) -> None:
        """Release what was taken."""
        self.bytes -= count


class Head(dict[bytes, bytes]):
    """A request's headers by lower-case name, held to their limits."""

    def __init__(self, headers: Headers, limits: Limits) -> None:
        pairs = list(headers)
        if len(pairs) > limits.header_count:
            raise Refusal(431, f"more than {limits.header_count} headers")
        if sum(len(name) + len(value) for name, value in pairs) > limits.header_bytes:
            raise Refusal(431, f"headers larger than {limits.header_bytes} bytes")
        super().__init__(pairs)
        if b"transfer-encoding" in self and b"content-length" in self:
            # The server lets it through; what stands between may have read it differently.
            raise Refusal(400, "both Content-Length and Transfer-Encoding")
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


async def read_body(receive: Receive, limit: int, within_seconds: float, in_flight: InFlight, reserved: int) -> bytes:
    """The whole body.

    Args:
        receive: ASGI's.
        limit: most bytes taken.
        within_seconds: for all of it to arrive.
        in_flight: where bytes beyond ``reserved`` are reserved as they come; the caller gives back ``len`` of the result.
        reserved: bytes reserved already.

    Raises:
        Refusal: 408, too slow; 413, too large.
        Overloaded: too many bytes in flight.
        Disconnected: it was cut short.
    """
    taken = reserved
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(within_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected("the body was cut short")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise Refusal(413, f"body larger than {limit} bytes")
                if size > taken:
                    in_flight.take(size - taken)
                    taken = size
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError as error:
        raise Refusal(408, f"the body did not arrive within {within_seconds} s") from error
    finally:
        # On return the caller owns what was read; otherwise nothing of it stays.
        in_flight.give_back(taken - reserved)
