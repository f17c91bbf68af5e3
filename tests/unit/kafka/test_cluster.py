"""What is learned of the cluster, in parts: one that can't be had holds up no other."""

import asyncio
import struct
from typing import Any

import pytest
from support.scripted import STATUS, settings

from bridge.errors import ConnectionEnded, KafkaUnavailable
from bridge.kafka import messages
from bridge.kafka.cluster import NO_PRODUCER_ID, Cluster, ProducerId
from bridge.kafka.metadata import Broker, Metadata, Topic
from bridge.kafka.wire import Connection


class Asked:
    """A cluster that answers as told; ``seen`` is what its user sees at each change, ``others`` how many were of another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int | None, ProducerId | None]] = []
        self.others = 0
        self.cluster = Cluster(settings().kafka, [STATUS], self._changed)
        self.leader, self.topic_id = 1, "first"
        self.producer_ids: list[ProducerId | Exception] = []
        monkeypatch.setattr(self.cluster, "_first_answer", self._metadata)
        monkeypatch.setattr(self.cluster, "_ask_producer_id", self._producer_id)

    def _changed(self) -> None:
        self.seen.append((self.cluster.leader(STATUS, 0), self.cluster.producer_id))
        self.others += self.cluster.is_other
        self.cluster.is_other = False

    async def _metadata(self) -> Metadata:
        brokers = {1: Broker("one", 9092), 2: Broker("two", 9092)}
        return Metadata("id", brokers, [Topic(STATUS, 0, self.topic_id, {0: self.leader})])

    async def _producer_id(self) -> bool:
        given = self.producer_ids.pop(0)
        if isinstance(given, Exception):
            self.cluster._failed(given)
            return False
        self.cluster._id_wanted = False
        self.cluster.producer_id = given
        return True


async def test_a_leader_that_moves_is_told_also_while_no_producer_id_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions that have one go on with it."""
    asked = Asked(monkeypatch)
    asked.producer_ids = [ProducerId(7, 0), KafkaUnavailable("the broker gives no producer id"), ProducerId(8, 0)]
    assert await asked.cluster._learn()
    assert asked.seen[-1] == (1, (7, 0))

    asked.leader = 2
    asked.cluster.want_producer_id()
    assert not await asked.cluster._learn()
    assert asked.seen[-1] == (2, (7, 0))
    assert asked.cluster.last_error == "the broker gives no producer id"

    assert await asked.cluster._learn()
    assert asked.seen[-1] == (2, (8, 0))
    assert not asked.cluster.last_error


async def test_another_cluster_is_told_before_it_has_given_a_producer_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be sent with the former id, and the other cluster may give the very same one."""
    asked = Asked(monkeypatch)
    asked.producer_ids = [ProducerId(0, 0), KafkaUnavailable("the broker gives no producer id"), ProducerId(0, 0)]
    assert await asked.cluster._learn()
    assert asked.others == 0

    asked.topic_id = "second"
    assert not await asked.cluster._learn()
    assert (asked.others, asked.seen[-1]) == (1, (1, None))

    assert await asked.cluster._learn()
    assert (asked.others, asked.seen[-1]) == (1, (1, (0, 0)))


async def test_another_cluster_is_asked_whether_it_has_producer_ids() -> None:
    """Where the former one had none the bridge goes on without one meanwhile; where it must not ask, it does not."""
    for idempotence, is_asked in (("auto", True), ("false", False)):
        cluster = Cluster(settings(f"kafka.idempotence={idempotence}").kafka, [STATUS], lambda: None)
        cluster.producer_id, cluster._id_wanted = NO_PRODUCER_ID, False
        cluster._take(Metadata("first", {}, []))
        cluster._take(Metadata("second", {}, []))
        assert (cluster.is_other, cluster.producer_id, cluster._id_wanted) == (True, NO_PRODUCER_ID, is_asked)


async def test_an_answer_counts_only_with_the_connection_that_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two brokers answered at once: the producer id must not come from the other one, which may be of another cluster."""
    asked = Asked(monkeypatch)
    asked.cluster._kept_answer = Metadata("another", {}, [])
    assert not await asked.cluster._learn()
    assert asked.seen == []


async def test_a_producer_id_is_told_before_anything_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it would ask for another one."""
    asked = Asked(monkeypatch)
    asked.producer_ids = [ProducerId(7, 0)]

    async def hide(topic: str) -> None:
        assert topic == STATUS
        assert asked.seen[-1] == (1, (7, 0))
        raise KafkaUnavailable("no right to see it")

    monkeypatch.setattr(asked.cluster, "_ask_largest", hide)
    asked.cluster.largest_message(STATUS)
    assert not await asked.cluster._learn()
    assert asked.seen[-1] == (1, (7, 0))


async def test_not_always_the_same_broker_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the controller can't reach tells of former leaders for as long as it is asked."""
    cluster = Cluster(settings().kafka, [STATUS], lambda: None)
    cluster.brokers = {number: Broker("localhost", number) for number in (1, 2, 3)}
    cluster._connection = Connection("tests")

    async def same(_: object) -> Metadata:
        return Metadata("same", {}, [])

    async def anew(*_: object) -> Metadata:
        return Metadata("another", {}, [])

    monkeypatch.setattr(cluster, "_ask_metadata", same)
    monkeypatch.setattr(cluster, "_ask_anew", anew)
    asked = [(await cluster._first_answer()).cluster_id for _ in range(10)]
    assert asked == [*["same"] * 4, "another"] * 2


async def test_the_largest_message_is_asked_for_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be changed while the bridge runs: a record that is too large since then would wait for ever."""
    asked = Asked(monkeypatch)
    asked.producer_ids = [ProducerId(7, 0)]
    bounds = [5_000_000, 1_000_000]

    async def largest(topic: str) -> None:
        asked.cluster._largest_wanted.discard(topic)
        asked.cluster._largest[topic] = bounds.pop(0)

    monkeypatch.setattr(asked.cluster, "_ask_largest", largest)
    assert asked.cluster.largest_message(STATUS) is None
    assert await asked.cluster._learn()
    assert asked.cluster.largest_message(STATUS) == 5_000_000
    assert await asked.cluster._learn()
    assert asked.cluster.largest_message(STATUS) == 1_000_000


async def test_the_former_connection_is_not_waited_for_longer_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new one can be made, as the new credentials are wrong, and its broker hangs: leaders are asked for again."""
    asked = Asked(monkeypatch)
    monkeypatch.setattr("bridge.kafka.cluster._UPDATE_SECONDS", 0.05)

    async def refuse() -> Any:
        raise KafkaUnavailable("the broker refuses the login")

    async def hang(_: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asked.cluster, "_first_answer", refuse)
    monkeypatch.setattr(asked.cluster, "_ask_metadata", hang)
    asked.cluster._connection = Connection("tests")
    asked.cluster.renew_connection()
    assert not await asyncio.wait_for(asked.cluster._learn(), 5.0)
    assert asked.cluster._connection is None


async def test_a_connection_that_is_replaced_is_closed() -> None:
    """There is one at a time."""
    cluster = Cluster(settings().kafka, [STATUS], lambda: None)
    first, second = Connection("tests"), Connection("tests")
    cluster._keep(first)
    cluster._keep(second)
    assert (first.end, second.end) == ("not used any more", "")
    await cluster.stop()
    assert second.end


async def test_a_producer_id_that_is_refused_costs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, with Kafka's number and what to do, and asked for again where it was refused."""
    cluster = Cluster(settings().kafka, [STATUS], lambda: None)
    cluster._connection = connection = Connection("tests")
    connection.versions = {messages.INIT_PRODUCER_ID: (0, 4)}

    async def refuse(*_: object) -> bytes:
        return struct.pack(">ihqh", 0, 31, -1, -1)

    async def nothing() -> Any:
        return Metadata("", {}, [])

    monkeypatch.setattr(connection, "ask", refuse)
    monkeypatch.setattr(cluster, "_first_answer", nothing)
    assert not await cluster._learn()
    assert "CLUSTER_AUTHORIZATION_FAILED (31); no ACL lets this user write" in cluster.last_error
    assert 'kafka.idempotence is "auto"; with "false" the bridge publishes without one' in cluster.last_error
    assert cluster._connection is connection
    assert not connection.end


class Refusing:
    """A cluster that has no producer ids to give, until it has; ``asked`` counts the requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, idempotence: str, *, offered: bool = True) -> None:
        self.cluster = Cluster(settings(f"kafka.idempotence={idempotence}").kafka, [STATUS], lambda: None)
        self.code, self.asked, self.closes = 31, 0, False
        self.topics: list[Any] = []
        self.cluster._connection = connection = Connection("tests")
        connection.versions = {messages.INIT_PRODUCER_ID: (0, 4)} if offered else {}
        monkeypatch.setattr(connection, "ask", self._answer)
        monkeypatch.setattr(self.cluster, "_first_answer", self._metadata)

    async def _answer(self, *_: object) -> bytes:
        self.asked += 1
        if self.closes:
            raise ConnectionEnded("the broker hung up")
        return struct.pack(">ihqh", 0, self.code, -1 if self.code else 7, -1 if self.code else 0)

    async def _metadata(self) -> Any:
        return Metadata("", {}, self.topics)

    async def learn(self, after: float = 2.0) -> bool:
        """Ask for everything once more, as many seconds after the refusals so far."""
        self.cluster._refused_ids = [at - after for at in self.cluster._refused_ids]
        return await self.cluster._learn()


@pytest.mark.parametrize("offered", [True, False])
async def test_a_cluster_that_gives_no_producer_ids_is_done_without(
    monkeypatch: pytest.MonkeyPatch, *, offered: bool
) -> None:
    """After three refusals, not before and not at once; it is asked again after an hour, and an id is used from then on."""
    refusing = Refusing(monkeypatch, "auto", offered=offered)
    cluster = refusing.cluster
    assert [await refusing.learn(0.1) for _ in range(9)] == [False] * 9
    assert [await refusing.learn() for _ in range(2)] == [False, True]
    assert cluster.producer_id == NO_PRODUCER_ID
    assert not cluster.last_error
    asked = refusing.asked
    assert await cluster._learn()
    assert refusing.asked == asked
    cluster._ask_id_at -= 3600
    assert await cluster._learn()
    assert (refusing.asked - asked, cluster.producer_id) == (int(offered), NO_PRODUCER_ID)
    refusing.code = 0
    cluster._ask_id_at -= 3600
    if offered:
        assert await cluster._learn()
        assert cluster.producer_id == ProducerId(7, 0)


async def test_one_broker_that_refuses_does_not_speak_for_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refusal is followed by a question to another broker; once a producer id is given, the connection is kept."""
    cluster = Cluster(settings("kafka.idempotence=auto").kafka, [STATUS], lambda: None)
    refusing, asked = {"one", "two"}, list[str]()
    metadata = Metadata("", {number: Broker(host, 9092) for number, host in enumerate(("one", "two", "three"))}, [])

    async def connect(host: str, *_: object) -> Connection:
        connection = Connection("tests")
        connection.versions = {messages.INIT_PRODUCER_ID: (0, 4)}

        async def answer(*_: object) -> bytes:
            asked.append(host)
            return struct.pack(">ihqh", 0, *((31, -1, -1) if host in refusing else (0, 7, 0)))

        monkeypatch.setattr(connection, "ask", answer)
        return connection

    async def described(*_: object) -> Metadata:
        return metadata

    monkeypatch.setattr("bridge.kafka.cluster.connect", connect)
    monkeypatch.setattr("bridge.kafka.cluster.ask_metadata", described)
    cluster.brokers = dict(metadata.brokers)
    while not await cluster._learn():
        assert len(asked) < 3
    assert cluster.producer_id == ProducerId(7, 0)
    assert len(asked) == len(set(asked))
    cluster.want_producer_id()
    assert await cluster._learn()
    assert asked[-2:] == ["three", "three"]


async def test_a_topic_that_comes_into_sight_is_reason_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without any right sees no topic, and gets no producer id either. One that is in sight already is none."""
    refusing = Refusing(monkeypatch, "auto")
    for _ in range(5):
        await refusing.learn()
    assert refusing.asked == 3
    refusing.topics = [Topic(STATUS, 0, "", {0: 1})]
    for _ in range(2):
        await refusing.cluster._learn()
    assert refusing.asked == 4


async def test_refusals_far_apart_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A right that was lost for a moment, three times a day, is no cluster without idempotent producers."""
    refusing = Refusing(monkeypatch, "auto")
    for _ in range(5):
        assert not await refusing.learn(31)
    assert refusing.cluster.producer_id is None


async def test_without_idempotence_no_producer_id_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """``false``: never. ``true``: for ever."""
    without, forever = Refusing(monkeypatch, "false"), Refusing(monkeypatch, "true")
    without.cluster.want_producer_id()
    assert await without.cluster._learn()
    assert (without.asked, without.cluster.producer_id) == (0, NO_PRODUCER_ID)
    assert [await forever.learn() for _ in range(9)] == [False] * 9
    assert (forever.asked, forever.cluster.producer_id) == (9, None)
    assert 'kafka.idempotence is "true"; with "false" the bridge publishes without one' in forever.cluster.last_error


@pytest.mark.parametrize("closes", [True, False])
async def test_other_refusals_are_waited_out(monkeypatch: pytest.MonkeyPatch, *, closes: bool) -> None:
    """They do not say that the cluster has no idempotent producers; the words name the key all the same."""
    refusing = Refusing(monkeypatch, "auto")
    refusing.code, refusing.closes = -1, closes
    assert [await refusing.learn() for _ in range(20)] == [False] * 20
    assert refusing.cluster.idempotent is None
    assert 'with "false" the bridge publishes without one' in refusing.cluster.last_error
    refusing.closes = False
    for refusing.code in (31, -1, 31, 0):
        await refusing.cluster._learn()
    assert refusing.cluster.producer_id == ProducerId(7, 0)
    assert refusing.cluster.idempotent


async def test_while_no_broker_answers_it_is_said_so_before_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page needs a reason long before the last broker has had its half minute."""
    cluster = Cluster(settings("kafka.request_timeout_ms=100").kafka, [STATUS], lambda: None)

    async def hang(*_: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster, "_ask_anew", hang)
    task = asyncio.create_task(cluster._first_answer())
    async with asyncio.timeout(5):
        while not cluster.last_error:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
    assert cluster.last_error == "no answer yet from localhost:9092"
    task.cancel()
    await asyncio.wait([task])
