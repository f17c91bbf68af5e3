"""Why no bootstrap server can be reached, in words, for each of them."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest
from support.black_hole import BlackHole, resolve_to

from bridge.config import Kafka, load
from bridge.errors import ConfigurationError, KafkaUnavailable, TopicsError
from bridge.kafka import admin
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
    """In the order of the configuration."""
    monkeypatch.setattr(admin, "_CONNECT_SECONDS", 0.3)
    nobody = Port()
    try:
        async with broker(answers=False) as mute, broker(answers=False, hangs_up=True) as other:
            with pytest.raises(KafkaUnavailable) as failed:
                async with admin.connected(settings(mute, nobody.address, other)):
                    pytest.fail("it connected")
    finally:
        nobody.release()

    (first, second, third) = str(failed.value).split("; 127")
    assert first == f"{mute}: no answer in time"
    assert f"127{second}".startswith(f"{nobody.address}: ")
    assert "onnect" in second
    assert f"127{third}" == f"{other}: the broker hung up; look at kafka.security_protocol and kafka.ssl_certfile"


async def test_the_first_address_of_a_name_may_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and the look at the topics connect to the second one."""
    monkeypatch.setattr(admin, "_CONNECT_SECONDS", 1.0)
    async with broker() as well:
        with BlackHole() as hole:
            resolve_to(monkeypatch, hole, (HOST, int(well.rpartition(":")[2])))
            async with admin_client(settings("kafka.test:9092")):
                pass


async def test_a_secret_that_cannot_be_read_is_no_reason_but_an_error() -> None:
    """Its key is named, and exit code 2 is for that."""
    keys = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "/none"}

    async with broker() as one:
        kafka = settings(one, **keys)
        with pytest.raises(ConfigurationError, match="sasl_oauth_token_file: can't read /none"):
            async with admin.connected(kafka):
                pytest.fail("it connected")


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
