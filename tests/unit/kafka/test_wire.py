"""One connection to one broker, on the loopback: what is an answer, what is none, and how it begins."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Never

import pytest
import uvloop
from aiokafka.errors import SaslAuthenticationFailed, UnsupportedSaslMechanismError
from support.black_hole import BlackHole, resolve_to
from support.wire_server import PASSWORD, WRONG, Asked, WireServer, frame

from bridge.errors import ConfigurationError, ConnectionEnded, KafkaUnavailable, UnreadableAnswer, UnsupportedBroker
from bridge.kafka import messages, wire
from bridge.kafka.connection import reason
from bridge.kafka.wire import CONNECTION_FAILURES, Connection, connect

WAIT_SECONDS = 10.0
QUESTION = 99
HOST = "127.0.0.1"


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    """It takes connections."""
    async with WireServer() as server:
        yield server


async def opened(server: WireServer, mechanism: str = "", password: str = PASSWORD) -> Connection:
    """A connection to it."""
    return await connect(HOST, server.port, server.arguments(mechanism, password), WAIT_SECONDS)


async def asked(connection: Connection, body: bytes = b"what?") -> bytes:
    """The answer to a question that only ``server.answer`` knows."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await connection.ask(QUESTION, 1, body)


async def until(condition: Callable[[], object]) -> None:
    """It holds, before long."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - it is of the server's end
            await asyncio.sleep(0.005)


# --- questions and answers ----------------------------------------------------------------------------------------------


async def test_a_connection_asks_and_is_answered(server: WireServer) -> None:
    """One question after the other, each under its own id and the client's name."""

    async def answer(question: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(question.correlation_id, question.body[::-1]))

    server.answer = answer
    connection = await opened(server)
    assert connection.versions == server.offered
    assert [await asked(connection, body) for body in (b"one", b"", b"x" * 300_000)] == [b"eno", b"", b"x" * 300_000]
    questions = [each for each in server.asked if each.api_key == QUESTION]
    assert len({each.correlation_id for each in questions}) == 3
    assert {each.client_id for each in questions} == {"tests"}
    assert [connection.end] == [""]
    connection.abort("enough")
    assert [connection.end] == ["enough"]
    await until(lambda: server.ended == 1)


async def test_an_answer_may_come_byte_by_byte(server: WireServer) -> None:
    """And the next one in the same breath as its end."""

    async def answer(question: Asked, writer: asyncio.StreamWriter) -> None:
        for byte in frame(question.correlation_id, b"in pieces"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    server.answer = answer
    connection = await opened(server)
    assert await asked(connection) == b"in pieces"
    assert await asked(connection) == b"in pieces"


class Pipe(asyncio.Transport):
    """Stands for a socket: what was written is kept, an end comes when told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False
        self._socket = socket.socket()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only a socket is asked for."""
        return self._socket if name == "socket" else default

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += bytes(data)

    def abort(self) -> None:
        """Note it."""
        self.aborted = True
        self._socket.close()


async def piped() -> tuple[Connection, Pipe, list[bytes], list[str]]:
    """A connection with a question on its way, the answers and the ends that its user hears of."""
    connection, pipe = Connection("tests"), Pipe()
    answers: list[bytes] = []
    ends: list[str] = []
    connection.connection_made(pipe)
    connection.on_end = lambda: ends.append(connection.end)
    connection.send(QUESTION, 1, [b"what", b"?"], answers.append)
    return connection, pipe, answers, ends


ANSWER = frame(1, b"this")


@pytest.mark.parametrize("at", range(len(ANSWER) + 1))
async def test_a_connection_may_end_between_any_two_bytes(at: int) -> None:
    """Only a whole answer is one; the end is told once."""
    connection, pipe, answers, ends = await piped()
    for byte in ANSWER[:at]:
        connection.data_received(bytes([byte]))
    connection.connection_lost(None)
    assert answers == ([b"this"] if at == len(ANSWER) else [])
    assert ends == [connection.end] == ["the broker hung up"]
    with pytest.raises(ConnectionEnded, match="hung up"):
        connection.send(QUESTION, 1, [b""], answers.append)
    pipe.abort()


@pytest.mark.parametrize("at", range(len(ANSWER) + 1))
async def test_an_answer_in_two_pieces_is_one(at: int) -> None:
    """Wherever it was cut."""
    connection, pipe, answers, ends = await piped()
    connection.data_received(ANSWER[:at])
    connection.data_received(ANSWER[at:])
    assert answers == [b"this"]
    assert not ends
    assert struct.unpack_from(">ihhi", pipe.written) == (len(pipe.written) - 4, QUESTION, 1, 1)
    assert pipe.written.endswith(b"\x00\x05testswhat?")
    pipe.abort()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (frame(2, b"this"), "an answer has correlation id 2, not 1"),
        (frame(0, b""), "correlation id 0, not 1"),
        (frame(-1, b"this"), "correlation id -1, not 1"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            r"not in Kafka's protocol \(length 1213486160\): the port speaks TLS or another",
        ),
        (b"\x15\x03\x03\x00\x02\x02\x46", "not in Kafka's protocol"),
        (struct.pack(">i", -1), r"length -1\)"),
        (struct.pack(">i", 3) + b"abc", r"length 3\)"),
        (struct.pack(">i", (64 << 20) + 1), "not in Kafka's protocol"),
        (struct.pack(">i", 2**31 - 1), "not in Kafka's protocol"),
    ],
)
async def test_what_is_no_answer_ends_the_connection(said: bytes, why: str) -> None:
    """At once; whoever waits is told why, and what comes behind it is not looked at."""
    connection, pipe, answers, ends = await piped()
    connection.data_received(said + ANSWER)
    assert pipe.aborted
    connection.connection_lost(None)
    assert not answers
    [end] = ends
    with pytest.raises(ConnectionEnded, match=why):
        raise ConnectionEnded(end)


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    """Also when it has the last one's id."""
    connection, pipe, answers, _ = await piped()
    connection.data_received(ANSWER + ANSWER)
    assert answers == [b"this"]
    assert pipe.aborted
    assert connection.end
    with pytest.raises(ConnectionEnded):
        connection.send(QUESTION, 1, [b""], answers.append)


async def test_who_waits_for_an_answer_hears_of_the_end(server: WireServer) -> None:
    """A close of the broker's, and one of our own."""

    async def answer(question: Asked, writer: asyncio.StreamWriter) -> None:
        if question.body == b"close":
            writer.close()

    server.answer = answer
    with pytest.raises(ConnectionEnded, match="the broker hung up"):
        await asked(await opened(server), b"close")
    connection = await opened(server)
    waiting = asyncio.create_task(asked(connection))
    await until(lambda: server.asked[-1].api_key == QUESTION)
    connection.abort("not wanted any more")
    with pytest.raises(ConnectionEnded, match="not wanted any more"):
        await waiting


async def test_a_socket_notices_that_its_other_end_is_gone(server: WireServer) -> None:
    """A machine that is switched off sends nothing: the kernel has to find out."""
    connection = await opened(server)
    assert connection._transport is not None
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    probes = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
    assert [sock.getsockopt(socket.IPPROTO_TCP, each) for each in probes] == [30, 10, 3]


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_an_abandoned_connection_has_not_sent_is_never_sent(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """It would be appended behind newer records. The other end sees a reset, where it reads so slowly."""

    async def abandon(port: int) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection("tests"), HOST, port)
        connection.send(QUESTION, 1, [bytes(8 << 20)], lambda _: None)
        ended = asyncio.Event()
        connection.on_end = ended.set
        connection.abort("not wanted any more")
        await ended.wait()

    with socket.create_server((HOST, 0)) as listener, asyncio.Runner(loop_factory=make_loop) as runner:
        listener.settimeout(WAIT_SECONDS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        runner.run(abandon(listener.getsockname()[1]))
        other, _ = listener.accept()
        with other, pytest.raises(ConnectionResetError):
            read_to_the_end(other)


def read_to_the_end(sock: socket.socket) -> None:
    """All that comes."""
    sock.settimeout(WAIT_SECONDS)
    while sock.recv(1 << 20):
        pass


# --- how it begins ------------------------------------------------------------------------------------------------------


async def test_a_server_of_something_else_is_named_as_such(server: WireServer) -> None:
    """An HTTP port, a TLS port: the words say what to look at."""

    async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    other = await asyncio.start_server(http, HOST, 0)
    port = other.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionEnded) as caught:
        await connect(HOST, port, server.arguments(), WAIT_SECONDS)
    assert "the port speaks TLS or another protocol; look at kafka.security_protocol" in reason(caught.value)
    other.close()


async def test_a_broker_that_is_mute_is_not_waited_for(server: WireServer) -> None:
    """And no connection is left behind."""
    server.mute = True
    with pytest.raises(TimeoutError):
        await connect(HOST, server.port, server.arguments(), 0.2)
    await until(lambda: server.ended == 1)


async def test_a_port_where_nobody_listens() -> None:
    """Is told as it is."""
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        with pytest.raises(ConnectionRefusedError):
            await connect(HOST, unused.getsockname()[1], WireServer.arguments(), WAIT_SECONDS)


async def test_each_address_of_a_name_gets_its_share_of_the_time(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is a black hole; the second answers."""
    with BlackHole() as hole:
        resolve_to(monkeypatch, hole, hole, (HOST, server.port))
        began = asyncio.get_running_loop().time()
        connection = await connect("kafka", 9092, server.arguments(), 0.9)
        assert 0.2 <= asyncio.get_running_loop().time() - began <= 0.9
    assert connection.versions == server.offered


async def test_an_address_that_refuses_costs_no_time(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is tried at once."""
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        resolve_to(monkeypatch, unused.getsockname(), (HOST, server.port))
        assert (await connect("kafka", 9092, server.arguments(), WAIT_SECONDS)).opening_seconds < 5.0


async def test_a_name_whose_addresses_are_all_black_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time, and the time is kept."""
    with BlackHole() as hole:
        resolve_to(monkeypatch, hole)
        with pytest.raises(TimeoutError):
            await connect("kafka", 9092, WireServer.arguments(), 0.3)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (socket.EAI_NONAME, "DNS has no address for kafka.test; correct kafka.bootstrap_servers, or the brokers'"),
        (socket.EAI_AGAIN, "the DNS server does not answer for kafka.test; check /etc/resolv.conf"),
        (socket.EAI_FAIL, "DNS failed for kafka.test: broken; look at kafka.bootstrap_servers"),
    ],
)
async def test_a_name_that_dns_does_not_know(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    """The words name DNS and the name, and tell a wrong name from a DNS server that is down."""

    async def fail(*_: object, **__: object) -> Never:
        raise socket.gaierror(code, "broken")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    with pytest.raises(KafkaUnavailable, match=re.escape(words)):
        await connect("kafka.test", 9092, WireServer.arguments(), WAIT_SECONDS)


async def test_a_dns_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the broker: nobody has asked it anything."""

    async def wait(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", wait)
    with pytest.raises(KafkaUnavailable, match="the DNS server does not answer for kafka"):
        await connect("kafka.test", 9092, WireServer.arguments(), 0.1)


# --- logins -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_login_is_taken(server: WireServer, mechanism: str) -> None:
    """Before anything else is asked; without an end to it, it does not expire."""

    async def answer(question: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(question.correlation_id, b"this"))

    server.answer = answer
    connection = await opened(server, mechanism)
    keys = [each.api_key for each in server.asked]
    steps = 1 if mechanism == "PLAIN" else 2
    assert keys == [messages.API_VERSIONS, messages.SASL_HANDSHAKE] + [messages.SASL_AUTHENTICATE] * steps
    assert not connection.expired
    assert await asked(connection) == b"this"
    connection.expire()
    assert connection.expired


async def test_an_older_broker_says_nothing_of_an_end(server: WireServer) -> None:
    """SaslAuthenticate 0."""
    server.offered[messages.SASL_AUTHENTICATE] = (0, 0)
    server.session_ms = 1
    connection = await opened(server, "PLAIN")
    assert connection._renewal is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_wrong_password_is_told_in_the_brokers_words(server: WireServer, mechanism: str) -> None:
    """And the connection is closed."""
    with pytest.raises(SaslAuthenticationFailed) as caught:
        await opened(server, mechanism, WRONG)
    assert "the broker refuses the login: Authentication failed: Invalid credentials" in reason(caught.value)
    await until(lambda: server.ended == 1)


async def test_a_mechanism_that_is_not_offered(server: WireServer) -> None:
    """Is named by its key."""
    server.mechanisms = ["GSSAPI"]
    with pytest.raises(UnsupportedSaslMechanismError) as caught:
        await opened(server, "PLAIN")
    assert "kafka.sasl_mechanism" in reason(caught.value)


async def test_a_broker_without_sasl(server: WireServer) -> None:
    """Its steps are not offered."""
    del server.offered[messages.SASL_AUTHENTICATE]
    with pytest.raises(UnsupportedBroker, match="SaslAuthenticate"):
        await opened(server, "PLAIN")


async def test_a_broker_that_does_not_know_the_password_either_is_not_trusted(server: WireServer) -> None:
    """SCRAM proves both sides to each other; a wrong proof is a failed login like any."""
    server.wrong_proof = True
    with pytest.raises(SaslAuthenticationFailed) as caught:
        await opened(server, "SCRAM-SHA-512")
    assert "signature" in reason(caught.value)
    await until(lambda: server.ended == 1)


async def test_a_broker_that_refuses_to_tell_its_versions(server: WireServer) -> None:
    """Is none that can be used."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(frame(1, struct.pack(">hi", 35, 0)))

    other = await asyncio.start_server(refuse, HOST, 0)
    with pytest.raises(UnreadableAnswer, match="ApiVersions with code 35") as caught:
        await connect(HOST, other.sockets[0].getsockname()[1], server.arguments(), WAIT_SECONDS)
    assert isinstance(caught.value, CONNECTION_FAILURES)
    other.close()


async def test_a_token_goes_with_its_extensions(server: WireServer) -> None:
    """In the first message, as RFC 7628 has it; a refusal comes as a challenge, and in the broker's words."""
    tokens = Tokens("token", {"logicalCluster": "lkc-1", "identityPoolId": "pool-2"})
    await connect(HOST, server.port, bearer(tokens), WAIT_SECONDS)
    expected = "n,,\x01auth=Bearer token\x01logicalCluster=lkc-1\x01identityPoolId=pool-2\x01\x01"
    assert server.tokens == [expected]

    server.takes_tokens = False
    with pytest.raises(SaslAuthenticationFailed) as caught:
        await connect(HOST, server.port, bearer(tokens), WAIT_SECONDS)
    assert "the broker refuses the login: Authentication failed" in reason(caught.value)


async def test_without_a_token_no_connection_is_opened(server: WireServer) -> None:
    """The reason is why there is none."""
    tokens = Tokens("")
    tokens.failure = KafkaUnavailable("the token endpoint is in trouble (503)")
    with pytest.raises(KafkaUnavailable, match="in trouble"):
        await connect(HOST, server.port, bearer(tokens), WAIT_SECONDS)
    tokens.failure, tokens.comes = None, asyncio.Event()
    with pytest.raises(KafkaUnavailable, match="no token for the login came in time"):
        await connect(HOST, server.port, bearer(tokens), 0.05)
    assert server.opened == 0


async def test_a_token_that_does_not_come_in_time_is_named(server: WireServer) -> None:
    """And not the broker, which nobody has asked yet."""

    class Slow(Tokens):
        async def token(self) -> str:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    with pytest.raises(
        KafkaUnavailable, match=re.escape("no token for the login came in time; look at kafka.sasl_oauth")
    ):
        await connect(HOST, server.port, bearer(Slow("")), 0.05)
    assert server.opened == 0


# --- renewing a login, and staying alive --------------------------------------------------------------------------------


class Tokens:
    """Stands for ``TokenProvider``."""

    def __init__(self, token: str, extensions: dict[str, str] | None = None) -> None:
        self.failure: Exception | None = None
        self.comes: asyncio.Event | None = None
        self._token, self._extensions = token, extensions or {}

    async def token(self) -> str:
        """See there."""
        if self.failure is not None:
            raise self.failure
        if self.comes is not None:
            await self.comes.wait()
        return self._token

    def extensions(self) -> dict[str, str]:
        """See there."""
        return self._extensions


def bearer(tokens: Tokens) -> dict[str, Any]:
    """Arguments for a login by token."""
    return {**WireServer.arguments("OAUTHBEARER"), "sasl_oauth_token_provider": tokens}


def logins(server: WireServer) -> int:
    """How many were begun."""
    return sum(each.api_key == messages.SASL_HANDSHAKE for each in server.asked)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals may follow each other at once."""
    monkeypatch.setattr(wire, "_RENEW_SECONDS", 0.05)
    monkeypatch.setattr(wire, "_RENEW_BACKOFF", (0.02, 0.02))


async def echo(question: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer with what was asked."""
    writer.write(frame(question.correlation_id, question.body))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_a_login_is_renewed_on_the_open_connection(server: WireServer, mechanism: str) -> None:
    """Again and again, between questions: each of them has its own answer, and a login is not interrupted."""
    server.session_ms, server.answer = 100, echo
    arguments = bearer(Tokens("token")) if mechanism == "OAUTHBEARER" else server.arguments(mechanism)
    connection = await connect(HOST, server.port, arguments, WAIT_SECONDS)
    count = 0
    async with asyncio.timeout(WAIT_SECONDS):
        while logins(server) < 4:
            count += 1
            assert await asked(connection, b"%d" % count) == b"%d" % count
    assert (connection.end, server.opened) == ("", 1)
    keys = [each.api_key for each in server.asked]
    steps = 2 if mechanism.startswith("SCRAM") else 1
    for at in (at for at, key in enumerate(keys[: -steps - 1]) if key == messages.SASL_HANDSHAKE):
        assert keys[at + 1 : at + 1 + steps] == [messages.SASL_AUTHENTICATE] * steps


@pytest.mark.usefixtures("quick")
async def test_a_renewal_waits_for_the_answer_in_flight_and_goes_before_the_next_request(server: WireServer) -> None:
    """Whoever sends the next one is told when the connection is free."""
    server.session_ms = 50
    unanswered: list[Asked] = []

    async def keep(question: Asked, _: asyncio.StreamWriter) -> None:
        unanswered.append(question)

    server.answer = keep
    connection = await connect(HOST, server.port, bearer(Tokens("token")), WAIT_SECONDS)
    free = asyncio.Event()
    connection.on_free = free.set
    busy: list[bool] = []
    connection.send(QUESTION, 1, [b"what?"], lambda _: busy.append(connection.busy))
    await until(lambda: unanswered and connection._turn is not None)
    assert logins(server) == 1
    server._writers[0].write(frame(unanswered[0].correlation_id, b""))
    await asyncio.wait_for(free.wait(), WAIT_SECONDS)
    assert busy == [True]
    assert not connection.busy
    assert logins(server) == 2


@pytest.mark.usefixtures("quick")
async def test_a_connection_is_used_until_its_login_ends_though_there_is_no_token(
    server: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker hears nothing of it, and a token that comes in time is taken."""
    server.session_ms, server.answer = 600, echo
    tokens = Tokens("token")
    connection = await connect(HOST, server.port, bearer(tokens), WAIT_SECONDS)
    tokens.failure = KafkaUnavailable("the token endpoint is in trouble (503)")
    await until(lambda: "kafka_login_not_renewed" in caplog.messages)
    assert [vars(each)["error"] for each in caplog.records] == [str(tokens.failure)]
    assert await asked(connection) == b"what?"
    tokens.failure = None
    await until(lambda: logins(server) == 2)

    tokens.failure = ConfigurationError("the token endpoint gives no token (401)")
    ended = asyncio.Event()
    connection.on_end = ended.set
    await asyncio.wait_for(ended.wait(), WAIT_SECONDS)
    assert connection.end == f"the login has ended, and was not renewed: {tokens.failure}"
    assert logins(server) == 2


@pytest.mark.usefixtures("quick")
async def test_a_renewal_that_the_broker_refuses_ends_the_connection(server: WireServer) -> None:
    """It would close it itself. Whoever waits for the connection hears of it."""
    server.session_ms = 300
    connection = await opened(server, "SCRAM-SHA-256")
    server.password = WRONG
    ended = asyncio.Event()
    connection.on_end = ended.set
    await asyncio.wait_for(ended.wait(), WAIT_SECONDS)
    assert "the broker refuses the login: Authentication failed" in connection.end
    with pytest.raises(ConnectionEnded):
        await asked(connection)


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_ends_while_it_renews_its_login_leaves_nobody_waiting(server: WireServer) -> None:
    """Neither a question that waits for the renewal, nor the renewal."""
    server.session_ms = 200
    connection = await opened(server, "PLAIN")
    server.mute = True
    await until(lambda: connection.busy)
    waiting = asyncio.create_task(asked(connection))
    await until(lambda: logins(server) == 2)
    for writer in server._writers:
        writer.transport.abort()
    with pytest.raises(ConnectionEnded):
        await waiting
    await until(lambda: not connection._upkeep)


async def test_a_connection_is_kept_alive_by_a_small_question(server: WireServer) -> None:
    """After that it serves as before."""
    server.answer = echo
    connection = await opened(server, "PLAIN")
    free = asyncio.Event()
    connection.on_free = free.set
    before = len(server.asked)
    connection.keep_alive()
    await asyncio.wait_for(free.wait(), WAIT_SECONDS)
    assert [each.api_key for each in server.asked[before:]] == [messages.API_VERSIONS]
    assert await asked(connection) == b"what?"


async def test_a_connection_that_is_dead_is_noticed_when_it_is_kept_alive(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody needs it."""
    monkeypatch.setattr(wire, "_UPKEEP_SECONDS", 0.05)
    connection = await opened(server)
    ended = asyncio.Event()
    connection.on_end = ended.set
    server.mute = True
    connection.keep_alive()
    await asyncio.wait_for(ended.wait(), WAIT_SECONDS)
    assert connection.end == "no answer in time"
