"""FastStream, a publish a report, the bridge's own decoding and encoding: ``faststream_peer.py --port N --bootstrap HOST:PORT``.

Each report is a ``broker.publish`` as FastStream's documentation shows, those of a callback at once (``no_confirm``), and the
callback is answered when all are acknowledged, or 503 after 2.5 s. It imports ``bridge.encode``, so what differs is the server's
and the producer's cost. FastStream adds a header of its own, ``correlation_id``.
"""

import argparse
import asyncio
import logging
import secrets
import time
from itertools import count
from typing import Any

import uvloop
from aiokafka.errors import KafkaError
from faststream import FastStream  # type: ignore[import-not-found]
from faststream.kafka import KafkaBroker  # type: ignore[import-not-found]
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, post

from bridge.encode.records import RecordEncoder

SUCCESS = b'{"code":0,"msg":"Success"}'
REFUSED = b'{"code":503,"msg":"Kafka did not acknowledge"}'
MAX_BYTES = 1 << 20
BATCH_BYTES = 128 << 10
DEADLINE_SECONDS = 2.5


class Publisher:
    """Records to Kafka by FastStream's broker."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._broker = broker
        self._encoder = RecordEncoder(topic, topic + ".quarantine", "/callbacks/chatapp/status", MAX_BYTES)
        self._instance, self._numbers = secrets.token_hex(8), count(1)

    async def publish(self, body: bytes) -> bool:
        """Whether every report of a body is on Kafka."""
        encoded = self._encoder.encode_body(
            body,
            callback_id=f"{self._instance}-{next(self._numbers)}",
            received_at_ms=time.time_ns() // 1_000_000,
            traceparent=None,
        )
        records = encoded.records
        publish = self._broker.publish
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                sent: list[Any] = [
                    await publish(
                        record.value,
                        record.topic,
                        key=record.key,
                        timestamp_ms=record.timestamp_ms,
                        headers={name: value.decode() for name, value in record.headers},
                        no_confirm=True,
                    )
                    for record in records
                ]
                await asyncio.gather(*sent)
        except (TimeoutError, KafkaError):
            return False
        return True


def application(publisher: Publisher) -> Litestar:
    """The one route."""

    @post("/callbacks/chatapp/status", status_code=200)
    async def callback(request: Request[Any, Any, Any]) -> Response[bytes]:
        if not await publisher.publish(await request.body()):
            return Response(REFUSED, status_code=503, media_type="application/json")
        return Response(SUCCESS, media_type="application/json")

    return Litestar([callback], openapi_config=None)


async def serve(options: argparse.Namespace) -> None:
    """Until SIGTERM."""
    broker = KafkaBroker(
        options.bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=options.linger_ms,
        max_batch_size=BATCH_BYTES,
        compression_type=options.compression or None,
        logger=None,
    )
    server = Server(
        application(Publisher(broker, options.topic)),
        address="127.0.0.1",
        port=options.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_access=False,
    )
    serving: list[asyncio.Task[None]] = []

    async def started() -> None:
        serving.append(asyncio.create_task(server.serve()))

    async def stopping() -> None:
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.gather(*serving)

    # FastStream's own application runs the broker and ends by SIGTERM; the server runs beside it.
    await FastStream(broker, logger=None, after_startup=[started], on_shutdown=[stopping]).run()


def main() -> None:
    """Read the options, serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="chatapp.status.v1")
    parser.add_argument("--linger-ms", type=int, default=0)
    parser.add_argument("--compression", default="lz4", help="empty for none")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
