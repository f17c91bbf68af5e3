"""Why no bootstrap server can be reached, in words, for each of them."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from bridge.config import Kafka, load
from bridge.errors import ConfigurationError, TopicsError
from bridge.kafka import connection
from bridge.kafka.connection import why_unreachable
from bridge.lab.embedded.ports import HOST, Port
from bridge.topics.inspect import admin_client

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
ANSWERS = {
    API_VERSIONS: struct.pack(">hihhh", 0, 1, SASL_AUTHENTICATE, 0, 1),
    SASL_HANDSHAKE: struct.pack(">hi", 0, 0),
}


def settings(*servers: str, **keys: str) -> Kafka:
    """``[kafka]`` with these servers."""
    assignments = [f"kafka.bootstrap_servers={','.join(servers)}", *(f"kafka.{key}={keys[key]}" for key in keys)]
    return load(environment={}, assignments=assignments).settings.kafka


@contextlib.asynccontextmanager
async def broker(*, answers: bool = True, hangs_up: bool = False) -> AsyncIterator[str]:
    """The address of one that answers how a connection begins, or is mute, or hangs up after the first request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                if hangs_up:
                    break
                if answers:
                    body = ANSWERS[int.from_bytes(request[:2], "big")]
                    writer.write(struct.pack(">i", 4 + len(body)) + request[4:8] + body)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_each_bootstrap_server_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the configuration, all of them within the time of one; one that answers by then is said too."""
    monkeypatch.setattr(connection, "_WHY_SECONDS", 0.3)
    nobody = Port()
    try:
        async with broker(answers=False) as mute, broker(answers=False, hangs_up=True) as other, broker() as well:
            said = await why_unreachable(settings(mute, nobody.address, other, well))
    finally:
        nobody.release()

    (first, second, third, fourth) = said.split("; 127")
    assert first == f"{mute}: no answer in time"
    assert f"127{second}".startswith(f"{nobody.address}: ")
    assert "onnect" in second
    assert f"127{third}" == f"{other}: the broker hung up; look at kafka.security_protocol and kafka.ssl_certfile"
    assert f"127{fourth}" == f"{well}: a connection can be made now; try again"


async def test_a_name_without_an_address_is_a_matter_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether DNS says that there is none, or says nothing, as where a policy drops what is sent to it."""
    monkeypatch.setattr(connection, "_WHY_SECONDS", 0.3)
    loop = asyncio.get_running_loop()

    async def asked(host: str, _port: int, **_: object) -> list[tuple[object, ...]]:
        if host == "mute":
            await asyncio.Event().wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(loop, "getaddrinfo", asked)
    said = await why_unreachable(settings("nowhere:9092", "mute:9092"))
    keys = "kafka.bootstrap_servers, advertised.listeners and DNS (in the chart: networkPolicy.dnsPorts)"
    assert said == (
        f"nowhere:9092: DNS gives no address for this name (Name or service not known); look at {keys}; "
        f"mute:9092: DNS gives no address for this name (no answer in time); look at {keys}"
    )


async def test_a_name_of_which_one_address_is_dead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of the commands try the first address alone, until their time is over."""
    monkeypatch.setattr(connection, "_WHY_SECONDS", 1.0)

    async def found(_host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in (black_hole[0], HOST)]

    async with broker() as well:
        port = int(well.rpartition(":")[2])
        with contextlib.ExitStack() as sockets:
            listener = sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.2", port))
            listener.listen(0)
            black_hole = listener.getsockname()
            for _ in range(4):  # its queue is full then
                each = sockets.enter_context(socket.socket())
                each.setblocking(False)
                each.connect_ex(black_hole)
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
            said = await why_unreachable(settings(f"kafka.test:{port}"))

    words = "one of its 2 addresses takes a connection now; see that each of them can be reached, and try again"
    assert said == f"kafka.test:{port}: {words}"


async def test_a_secret_that_cannot_be_read_is_no_reason_but_an_error() -> None:
    """Its key is named, and exit code 2 is for that."""
    keys = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "/none"}

    async with broker() as one:
        kafka = settings(one, **keys)
        with pytest.raises(ConfigurationError, match="sasl_oauth_token_file: can't read /none"):
            await why_unreachable(kafka)


async def test_the_commands_for_topics_say_the_reason() -> None:
    """The client that they use, aiokafka's, does not."""
    async with broker(answers=False, hangs_up=True) as one:
        with pytest.raises(TopicsError) as refused:
            async with admin_client(settings(one)):
                pytest.fail("it started")

    assert str(refused.value) == (
        f"no Kafka answers at {one}; is kafka.bootstrap_servers right? "
        f"({one}: the broker hung up; look at kafka.security_protocol and kafka.ssl_certfile)"
    )
