"""Who tries again while Kafka refuses everything."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support.model_broker import ModelStage
from support.scripted import LANES, Clock, Stage, record

from bridge.delivery.layout import placed
from bridge.kafka.pacing import Pacing

SHORT, LONG = 1.0, 30.0
A, B = (next(k for k in map("k{}".format, range(99)) if placed(record(k, 0), LANES) == lane) for lane in range(LANES))


class Lanes:
    """Sources that try whenever they may, at a cluster that refuses them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tries: list[tuple[float, str]] = []
        self.most = LONG
        self.pacing = self.run(self._make)

    def run(self, call: Callable[[], Any]) -> Any:
        """Where the loop runs; then all that is due."""

        async def turns() -> Any:
            result = call()
            for _ in range(3):
                await asyncio.sleep(0)
            return result

        return self.clock.run_until_complete(turns())

    def _make(self) -> Pacing:
        return Pacing(self.offered)

    def offered(self, source: str) -> None:
        """It may try now."""
        if self.pacing.admits(source):
            self.tries.append((self.clock.now, source))
            self.pacing.refused(source, self.most)
            self.pacing.admits(source)  # it wants to again

    def advance(self, seconds: float) -> None:
        """In small steps."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now += 0.01
            self.run(_nothing)


def _nothing() -> None:
    """Let timers be."""


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    """On a clock of their own."""
    lanes = Lanes()
    yield lanes
    lanes.run(lanes.pacing.stop)
    lanes.clock.close()


def test_one_refused_lane_is_its_own_affair(lanes: Lanes) -> None:
    """Whatever refuses it, all others go on."""
    for _ in range(5):
        lanes.run(partial(lanes.pacing.refused, "a", LONG))
    assert not lanes.pacing.refuses_everything
    assert lanes.run(partial(lanes.pacing.admits, "a"))
    assert lanes.run(partial(lanes.pacing.admits, "b"))


def refuse_everything(lanes: Lanes, count: int) -> None:
    """So many lanes, at once."""
    names = [f"lane {number}" for number in range(count)]
    for name in names:
        lanes.run(partial(lanes.pacing.refused, name, lanes.most))
    for name in names:
        lanes.run(partial(lanes.pacing.admits, name))


def test_when_several_are_refused_one_tries_at_a_time_and_less_and_less_often(lanes: Lanes) -> None:
    """Each in its turn, up to every half minute."""
    refuse_everything(lanes, 12)
    assert lanes.pacing.refuses_everything
    lanes.advance(120.0)
    assert len(lanes.tries) < 20
    before = len(lanes.tries)
    lanes.advance(600.0)
    tries = lanes.tries[before:]
    assert 20 <= len(tries) <= 40
    assert len({name for _, name in tries[:12]}) == 12
    assert len({when for when, _ in tries}) == len(tries)


def test_one_request_that_is_refused_is_one_refusal(lanes: Lanes) -> None:
    """However many lanes had a batch in it: what passes in a moment is noticed in a moment."""
    refuse_everything(lanes, 12)
    lanes.advance(1.0)
    assert len(lanes.tries) >= 2


def test_what_passes_quickly_is_tried_every_second(lanes: Lanes) -> None:
    """Rights that are missing, replicas."""
    lanes.most = SHORT
    refuse_everything(lanes, 12)
    lanes.advance(60.0)
    assert 60 <= len(lanes.tries) <= 130


def test_a_batch_that_is_accepted_lets_all_go_on(lanes: Lanes) -> None:
    """At once, and the pauses begin anew."""
    refuse_everything(lanes, 5)
    lanes.advance(200.0)
    lanes.tries.clear()
    lanes.run(lanes.pacing.accepted)
    # Two of them go freely; with the second's refusal it is all of them again.
    assert len(lanes.tries) == 2
    lanes.advance(1.0)
    assert len(lanes.tries) >= 3


def test_nothing_is_offered_after_the_end(lanes: Lanes) -> None:
    """No timer is left."""
    refuse_everything(lanes, 3)
    lanes.run(lanes.pacing.stop)
    lanes.advance(100.0)
    assert not lanes.tries


# --- with lanes and brokers ---------------------------------------------------------------------------------------------


@pytest.fixture
def stage() -> Iterator[ModelStage]:
    """What holds at every moment is looked at in the end too."""
    stage = ModelStage()
    yield stage
    stage.check()
    stage.close()


def refuses_everything(stage: ModelStage) -> bool:
    """Whether it is the cluster that refuses."""
    return stage.produce.refuses_everything


@pytest.mark.parametrize("code", [44, -1, 32, 29, 87, 999])
def test_a_refusal_of_everything_costs_a_few_requests_and_neither_connections_nor_ids(
    stage: ModelStage, code: int
) -> None:
    """An hour of it; when it is over all is published in its order, and nothing was given away."""
    acks, requests = [], 0
    for second in range(3600):
        if second < 60:
            acks.append(stage.push(A, B))
            stage.commit()
        requests += len(stage.kafka.requests)
        stage.refuse(code)
        if second == 600:
            opened, ids, requests = stage.kafka.opened, stage.kafka.producer_ids, 0
        stage.advance(1.0)
    assert [Stage.answer(ack) for ack in acks] == [200] * 60
    assert stage.kafka.opened - opened <= 2 * 3000 / 200  # those that are idle for long are closed
    assert stage.kafka.producer_ids == ids
    assert 90 <= requests <= (220 if code != 29 else 6_100)
    assert refuses_everything(stage)
    assert not stage.disk.dead_letters
    stage.finish()
    assert not refuses_everything(stage)
    assert stage.first_occurrences() == {A: list(range(1, 121, 2)), B: list(range(2, 121, 2))}
    assert len(stage.log) == 120


def test_a_lane_that_is_accepted_ends_it_for_all(stage: ModelStage) -> None:
    """The other one need not wait for its turn."""
    stage.push(A, B)
    for _ in range(300):
        stage.commit()
        stage.refuse(44)
        stage.advance(1.0)
    while not stage.kafka.requests:
        stage.advance(0.5)
    stage.serve()
    stage.serve()
    assert sorted(stage.log) == [1, 2]
    stage.finish()


@pytest.mark.parametrize("code", [6, 5, 7, 19, 20, 56])
def test_what_is_the_leaders_is_no_refusal_of_everything(stage: ModelStage, code: int) -> None:
    """Each lane tries again for itself, within a second or so: a leader is chosen soon."""
    stage.push(A, B)
    for _ in range(60):
        stage.commit()
        stage.refuse(code)
        stage.advance(1.0)
    assert not refuses_everything(stage)
    stage.advance(1.0)
    assert len(stage.kafka.requests) == 2
    stage.finish()


@pytest.mark.parametrize("code", [10, 76])
def test_a_refusal_that_leaves_nothing_else_to_try_is_paced_as_well(stage: ModelStage, code: int) -> None:
    """A single record that is smaller than the topic's bound, a codec where none is left."""
    stage.push(A, B)
    for _ in range(10):
        stage.commit()
        stage.refuse(44)
        stage.advance(1.0)
    assert refuses_everything(stage)
    requests = 0
    for _ in range(600):
        requests += len(stage.kafka.requests)
        stage.refuse(code)
        stage.advance(0.1)
    assert requests <= 30
    stage.finish()
