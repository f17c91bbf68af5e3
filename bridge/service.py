"""One process: the delivery, the public listener, the admin listener, and an orderly end."""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

from bridge.config import Settings, path_secrets
from bridge.delivery.delivery import Delivery
from bridge.encode.records import QUARANTINE_HEAD_BYTES
from bridge.errors import ConfigurationError, ServerError, SpoolError
from bridge.health.app import admin_app
from bridge.health.metrics import MetricsCollector
from bridge.health.probes import Probes
from bridge.health.verdict import HealthReport
from bridge.kafka.connection import client_arguments
from bridge.observe.metrics import Metrics
from bridge.receive.access import Access, SecretsWatcher
from bridge.receive.app import CALLBACK_PATH, public_app
from bridge.receive.callbacks import Callbacks
from bridge.receive.stats import CallbackStats
from bridge.registry.ids import RegisteredIds
from bridge.report.catalogue import load_catalogue
from bridge.threads import in_daemon_thread
from bridge.topics.check import TopicsCheck
from bridge.topics.spec import declared_topics

log = structlog.get_logger(__name__)

# Connections held at once; each idle one costs a few KiB.
_CONNECTIONS = 65_536
# Objects that may be made, beyond those that went, until the garbage collector looks.
_COLLECT_EVERY = 20_000
# Shares of server.shutdown_seconds by which requests are answered, the delivery has stopped, and the listeners have ended; what
# is left then is for the interpreter's own end.
_ANSWERED_SHARE, _DELIVERED_SHARE, _ENDED_SHARE = 0.3, 0.85, 0.9
# For answers on their way to slow clients, when all callbacks are answered; who has sent half a request is not waited for longer.
_LINGER_SECONDS = 1.0


class Service:
    """The bridge, running.

    Args:
        settings: the whole configuration.

    Raises:
        ConfigurationError: the secrets, or the file of error codes, can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._access = Access(path_secrets(settings.access))
        self._catalogue = load_catalogue(settings.events.own_error_codes)
        self._stopping = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is in flight, within ``server.shutdown_seconds``.

        Raises:
            ConfigurationError: an address can't be listened on, a secret or certificate can't be used, limits don't fit.
            TopicsError: with ``topics.check = refuse``, Kafka answers and a topic is missing or weaker than declared.
            SpoolError: the spool can't be used.
            ServerError: a listener ended by itself.
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_Threads())
        stop_requested = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop_requested.set)
        server = self._settings.server
        host, port = _free_address(server.host, server.port, "server.host", "server.port")
        admin_host, admin_port = _free_address(
            server.admin_host, server.admin_port, "server.admin_host", "server.admin_port"
        )
        client_arguments(self._settings.kafka)  # what can't be used stops the start, not each producer
        self._require_room_for_records()
        topics, watcher = TopicsCheck(self._settings), SecretsWatcher(self._settings.access, self._access)
        if self._settings.topics.check == "refuse":
            await topics.refuse_weak(stop_requested)
        schema_ids = RegisteredIds.of(self._settings)
        self.delivery = Delivery(self._settings, schema_ids)
        try:
            await self.delivery.start()
        except SpoolError as error:
            raise type(error)(f"spool.directory: {error}") from error
        self._callbacks = Callbacks(self._settings, self._access, self.delivery, CallbackStats(), self._catalogue)
        collector = MetricsCollector(
            self._settings, self.delivery, self._callbacks, schema_ids, topics=topics, watcher=watcher
        )
        metrics = Metrics(collector)
        self._overview = HealthReport(
            self._settings,
            self.delivery,
            self._callbacks,
            lambda: self._stopping,
            topics=topics,
            watcher=watcher,
        )
        self._overview.start()
        probes = Probes(metrics, self._overview, lambda: self.delivery.ready and not self._stopping)
        public = self._server(public_app(self._callbacks), host, port)
        admin = self._server(admin_app(probes), admin_host, admin_port)
        listeners = [asyncio.create_task(public.serve()), asyncio.create_task(admin.serve())]
        background = [
            _background("stop_requested", stop_requested.wait()),
            _background("topics", topics.run()),
            _background("secrets", watcher.run()),
        ]
        path = CALLBACK_PATH if self._access.open else f"{CALLBACK_PATH}/{{secret}}"
        # What stands now stays: the collector need not look at it again. Younger objects are mostly a callback's own, and go
        # without it; the default of 700 has it look at what is on its way, too.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY, 20, 50)
        log.info("serving", port=port, admin_port=admin_port, path=path)
        await asyncio.wait([background[0], *listeners], return_when=asyncio.FIRST_COMPLETED)
        await self._stop(public, admin, listeners)
        for task in background:
            task.cancel()
        if not stop_requested.is_set():
            why = [repr(task.exception()) for task in listeners if task.done() and task.exception() is not None]
            raise ServerError(f"a listener ended by itself: {'; '.join(why) or 'it does not say why'}")

    async def _stop(self, public: Server, admin: Server, tasks: list[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        begun, bound = loop.time(), self._settings.server.shutdown_seconds
        log.info("stopping", within_seconds=bound)
        self._stopping = True
        public.stop()  # type: ignore[no-untyped-call]
        await self._callbacks.finished(begun + bound * _ANSWERED_SHARE)
        await self.delivery.stop(begun + bound * _DELIVERED_SHARE)
        await self._callbacks.finished(begun + bound * _DELIVERED_SHARE)
        self._overview.stop()
        admin.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait(tasks, timeout=max(0.1, min(_LINGER_SECONDS, begun + bound * _ENDED_SHARE - loop.time())))
        log.info("stopped", after_seconds=round(loop.time() - begun, 3), waiting=self.delivery.waiting)

    def _require_room_for_records(self) -> None:
        """The largest event fits the status topic; a whole body that can't be understood is one record of the quarantine."""
        settings = self._settings
        status, quarantine = declared_topics(settings.topics).values()
        if settings.kafka.max_record_bytes > status.max_message_bytes:
            raise ConfigurationError(
                f"kafka.max_record_bytes: {settings.kafka.max_record_bytes} is more than a record of {status.name} may hold "
                f"({status.max_message_bytes}, by max.message.bytes in topics.toml); lower it"
            )
        largest = quarantine.max_message_bytes - QUARANTINE_HEAD_BYTES
        if settings.limits.body_bytes > largest:
            raise ConfigurationError(
                f"limits.body_bytes: {settings.limits.body_bytes} is more than a record of {quarantine.name} may hold "
                f"({largest}, by max.message.bytes in topics.toml), and a body that can't be understood is kept there; lower it"
            )

    def _server(self, app: Litestar, host: str, port: int) -> Server:
        limits = self._settings.limits
        return Server(
            app,
            address=host,
            port=port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=self._settings.server.backlog,
            backpressure=_CONNECTIONS,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(limits.header_read_seconds * 1000),
                # Twice, so that headers somewhat too large are answered by the application, with words.
                max_buffer_size=max(16_384, 2 * limits.header_bytes),
            ),
            log_enabled=False,
        )


class _Threads(ThreadPoolExecutor):
    """A thread a call, for which the process's end does not wait: what it reads may be a mount that hangs."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return in_daemon_thread(partial(call, *arguments, **named), "call")


def _background(name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task of which nobody waits for the end; should it fail, that is said."""

    def ended(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", task=task.get_name(), exc_info=task.exception())

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    return task


def _free_address(host: str, port: int, host_key: str, port_key: str) -> tuple[str, int]:
    """Where to listen: the address of a name, which the server would not look up, and a port chosen by the system for 0.

    The server shares its port with whoever asks (SO_REUSEPORT), so that a second bridge would quietly take half of the
    callbacks: this asks first, without sharing.

    Raises:
        ConfigurationError: the address is taken, or isn't this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return str(address[0]), int(probe.getsockname()[1])
    except OSError as error:
        key = host_key if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL else port_key
        remedy = "free it or take another" if key == port_key else "give an address of this machine, or 0.0.0.0 for all"
        raise ConfigurationError(f"{key}: can't listen on {host}:{port}: {error.strerror}; {remedy}") from error
