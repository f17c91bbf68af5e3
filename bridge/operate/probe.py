"""``chatapp-bridge probe``: does a deployment work, from its front door to Kafka?

One report is pushed to the callback address, with a message id that nobody else has and the status ``BridgeTest``, which
consumers ignore; then the topic is read, from where it ended before the push, until the report stands there.
"""

import asyncio
import socket
import ssl
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from bridge import config
from bridge.config import CALLBACK_PATH
from bridge.errors import ConfigurationError, KafkaUnavailable, ProbeError
from bridge.kafka.connection import reason
from bridge.kafka.wire import CONNECTION_FAILURES
from bridge.network import causes, client_context, why_unresolved
from bridge.operate import console
from bridge.operate.topic_end import Found, TopicEnd

STATUS = "BridgeTest"

_OK = 200
_ANSWER_SECONDS = 3.0
_AGAIN_SECONDS = 0.5
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
        raise ConfigurationError(
            "--url: its secret is not in access.path_secrets; remove it from the URL, or add it to the configuration"
        )
    complete = not secrets or last in secrets
    return f"{parts.scheme}://{parts.netloc}{path}" + ("" if complete else f"/{secrets[0]}")


async def run(settings: config.Settings, url: str, timeout_seconds: float, ca_file: Path | None = None) -> None:
    """Push one report and read it back, saying both; what fails is tried again until the time is over.

    Args:
        settings: for Kafka and the topic's name.
        url: the callback address, with its secret.
        timeout_seconds: for all of it.
        ca_file: authorities (PEM) to trust for https; else the system's.

    Raises:
        ConfigurationError: ``ca_file`` or what Kafka needs can't be read; ``timeout_seconds`` is no time.
        ProbeError: it did not come through; how far it came and where to look.
    """
    if not timeout_seconds > 0:
        raise ConfigurationError(f"--timeout: {timeout_seconds:g} must be greater than 0")
    try:
        tls = client_context(str(ca_file or ""))
    except OSError as error:
        raise ConfigurationError(f"--ca-file: {ca_file} can't be read as certificates: {error}") from error
    probe = _Probe(settings, url, tls)
    try:
        async with asyncio.timeout(timeout_seconds):
            await probe.run()
    except TimeoutError as error:
        raise ProbeError(f"after {timeout_seconds:g} s {probe.stands}") from error


class _Probe:
    """One report on its way through; ``stands`` says in words how far it came."""

    def __init__(self, settings: config.Settings, url: str, tls: ssl.SSLContext) -> None:
        self._kafka = settings.kafka
        self._topic = settings.topics.status
        self._url = url
        self._tls = tls
        self._message_id = f"bridge-probe-{uuid.uuid4().hex}"
        self.stands = f"{self._topic} could not be read: no answer from Kafka"

    async def run(self) -> None:
        async with TopicEnd(self._kafka, self._topic) as topic:
            try:
                await topic.find_end()
            except KafkaUnavailable as error:
                servers = ", ".join(self._kafka.bootstrap_servers)
                raise ProbeError(
                    f"no Kafka answers at {servers}; is kafka.bootstrap_servers right? ({error})"
                ) from error
            except CONNECTION_FAILURES as error:
                if isinstance(error, ProbeError | ConfigurationError):
                    raise
                raise ProbeError(f"{self._topic} could not be read: {reason(error)}") from error
            began = await self._push()
            console.show(f"pushed {self._message_id}: answered {_OK} in {_ms_since(began):.0f} ms")
            self.stands = (
                f"the report was answered {_OK} and is not on {self._topic}: it waits in the spool, or is on another topic or "
                "cluster; see the bridge's log and `chatapp-bridge spool show` there"
            )
            found = await self._find(topic)
            console.show(
                f"read back from {self._topic}, partition {found.partition}, offset {found.offset}, "
                f"{_ms_since(began):.0f} ms after the push"
            )

    async def _push(self) -> float:
        """Push the same bytes until they are answered 200; when the attempt that was answered so began."""
        report = {"MessageId": self._message_id, "Status": STATUS, "Timestamp": time.time_ns() // 1_000_000}
        body = msgspec.json.encode([report])
        # A proxy of the environment would be given the callback address with its secret.
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, verify=self._tls, trust_env=False) as client:
            while True:
                began = time.monotonic()
                try:
                    answer = await client.post(self._url, content=body, headers={"content-type": "application/json"})
                except httpx.HTTPError as error:
                    became = _why(error)
                else:
                    if answer.status_code == _OK:
                        return began
                    became = _MEANINGS.get(answer.status_code, f"{answer.status_code}; what stands before the bridge?")
                self.stands = f"the callback was not answered {_OK}, but {became}"
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _find(self, topic: TopicEnd) -> Found:
        """Read on until a record has the key."""
        stands, key = self.stands, self._message_id.encode()
        while True:
            for found in await topic.read():
                if found.key == key:
                    return found
            self.stands = f"{stands}; {self._topic} can't be read: {topic.last_error}" if topic.last_error else stands


def _why(error: httpx.HTTPError) -> str:
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return why_unresolved(error.request.url.host, cause, "--url")
    if isinstance(error, httpx.ConnectTimeout):
        host = error.request.url.host
        return f"there was no connection within {_ANSWER_SECONDS:g} s: DNS does not answer for {host}, or nothing does there"
    return f"{type(error).__name__}: {error}"


def _ms_since(began: float) -> float:
    return 1000 * (time.monotonic() - began)
