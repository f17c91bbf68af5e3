"""A TCP proxy before a broker: it can hold connections, cut them, and forward to wherever the broker is now.

``hold`` is for the connections that exist then: what their clients send is kept here, new ones pass. ``release`` passes on what
was kept, though its client may be long gone. It reads only the requests' headers, to count them; the proxy in ``kafka_proxy``
changes answers.
"""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Callable
from typing import Self

from bridge.lab.embedded.ports import HOST, Port

_CHUNK_BYTES = 1 << 16
_HEAD_BYTES = 6


class Link:
    """One connection through the proxy, each direction read at once and passed on when the gate is open."""

    def __init__(self, requests: Counter[int]) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.kept_bytes = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._requests = requests
        self._buffer = bytearray()

    async def run(self, client: asyncio.StreamReader, back: asyncio.StreamWriter, port: int) -> None:
        """Connect to the broker's port and carry both ways until both sides have ended."""
        ends = await self._connect(back, port)
        if ends is None:
            return
        broker, there = ends
        await asyncio.gather(self._carry(client, there, counted=True), self._carry(broker, back, counted=False))
        for writer in self.writers:
            writer.close()

    async def _connect(
        self, back: asyncio.StreamWriter, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The broker's end; where there is none the client's is closed."""
        self.writers.append(back)
        try:
            broker, there = await asyncio.open_connection(HOST, port)
        except OSError:
            back.transport.abort()
            return None
        self.writers.append(there)
        return broker, there

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counted: bool) -> None:
        # Read at once, also while held: what a client that goes away has sent is not to be lost with its connection.
        chunks: asyncio.Queue[bytes] = asyncio.Queue()

        async def read() -> None:
            with contextlib.suppress(OSError):
                while chunk := await source.read(_CHUNK_BYTES):
                    self.kept_bytes += len(chunk) if counted else 0
                    if counted:
                        self._count(chunk)
                    chunks.put_nowait(chunk)
            chunks.put_nowait(b"")

        reading = asyncio.create_task(read())
        with contextlib.suppress(OSError):
            while chunk := await chunks.get():
                await self.gate.wait()
                self.kept_bytes -= len(chunk) if counted else 0
                target.write(chunk)
                await target.drain()
        if counted:
            await self.gate.wait()
            with contextlib.suppress(OSError):
                target.write_eof()
        await reading

    def _count(self, chunk: bytes) -> None:
        """Kafka's requests by their API key: a length of four bytes, then the key of two."""
        self._buffer += chunk
        while len(self._buffer) >= _HEAD_BYTES:
            size, key = struct.unpack_from(">ih", self._buffer)
            if len(self._buffer) < size + 4:
                return
            self._requests[key] += 1
            del self._buffer[: size + 4]


class Proxy:
    """Listens on a port of its own. ``requests`` counts Kafka requests by API key: 0 produce, 3 metadata."""

    def __init__(self, target: Callable[[], int], port: Port | None = None) -> None:
        """``target`` gives the port to connect to, asked for each connection; ``port`` is the caller's, else its own."""
        self._target = target
        self._given, self._port = port is not None, port or Port()
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: Counter[int] = Counter()

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return self._port.address

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    @property
    def held_bytes(self) -> int:
        """Of clients whose connections are held."""
        return sum(link.kept_bytes for link in self._links if not link.gate.is_set())

    @property
    def kept_bytes(self) -> int:
        """Of all clients, held or on their way through, not passed on yet."""
        return sum(link.kept_bytes for link in self._links)

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, HOST, self._port.number)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._given:
            self._port.release()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self._link()
        self._links.add(link)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # asyncio logs the tasks of a server that are cancelled.
            with contextlib.suppress(asyncio.CancelledError):
                await link.run(reader, writer, self._target())
        finally:
            self._links.discard(link)
            self._tasks.discard(task)

    def _link(self) -> Link:
        """For a connection that was just opened."""
        return Link(self.requests)

    def hold(self) -> int:
        """Keep what the clients of today's connections send; how many those are."""
        for link in self._links:
            link.gate.clear()
        return len(self._links)

    def release(self) -> None:
        """Pass on what was kept."""
        for link in self._links:
            link.gate.set()

    def cut(self) -> None:
        """End all connections, with a reset."""
        for link in self._links:
            for writer in link.writers:
                writer.transport.abort()
