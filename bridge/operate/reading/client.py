"""confluent-kafka for those that read back: its clients, configured from ``[kafka]``, and calls that may not come back.

Nothing here joins a consumer group: partitions are assigned, so that a reader disturbs nobody and is not disturbed.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, Final, TypeVar, cast

from confluent_kafka import KafkaException

from bridge.config import Kafka
from bridge.errors import ConfigurationError
from bridge.kafka.librdkafka import librdkafka_arguments
from bridge.threads import in_daemon_thread

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())
log.propagate = False

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 60.0
"""How long brokers may be away, unless an option says otherwise."""
REQUEST_SECONDS: Final = 10.0
"""How long one request may take."""
# What a consumer holds besides the batch in hand: fetched and not yet given; and what one answer may hold, compressed.
_QUEUED_KIB: Final = 16_384
_FETCH_BYTES: Final = 4 << 20
_PARTITION_FETCH_BYTES: Final = 1 << 20
# The library's own, a second, would leave a full queue to run dry.
_FETCH_AGAIN_MS: Final = 10
# A client that nobody calls is polled this often.
_POLL_SECONDS: Final = 1.0


def client_configuration(kafka: Kafka) -> dict[str, Any]:
    """The library's configuration for connecting, of any kind of client.

    Raises:
        ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
    """
    return {
        **librdkafka_arguments(kafka),
        "reconnect.backoff.max.ms": 2_000,
        # Its own lines on standard error would tear a progress bar; what matters comes as an error as well.
        "logger": log,
        "log_level": 3,
    }


def make(kind: Callable[[dict[str, Any]], T], configuration: dict[str, Any]) -> T:
    """A client of that kind.

    Raises:
        ConfigurationError: the library refuses the configuration, or a file can't be used: certificates, keys, a token.
    """
    token = configuration.get("oauth_cb")
    if token is not None:
        token("")  # the library says of its failure only that there was one
    try:
        client = kind(configuration)
        if token is not None:
            # Only this asks for the first token; until it is there nothing connects, and no question brings it.
            cast("Any", client).poll(0)
    except KafkaException as error:
        keys = "kafka.ssl_cafile, kafka.ssl_certfile, kafka.ssl_keyfile, kafka.ssl_password"
        raise ConfigurationError(
            f"[kafka] can't be used: {error.args[0].str()}; if that is about certificates, look at {keys}"
        ) from error
    return client


def consumer_configuration(configuration: Mapping[str, Any], group: str | None) -> dict[str, Any]:
    """The configuration of a consumer that reads what is committed, made of that for connecting."""
    return {
        **configuration,
        # librdkafka wants one even where none is used.
        "group.id": group or f"{configuration['client.id']}-reader",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "enable.partition.eof": True,
        "check.crcs": True,
        "queued.max.messages.kbytes": _QUEUED_KIB,
        "queued.min.messages": 100_000,
        "fetch.queue.backoff.ms": _FETCH_AGAIN_MS,
        "fetch.max.bytes": _FETCH_BYTES,
        "max.partition.fetch.bytes": _PARTITION_FETCH_BYTES,
        "receive.message.max.bytes": 100_000_000,
    }


class TokenKeeper:
    """Polls clients in a thread, so that they get the next token in time.

    A client asks for a token only when it is polled. Between two questions, or two transactions, more time may pass than
    a token lives.

    Args:
        configuration: the clients'; without tokens there is no thread.
        clients: of the library; a consumer among them has no partitions.
    """

    def __init__(self, configuration: Mapping[str, Any], *clients: Any) -> None:
        self._clients = clients
        self._stopped = threading.Event()
        self._polling = in_daemon_thread(self._poll, "librdkafka-tokens") if "oauth_cb" in configuration else None

    def _poll(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            for client in self._clients:
                client.poll(0)

    def stop(self) -> None:
        """Poll no more; before the clients are closed."""
        self._stopped.set()
        if self._polling is not None:
            futures.wait([self._polling], REQUEST_SECONDS)


class Stuck(Exception):  # noqa: N818 - what it is
    """A call of the library did not come back."""


def bounded(call: Callable[[], T], seconds: float) -> T:
    """Make a call that has a time limit of its own, but may not keep it.

    A call that needs a broker which left the cluster may wait for it until a connection is idle for too long: ten minutes. That
    was seen with librdkafka from 2.10 on, which is why pyproject.toml keeps to an older one.

    Raises:
        Stuck: it is not back; its thread ends with the process.
    """
    outcome = in_daemon_thread(call, "librdkafka")
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise
        raise Stuck from None
