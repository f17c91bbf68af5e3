"""A small HTTP server for the simulator's tests, whose answers follow a script, and pushes to send to it."""

import asyncio
import queue
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from bridge.lab.simulate.identity import event_id
from bridge.lab.simulate.push import Push, Report

SUCCESS = b'{"code":0,"msg":"Success"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n" + SUCCESS


class Exchange:
    """One request, and the connection to answer it on. ``number`` counts from 0 over all connections."""

    def __init__(
        self,
        number: int,
        connection: int,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number, self.connection, self.body = number, connection, body
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send bytes of an answer."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Close in an orderly way."""
        self._writer.close()

    def reset(self) -> None:
        """Close as a killed process or a firewall does."""
        linger = struct.pack("ii", 1, 0)  # a close then drops what is unsent and sends RST
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def until_closed(self) -> None:
        """Wait for the client to hang up."""
        await self._reader.read()


Behaviour = Callable[[Exchange], Awaitable[None]]


class Server:
    """What was received, in order; ``script`` has a behaviour for each request, the last for all others."""

    def __init__(self, script: tuple[Behaviour, ...]) -> None:
        self.url = ""
        self.script = script
        self.exchanges: list[Exchange] = []
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Asyncio's: one connection."""
        connection = self.connections
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                number = len(self.exchanges)
                exchange = Exchange(number, connection, body, reader, writer)
                self.exchanges.append(exchange)
                await self.script[min(number, len(self.script) - 1)](exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up, as it may
        finally:
            writer.close()


@asynccontextmanager
async def serving(*script: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server on loopback for as long as the block runs."""
    server = Server(script or (succeed,))
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/chatapp/s3cret"
    try:
        yield server
    finally:
        listener.close()


@contextmanager
def serving_in_background(*script: Behaviour) -> Iterator[Server]:
    """The same on a thread of its own, for what runs a loop of its own."""
    started: queue.SimpleQueue[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with serving(*script) as server:
            started.put((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    server, loop, stop = started.get(timeout=10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def succeed(exchange: Exchange) -> None:
    """Acknowledges."""
    await exchange.send(OK)


async def hang(exchange: Exchange) -> None:
    """Never answers."""
    await exchange.until_closed()


def status(code: int) -> Behaviour:
    """Answers with a status."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 %d Whatever\r\nContent-Length: 26\r\n\r\n" % code + SUCCESS)

    return answer


def sends(data: bytes) -> Behaviour:
    """Answers with these bytes, and closes."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.close()

    return answer


def says(data: bytes) -> Behaviour:
    """Answers with these bytes, and stays."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(data)

    return answer


def pieces(data: bytes) -> Behaviour:
    """Answers with these bytes, each in a packet of its own as far as the network lets it."""

    async def answer(exchange: Exchange) -> None:
        for byte in data:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0)

    return answer


def report(message_id: str, state: str = "Sent", recipient: str = "12005550100") -> Report:
    """A good report."""
    return Report(message_id, recipient, state, None, event_id(message_id, recipient, state, None))


def push(number: int, *reports: Report, at: float | None = None) -> Push:
    """A push whose body tells its number, and which reports are said to be inside."""
    return Push(number, at, b"[%d]" % number, reports or (report(f"message-{number}"),))
