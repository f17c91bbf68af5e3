"""Questions and orders to a cluster about its topics, for the commands and the running bridge's look at its topics.

They go over the connections of ``wire.py``, as the records do: each address of a name is tried, and nothing asks for topics
that are not named. aiokafka's admin client tries the first address alone, and its own refresh may ask for all topics.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.conn import collect_hosts
from aiokafka.protocol.api import Request
from aiokafka.protocol.metadata import MetadataRequest

from bridge.config import Kafka
from bridge.errors import ConfigurationError, KafkaUnavailable
from bridge.kafka.connection import client_arguments, reason
from bridge.kafka.wire import CONNECTION_FAILURES, Connection, connect

ANSWER_MS: Final = 15_000
"""How long an order may take; longer than an append: a cluster creates a topic in its own time."""
_CONNECT_SECONDS: Final = 8.0
# A server that does not answer must not hold up the next.
_NOT_THE_LAST_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = ANSWER_MS / 1000 + 5.0
_AGAIN_SECONDS: Final = 0.2
_NOT_CONTROLLER: Final = 41


class Admin:
    """An open connection to any broker; made by ``connected``."""

    def __init__(self, settings: Kafka, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection

    async def metadata(self, topics: Sequence[str]) -> Any:
        """The cluster's brokers, and these topics as it describes them; no topic is created.

        Raises:
            KafkaUnavailable, KafkaError, OSError, TimeoutError: it was not answered; ``connection.reason`` says why.
        """
        return await self.ask(MetadataRequest(list(topics), allow_auto_topic_creation=False))

    async def ask(self, request: Request[Any]) -> Any:
        """Send one of aiokafka's requests to the broker that this is connected to.

        Raises:
            KafkaUnavailable, KafkaError, OSError, TimeoutError: as ``metadata``.
        """
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self._connection.ask_aiokafka(request)

    async def order(self, request: Request[Any]) -> Any:
        """Send one of aiokafka's requests to the controller: brokers of Kafka 2 do not pass an order on.

        While the controller moves, brokers name none, or one that is gone or not the controller any more: it is asked for
        again until the time is over. An order whose answer was lost is not sent again.

        Raises:
            KafkaUnavailable, KafkaError, OSError, TimeoutError: as ``metadata``.
            ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
        """
        unreachable: KafkaUnavailable | None = None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while True:
                    found = await self._controller()
                    unreachable = found if isinstance(found, KafkaUnavailable) else None
                    if not isinstance(found, KafkaUnavailable):
                        answer = await _asked_once(found, request)
                        if _NOT_CONTROLLER not in _codes(answer):
                            return answer
                    await asyncio.sleep(_AGAIN_SECONDS)
        except TimeoutError as error:
            raise unreachable or error from error

    async def _controller(self) -> Connection | KafkaUnavailable:
        """A connection to the controller, or why there is none now."""
        cluster = await self.metadata([])
        addresses = {node: (host, port) for node, host, port, *_ in cluster.brokers}
        if cluster.controller_id not in addresses:
            return KafkaUnavailable("the cluster names no controller now")
        host, port = addresses[cluster.controller_id]
        try:
            return await connect(host, port, client_arguments(self._settings), _CONNECT_SECONDS)
        except ConfigurationError:
            raise
        except CONNECTION_FAILURES as error:
            return KafkaUnavailable(f"broker {cluster.controller_id}, advertised as {host}:{port}: {reason(error)}")


async def _asked_once(connection: Connection, request: Request[Any]) -> Any:
    try:
        return await connection.ask_aiokafka(request)
    finally:
        connection.abort("not used any more")


@asynccontextmanager
async def connected(settings: Kafka) -> AsyncIterator[Admin]:
    """Connect to the first bootstrap server that takes a connection.

    Raises:
        KafkaUnavailable: none does; says of each why: ``host:port: why; host:port: why``.
        ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
    """
    arguments, why = client_arguments(settings), []
    servers = collect_hosts(settings.bootstrap_servers, randomize=False)
    for number, (host, port, _) in enumerate(servers, 1):
        seconds = _CONNECT_SECONDS if number == len(servers) else _NOT_THE_LAST_SECONDS
        try:
            connection = await connect(host, port, arguments, seconds)
        except ConfigurationError:
            raise
        except CONNECTION_FAILURES as error:
            why.append(f"{host}:{port}: {reason(error)}")
            continue
        try:
            yield Admin(settings, connection)
        finally:
            connection.abort("not used any more")
        return
    raise KafkaUnavailable("; ".join(why))


def _codes(answer: Any) -> Iterable[int]:
    errors: Any = getattr(answer, "topic_errors", None) or getattr(answer, "topic_error_codes", None)
    return {code for _, code, *_ in errors or ()}
