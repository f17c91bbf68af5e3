"""All that runs in a demo: Kafka, topics, the bridge, the consumer groups. Taken down whatever happens."""

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from rich.console import Console

from bridge import config
from bridge.config import CALLBACK_PATH, Settings
from bridge.errors import TopicsError
from bridge.kafka.connection import client_arguments
from bridge.kafka.librdkafka import librdkafka_arguments
from bridge.lab.demo.campaign import Pushing
from bridge.lab.demo.consumers import Alerting, Billing, Consumer, Crm
from bridge.lab.demo.groups import Group, read_topic
from bridge.lab.demo.process import HOST, Bridge, Reading, open_on_desktop
from bridge.lab.demo.tool import Tool
from bridge.lab.embedded import EmbeddedKafka
from bridge.lab.embedded.ports import Port
from bridge.lab.simulate.ledger import Entry
from bridge.topics import inspect as topics
from bridge.topics.spec import declared_topics

_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.25
_TIMEOUT_SECONDS = 60.0
_HISTORY = 60


class DemoFailedError(Exception):
    """The demo can't go on. The message says what was waited for, or what ended."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. ``rate`` is reports per second; ``bootstrap`` is a Kafka of the user's, else None."""

    acts: tuple[int, ...]
    messages: int
    rate: float
    bootstrap: str | None
    keep: bool


class Stage:
    """What the acts play on; ``async with`` sets it up and takes it down.

    Args:
        options: what was asked for.
        console: takes the progress of a first download.
        on_step: told of each part that is up.

    Attributes:
        kafka: the embedded one; None where the user's is used.
        kafka_state: ``up``, ``killed`` or ``starting``.
        bridge: the bridge's process.
        tool: the bridge's other commands.
        reading: how the bridge said it is, a moment ago; None while it does not answer.
        history: reports waiting in the bridge, reading by reading.
        groups: the consumer groups, in the order of their arrival.
        campaigns: what was pushed so far.
        began_at: before anything was pushed, seconds since the epoch.
        deaths: when the bridge was killed and when it took callbacks again, on the monotonic clock.
    """

    def __init__(self, options: Options, console: Console, on_step: Callable[[str], None]) -> None:
        self.options = options
        self._on_step = on_step
        self._console = console
        self._run = secrets.token_hex(3)
        self._exits = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._following: dict[str, asyncio.Task[None]] = {}
        self.kafka: EmbeddedKafka | None = None
        self.kafka_state = "starting"
        self.reading: Reading | None = None
        self.history: deque[int] = deque([0], _HISTORY)
        self.groups: list[Group] = []
        self.campaigns: list[Pushing] = []
        self.deaths: list[tuple[float, float]] = []
        self.began_at = time.time()
        self._bridge_expected = False
        self._clean = self._keep_log = False
        self._log_file = Path()

    # --- up and down --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Set everything up."""
        try:
            await self._set_up()
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: object) -> None:
        """Take everything down; of what was written only the bridge's log stays, and only after a failure."""
        self._clean = kind is None
        self._keep_log = kind is not None and issubclass(kind, Exception)
        await asyncio.shield(self._exits.aclose())

    @property
    def kept_log(self) -> Path | None:
        """The bridge's log, where it was left because something failed."""
        return self._log_file if self._keep_log and self._log_file.exists() else None

    async def _set_up(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="chatapp-bridge-demo-"))
        self._log_file = self.directory / "bridge.log"
        self._exits.callback(self._remove_directory)
        port, admin_port = self._port(), self._port()
        secret = secrets.token_urlsafe(24)
        self.url = f"http://{HOST}:{port}{CALLBACK_PATH}/{secret}"
        environment = self._environment()
        bootstrap = await self._kafka()
        assignments = self._assignments(bootstrap, port, admin_port)
        self.settings = config.load(environment=environment, assignments=assignments).settings
        self.tool = Tool([each for each in assignments if each.startswith(("kafka.", "topics."))], environment)
        self.connecting = client_arguments(self.settings.kafka)
        self.bridge = Bridge(
            assignments,
            environment | {"BRIDGE_ACCESS__PATH_SECRETS": secret},
            admin_port,
            self._log_file,
        )
        await self._create_topics(self.settings)
        names = f"{self.settings.topics.status} and {self.settings.topics.quarantine}"
        self._on_step(f"Kafka is up, at {bootstrap}, with the topics {names}")
        self._exits.push_async_callback(self._end_bridge)
        await self.start_bridge()
        self._on_step(f"the bridge is up, a process of its own; callbacks go to {HOST}:{port}")
        page = f"http://{HOST}:{admin_port}/"
        self._on_step(f"is all safe now? its page says so, live: {page}")
        open_on_desktop(page)
        self._exits.push_async_callback(self._end_tasks)
        self._spawn("watching the bridge", self._watch())
        for team in (Crm(), Billing(), Alerting()):
            self.join(team)

        async def all_assigned() -> bool:
            return all(group.assigned for group in self.groups)

        await self.until(all_assigned, "Kafka to give the consumer groups their partitions")
        self._on_step("three consumer groups are up: " + ", ".join(group.group_id for group in self.groups))

    def _remove_directory(self) -> None:
        log = self._log_file.read_bytes() if self.kept_log else None
        shutil.rmtree(self.directory, ignore_errors=True)
        if log is not None:
            self.directory.mkdir(mode=0o700)
            self._log_file.write_bytes(log)

    def _port(self) -> int:
        """A port that stays ours while the bridge is dead."""
        port = Port()
        self._exits.callback(port.release)
        return port.number

    async def _kafka(self) -> str:
        """Where Kafka is; an embedded one is started for it."""
        if self.options.bootstrap is not None:
            self.kafka_state = "up"
            return self.options.bootstrap
        self.kafka = EmbeddedKafka(nodes=1, directory=self.directory / "kafka", console=self._console)
        await self._exits.enter_async_context(self.kafka)
        self.kafka_state = "up"
        return self.kafka.bootstrap_servers

    def _environment(self) -> dict[str, str]:
        """This process's, without settings of the bridge, but how to connect to a Kafka of the user's."""
        kept = () if self.options.bootstrap is None else ("BRIDGE_KAFKA__",)
        return {
            name: value
            for name, value in os.environ.items()
            if not (name.startswith(config.ENVIRONMENT_PREFIX) and "__" in name) or name.startswith(kept)
        }

    def _assignments(self, bootstrap: str, port: int, admin_port: int) -> list[str]:
        assignments = [
            f"server.host={HOST}",
            f"server.port={port}",
            f"server.admin_host={HOST}",
            f"server.admin_port={admin_port}",
            f"kafka.bootstrap_servers={bootstrap}",
            f"spool.directory={self.directory / 'spool'}",
            "spool.min_free_bytes=16777216",
            "log.format=json",
        ]
        if self.options.bootstrap is not None:
            # Nothing of theirs is touched: topics of this run alone.
            defaults = config.load(environment={}).settings.topics
            assignments.append(f"topics.status={defaults.status}.demo.{self._run}")
            assignments.append(f"topics.quarantine={defaults.quarantine}.demo.{self._run}")
        return assignments

    async def _create_topics(self, settings: Settings) -> None:
        """What ``chatapp-bridge topics apply --single-broker`` does."""
        async with topics.admin_client(settings.kafka) as client:
            brokers = await topics.brokers(client)
            declared = [topic.lowered_to(brokers) for topic in declared_topics(settings.topics).values()]
            await topics.create(client, declared)
        if self.options.bootstrap is not None:
            self._exits.push_async_callback(self._delete_topics, [topic.name for topic in declared])

    async def _delete_topics(self, names: list[str]) -> None:
        """Leave a Kafka of the user's as it was: exactly the two topics of this run go."""
        with suppress(TopicsError, KafkaError):
            async with topics.admin_client(self.settings.kafka) as client:
                await topics.delete(client, names)

    async def _end_bridge(self) -> None:
        """In good order after a whole demo; at once where nobody wants to wait for it."""
        self._bridge_expected = False
        await (self.bridge.stop() if self._clean else self.bridge.kill())

    # --- the consumers ------------------------------------------------------------------------------------------------

    def join(self, consumer: Consumer) -> Group:
        """A team begins to follow the topic, as a group of its own."""
        suffix = f".{self._run}" if self.options.bootstrap is not None else ""
        group_id = f"demo-{consumer.name.lower()}{suffix}"
        group = Group(consumer, group_id, self.settings.topics.status, librdkafka_arguments(self.settings.kafka))
        self.groups.append(group)
        self.follow(group)
        return group

    def follow(self, group: Group) -> None:
        """The team's consumer starts, where the group's offsets are."""
        task = self._spawn(f"the group {group.group_id}", group.run())
        self._following[group.group_id] = task

    async def leave(self, group: Group) -> None:
        """The team's consumer is stopped, in good order."""
        task = self._following.pop(group.group_id)
        self._tasks.remove(task)
        task.cancel()
        await asyncio.wait([task])

    def entries(self) -> list[Entry]:
        """Every callback of every campaign, as the provider's ledgers have it."""
        return [entry for campaign in self.campaigns for entry in campaign.ledger.entries.values()]

    async def read_status(self) -> list[ConsumerRecord]:
        """All of the status topic, read by nobody's group."""
        return await read_topic(self.settings.topics.status, self.connecting)

    async def read_quarantine(self) -> list[ConsumerRecord]:
        """All of the quarantine topic."""
        return await read_topic(self.settings.topics.quarantine, self.connecting)

    # --- Kafka and the bridge, hurt and healed ------------------------------------------------------------------------

    async def kill_kafka(self) -> None:
        """SIGKILL."""
        if self.kafka is not None:
            self.kafka_state = "killed"
            await self.kafka.kill_all()

    async def start_kafka(self) -> None:
        """Start it again, at the same address, with the data it had."""
        if self.kafka is not None:
            self.kafka_state = "starting"
            await self.kafka.start()
            self.kafka_state = "up"

    async def kill_bridge(self) -> None:
        """SIGKILL, in the middle of whatever it does, and start it again at once."""
        self._bridge_expected = False
        killed_at = time.monotonic()
        await self.bridge.kill()
        self.reading = None
        await self.start_bridge()
        self.deaths.append((killed_at, time.monotonic()))

    async def start_bridge(self) -> None:
        """Start it; done when it says that it is ready."""
        self.bridge.start()
        self._bridge_expected = True
        await self.until(self.bridge.ready, "the bridge to be ready")

    # --- watching -----------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str, seconds: float = _TIMEOUT_SECONDS) -> None:
        """Look again and again until it holds, and see meanwhile that nothing ended that should not.

        Raises:
            DemoFailedError: it does not hold in time, or the bridge or a consumer ended.
        """
        deadline = time.monotonic() + seconds
        while not await holds():
            self._check_alive()
            if time.monotonic() > deadline:
                raise DemoFailedError(f"waited {seconds:.0f} s in vain for {what}")
            await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def pushing(self, messages: int | None, seed: int) -> AsyncIterator[Pushing]:
        """A campaign that is pushed while the block runs; at the block's end it is waited for."""
        campaign = Pushing(self.url, messages, self.options.rate, seed)
        self.campaigns.append(campaign)
        task = asyncio.create_task(campaign.run())
        try:
            yield campaign
            await self.until(lambda: _now(task.done()), "the provider to be done with every callback")
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _check_alive(self) -> None:
        if self._bridge_expected and not self.bridge.running:
            raise DemoFailedError(f"the bridge ended by itself; its log ends:\n{self.bridge.log_tail()}")
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise DemoFailedError(f"{task.get_name()} ended: {error!r}") from error

    async def _watch(self) -> None:
        while True:
            self.reading = await self.bridge.read()
            self.history.append(self.reading.waiting if self.reading else self.history[-1])
            await asyncio.sleep(_WATCH_SECONDS)

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._tasks.append(asyncio.create_task(coroutine, name=name))
        return self._tasks[-1]

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _now(value: bool) -> bool:
    return value
