"""Litestar and confluent-kafka, the bridge's own decoding and encoding: ``litestar_peer.py --port N --bootstrap HOST:PORT``.

A callback is answered when librdkafka says that every record of it is acknowledged, and 503 when one can't be had in 2.5 s. It
imports ``bridge.encode``, the compiled part too where that is built, so what differs is the server's and the producer's cost.
"""

import argparse
import asyncio
import logging
import secrets
import signal
import threading
import time
from itertools import count
from typing import Any

import uvloop
from confluent_kafka import Producer
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, post

from bridge.encode.records import RecordEncoder

SUCCESS = b'{"code":0,"msg":"Success"}'
REFUSED = b'{"code":503,"msg":"Kafka did not acknowledge"}'
MAX_BYTES = 1 << 20
POLL_SECONDS = 0.1
DEADLINE_MS = 2500

log = logging.getLogger(__name__)


class Sent:
    """One callback's records on their way; ``future`` says whether all arrived."""

    __slots__ = ("_failed", "_left", "_loop", "future")

    def __init__(self, records: int, loop: asyncio.AbstractEventLoop) -> None:
        self._left, self._failed, self._loop = records, False, loop
        self.future: asyncio.Future[bool] = loop.create_future()

    def arrived(self, error: Any, _message: Any) -> None:
        """The delivery report of one record, in the polling thread; the last one wakes the loop, once a callback."""
        self._failed |= error is not None
        self._left -= 1
        if not self._left:
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(not self._failed)


class Publisher:
    """Records to Kafka, by one librdkafka producer and the thread that takes its delivery reports."""

    def __init__(self, bootstrap: str, topic: str, linger_ms: float, compression: str) -> None:
        settings = {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": compression,
            "linger.ms": linger_ms,
            "delivery.timeout.ms": DEADLINE_MS,
            "queue.buffering.max.messages": 1_000_000,
        }
        self._producer = Producer(settings)
        self._topic = topic
        self._encoder = RecordEncoder(topic, topic + ".quarantine", "/callbacks/chatapp/status", MAX_BYTES)
        self._instance, self._numbers = secrets.token_hex(8), count(1)
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(POLL_SECONDS)

    async def publish(self, body: bytes) -> bool:
        """Whether every report of a body is on Kafka."""
        encoded = self._encoder.encode_body(
            body,
            callback_id=f"{self._instance}-{next(self._numbers)}",
            received_at_ms=time.time_ns() // 1_000_000,
            traceparent=None,
        )
        records = encoded.records
        if not records:
            return True
        sent = Sent(len(records), self._loop)
        produce, arrived = self._producer.produce, sent.arrived
        for index, record in enumerate(records):
            try:
                produce(
                    record.topic,
                    record.value,
                    record.key,
                    on_delivery=arrived,
                    timestamp=record.timestamp_ms,
                    headers=record.headers,
                )
            except BufferError:
                for _ in records[index:]:
                    arrived("queue full", None)
                break
        return await sent.future

    async def close(self) -> None:
        """Deliver what waits."""
        await asyncio.to_thread(self._producer.flush, DEADLINE_MS / 1e3)
        self._stop.set()
        self._thread.join()


def application(publisher: Publisher) -> Litestar:
    """The one route."""

    @post("/callbacks/chatapp/status", status_code=200)
    async def callback(request: Request[Any, Any, Any]) -> Response[bytes]:
        delivered = await publisher.publish(await request.body())
        if not delivered:
            return Response(REFUSED, status_code=503, media_type="application/json")
        return Response(SUCCESS, media_type="application/json")

    return Litestar([callback], openapi_config=None)


async def serve(options: argparse.Namespace) -> None:
    """Until SIGTERM."""
    publisher = Publisher(options.bootstrap, options.topic, options.linger_ms, options.compression)
    server = Server(
        application(publisher),
        address="127.0.0.1",
        port=options.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_access=False,
    )
    serving = asyncio.create_task(server.serve())
    stop_requested = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    await stop_requested.wait()
    server.stop()  # type: ignore[no-untyped-call]
    await serving
    await publisher.close()


def main() -> None:
    """Read the options, serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="chatapp.status.v1")
    parser.add_argument("--linger-ms", type=float, default=0.0)
    parser.add_argument("--compression", default="lz4")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
