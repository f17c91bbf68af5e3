"""Where to push to, and one keep-alive connection that carries one request at a time."""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import msgspec

from bridge.errors import ConfigurationError
from bridge.lab.simulate.answer import Answer, AnswerError, AnswerReader

_PORTS = {"http": 80, "https": 443}
_MASK = "****"


class Target(msgspec.Struct, frozen=True):
    """The callback URL, taken apart. Text and repr hide the last path segment, which is the secret."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Target":
        """From an http or https URL. Raises ConfigurationError, which never repeats the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError("the URL can't be read: is its host or port malformed?") from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ConfigurationError("the URL has to begin with http:// or https:// and to name a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigurationError("the URL has to be host, port and path alone")
        if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
            raise ConfigurationError("the URL has to be printable ASCII without spaces")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path or "/")

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine's loopback, by name or by address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def authority(self) -> str:
        """Host and port as a URL and the Host header have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def request(self, body: bytes) -> bytes:
        """The bytes of a POST of ``body``."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.authority}\r\nUser-Agent: chatapp-bridge-simulate\r\n"
            f"Content-Type: application/json;charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def __str__(self) -> str:
        segments = self.path.rstrip("/").split("/")
        path = "/".join([*segments[:-1], _MASK]) if segments[-1] else "/"
        return f"{self.scheme}://{self.authority}{path}"

    def __repr__(self) -> str:
        return f"Target({self})"


class Connection(asyncio.Protocol):
    """One connection. ``usable`` says whether a request may be posted on it now."""

    def __init__(self) -> None:
        self.usable = False
        self._loop = asyncio.get_running_loop()
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._on_late: Callable[[Answer | None], None] | None = None

    @classmethod
    async def open(cls, target: Target, tls: ssl.SSLContext | None) -> "Connection":
        """Connect. Raises OSError (refused, unreachable, unknown host, certificate)."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, target.host, target.port, ssl=tls)
        return connection

    def post(self, request: bytes, timeout_seconds: float) -> asyncio.Future[Answer]:
        """Write a request. The future fails with TimeoutError, AnswerError or OSError."""
        if self._transport is None or not self.usable:
            raise RuntimeError("the connection is not free for a request")
        self.usable = False
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        # One timer and one future for a request: asyncio.timeout() would cost several times as much.
        timer = self._loop.call_later(timeout_seconds, _expire, waiting)
        waiting.add_done_callback(lambda _: timer.cancel())
        self._waiting = waiting
        self._transport.write(request)
        return waiting

    def listen_late(self, on_late: Callable[[Answer | None], None], grace_seconds: float) -> None:
        """After a timeout: hand over the answer if it still comes, else None, once; then close."""
        if self._transport is None or self._transport.is_closing() or grace_seconds <= 0:
            self.close()
            on_late(None)
            return
        self._on_late = on_late
        self._loop.call_later(grace_seconds, self.close)

    def close(self) -> None:
        """Close at once; what is still unsent is dropped."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's: the connection is there."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Asyncio's: bytes came."""
        if self._waiting is None:
            self.close()  # nobody asked: whatever follows could be taken for the answer to something else
            return
        try:
            answer = self._reader.feed(data)
        except AnswerError as error:
            self._settle(error)
            self.close()
            return
        if answer is not None:
            self._answered(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's: closed by either side; this can complete an answer without a length."""
        self.usable = False
        if exc is not None:
            # A reset never completes an answer, not even one that ends with its connection.
            begun = self._reader.begun
            self._settle(AnswerError("cut short", "reset in the middle of an answer") if begun else exc)
        else:
            try:
                self._settle(self._reader.end())
            except AnswerError as error:
                self._settle(error)
        self._late(None)

    def _answered(self, answer: Answer) -> None:
        assert self._transport is not None  # noqa: S101 - data came by it
        in_time = self._waiting is not None and not self._waiting.done()
        all_sent = self._transport.get_write_buffer_size() == 0
        self._settle(answer)
        if in_time and answer.reusable and all_sent:
            self.usable = True
        else:
            self.close()

    def _settle(self, outcome: Answer | Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if waiting.done():  # it timed out; this is its late answer
            self._late(outcome if isinstance(outcome, Answer) else None)
        elif isinstance(outcome, Answer):
            waiting.set_result(outcome)
        else:
            waiting.set_exception(outcome)

    def _late(self, answer: Answer | None) -> None:
        on_late, self._on_late = self._on_late, None
        if on_late is not None:
            on_late(answer)


def _expire(waiting: asyncio.Future[Answer]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError("no answer in time"))
