"""One connection to one broker: frames, correlation ids, login, and a socket that detects a lost peer.

A connection has at most one request in flight. asyncio does TLS, and aiokafka's classes do the steps of SASL.
``connection.py`` makes the arguments for both.
"""

import asyncio
import functools
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from aiokafka.conn import OAuthAuthenticator, SaslPlainAuthenticator, ScramAuthenticator
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.api import Request

from bridge.errors import BridgeError, ConnectionEnded, KafkaUnavailable, UnreadableAnswer, UnsupportedBroker
from bridge.kafka import messages
from bridge.kafka.errors import code_name
from bridge.network import no_dns_answer, why_unresolved

# The kernel closes a connection if the peer does not confirm sent data for this long. On an idle connection it sends a
# probe after 30 s, and closes the connection after three probes without an answer.
_USER_TIMEOUT_MS: Final = 20_000
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_SIZE = struct.Struct(">i")
# SO_LINGER on, for 0 s: when the socket is closed, the kernel drops what it has not sent, and resets the connection.
_DROP_UNSENT: Final = struct.pack("ii", 1, 0)
# No answer to a request of the bridge is larger.
_MOST_ANSWER_BYTES: Final = 64 << 20
# After this share of its lifetime, a login is not used for new requests.
_SESSION_SHARE: Final = 0.8


CONNECTION_FAILURES: Final = (OSError, TimeoutError, KafkaError, BridgeError)
"""The exceptions that a failed connection or request raises; ``connection.reason`` describes each in words."""


class Connection(asyncio.Protocol):
    """An open connection, made by ``connect``.

    Attributes:
        versions: the oldest and newest version of each request that the broker offers.
        opening_seconds: how long connecting and login took.
        on_end: called when the connection has ended.
        end: why the connection is closed; empty while it is open.
    """

    def __init__(self, client_id: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._client_id = messages.string(client_id)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._correlation_id = 0
        self._on_answer: Callable[[bytes], None] | None = None
        self._expires_at = float("inf")
        self.on_end: Callable[[], None] = _nothing
        self.versions: dict[int, tuple[int, int]] = {}
        self.opening_seconds = 0.0
        self.end = ""

    # --- called by users of the connection ----------------------------------------------------------------------------

    @property
    def expired(self) -> bool:
        """Whether new requests need another connection: the login ends soon, or ``expire`` was called."""
        return self._loop.time() >= self._expires_at

    def expire(self) -> None:
        """Mark the connection as expired, because the credential files have changed."""
        self._expires_at = 0.0

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
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def ended() -> None:
            if not answer.done():
                answer.set_exception(ConnectionEnded(self.end))

        def answered(body: bytes) -> None:
            if not answer.done():
                answer.set_result(body)

        self.on_end = ended
        self.send(api_key, version, body, answered)
        try:
            return await answer
        finally:
            self.on_end = _nothing

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
        if on_answer is None or correlation_id != self._correlation_id:
            self.abort(f"an answer has correlation id {correlation_id}, not {self._correlation_id}")
            return
        on_answer(frame[_SIZE.size :])

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.end = self.end or (str(exc) if exc else "") or "the broker hung up"
        self._on_answer = None
        self.on_end()

    # --- opening ------------------------------------------------------------------------------------------------------

    async def introduce(self) -> None:
        """Ask the broker which requests and versions it offers.

        Raises:
            ConnectionEnded: the connection ended before the answer came.
            UnreadableAnswer: the answer could not be read, or has an error code.
        """
        self.versions = messages.read_api_versions(await self.ask(messages.API_VERSIONS, 0))

    async def log_in(self, login: dict[str, Any]) -> None:
        """Log in with SASL.

        Args:
            login: the arguments from ``client_arguments``.

        Raises:
            UnsupportedSaslMechanismError, SaslAuthenticationFailed: the broker refuses the mechanism or the login.
            UnsupportedBroker: the bridge and the broker have no version of SaslAuthenticate in common.
            ConnectionEnded, UnreadableAnswer: the broker gave no answer, or one that could not be read.
        """
        mechanism = login["sasl_mechanism"]
        answer = await self.ask(messages.SASL_HANDSHAKE, 1, messages.string(mechanism))
        if messages.read_sasl_handshake(answer).code:
            raise UnsupportedSaslMechanismError(mechanism)
        version = messages.common_version(messages.SASL_AUTHENTICATE, self.versions)
        authenticator, challenge = _authenticator(login), None
        while (step := await _next_step(authenticator, challenge)) is not None:
            payload: bytes = step[0]
            body = _SIZE.pack(len(payload)) + payload
            said = messages.read_sasl_step(await self.ask(messages.SASL_AUTHENTICATE, version, body), version)
            if said.code:
                raise SaslAuthenticationFailed(said.message or code_name(said.code))
            challenge = said.challenge
            if said.session_seconds:
                self._expires_at = self._loop.time() + said.session_seconds * _SESSION_SHARE


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
    async with asyncio.timeout_at(until):
        connection = await _first_that_connects(host, addresses, arguments, until)
        try:
            await connection.introduce()
            if arguments["security_protocol"].startswith("SASL"):
                await connection.log_in(arguments)
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


async def _next_step(authenticator: Any, challenge: bytes | None) -> Any:
    """Return the next step of a login; None when the login is complete."""
    try:
        return await authenticator.step(challenge)
    except (AssertionError, KeyError, ValueError) as error:  # raised by aiokafka's authenticators
        raise SaslAuthenticationFailed(f"its SASL message is invalid: {str(error) or repr(error)}") from error


def _authenticator(login: dict[str, Any]) -> Any:
    mechanism = login["sasl_mechanism"]
    if mechanism == "OAUTHBEARER":
        return OAuthAuthenticator(sasl_oauth_token_provider=login["sasl_oauth_token_provider"])
    user = {key: login[key] for key in ("sasl_plain_username", "sasl_plain_password")}
    loop = asyncio.get_running_loop()
    if mechanism == "PLAIN":
        return SaslPlainAuthenticator(loop=loop, **user)
    return ScramAuthenticator(loop=loop, sasl_mechanism=mechanism, **user)


def _nothing() -> None:
    """Do nothing: nobody waits for the connection's end."""
