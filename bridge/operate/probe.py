"""``chatapp-bridge probe``: does a deployment work, from its front door to Kafka?

One report is pushed to the callback address, with a message id that nobody else has and the status ``BridgeTest``, which
consumers ignore; then the topic is read, from where it ended before the push, until the report stands there.
"""

import asyncio
import contextlib
import ssl
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from bridge import config
from bridge.errors import ConfigurationError, ProbeError
from bridge.kafka.connection import client_arguments
from bridge.operate import console
from bridge.receive.app import CALLBACK_PATH
from bridge.topics.inspect import admin_client, partitions_of

STATUS = "BridgeTest"

_OK = 200
_ANSWER_SECONDS = 3.0
_AGAIN_SECONDS = 0.5
_POLL_MS = 200
_CLOSE_SECONDS = 2.0
_MEANINGS = {
    404: "404: the secret is not in force there, or the path is another",
    503: "503: nothing could be stored durably in time; see /readyz and the log there",
}


def callback_url(settings: config.Settings, base: str | None) -> str:
    """The address to push to.

    Args:
        settings: have the path's secret, of which the first is taken, and the port where ``base`` is None.
        base: ``http://`` or ``https://``, a host, and at most a port and the path, with one of the secrets or without.

    Raises:
        ConfigurationError: ``base`` is something else, or no secret can be used.
    """
    try:
        parts = urlsplit(base or f"http://localhost:{settings.server.port}")
        usable = parts.scheme in {"http", "https"} and parts.hostname and not (parts.query or parts.fragment)
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("--url: it has to be http:// or https://, a host, and at most a port and a path")
    path = parts.path.rstrip("/") or CALLBACK_PATH
    secrets = config.path_secrets(settings.access)
    before, _, last = path.rpartition("/")
    if before.endswith(CALLBACK_PATH) and last not in secrets:
        raise ConfigurationError("--url: its secret is none of access.path_secrets; leave it out, or add it there")
    complete = not secrets or last in secrets
    return f"{parts.scheme}://{parts.netloc}{path}" + ("" if complete else f"/{secrets[0]}")


async def run(settings: config.Settings, url: str, timeout_seconds: float, ca_file: Path | None = None) -> None:
    """Push one report and read it back, saying both; what fails is tried again until the time is over.

    Args:
        settings: for Kafka and the topic's name.
        url: the callback address, with its secret.
        timeout_seconds: for all of it.
        ca_file: authorities (PEM) to trust for https; else certifi's.

    Raises:
        ConfigurationError: ``ca_file`` or what Kafka needs can't be read; ``timeout_seconds`` is no time.
        ProbeError, TopicsError: it did not come through; how far it came and where to look.
    """
    if not timeout_seconds > 0:
        raise ConfigurationError(f"--timeout: {timeout_seconds:g} is no time; give more than 0 seconds")
    try:
        tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
    except OSError as error:
        raise ConfigurationError(f"--ca-file: {ca_file} can't be read as certificates: {error}") from error
    probe = _Probe(settings, url, tls)
    try:
        async with asyncio.timeout(timeout_seconds):
            await probe.run()
    except TimeoutError as error:
        raise ProbeError(f"after {timeout_seconds:g} s {probe.stands}") from error
    except KafkaError as error:
        raise ProbeError(f"{probe.stands}; Kafka said {error!r}") from error


class _Probe:
    """One report on its way through; ``stands`` says in words how far it came."""

    def __init__(self, settings: config.Settings, url: str, tls: ssl.SSLContext | None) -> None:
        self._kafka = settings.kafka
        self._topic = settings.topics.status
        self._url = url
        self._tls = tls
        self._message_id = f"bridge-probe-{uuid.uuid4().hex}"
        self.stands = f"{self._topic} could not be read: no answer from Kafka"

    async def run(self) -> None:
        consumer = AIOKafkaConsumer(
            enable_auto_commit=False, fetch_max_wait_ms=_POLL_MS, **client_arguments(self._kafka)
        )
        places = await self._places()
        await consumer.start()
        try:
            consumer.assign(places)
            for place, end in (await consumer.end_offsets(places)).items():
                consumer.seek(place, end)
            began = await self._push()
            console.show(f"pushed {self._message_id}: answered {_OK} in {_ms_since(began):.0f} ms")
            self.stands = (
                f"the report was answered {_OK} and is not on {self._topic}: it waits in the spool, or is on another topic or "
                "cluster; see the bridge's log and `chatapp-bridge spool show` there"
            )
            partition, offset = await self._find(consumer)
            console.show(
                f"read back from {self._topic}, partition {partition}, offset {offset}, {_ms_since(began):.0f} ms after the push"
            )
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await consumer.stop()

    async def _places(self) -> list[TopicPartition]:
        """Every partition of the topic, which must be there: the consumer's own look-up may create it."""
        async with admin_client(self._kafka) as admin:
            there = await partitions_of(admin, [self._topic])
        if self._topic not in there:
            raise ProbeError(
                f"there is no topic {self._topic}, or this client may not see it: `chatapp-bridge topics apply` makes it"
            )
        return [TopicPartition(self._topic, each["partition"]) for each in there[self._topic]]

    async def _push(self) -> float:
        """Push the same bytes until they are answered 200; when the attempt that was answered so began."""
        report = {"MessageId": self._message_id, "Status": STATUS, "Timestamp": time.time_ns() // 1_000_000}
        body = msgspec.json.encode([report])
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, verify=self._tls or True) as client:
            while True:
                began = time.monotonic()
                try:
                    answer = await client.post(self._url, content=body, headers={"content-type": "application/json"})
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    why = str(error) or f"no answer within {_ANSWER_SECONDS:g} s"
                    became = f"no connection could be made ({why}); look at --url and DNS"
                except httpx.HTTPError as error:
                    became = f"{type(error).__name__}: {error}"
                else:
                    if answer.status_code == _OK:
                        return began
                    became = _MEANINGS.get(answer.status_code, f"{answer.status_code}; what stands before the bridge?")
                self.stands = f"the callback was not answered {_OK}, but {became}"
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _find(self, consumer: AIOKafkaConsumer) -> tuple[int, int]:
        """Read on until a record has the key; its partition and offset."""
        key = self._message_id.encode()
        while True:
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    if record.key == key:
                        return record.partition, record.offset


def _ms_since(began: float) -> float:
    return 1000 * (time.monotonic() - began)
