"""Producers that went bad are replaced, few are ever alive, and nothing waits for aiokafka.

The roles are tried with scripted producers and a clock of the test's; what ends a real aiokafka sender is tried against
librdkafka's mock cluster.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import Producer as MockCluster
from support.scripted import Clock, record, settings

from bridge.config import Kafka
from bridge.kafka import producers as module
from bridge.kafka.producer import Abandoned, Producer
from bridge.kafka.producers import Producers

TOPIC = "status"
# The mock cluster draws each partition's leader; of so many some are led by either broker.
TOPICS = [f"status-{number}" for number in range(6)]
ROUNDS = 25
SOON_SECONDS = 10.0


class Fake:
    """What ``Producers`` sees of a producer."""

    alive: list["Fake"] = []  # noqa: RUF012 - emptied by the fixture
    start_fails: Exception | None = None
    brokers_answer = True

    def __init__(self, kafka: Kafka, topics: list[str], number: int, traffic: object) -> None:
        del kafka, topics, traffic
        self.number, self.dead, self.unresolved = number, False, 0
        self.used_at = self.told_at = asyncio.get_running_loop().time()

    async def start(self, timeout_seconds: float) -> None:
        """At once, or not."""
        del timeout_seconds
        if Fake.start_fails is not None:
            raise Fake.start_fails
        Fake.alive.append(self)

    async def abandon(self) -> None:
        """At once."""
        self.dead = True
        if self in Fake.alive:
            Fake.alive.remove(self)

    def idle_seconds(self, now: float) -> float:
        """Since it was used."""
        return 0.0 if self.unresolved else now - self.used_at

    def silent_seconds(self, now: float) -> float:
        """Since a broker last told it something."""
        return now - self.told_at

    def refresh_metadata(self) -> None:
        """Answered at once, where brokers answer."""
        if Fake.brokers_answer:
            self.told_at = asyncio.get_running_loop().time()

    def partitions(self, topic: str) -> int:
        """There are some."""
        del topic
        return 1


class Roles:
    """``Producers`` with scripted producers, on the test's clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        Fake.alive, Fake.start_fails, Fake.brokers_answer = [], None, True
        self.most_alive = 0
        self.on_started: Callable[[Producer], None] = lambda _: None
        self.run(self._start)

    async def _start(self) -> None:
        # Looked up at each call: a test may put another in its place.
        self.producers = Producers(settings().kafka, [TOPIC], lambda producer: self.on_started(producer))  # noqa: PLW0108
        self.producers.start()

    def run(self, work: Callable[[], object]) -> None:
        """Do something, and what follows from it at once."""

        async def turns() -> None:
            done = work()
            if asyncio.iscoroutine(done):
                await done
            for _ in range(ROUNDS):
                await asyncio.sleep(0)

        self.clock.run_until_complete(turns())

    def advance(self, seconds: float) -> None:
        """Let time pass, a little at a time."""
        for _ in range(round(seconds / 0.05)):
            self.clock.now += 0.05
            self.run(lambda: None)
            self.most_alive = max(self.most_alive, len(Fake.alive))

    def pick(self, *, degraded: bool = False) -> Fake:
        """For a lane."""
        picked: list[object] = []
        self.run(lambda: picked.append(self.producers.pick(degraded=degraded)))
        (producer,) = picked
        assert isinstance(producer, Fake)
        return producer

    def ready(self) -> bool:
        """For the probe."""
        seen: list[bool] = []
        self.run(lambda: seen.append(self.producers.ready))
        return seen[0]

    def close(self) -> None:
        """End it."""
        self.run(self.producers.stop)
        self.clock.close()


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Roles]:
    """Started, with a current producer."""
    monkeypatch.setattr(module, "Producer", Fake)
    roles = Roles()
    roles.advance(0.3)
    yield roles
    roles.close()
    assert not Fake.alive


def test_healthy_lanes_leave_the_producer_that_let_one_wait(roles: Roles) -> None:
    """The degraded lane keeps it, the others have a fresh one soon, and the old one serves them until then."""
    first = roles.pick()
    first.unresolved = 1
    roles.advance(3)
    roles.run(lambda: roles.producers.isolate(first))  # type: ignore[arg-type]

    roles.advance(0.5)
    assert roles.pick(degraded=True) is first
    assert roles.pick() is not first
    assert not first.dead


def test_a_second_lane_that_is_degraded_while_producers_change_joins_the_first(roles: Roles) -> None:
    """One ward for all degraded lanes: no further producer is begun for it, and none is lost."""
    roles.advance(3)
    first = roles.pick()
    first.unresolved = 2
    begun = roles.producers.started
    roles.run(lambda: roles.producers.isolate(first))  # type: ignore[arg-type]
    roles.run(lambda: roles.producers.isolate(first))  # type: ignore[arg-type]
    roles.advance(1)

    assert roles.pick(degraded=True) is first
    assert roles.producers.started == begun + 1


def test_a_lane_that_flaps_every_second_keeps_few_producers_alive(roles: Roles) -> None:
    """Degraded, healthy, degraded again, for a minute: producers begin no faster than every two seconds, and few are alive."""
    for _ in range(60):
        current = roles.pick()
        current.unresolved = 1
        roles.run(lambda current=current: roles.producers.isolate(current))  # type: ignore[misc]
        roles.advance(0.5)
        current.unresolved = 0
        roles.advance(0.5)

    assert roles.producers.started <= 35
    assert roles.most_alive <= 4
    roles.advance(12)
    assert len(Fake.alive) <= 2


def test_a_refused_batch_gets_its_producer_replaced_and_closed(roles: Roles) -> None:
    """Its sequence numbers no longer fit: nothing new goes by it, and it ends when its last batch is resolved."""
    first = roles.pick()
    first.unresolved = 1
    roles.run(lambda: roles.producers.spent(first))  # type: ignore[arg-type]
    roles.advance(0.5)
    assert roles.pick() is not first
    assert not first.dead

    first.unresolved = 0
    roles.advance(0.5)
    assert first.dead


def test_a_producer_whose_sender_died_is_replaced(roles: Roles) -> None:
    """The library does not say so; it is looked for."""
    first = roles.pick()
    first.dead = True
    roles.advance(1)
    assert roles.pick() is not first


def test_without_traffic_it_is_ready_as_long_as_brokers_answer(roles: Roles) -> None:
    """Who isn't ready gets no traffic, so that a quiet hour must not make it so; and brokers that went away are noticed."""
    for _ in range(60):
        roles.advance(1)
        assert roles.ready()

    Fake.brokers_answer = False
    roles.advance(7)
    assert not roles.ready()
    Fake.brokers_answer = True
    roles.advance(1)
    assert roles.ready()


def test_while_no_broker_answers_attempts_become_rarer(roles: Roles) -> None:
    """From ten a second to one in two seconds, and the first that succeeds is used at once."""
    first = roles.pick()
    Fake.start_fails = OSError("nobody")
    roles.run(lambda: roles.producers.abandon(first))  # type: ignore[arg-type]
    roles.advance(10)
    few = roles.producers.started
    roles.advance(10)
    assert 4 <= roles.producers.started - few <= 11
    Fake.start_fails = None
    roles.advance(3)
    assert not roles.pick().dead


def test_supervision_survives_an_error_of_its_own(roles: Roles) -> None:
    """Whatever it stumbles over, it is begun again: a bridge without it would never send again."""
    first = roles.pick()

    def stumble(_: Producer) -> None:
        roles.on_started = lambda _: None
        raise RuntimeError("injected")

    roles.on_started = stumble
    first.dead = True
    roles.advance(3)
    second = roles.pick()
    second.dead = True
    roles.advance(3)

    assert not roles.pick().dead


# --- a real sender, a mock cluster --------------------------------------------------------------------------------------


@pytest.fixture
def mock_bootstrap() -> Iterator[str]:
    """Two brokers that answer after a while, so that there is a time in which batches are on their way."""
    cluster = MockCluster({"bootstrap.servers": "mock", "test.mock.num.brokers": 2, "test.mock.broker.rtt": 300})
    for topic in TOPICS:
        brokers = cluster.list_topics(topic, timeout=SOON_SECONDS).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    cluster.flush(0)


@pytest.fixture
async def real(mock_bootstrap: str) -> AsyncIterator[Producers]:
    """Real producers on it, one of them started."""
    producers = Producers(settings(f"kafka.bootstrap_servers={mock_bootstrap}").kafka, TOPICS, lambda _: None)
    producers.start()
    await picked(producers)
    yield producers
    await asyncio.wait_for(producers.stop(), SOON_SECONDS)


async def picked(producers: Producers, other_than: Producer | None = None) -> Producer:
    """A usable producer, once there is one."""
    async with asyncio.timeout(SOON_SECONDS):
        while (producer := producers.pick(degraded=False)) is None or producer is other_than or producer.dead:
            await producers.change(0.05)
    return producer


def sent_to_both_brokers(producer: Producer) -> list["asyncio.Future[None]"]:
    """A batch for a partition of each of two leaders."""
    leaders: dict[int, tuple[str, int]] = {}
    for topic in TOPICS:
        for partition in range(producer.partitions(topic)):
            leaders.setdefault(producer._client.cluster._partitions[topic][partition].leader, (topic, partition))
    assert len(leaders) == 2
    futures = []
    for topic, partition in leaders.values():
        batch = producer.open_batch()
        assert batch.extend([record("k", partition)]) == 1
        futures.append(producer.send(topic, partition, batch))
    return futures


async def test_a_sender_killed_by_an_injected_error_fails_what_is_in_flight_and_is_replaced(
    real: Producers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batches on their way to two brokers: each is acknowledged or fails, all tasks are ended, the next producer sends."""
    producer = await picked(real)
    futures = sent_to_both_brokers(producer)
    async with asyncio.timeout(SOON_SECONDS):
        while len(producer._sender.requests) < 2:  # noqa: ASYNC110 - aiokafka sets no event for it
            await asyncio.sleep(0.005)
    requests = list(producer._sender.requests)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("injected")

    # The sender's next look at what is to be sent kills it; its requests in flight live on by themselves.
    monkeypatch.setattr(producer._kafka._message_accumulator, "drain_by_nodes", broken)
    follower = producer.open_batch()
    follower.extend([record("k", 9)])
    third = producer.send(TOPICS[0], 0, follower)
    results = await asyncio.wait_for(asyncio.gather(*futures, third, return_exceptions=True), SOON_SECONDS)

    assert isinstance(results[-1], Abandoned | KafkaError)
    assert all(result is None or isinstance(result, Abandoned | KafkaError) for result in results)
    assert producer.dead
    await asyncio.wait(requests, timeout=SOON_SECONDS)
    assert all(task.done() for task in requests)
    successor = await picked(real, other_than=producer)
    await asyncio.wait_for(asyncio.gather(*sent_to_both_brokers(successor)), SOON_SECONDS)


async def test_a_producer_that_is_told_of_the_cluster_no_more_is_replaced(
    real: Producers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender lives on without that task, but would never learn of a new leader."""
    producer = await picked(real)

    async def broken(*_: object) -> bool:
        raise RuntimeError("injected")

    monkeypatch.setattr(producer._client, "_metadata_update", broken)
    producer.refresh_metadata()
    successor = await picked(real, other_than=producer)

    assert producer.dead
    await asyncio.wait_for(asyncio.gather(*sent_to_both_brokers(successor)), SOON_SECONDS)


async def test_abandoning_ends_every_task_and_connection_within_bounds(real: Producers) -> None:
    """Nothing of it lives on to publish later; what was unresolved fails, and what is sent afterwards too."""
    producer = await picked(real)
    futures = sent_to_both_brokers(producer)
    async with asyncio.timeout(SOON_SECONDS):
        while not producer._sender.requests:  # noqa: ASYNC110 - aiokafka sets no event for it
            await asyncio.sleep(0.005)
    tasks = [producer._sender.sender_task, producer._client._sync_task, *producer._sender.requests]

    await asyncio.wait_for(producer.abandon(), 2.0)

    assert all(task.done() for task in tasks)
    assert not producer._client._conns
    results = await asyncio.gather(*futures, producer.send(TOPICS[0], 0, producer.open_batch()), return_exceptions=True)
    assert all(isinstance(result, Abandoned) for result in results)
