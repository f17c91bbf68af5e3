"""Orders go to the controller, wherever it moves."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka.protocol.admin import CreateTopicsRequest, CreateTopicsResponse_v3
from aiokafka.protocol.metadata import MetadataResponse_v5
from support.wire_server import Asked, WireServer, frame

from bridge.config import Kafka, load
from bridge.errors import ConnectionEnded, KafkaUnavailable
from bridge.kafka import admin
from bridge.lab.embedded.ports import HOST, Port

METADATA, CREATE_TOPICS = 3, 19
NOBODY, GONE, HERE = -1, 1, 0
NOT_CONTROLLER = 41
ORDER = CreateTopicsRequest([("topic", 1, 1, [], [])], 1000, False)


class Cluster:
    """A broker, which says in turn who the controller is, and another that is gone."""

    def __init__(self, server: WireServer, gone: int) -> None:
        self._server, self._gone = server, gone
        #: the last one counts from then on
        self.controllers = [HERE]
        self.codes: list[int | None] = [0]
        server.offered = {METADATA: (5, 5), CREATE_TOPICS: (3, 3)}
        server.answer = self._answer

    @property
    def kafka(self) -> Kafka:
        """``[kafka]`` for it."""
        return load(environment={}, assignments=[f"kafka.bootstrap_servers={HOST}:{self._server.port}"]).settings.kafka

    @property
    def orders(self) -> int:
        """How many came."""
        return sum(asked.api_key == CREATE_TOPICS for asked in self._server.asked)

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.api_key == METADATA:
            controller = self.controllers.pop(0) if len(self.controllers) > 1 else self.controllers[0]
            brokers = [(HERE, HOST, self._server.port, None), (GONE, HOST, self._gone, None)]
            writer.write(frame(asked.correlation_id, MetadataResponse_v5(0, brokers, "id", controller, []).encode()))
            return
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code is None:
            writer.close()
            return
        writer.write(frame(asked.correlation_id, CreateTopicsResponse_v3(0, [("topic", code, None)]).encode()))


@pytest.fixture
def gone() -> Iterator[int]:
    """A port at which nobody listens."""
    port = Port()
    yield port.number
    port.release()


@pytest.fixture
async def cluster(gone: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """One that is asked again at once."""
    monkeypatch.setattr(admin, "_AGAIN_SECONDS", 0.001)
    async with WireServer() as server:
        yield Cluster(server, gone)


async def test_an_order_follows_the_controller(cluster: Cluster) -> None:
    """While there is none, while brokers still name one that is gone, and after one that is not the controller any more."""
    cluster.controllers, cluster.codes = [NOBODY, GONE, HERE], [NOT_CONTROLLER, 0]
    async with admin.connected(cluster.kafka) as client:
        answer = await client.order(ORDER)
    assert answer.topic_errors == [("topic", 0, None)]
    assert cluster.orders == 2


@pytest.mark.parametrize(
    ("controller", "why"), [(NOBODY, "names no controller"), (GONE, f"broker 1, advertised as {HOST}:")]
)
async def test_without_a_controller_an_order_ends_in_time_and_says_why(
    cluster: Cluster, controller: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not sent."""
    monkeypatch.setattr(admin, "_ANSWER_SECONDS", 1.0)
    cluster.controllers = [controller]
    async with admin.connected(cluster.kafka) as client:
        with pytest.raises(KafkaUnavailable, match=why):
            await client.order(ORDER)
    assert cluster.orders == 0


async def test_an_order_whose_answer_was_lost_is_not_sent_again(cluster: Cluster) -> None:
    """It may have been done."""
    cluster.codes = [None]
    async with admin.connected(cluster.kafka) as client:
        with pytest.raises(ConnectionEnded):
            await client.order(ORDER)
    assert cluster.orders == 1


async def test_a_bootstrap_server_that_does_not_answer_holds_up_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection and says nothing; the last server alone has all the time."""
    monkeypatch.setattr(admin, "_NOT_THE_LAST_SECONDS", 0.05)
    monkeypatch.setattr(admin, "_CONNECT_SECONDS", 60.0)
    mute = await asyncio.start_server(lambda _reader, _writer: None, HOST, 0)
    first = "{}:{}".format(*mute.sockets[0].getsockname())
    servers = ",".join([first, *cluster.kafka.bootstrap_servers])
    kafka = load(environment={}, assignments=[f"kafka.bootstrap_servers={servers}"]).settings.kafka
    async with asyncio.timeout(20), admin.connected(kafka) as connection:
        assert (await connection.metadata([])).controller_id == HERE
    mute.close()
