"""A broker's end of one connection after another, by a script: frames, logins, and all that is none.

    async with WireServer() as server:
        server.script = [said(b"..."), CLOSE]
        connection = await connect("127.0.0.1", server.port, server.arguments, 5.0)

Without more it offers its requests, takes the logins it knows, and answers nothing else.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

from bridge.kafka import messages

USER, PASSWORD, WRONG = "kim", "pässword", "wrong"
_OFFERED = {messages.PRODUCE: (0, 9), messages.SASL_HANDSHAKE: (0, 1), messages.SASL_AUTHENTICATE: (0, 2)}
_REFUSED, _NOT_OFFERED = 58, 33


class Asked(NamedTuple):
    """A request as it came."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str
    body: bytes


def frame(correlation_id: int, body: bytes) -> bytes:
    """An answer on the wire."""
    return struct.pack(">ii", 4 + len(body), correlation_id) + body


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class WireServer:
    """See the module's head.

    Args:
        context: For TLS; without it there is none.

    Attributes:
        answer: Called with what is asked beyond the beginning; closes the connection where it wants.
        asked: All requests, in their order, over all connections.
        opened: Connections so far.
        ended: Connections whose other end is gone.
        mechanisms: What logins may be.
        session_ms: What a login is good for.
        wrong_proof: Whether the server proves itself wrongly in SCRAM.
        mute: Whether nothing is answered.
        password: The right one.
        tokens: The first message of each login by OAUTHBEARER.
        takes_tokens: Whether any token is right.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.answer: Answer | None = None
        self.asked: list[Asked] = []
        self.opened = self.ended = 0
        self.mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
        self.password = PASSWORD
        self.tokens: list[str] = []
        self.takes_tokens = True
        self.offered = dict(_OFFERED)
        self.session_ms = 0
        self.wrong_proof = self.mute = False
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    @staticmethod
    def arguments(mechanism: str = "", password: str = PASSWORD) -> dict[str, Any]:
        """What ``client_arguments`` would make for it."""
        if not mechanism:
            return {"client_id": "tests", "security_protocol": "PLAINTEXT"}
        return {
            "client_id": "tests",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": USER,
            "sasl_plain_password": password,
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.opened += 1
        steps = _Login(self)
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                asked = _read(await reader.readexactly(size))
                self.asked.append(asked)
                if self.mute:
                    continue
                known = self._of_the_beginning(asked, steps)
                if known is not None:
                    writer.write(frame(asked.correlation_id, known))
                elif self.answer is not None:
                    await self.answer(asked, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended += 1
            writer.close()

    def _of_the_beginning(self, asked: Asked, steps: "_Login") -> bytes | None:
        if asked.api_key == messages.API_VERSIONS:
            offered = b"".join(struct.pack(">hhh", key, *both) for key, both in self.offered.items())
            return struct.pack(">hi", 0, len(self.offered)) + offered
        if asked.api_key == messages.SASL_HANDSHAKE:
            (length,) = struct.unpack_from(">h", asked.body)
            steps.mechanism = asked.body[2 : 2 + length].decode()
            steps.begin()
            code = 0 if steps.mechanism in self.mechanisms else _NOT_OFFERED
            return struct.pack(">hi", code, len(self.mechanisms)) + b"".join(map(messages.string, self.mechanisms))
        if asked.api_key == messages.SASL_AUTHENTICATE:
            said = steps.step(asked.body[4:])
            code, challenge = (0, said) if said is not None else (_REFUSED, b"")
            message = b"\xff\xff" if said is not None else messages.string("Authentication failed: Invalid credentials")
            life = struct.pack(">q", self.session_ms) if asked.version else b""
            return struct.pack(">h", code) + message + struct.pack(">i", len(challenge)) + challenge + life
        return None


class _Login:
    """The server's side of PLAIN and SCRAM; ``step`` gives None for a refusal."""

    def __init__(self, server: WireServer) -> None:
        self._server = server
        self.mechanism = ""
        self._said = ""

    def begin(self) -> None:
        """Forget a login before."""
        self._said = ""

    def step(self, payload: bytes) -> bytes | None:
        if self.mechanism == "PLAIN":
            return b"" if payload == f"{USER}\0{USER}\0{self._server.password}".encode() else None
        if self.mechanism == "OAUTHBEARER":
            if payload == b"\x01":
                return None
            self._server.tokens.append(payload.decode())
            return b"" if self._server.takes_tokens else b'{"status":"invalid_token"}'
        text = payload.decode()
        if not self._said:
            bare = text.removeprefix("n,,")
            nonce = dict(pair.split("=", 1) for pair in bare.split(","))["r"]
            first = f"r={nonce}server,s={base64.b64encode(b'salt').decode()},i=4096"
            self._said = f"{bare},{first}"
            return first.encode()
        without_proof, proof = text.rsplit(",p=", 1)
        return self._judge(f"{self._said},{without_proof}".encode(), base64.b64decode(proof))

    def _judge(self, spoken: bytes, proof: bytes) -> bytes | None:
        digest = "sha256" if "256" in self.mechanism else "sha512"
        salted = hashlib.pbkdf2_hmac(digest, self._server.password.encode(), b"salt", 4096)
        client_key = hmac.digest(salted, b"Client Key", digest)
        signature = hmac.digest(hashlib.new(digest, client_key).digest(), spoken, digest)
        if bytes(a ^ b for a, b in zip(client_key, signature, strict=True)) != proof:
            return None
        key = hmac.digest(salted, b"Server Key", digest)
        mine = hmac.digest(key, b"something else" if self._server.wrong_proof else spoken, digest)
        return b"v=" + base64.b64encode(mine)


def _read(request: bytes) -> Asked:
    key, version, correlation_id, length = struct.unpack_from(">hhih", request)
    return Asked(key, version, correlation_id, request[10 : 10 + length].decode(), request[10 + length :])
