"""One connection to one broker: frames, correlation ids, login, and a socket that detects a lost peer.

A connection has at most one request in flight. asyncio does TLS, ``login.py`` the steps of SASL.
``connection.py`` makes the arguments for both.

If the broker ends logins after some time (``connections.max.reauth.ms``, or the end of a token), the connection renews its
login while it is open, between two requests (KIP-368). If that fails, it stays in use until the login ends, and tries
again meanwhile.
"""

import asyncio
import functools
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.api import Request

from bridge.errors import BridgeError, ConnectionEnded, KafkaUnavailable, UnreadableAnswer, UnsupportedBroker
from bridge.kafka import messages
from bridge.kafka.connection import reason
from bridge.kafka.errors import code_name
from bridge.kafka.login import Login
from bridge.network import no_dns_answer, why_unresolved

# The standard library's, which writes to standard error in commands too, where nobody configures structlog.
log = logging.getLogger(__name__)

# The kernel closes a connection if the peer does not confirm sent data for this long. On an idle connection it sends a
# probe after 30 s, and closes the connection after three probes without an answer.
_USER_TIMEOUT_MS: Final = 20_000
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_SIZE = struct.Struct(">i")
# SO_LINGER on, for 0 s: when the socket is closed, the kernel drops what it has not sent, and resets the connection.
_DROP_UNSENT: Final = struct.pack("ii", 1, 0)
# No answer to a request of the bridge is larger.
_MOST_ANSWER_BYTES: Final = 64 << 20
# After this share of its life, a login is renewed. A broker takes one renewal a second.
_RENEW_SHARE, _RENEW_SECONDS = 0.8, 1.1
# The shortest and the longest pause after a renewal that failed without a word to the broker.
_RENEW_BACKOFF: Final = (0.5, 10.0)
# A login that could not be renewed is not used for its last moments: the broker would close in the middle of a request.
_LAST_SHARE, _LAST_SECONDS = 0.05, 1.0
# The limit for a renewal and for a small question, while nothing else can be sent.
_UPKEEP_SECONDS: Final = 10.0


CONNECTION_FAILURES: Final = (OSError, TimeoutError, KafkaError, BridgeError)
"""The exceptions that a failed connection or request raises; ``connection.reason`` describes each in words."""


class Connection(asyncio.Protocol):
    """An open connection, made by ``connect``.

    Attributes:
        versions: the oldest and newest version of each request that the broker offers.
        opening_seconds: how long connecting and login took.
        on_end: called when the connection has ended.
        on_free: called when the connection has renewed its login, or tried to, and takes requests again.
        expired: whether new requests need another connection, because ``expire`` was called.
        end: why the connection is closed; empty while it is open.
    """

    def __init__(self, client_id: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._client_id = messages.string(client_id)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._correlation_id = 0
        self._on_answer: Callable[[bytes], None] | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._free, self._upkeep_lock = asyncio.Event(), asyncio.Lock()
        self._free.set()
        self._turn: asyncio.Future[None] | None = None
        self._upkeep: set[asyncio.Task[None]] = set()
        self._login_ends_at = float("inf")
        self._renewal: asyncio.TimerHandle | None = None
        self.on_end: Callable[[], None] = _nothing
        self.on_free: Callable[[], None] = _nothing
        self.expired = False
        self.versions: dict[int, tuple[int, int]] = {}
        self.opening_seconds = 0.0
        self.end = ""

    # --- called by users of the connection ----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the connection renews its login, or keeps itself alive; ``on_free`` is called when that is over."""
        return not self._free.is_set()

    def expire(self) -> None:
        """Mark the connection as expired, because the credential files have changed."""
        self.expired = True

    def keep_alive(self) -> None:
        """Ask the broker something small, so that nothing on the way closes the connection as idle."""
        self._in_background(self._keep_alive())

    def send(self, api_key: int, version: int, body: Sequence[bytes], on_answer: Callable[[bytes], None]) -> None:
        """Write a request.

        Args:
            api_key: the request's key.
            version: the request's version.
            body: the bytes after the request's head, in pieces.
            on_answer: called with the answer's body. If the connection ends first, ``on_end`` is called instead.

        Raises:
            ConnectionEnded: the connection is not open.
        """
        if self._transport is None or self.end:
            raise ConnectionEnded(self.end or "not connected")
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        self._on_answer = on_answer
        head = messages.request_head(api_key, version, self._correlation_id, self._client_id)
        size = len(head) + sum(map(len, body))
        self._transport.write(b"".join((_SIZE.pack(size), head, *body)))

    async def ask(self, api_key: int, version: int, *body: bytes) -> bytes:
        """Write a request and wait for its answer.

        Raises:
            ConnectionEnded: the connection ended before the answer came.
        """
        while self.busy:
            await self._free.wait()
        return await self._ask(api_key, version, *body)

    async def _ask(self, api_key: int, version: int, *body: bytes) -> bytes:
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answer = answer

        def answered(body: bytes) -> None:
            if not answer.done():
                answer.set_result(body)

        self.send(api_key, version, body, answered)
        return await answer

    async def ask_aiokafka(self, request: Request[Any]) -> Any:
        """Write one of aiokafka's requests, wait for its answer, and decode it.

        Raises:
            ConnectionEnded: the connection ended before the answer came.
            UnsupportedBroker: the broker offers no version of the request that aiokafka knows.
            UnreadableAnswer: the bytes are not an answer to this request.
        """
        name = type(request).__name__
        try:
            prepared = request.prepare(self.versions)
        except (IncompatibleBrokerVersion, NotImplementedError) as error:
            raise UnsupportedBroker(f"the broker offers no version of {name} that the bridge knows") from error
        answer = await self.ask(prepared.API_KEY, prepared.API_VERSION, prepared.encode())
        try:
            return prepared.RESPONSE_TYPE.decode(answer)
        except ValueError as error:
            raise UnreadableAnswer(f"the answer to {name} can't be read: {error}") from error

    def abort(self, why: str) -> None:
        """Close the connection at once; ``on_end`` is called soon.

        Bytes that were sent may still be read by the broker, or by a proxy on the way.
        """
        self.end = self.end or why
        if self._transport is not None:
            self._transport.abort()

    # --- called by asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
        for option, value in (*_KEEPALIVE, (socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _SIZE.size and not self.end:
            (size,) = _SIZE.unpack_from(buffer)
            if not _SIZE.size <= size <= _MOST_ANSWER_BYTES:
                self.abort(
                    f"the answer is not in Kafka's protocol (length {size}): the port speaks TLS or another protocol"
                )
            elif len(buffer) < _SIZE.size + size:
                return
            else:
                frame = bytes(memoryview(buffer)[_SIZE.size : _SIZE.size + size])
                del buffer[: _SIZE.size + size]
                self._answered(frame)

    def _answered(self, frame: bytes) -> None:
        (correlation_id,) = _SIZE.unpack_from(frame)
        on_answer, self._on_answer = self._on_answer, None
        if self._turn is not None and not self._turn.done():
            self._free.clear()
            self._turn.set_result(None)
        if on_answer is None or correlation_id != self._correlation_id:
            self.abort(f"an answer has correlation id {correlation_id}, not {self._correlation_id}")
            return
        on_answer(frame[_SIZE.size :])

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.end = self.end or (str(exc) if exc else "") or "the broker hung up"
        self._on_answer = None
        if self._renewal is not None:
            self._renewal.cancel()
        for waiting in (self._answer, self._turn):
            if waiting is not None and not waiting.done():
                waiting.set_exception(ConnectionEnded(self.end))
                waiting.exception()  # it may be that nobody waits any more
        if not self.busy:
            for task in self._upkeep:
                task.cancel()
        self.on_end()

    # --- opening ------------------------------------------------------------------------------------------------------

    async def introduce(self) -> None:
        """Ask the broker which requests and versions it offers.

        Raises:
            ConnectionEnded: the connection ended before the answer came.
            UnreadableAnswer: the answer could not be read, or has an error code.
        """
        self.versions = messages.read_api_versions(await self._ask(messages.API_VERSIONS, 0))

    async def log_in(self, login: Login) -> None:
        """Log in with SASL; see that the login is renewed if the broker ends it.

        Raises:
            UnsupportedSaslMechanismError, SaslAuthenticationFailed: the broker refuses the mechanism or the login.
            UnsupportedBroker: the bridge and the broker have no version of SaslAuthenticate in common.
            ConnectionEnded, UnreadableAnswer: the broker gave no answer, or one that could not be read.
        """
        answer = await self._ask(messages.SASL_HANDSHAKE, 1, messages.string(login.mechanism))
        if messages.read_sasl_handshake(answer).code:
            raise UnsupportedSaslMechanismError(login.mechanism)
        version = messages.common_version(messages.SASL_AUTHENTICATE, self.versions)
        payload: bytes | None = login.first
        seconds = 0.0
        while payload is not None:
            body = _SIZE.pack(len(payload)) + payload
            said = messages.read_sasl_step(await self._ask(messages.SASL_AUTHENTICATE, version, body), version)
            if said.code:
                raise SaslAuthenticationFailed(said.message or code_name(said.code))
            seconds = said.session_seconds
            payload = await login.next_step(said.challenge)
        if seconds:
            self._login_ends_at = self._loop.time() + seconds
            pause = max(seconds * _RENEW_SHARE, _RENEW_SECONDS)
            self._renewal = self._loop.call_later(pause, lambda: self._in_background(self._renew(login, seconds)))

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name="kafka-connection")
        self._upkeep.add(task)
        task.add_done_callback(self._upkeep.discard)

    @asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        """Wait until nothing is in flight; nobody else writes a request meanwhile. An error closes the connection."""
        async with self._upkeep_lock:
            if self._on_answer is not None:
                self._turn = self._loop.create_future()
                await self._turn
            self._free.clear()
            try:
                async with asyncio.timeout(_UPKEEP_SECONDS):
                    yield
            except BaseException as error:
                self.abort(reason(error))
                raise
            finally:
                self._free.set()
                self.on_free()

    async def _keep_alive(self) -> None:
        with suppress(*CONNECTION_FAILURES):
            async with self._exclusively():
                await self.introduce()

    async def _renew(self, login: Login, seconds: float) -> None:
        """Renew the login; try again until it ends. Then close the connection, between two requests."""
        last = self._login_ends_at - min(seconds * _LAST_SHARE, _LAST_SECONDS)
        pause = _RENEW_BACKOFF[0]
        while why := await self._not_renewed(login):
            if pause == _RENEW_BACKOFF[0]:
                log.warning("kafka_login_not_renewed", extra={"error": why})
            left = last - self._loop.time()
            if left <= 0 and not self.end:
                with suppress(*CONNECTION_FAILURES):
                    async with self._exclusively():
                        self.abort(f"the login has ended, and was not renewed: {why}")
            if self.end:
                return
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _RENEW_BACKOFF[1])

    async def _not_renewed(self, login: Login) -> str:
        """Renew the login once; return why that failed."""
        try:
            again = await login.again()
            async with self._exclusively():
                await self.log_in(again)
        except CONNECTION_FAILURES as error:
            return reason(error)
        return ""


async def connect(host: str, port: int, arguments: dict[str, Any], timeout_seconds: float) -> Connection:
    """Connect, ask which requests and versions the broker offers, and log in.

    Args:
        host: a name or an address. Each address of a name gets its share of the time.
        port: the broker's port.
        arguments: the result of ``client_arguments`` for ``[kafka]``.
        timeout_seconds: the limit for all steps together.

    Raises:
        OSError, TimeoutError, KafkaUnavailable, KafkaError: a step failed;
            ``connection.reason`` describes the error in words.
    """
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    until = loop.time() + timeout_seconds
    addresses = await _addresses(host, port, until)
    login = await _begun_login(arguments, until)
    async with asyncio.timeout_at(until):
        connection = await _first_that_connects(host, addresses, arguments, until)
        try:
            await connection.introduce()
            if login is not None:
                await connection.log_in(login)
        except BaseException as error:
            connection.abort(f"not opened: {type(error).__name__}")
            raise
    connection.opening_seconds = time.perf_counter() - began
    return connection


async def _addresses(host: str, port: int, until: float) -> list[tuple[Any, ...]]:
    try:
        async with asyncio.timeout_at(until):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        keys = "kafka.bootstrap_servers, or the brokers' advertised.listeners"
        raise KafkaUnavailable(why_unresolved(host, error, keys)) from error
    except TimeoutError as error:
        raise KafkaUnavailable(no_dns_answer(host)) from error
    return list(dict.fromkeys(address[4][:2] for address in found))


async def _begun_login(arguments: dict[str, Any], until: float) -> Login | None:
    if not arguments["security_protocol"].startswith("SASL"):
        return None
    try:
        async with asyncio.timeout_at(until):
            return await Login.begin(arguments)
    except TimeoutError as error:
        keys = "kafka.sasl_oauth and its keys"
        raise KafkaUnavailable(f"no token for the login came in time; look at {keys}") from error


async def _first_that_connects(
    host: str, addresses: Sequence[tuple[Any, ...]], arguments: dict[str, Any], until: float
) -> Connection:
    loop = asyncio.get_running_loop()
    tls = {"ssl": arguments["ssl_context"], "server_hostname": host} if "ssl_context" in arguments else {}
    failure: Exception = OSError(f"{host} has no address")
    for tried, (address, port) in enumerate(addresses):
        try:
            async with asyncio.timeout((until - loop.time()) / (len(addresses) - tried)):
                make = functools.partial(Connection, arguments["client_id"])
                _, connection = await loop.create_connection(make, address, port, **tls)
                return connection
        except (OSError, TimeoutError) as error:
            failure = error
    raise failure


def _nothing() -> None:
    """Do nothing: nobody waits for the connection's end."""
