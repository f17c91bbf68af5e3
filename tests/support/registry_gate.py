"""What may stand before a registry: a gate that wants TLS and credentials, and servers that are no registry at all.

async with gate(registry.url, authorization="Bearer t", context=…) as url:
    …
async with answering(b"HTTP/1.1 200 OK…") as url:
    …
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

REFUSED = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 46\r\nConnection: close\r\n\r\n"
    b'{"error_code":401,"message":"Who may you be?"}'
)


@asynccontextmanager
async def gate(
    url: str, *, authorization: str = "", context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Let those through to a registry who send that header; gives the address before it, on ``host``, with the same path."""
    upstream = urlsplit(url)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        if authorization and f"authorization: {authorization}" not in {_lower_name(line) for line in lines}:
            writer.write(REFUSED)
            return
        there, back = await asyncio.open_connection(upstream.hostname, upstream.port)
        # One request a connection: the answer ends where the registry closes.
        kept = [line for line in lines[:-2] if not line.lower().startswith("connection:")]
        back.write("\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1"))
        sending = asyncio.create_task(_copy(reader, back))
        await _copy(there, writer)
        sending.cancel()
        back.close()

    async with _serving(pass_on, context, host) as address:
        yield f"{'https' if context else 'http'}://{address}{upstream.path}"


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that gives every request the same bytes and closes; None: that keeps silent."""

    async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)

    async with _serving(give, None) as address:
        yield f"http://{address}"


@asynccontextmanager
async def _serving(handler: Handler, context: ssl.SSLContext | None, host: str = "127.0.0.1") -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, host, 0, ssl=context)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


def _lower_name(line: str) -> str:
    name, _, value = line.partition(":")
    return f"{name.lower()}:{value}"
