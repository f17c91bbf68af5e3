"""Records that lack the id of their schema: while it isn't known, their lane does what it does without Kafka."""

from collections.abc import Iterator

import msgspec
import pytest
from support.scripted import QUARANTINE, STATUS, Stage, record

from bridge.delivery.delivery import Delivery
from bridge.delivery.entry import PendingAck
from bridge.kafka.errors import ProduceError
from bridge.record import Record

SPOOL_AFTER_SECONDS, LOOK_SECONDS = 0.5, 0.2
OLD, NEW = b"schema-1", b"schema-2"
KEY = "k0"


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Lanes with a scripted cluster and disk, and a registry that has told nothing yet."""
    stage = Stage()
    yield stage
    stage.check_accounting()
    stage.close()


@pytest.fixture
def spoolless() -> Iterator[Stage]:
    """The same without a spool."""
    stage = Stage(spool=False)
    yield stage
    stage.check_accounting()
    stage.close()


def push(stage: Stage, number: int, schema: bytes | None) -> PendingAck:
    """A callback of one record."""
    pushed = msgspec.structs.replace(record(KEY, number), schema=schema)

    async def submit() -> PendingAck:
        return stage.delivery.submit([pushed], stage.clock.now + 2.0)

    ack = stage.run(submit())
    stage.settle()
    return ack


def tell(stage: Stage, schema: bytes, prefix: bytes) -> None:
    """The registry's id comes to be known; lanes look again."""
    stage.ids.prefixes[STATUS, schema] = prefix
    stage.advance(LOOK_SECONDS)
    stage.settle()


def sent(stage: Stage) -> list[bytes]:
    """Values as they went, in their order."""
    return [each.value for each in stage.cluster.log]


def drain(stage: Stage) -> None:
    """Kafka and the disk do all there is to do."""
    for _ in range(20):
        stage.acknowledge()
        stage.commit()
        stage.advance(LOOK_SECONDS)


def test_a_known_id_goes_before_the_value(stage: Stage) -> None:
    """By the schema of each record; a whole value goes as it is. Nothing touches the disk."""
    stage.ids.prefixes = {(STATUS, OLD): b"old:", (STATUS, NEW): b"new:"}
    acks = [push(stage, 1, NEW), push(stage, 2, OLD), push(stage, 3, None)]
    drain(stage)
    assert [b"new:1", b"old:2", b"3"] == sent(stage)
    assert [200] * 3 == [Stage.answer(each) for each in acks]
    assert stage.disk.rows == {}
    assert not stage.lane(KEY).degraded


def test_while_an_id_is_not_known_its_records_are_journalled_and_keep_their_order(stage: Stage) -> None:
    """200 from the disk, nothing sent, what needs no id neither; no producer is blamed; then all of it, in order."""
    first = push(stage, 1, NEW)
    behind = push(stage, 2, None)
    assert (None, None) == (Stage.answer(first), Stage.answer(behind))
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    assert (200, 200) == (Stage.answer(first), Stage.answer(behind))
    third = push(stage, 3, NEW)
    stage.commit()
    assert Stage.answer(third) == 200
    assert stage.lane(KEY).degraded
    assert (stage.flying, sent(stage)) == ([], [])
    assert stage.cluster.left == 0

    tell(stage, NEW, b"new:")
    drain(stage)
    assert [b"new:1", b"2", b"new:3"] == sent(stage)
    assert stage.disk.rows == {}
    assert not stage.lane(KEY).degraded


def test_what_stands_before_an_unknown_one_is_sent(stage: Stage) -> None:
    """A batch ends where the ids end."""
    stage.ids.prefixes = {(STATUS, OLD): b"old:"}
    for number, schema in enumerate((OLD, None, NEW, OLD), 1):
        push(stage, number, schema)
    drain(stage)
    assert [b"old:1", b"2"] == sent(stage)
    tell(stage, NEW, b"new:")
    drain(stage)
    assert [b"old:1", b"2", b"new:3", b"old:4"] == sent(stage)


def test_what_a_former_life_left_gets_the_id_that_is_known_now(stage: Stage) -> None:
    """The disk has the schema's fingerprint, not its id."""
    push(stage, 1, OLD)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    stage.crash()
    behind = push(stage, 2, NEW)
    stage.ids.prefixes[STATUS, NEW] = b"new:"
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    assert (200, []) == (Stage.answer(behind), sent(stage))
    tell(stage, OLD, b"old:")
    drain(stage)
    assert [b"old:1", b"new:2"] == sent(stage)


def test_without_a_spool_it_is_refused_and_forgotten(spoolless: Stage) -> None:
    """503 at the deadline; when the id is known, only what came after that is sent."""
    first = push(spoolless, 1, NEW)
    spoolless.advance(2.1)
    assert Stage.answer(first) == 503
    tell(spoolless, NEW, b"new:")
    second = push(spoolless, 2, NEW)
    drain(spoolless)
    assert (200, [b"new:2"]) == (Stage.answer(second), sent(spoolless))


def test_readiness_without_a_spool_needs_the_ids(spoolless: Stage) -> None:
    """With one, the disk is enough."""

    def ready(delivery: Delivery) -> bool:
        return delivery.ready

    assert ready(spoolless.delivery)
    spoolless.ids.ready = False
    assert not ready(spoolless.delivery)


def test_an_event_too_large_for_the_broker_is_quarantined_with_a_value_that_says_its_schema(stage: Stage) -> None:
    """Who looks into the quarantine needs no id."""
    stage.ids.prefixes = {(STATUS, NEW): b"new:"}
    push(stage, 1, NEW)
    (flying,) = stage.cluster.flying
    stage.fail(flying, ProduceError(10))
    drain(stage)
    (moved,) = (each for each in stage.cluster.log if each.topic == QUARANTINE)
    assert (b"\xc3\x01schema-21", None) == (moved.value, moved.schema)


def test_a_record_of_an_older_spool_is_whole() -> None:
    """Its msgpack lacks the schema; one that has none is read by an older bridge as it was."""
    old = msgspec.msgpack.encode(["topic", b"key", b"value", [], 1])
    assert Record("topic", b"key", b"value", [], 1) == msgspec.msgpack.decode(old, type=Record)
    new = msgspec.msgpack.encode(Record("topic", b"key", b"value", [], 1))
    assert ["topic", b"key", b"value", [], 1, None] == msgspec.msgpack.decode(new)
