"""Slow is not dead: when a request without an answer is waited for, and when it is given up."""

import random
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from support.model_broker import ModelStage
from support.scripted import LANES, QUARANTINE, STATUS, record

from bridge.delivery.layout import placed

LIMIT, MOST, ASK_AGAIN = 6.0, 120.0, 2.0
A, B = (next(k for k in map("k{}".format, range(99)) if placed(record(k, 0), LANES) == lane) for lane in range(LANES))
ON_1 = (STATUS, placed(record(A, 0), LANES))


@pytest.fixture
def stage() -> Iterator[ModelStage]:
    """Broker 1 leads A's partition, broker 2 all others."""
    stage = ModelStage()
    stage.kafka.leaders = {(STATUS, 0): 2, (STATUS, 1): 2, (QUARANTINE, 0): 2, ON_1: 1}
    stage.learn()
    yield stage
    stage.check()
    stage.close()


def failed(stage: ModelStage) -> dict[tuple[str, str], int]:
    """Batches, by what was done and why."""
    return dict(stage.produce.batches_failed)


def test_a_slow_broker_is_waited_for_and_the_log_says_so_once(stage: ModelStage) -> None:
    """As long as it takes a connection and answers there, for two minutes at most."""
    stage.push(A)
    with capture_logs() as logs:
        stage.advance(MOST - 1.0)
    assert stage.flying == [[1]]
    [slow] = [each for each in logs if each["event"] == "kafka_slow"]
    assert slow["broker"] == 1
    assert LIMIT <= slow["waited_seconds"] <= LIMIT + 1.0
    assert not failed(stage)
    stage.serve()
    stage.finish()
    assert stage.log == [1]


def test_no_request_is_waited_for_longer_than_two_minutes(stage: ModelStage) -> None:
    """Then it is sent again, as it is."""
    stage.push(A)
    stage.advance(MOST - 0.5)
    assert not failed(stage)
    stage.advance(2.0)
    assert failed(stage) == {("resend", "timed_out"): 1}
    assert stage.flying == [[1]]
    assert len(stage.kafka.late) == 1
    stage.kafka.deliver_late()
    stage.finish()
    assert stage.log == [1]


@pytest.mark.parametrize("how", ["refusing", "silent"])
def test_a_dead_broker_is_given_up_after_the_limit(stage: ModelStage, how: str) -> None:
    """It takes no connection, or connecting does not come to an end; other brokers' requests go on."""
    stage.push(A, B)
    stage.serve(stage.flying_to(2)[0])
    getattr(stage.kafka, how).add(1)
    stage.advance(LIMIT - 0.3)
    assert not failed(stage)
    with capture_logs() as logs:
        stage.advance(2.5)
    assert failed(stage) == {("resend", "timed_out"): 1}
    assert [each["broker"] for each in logs if each["event"] == "kafka_not_answering"] == [1]
    stage.push(B)
    stage.serve()
    assert sorted(stage.log) == [2, 3]
    stage.finish()
    assert sorted(stage.log) == [1, 2, 3]


def test_a_connection_that_is_stuck_is_given_up_while_its_broker_answers_on_others(stage: ModelStage) -> None:
    """Three later requests that were answered much faster say that it is the connection, not the broker."""
    stage.kafka.leaders = dict.fromkeys(stage.kafka.leaders, 1)
    stage.learn()
    stage.push(A)
    [stuck] = stage.kafka.requests
    stage.advance(1.0)
    for _ in range(3):
        assert not failed(stage)
        stage.push(B)
        [request] = [each for each in stage.kafka.requests if each is not stuck]
        stage.serve(request)
        stage.advance(0.1)
    stage.advance(LIMIT - 1.8)
    assert not failed(stage)
    stage.advance(1.0)
    assert failed(stage) == {("resend", "timed_out"): 1}
    assert stuck.connection.end
    stage.finish()
    assert stage.first_occurrences()[A] == [1]


def test_without_numbers_a_stuck_connection_is_waited_for(stage: ModelStage) -> None:
    """Its bytes may arrive at any time, and the broker could not tell that they are old."""
    stage.kafka.idempotent = False
    stage.crash()
    stage.kafka.leaders = dict.fromkeys(stage.kafka.leaders, 1)
    stage.learn()
    stage.push(A)
    [stuck] = stage.kafka.requests
    stage.advance(1.0)
    for _ in range(3):
        stage.push(B)
        stage.serve(next(each for each in stage.kafka.requests if each is not stuck))
        stage.advance(0.1)
    stage.advance(60.0)
    assert not failed(stage)
    assert not stuck.connection.end
    stage.finish()
    assert stage.first_occurrences()[A] == [1]
    assert len(stage.log) == 4


def test_a_broker_that_dies_while_it_is_waited_for_is_given_up(stage: ModelStage) -> None:
    """It is asked again every other second."""
    stage.push(A)
    stage.advance(30.0)
    opened = stage.kafka.opened
    stage.advance(20.0)
    assert 8 <= stage.kafka.opened - opened <= 11
    stage.kafka.refusing.add(1)
    stage.advance(ASK_AGAIN + 1.0)
    assert failed(stage) == {("resend", "timed_out"): 1}
    stage.finish()


def test_the_limit_follows_what_is_seen(stage: ModelStage) -> None:
    """Twice the slowest acknowledgement of the last minutes, half a minute at most; then it is the setting again."""
    watch = stage.produce._watch
    for seconds, limit in ((2.0, LIMIT), (10.0, 20.0), (4.0, 20.0), (40.0, 30.0)):
        stage.push(A)
        stage.advance(seconds)
        stage.serve()
        stage.commit()
        assert watch.limit_seconds == pytest.approx(limit, abs=1.5)
    stage.advance(250.0)
    assert watch.limit_seconds == 30.0
    stage.advance(60.0)
    assert watch.limit_seconds == LIMIT


def test_within_the_limit_nobody_is_asked(stage: ModelStage) -> None:
    """No connection is spent on a Kafka that always needs ten seconds."""
    for _ in range(3):
        stage.push(A)
        stage.advance(10.0)
        stage.serve()
        stage.commit()
    opened = stage.kafka.opened
    stage.push(A)
    stage.advance(15.0)
    assert stage.kafka.opened == opened
    stage.finish()


def test_a_large_request_on_a_narrow_line_is_waited_for_though_small_ones_are_answered(stage: ModelStage) -> None:
    """It needs its time, which is more with each attempt, as nobody knows how narrow the line is."""
    stage.kafka.leaders[STATUS, placed(record(B, 0), LANES)] = 1
    stage.learn()
    stage.push(A, kind=random.Random(1).randbytes(150_000).hex())  # noqa: S311 - no secret
    large = stage.kafka.requests[0]
    stage.advance(0.6)  # its lane is degraded, and has its link for itself
    began = stage.clock.now
    waited: list[float] = []
    while stage.clock.now < began + 160.0:
        stage.push(B)
        for request in list(stage.kafka.requests):
            if len(request.batches) == 1 and request.batches[0].where != ON_1:
                stage.serve(request)
        stage.commit()
        stage.advance(0.5)
        [current] = [each for each in stage.kafka.requests if each.batches[0].where == ON_1] or [large]
        if current is not large:
            waited.append(stage.clock.now - began - sum(waited))
            large = current
    assert len(waited) >= 2
    assert 150_000 / 20_000 < waited[0] < 60.0
    assert waited[1] > 1.8 * waited[0]
    stage.finish()


def test_a_request_that_a_former_leader_has_is_not_waited_for(stage: ModelStage) -> None:
    """As soon as the cluster tells of another one."""
    stage.push(A)
    stage.advance(10.0)
    stage.kafka.leaders[ON_1] = 2
    stage.learn()
    stage.advance(0.2)
    assert [each.numbers for each in stage.flying_to(2)] == [[[1]]]
    assert failed(stage) == {("resend", "leader_moved"): 1}
    stage.finish()


def test_a_connection_that_is_closed_is_not_waited_for(stage: ModelStage) -> None:
    """Nor asked about."""
    stage.push(A)
    stage.advance(1.0)
    stage.do(stage.kafka.requests[0].connection.hang_up)
    assert failed(stage) == {("resend", "closed"): 1}
    stage.finish()


def test_an_answer_that_comes_while_the_broker_is_asked_counts(stage: ModelStage) -> None:
    """Whatever the question comes to, it says nothing of the next request."""
    stage.push(A)
    stage.push(A)
    stage.kafka.silent.add(1)
    stage.advance(LIMIT - 0.1)
    opened = stage.kafka.opened
    stage.advance(0.4)
    assert stage.kafka.opened > opened
    opened = stage.kafka.opened
    stage.serve()
    assert stage.flying == [[2]]
    stage.advance(3.0)
    assert stage.kafka.opened == opened
    assert not failed(stage)
    assert stage.flying == [[2]]
    stage.finish()


def ready(stage: ModelStage) -> bool:
    """Whether a lane could send now."""
    return stage.produce.ready


def test_brokers_that_say_nothing_are_asked_about_the_cluster(stage: ModelStage) -> None:
    """So that it is known whether they answer, with nothing to send too."""
    assert ready(stage)
    stage.advance(10.0)
    assert ready(stage)
    stage.kafka.reachable = False
    stage.advance(10.0)
    assert not ready(stage)
    assert stage.produce.silent_seconds >= 10.0
    stage.kafka.reachable = True
    stage.advance(3.0)
    assert ready(stage)


def test_the_end_leaves_no_question(stage: ModelStage) -> None:
    """The task that asks a broker is ended."""
    stage.push(A)
    stage.kafka.silent.add(1)
    stage.advance(LIMIT + 0.3)
    stage.run(stage.produce.stop())
    assert not stage.produce._watch._questions
    assert not stage.produce.in_flight
