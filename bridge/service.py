"""One process: the delivery, the public listener, the admin listener, and an orderly end."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from bridge import listener
from bridge.config import CALLBACK_PATH, Settings, path_secrets, tokens
from bridge.delivery.delivery import Delivery
from bridge.encode.records import QUARANTINE_HEAD_BYTES
from bridge.errors import ConfigurationError, ServerError, SpoolError
from bridge.health.app import admin_app
from bridge.health.metrics import MetricsCollector
from bridge.health.probes import Probes
from bridge.health.tokens import AdminTokens
from bridge.health.verdict import HealthReport
from bridge.kafka.connection import client_arguments
from bridge.listener import Listener
from bridge.observe.metrics import Metrics
from bridge.receive import retired
from bridge.receive.access import Access
from bridge.receive.app import public_app
from bridge.receive.callbacks import Callbacks
from bridge.receive.public_health import PublicHealth
from bridge.receive.retired import RetiredSecrets
from bridge.receive.stats import CallbackStats
from bridge.receive.watcher import SecretsWatcher
from bridge.registry.ids import RegisteredIds
from bridge.report.catalogue import load_catalogue
from bridge.threads import in_daemon_thread
from bridge.topics.check import TopicsCheck
from bridge.topics.spec import declared_topics

log = structlog.get_logger(__name__)

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
        ConfigurationError: the secrets, the tokens, or the file of error codes, can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._retired = RetiredSecrets(
            Path(settings.spool.directory) / retired.FILE if settings.spool.enabled else None
        )
        self._access = Access(path_secrets(settings.access), self._retired)
        self._tokens = AdminTokens(self._read_tokens())
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
        with (
            listener.bind(server.host, server.port, "server.host", "server.port") as public,
            listener.bind(server.admin_host, server.admin_port, "server.admin_host", "server.admin_port") as admin,
        ):
            await self._serve(public, admin, stop_requested)

    async def _serve(
        self, public_socket: socket.socket, admin_socket: socket.socket, stop_requested: asyncio.Event
    ) -> None:
        client_arguments(self._settings.kafka)  # what can't be used stops the start, not each producer
        self._require_room_for_records()
        topics, watchers = TopicsCheck(self._settings), self._watchers()
        if self._settings.topics.check == "refuse":
            await topics.refuse_weak(stop_requested)
        schema_ids = RegisteredIds.of(self._settings)
        self.delivery = Delivery(self._settings, schema_ids)
        starting = asyncio.create_task(self._read_from_disk(), name="start")
        stop = _background("stop_requested", stop_requested.wait())
        await asyncio.wait([starting, stop], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            log.warning(
                "stopped_before_the_start", remedy="if it had waited for long: look at the disk of spool.directory"
            )
            return
        await starting
        self._callbacks = Callbacks(self._settings, self._access, self.delivery, CallbackStats(), self._catalogue)
        collector = MetricsCollector(
            self._settings, self.delivery, self._callbacks, schema_ids, topics=topics, watchers=watchers
        )
        metrics = Metrics(collector)
        self._overview = HealthReport(
            self._settings,
            self.delivery,
            self._callbacks,
            lambda: self._stopping,
            topics=topics,
            watchers=watchers,
        )
        self._overview.start()
        health = PublicHealth(self._settings.server.health_path, self._ready)
        probes = Probes(metrics, self._overview, self._ready)
        said = {"port": public_socket.getsockname()[1], "admin_port": admin_socket.getsockname()[1]}
        on = {"addresses": listener.addresses(public_socket), "admin_addresses": listener.addresses(admin_socket)}
        backlog, limits = self._settings.server.backlog, self._settings.limits
        public = Listener(public_app(self._callbacks, health), public_socket, backlog, limits)
        admin = Listener(admin_app(probes, self._tokens), admin_socket, backlog, limits)
        listeners = [asyncio.create_task(public.serve()), asyncio.create_task(admin.serve())]
        background = [
            stop,
            _background("topics", topics.run()),
            _background("retired secrets", self._retired.run()),
            *(_background(f"{source} secrets", watcher.run()) for source, watcher in watchers.items()),
        ]
        path = CALLBACK_PATH if self._access.open else f"{CALLBACK_PATH}/{{secret}}"
        # What stands now stays: the collector need not look at it again. Younger objects are mostly a callback's own, and go
        # without it; the default of 700 has it look at what is on its way, too.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY, 20, 50)
        log.info("serving", **said, **on, path=path)
        await asyncio.wait([background[0], *listeners], return_when=asyncio.FIRST_COMPLETED)
        await self._stop(public, admin, listeners)
        for task in background:
            task.cancel()
        if not stop_requested.is_set():
            why = [repr(task.exception()) for task in listeners if task.done() and task.exception() is not None]
            raise ServerError(f"a listener ended by itself: {'; '.join(why) or 'it does not say why'}")

    async def _read_from_disk(self) -> None:
        try:
            await self.delivery.start()
        except SpoolError as error:
            raise type(error)(f"spool.directory: {error}") from error
        await self._retired.load()

    def _ready(self) -> bool:
        return self.delivery.ready and not self._stopping

    def _read_tokens(self) -> list[str]:
        return tokens(self._settings.server.admin_token_file, "server.admin_token_file")

    def _watchers(self) -> dict[str, SecretsWatcher]:
        """Of the mounted files of secrets, by the metrics' label ``source``."""
        access, server = self._settings.access, self._settings.server
        path = partial(path_secrets, access)
        return {
            "path": SecretsWatcher("access.path_secrets_file", access.path_secrets_file, path, self._access.replace),
            "admin": SecretsWatcher(
                "server.admin_token_file", server.admin_token_file, self._read_tokens, self._tokens.replace
            ),
        }

    async def _stop(self, public: Listener, admin: Listener, tasks: list[asyncio.Task[None]]) -> None:
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
