"""What stands before several replicas, as a Service or an ingress does: each request goes to the next one that can be reached.

It names each request in a ``traceparent``, which the bridge puts on every event. So a record tells which request brought it, and
the front to which replica that went: nothing of it is the bridge's own word. What each replica was sent and what it promised is
written down, an account for each, in the form that the checker takes.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

from bridge.lab.embedded.ports import HOST, Port
from bridge.lab.simulate.ledger import Entry, Ledger, Opened
from bridge.lab.simulate.push import Push
from support import raw_http

_LENGTH = b"content-length:"
_SPAN = "0000000000000001"


class PushedLedger(Ledger):
    """A ledger that knows a push by its body, too."""

    def __init__(self) -> None:
        super().__init__()
        self._by_body: dict[bytes, Push] = {}

    def opened(self, push: Push, sent_at: float) -> None:
        """A push is about to be sent for the first time; no two have the same body."""
        assert self._by_body.setdefault(_digest(push.body), push) is push
        super().opened(push, sent_at)

    def of_body(self, body: bytes) -> Push:
        """The push with that body."""
        return self._by_body[_digest(body)]


class Forwarded(NamedTuple):
    """A request that was passed on: to which replica, and the push that it carried."""

    replica: int
    push: Push


class Front:
    """Listens on a port of its own.

    Args:
        ports: of the replicas, on 127.0.0.1, by which they are numbered from 0.
        of_body: gives the push that a body belongs to.
    """

    def __init__(self, ports: Sequence[int], of_body: Callable[[bytes], Push]) -> None:
        self._ports, self._of_body = ports, of_body
        self._port = Port()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self.forwarded: dict[str, Forwarded] = {}
        """By the ``traceparent`` that went with it."""
        self.accounts: tuple[dict[int, Entry], ...] = tuple({} for _ in ports)
        """By replica and push, as a ledger's entries, of its events alone: times are those of the requests to that replica."""
        self.cut = [0 for _ in ports]
        """Requests by replica whose connection ended without an answer."""
        self.passed_over = 0
        """Connections that were refused, so that the next replica got the request."""

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        return self._port.number

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every connection."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._port.release()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while answer := await self._forward(*await _request(reader)):
                    writer.write(answer.head + answer.body)
                    await writer.drain()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _forward(self, head: bytes, body: bytes) -> raw_http.Answer | None:
        """Pass a request on; the answer, or None where the replica died on it, as it may have been taken."""
        replica, (reader, writer) = await self._connect()
        push = self._of_body(body)
        traceparent = f"00-{len(self.forwarded) + 1:032x}-{_SPAN}-01"
        self.forwarded[traceparent] = Forwarded(replica, push)
        events = tuple(report for report in push.reports if not report.quarantined)
        entry = self.accounts[replica].setdefault(push.number, Entry(Opened(push.number, time.monotonic(), events)))
        answer = None
        try:
            writer.write(b"%straceparent: %s\r\n\r\n%s" % (head.removesuffix(b"\r\n"), traceparent.encode(), body))
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                answer = await raw_http.read_answer(reader)
        finally:
            writer.transport.abort()
        self.cut[replica] += answer is None
        entry.promise(answer and answer.status, time.monotonic())
        return answer

    async def _connect(self) -> tuple[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """To the next replica that takes a connection.

        Raises:
            ConnectionRefusedError: None does.
        """
        for _ in self._ports:
            replica = self._next
            self._next = (replica + 1) % len(self._ports)
            with suppress(ConnectionRefusedError):
                return replica, await asyncio.open_connection(HOST, self._ports[replica])
            self.passed_over += 1
        raise ConnectionRefusedError


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head, with its empty line, and body of the next request.

    Raises:
        IncompleteReadError: The connection ended before one.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH))
    return head, await reader.readexactly(int(length.removeprefix(_LENGTH)))


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
