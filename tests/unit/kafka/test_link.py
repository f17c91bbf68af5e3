"""A broker's connections: who goes by which, in requests of which size, and what a request that is lost brings about."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.kafka_frames import PartitionAnswer
from support.model_broker import Arrived, ModelConnection, ModelProducer, ModelStage
from support.scripted import LANES, STATUS, numbers, record

from bridge.delivery.layout import placed
from bridge.delivery.refusals import Refusals
from bridge.kafka.batch import Batch
from bridge.kafka.link import Role

SPOOL_AFTER_SECONDS = 0.5
# A lane each.
A, B = (next(k for k in map("k{}".format, range(99)) if placed(record(k, 0), LANES) == lane) for lane in range(LANES))

MakeStage = Callable[..., ModelStage]


@pytest.fixture
def make() -> Iterator[MakeStage]:
    """A stage whose partitions are all led by broker 1; what holds at every moment is looked at in the end too."""
    stages: list[ModelStage] = []

    def one(**arguments: Any) -> ModelStage:
        stage = ModelStage(**arguments)
        stages.append(stage)
        stage.kafka.leaders = {(topic, n): 1 for topic, count in stage.kafka.partitions.items() for n in range(count)}
        stage.learn()
        return stage

    yield one
    for stage in stages:
        stage.check()
        stage.close()


def roles(stage: ModelStage) -> list[Role]:
    """Of the links to the first broker, which leads all partitions; those first that were made first."""
    return [link.role for link in stage.produce.rounds.links() if link.node == 1]


def flying(stage: ModelStage) -> list[list[list[int]]]:
    """Numbers of the records in each batch of each request on its way."""
    return [request.numbers for request in stage.kafka.requests]


# --- a request ----------------------------------------------------------------------------------------------------------


def test_lanes_share_a_request_and_what_comes_meanwhile_forms_the_next(make: MakeStage) -> None:
    """One request of a link is on its way at a time."""
    stage = make()
    stage.push(A, B)
    stage.push(A)
    stage.push(B)
    assert flying(stage) == [[[1], [2]]]
    stage.serve()
    assert flying(stage) == [[[3], [4]]]
    stage.finish()


def test_a_request_is_bounded(make: MakeStage) -> None:
    """What does not fit waits for the next, in its order, and the batch is the same."""
    stage = make(max_request_bytes=130)
    stage.push(A, B)
    stage.push(A)
    assert flying(stage) == [[[1]]]
    stage.serve()
    assert flying(stage) == [[[2]]]
    stage.finish()
    assert stage.log == [1, 2, 3]


def test_a_record_larger_than_a_request_goes_alone_by_a_link_of_its_own(make: MakeStage) -> None:
    """So that nobody waits behind it: a broker that closes on it closes on nothing else."""
    stage = make(max_request_bytes=70)
    stage.push(A, B)
    assert roles(stage) == [Role.HEALTHY, Role.QUARANTINE]
    assert flying(stage) == [[[1]]]
    stage.serve()
    stage.finish()
    assert sorted(stage.log) == [1, 2]


@pytest.mark.parametrize("throttle_ms", [1_500, 600_000])
def test_a_broker_that_throttles_is_sent_nothing_for_as_long_as_told(make: MakeStage, throttle_ms: int) -> None:
    """Or for two minutes at most. The quota is the client's: nothing goes to that broker by another link either."""
    stage = make()
    stage.push(A)
    opened = stage.kafka.opened
    stage.do(lambda: stage.kafka.requests[0].answer(stage.kafka.requests[0].serve(), throttle_ms))
    stage.push(A)
    until = stage.clock.now + min(throttle_ms / 1000, 120.0)
    stage.advance(min(throttle_ms / 1000, 120.0) - 0.01)
    assert flying(stage) == []
    stage.advance(0.02)
    assert stage.clock.now >= until
    assert flying(stage) == [[[2]]]
    assert stage.kafka.opened <= opened + 1  # the lane is degraded by then, and has another link
    stage.finish()


def test_before_a_login_ends_the_next_request_goes_on_a_new_connection(make: MakeStage) -> None:
    """The one on its way is waited for."""
    stage = make()
    stage.push(A)
    [first] = stage.kafka.requests
    first.connection.expire()
    stage.advance(0.1)
    assert flying(stage) == [[[1]]]
    opened = stage.kafka.opened
    stage.serve()
    stage.advance(0.1)
    stage.push(A)
    [second] = stage.kafka.requests
    stage.serve()
    stage.push(A)
    [third] = stage.kafka.requests
    assert second.connection is first.connection  # it serves until the new one is there
    assert third.connection is not first.connection
    assert first.connection.end
    assert stage.kafka.opened == opened + 1
    stage.finish()


def test_credentials_that_changed_are_taken_for_the_next_request(make: MakeStage) -> None:
    """Between requests."""
    stage = make()
    stage.push(A)
    [first], opened = stage.kafka.requests, stage.kafka.opened
    link = next(link for link in stage.produce.rounds.links() if link.flight)
    stage.do(link.renew)
    assert flying(stage) == [[[1]]]
    stage.serve()
    stage.push(A)
    assert stage.kafka.requests[0].connection is not first.connection
    assert stage.kafka.opened == opened + 1
    stage.finish()


def test_a_connection_that_has_ended_takes_no_request_with_it(make: MakeStage) -> None:
    """It came to an end a moment ago, and the link has not heard of it: the next request goes on a new one."""
    stage = make()
    stage.kafka.leaders[STATUS, placed(record(B, 0), LANES)] = 2
    stage.learn()
    stage.push(A, B)
    ended = next(each.connection for each in stage.kafka.requests if each.node == 1)
    stage.serve()

    def both() -> None:
        stage.delivery.submit([record(A, 3), record(B, 4)], stage.clock.now + 2.0)
        ended.abort("an answer that nobody asked for")

    stage.do(both)
    assert sorted(flying(stage)) == [[[3]], [[4]]]
    assert not stage.produce.batches_failed
    stage.finish()


def test_connections_to_a_former_cluster_take_no_further_request(make: MakeStage) -> None:
    """Its brokers still live. What is on its way goes to the recreated cluster too, with numbers of that one."""
    stage = make()
    stage.push(A)
    for link in stage.produce.rounds.links():
        stage.do(link.renew)
    former = list(stage.kafka.connections)
    assert len(former) > len(stage.produce.rounds.links())  # a replacement is open, and waits for the answer
    stage.do(stage.kafka.recreate, hang_up=False)
    stage.learn()
    stage.advance(0.2)
    assert all(connection.end == "it is another cluster" for connection in former)
    [request] = stage.kafka.requests
    assert [(batch.producer_id, batch.epoch, batch.first) for batch in request.batches] == [(2, 0, 0)]
    stage.finish()
    assert stage.log == [1]


# --- roles --------------------------------------------------------------------------------------------------------------


def test_the_link_on_which_a_healthy_lane_waits_for_too_long_is_left_to_the_degraded(make: MakeStage) -> None:
    """Healthy lanes go on by a new one."""
    stage = make()
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    assert roles(stage)[0] is Role.DEGRADED
    stage.push(B)
    assert roles(stage) == [Role.DEGRADED, Role.HEALTHY]
    assert flying(stage) == [[[1]], [[2]]]
    stage.serve()
    stage.finish()


def test_what_waits_behind_a_slow_request_is_taken_along(make: MakeStage) -> None:
    """Also a batch that was made already and did not fit."""
    stage = make(max_request_bytes=130)
    stage.kafka.silent = {1}
    stage.push(A)
    stage.advance(0.3)
    stage.push(B)
    stage.kafka.silent = set()
    stage.advance(0.05)
    assert flying(stage) == [[[1]]]
    stage.advance(SPOOL_AFTER_SECONDS - 0.35 + 0.01)
    assert flying(stage) == [[[1]], [[2]]]
    assert not stage.lane(B).degraded
    stage.finish()


def test_a_second_slow_link_is_spare_and_serves_again_or_is_closed(make: MakeStage) -> None:
    """The degraded lanes have one already."""
    stage = make()
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.push(B)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    assert roles(stage)[:2] == [Role.DEGRADED, Role.SPARE]
    stage.serve()
    stage.commit()
    stage.advance(11.0)
    assert len(roles(stage)) <= 2
    assert Role.SPARE not in roles(stage)
    stage.push(A)
    assert roles(stage) == [Role.DEGRADED, Role.HEALTHY]
    stage.finish()


def test_a_spare_link_is_taken_before_a_new_one_is_opened(make: MakeStage) -> None:
    """It has a connection."""
    stage = make()
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.push(B)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.serve()
    stage.commit()
    opened = stage.kafka.opened
    assert Role.SPARE in roles(stage)
    stage.push(A)
    assert Role.HEALTHY in roles(stage)
    assert stage.kafka.opened == opened
    stage.finish()


def test_a_healthy_link_is_kept_open_all_night(make: MakeStage) -> None:
    """By a question every three minutes, so that the first report of the morning waits for no connection."""
    stage = make()
    stage.push(A)
    stage.serve()
    connection = model_connection(stage)
    opened = stage.kafka.opened
    stage.advance(179.0)
    assert connection.kept_alive == 0
    stage.advance(2.0)
    assert connection.kept_alive == 1
    stage.advance(3600.0)
    assert 18 <= connection.kept_alive <= 21
    stage.push(A)
    assert flying(stage) == [[[2]]]
    assert (connection.end, stage.kafka.opened) == ("", opened)
    stage.finish()


def test_a_healthy_link_that_lost_its_connection_gets_another_before_it_is_needed(make: MakeStage) -> None:
    """With the next news of the cluster, which come every minute."""
    stage = make()
    stage.push(A)
    stage.serve()
    stage.do(model_connection(stage).hang_up)
    stage.learn()
    stage.advance(0.1)
    assert model_connection(stage).end == ""
    stage.finish()


def test_links_that_nothing_goes_by_are_closed(make: MakeStage) -> None:
    """Before the broker does it: those of the degraded lanes, and of a broker that leads nothing any more."""
    stage = make()
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.serve()
    stage.commit()
    stage.push(A)
    stage.serve()
    assert roles(stage) == [Role.DEGRADED, Role.HEALTHY]
    connections = [link.connection for link in stage.produce.rounds.links() if link.node == 1]
    stage.advance(182.0)
    assert roles(stage) == [Role.HEALTHY]
    stage.kafka.leaders = dict.fromkeys(stage.kafka.leaders, 2)
    stage.learn()
    stage.advance(182.0)
    assert roles(stage) == []
    assert [each.end for each in connections if each is not None] == ["idle", "idle"]
    stage.push(A)
    assert flying(stage) == [[[3]]]
    stage.finish()


def test_nothing_is_sent_while_a_connection_renews_its_login(make: MakeStage) -> None:
    """What comes meanwhile goes when that is over."""
    stage = make()
    stage.push(A)
    stage.serve()
    connection = model_connection(stage)
    connection.busy = True
    stage.push(A)
    stage.advance(0.1)
    assert flying(stage) == []
    connection.busy = False
    stage.do(connection.on_free)
    assert flying(stage) == [[[2]]]
    stage.finish()


def model_connection(stage: ModelStage) -> ModelConnection:
    """Of the first link to broker 1."""
    connection: Any = next(link for link in stage.produce.rounds.links() if link.node == 1).connection
    assert isinstance(connection, ModelConnection)
    return connection


# --- requests that are lost ---------------------------------------------------------------------------------------------


def hang_up(stage: ModelStage, request: Arrived) -> None:
    """The broker does."""
    stage.do(request.connection.hang_up)


def test_after_a_lost_request_each_of_its_batches_goes_alone(make: MakeStage) -> None:
    """One of them may be what the broker closes on."""
    stage = make()
    stage.push(A, B)
    hang_up(stage, stage.kafka.requests[0])
    stage.advance(0.1)
    for _ in range(2):
        [[batch]] = flying(stage)
        assert len(batch) == 1
        stage.serve()
    assert sorted(stage.log) == [1, 2]
    stage.finish()


def test_requests_are_halved_where_they_are_lost_again_and_grow_again(make: MakeStage) -> None:
    """Down to a least size, and up to the setting, a minute after each other without another loss."""
    stage = make(max_request_bytes=60_000)
    produce = stage.produce
    sizes = []
    for _ in range(8):
        stage.push(A, B)
        [request] = stage.kafka.requests
        assert len(request.batches) == 2
        hang_up(stage, request)
        sizes.append(produce.sizes.most_request_bytes)
        stage.advance(0.2)
        stage.serve()
        stage.serve()
    assert sizes == [60_000, 30_000, 30_000, 16_384, 16_384, 16_384, 16_384, 16_384]
    stage.advance(59.0)
    assert produce.sizes.most_request_bytes == 16_384
    stage.advance(2.0)
    assert produce.sizes.most_request_bytes == 32_768
    stage.advance(61.0)
    assert produce.sizes.most_request_bytes == 60_000
    stage.finish()


def test_a_request_of_several_that_is_answered_between_two_lost_ones_halves_nothing(make: MakeStage) -> None:
    """Brokers restart now and then."""
    stage = make(max_request_bytes=60_000)
    for _ in range(4):
        stage.push(A, B)
        hang_up(stage, stage.kafka.requests[0])
        stage.advance(0.2)
        stage.serve()
        stage.serve()
        stage.push(A, B)
        stage.serve()
    assert stage.produce.sizes.most_request_bytes == 60_000
    stage.finish()


def test_a_batch_that_the_broker_closes_on_twice_alone_is_halved(make: MakeStage) -> None:
    """Under a new epoch, as the first attempts may be in the log; others go on meanwhile."""
    stage = make()
    stage.push(A, A, A, A, A, kind=random.Random(1).randbytes(10_000).hex())  # noqa: S311 - no secret
    for _ in range(2):
        assert flying(stage) == [[[1, 2, 3, 4, 5]]]
        hang_up(stage, stage.kafka.requests[0])
        stage.advance(0.5)
    assert flying(stage) == [[[1, 2]]]
    assert stage.kafka.requests[0].batches[0].epoch == 1
    stage.finish()
    assert stage.log == [1, 2, 3, 4, 5]


def test_a_small_batch_that_is_taken_apart_makes_no_others_smaller(make: MakeStage) -> None:
    """The bound of all batches would not have made it smaller."""
    stage = make()
    stage.push(A, A)
    stage.refuse(10)
    assert flying(stage) == [[[1]]]
    assert stage.produce.sizes.most_batch_bytes == 1 << 20
    stage.finish()


def test_a_broker_that_closes_on_everything_costs_no_dead_letter(make: MakeStage) -> None:
    """For as long as it does; the other broker takes all it is sent, of the same sizes."""
    stage = make()
    on_2 = next(partition for partition in range(LANES) if partition != placed(record(A, 0), LANES))
    stage.kafka.leaders[STATUS, on_2] = 2
    stage.learn()
    stage.push(A, A)
    while stage.clock.now < 1700.0:
        stage.push(B)
        for request in list(stage.kafka.requests):
            if request.node == 1:
                hang_up(stage, request)
            else:
                stage.serve(request)
        stage.commit()
        stage.advance(1.0)
    assert not stage.disk.dead_letters
    assert stage.produce.sequences.epochs_raised == 0
    stage.finish()


def test_an_answer_between_two_closes_counts_from_the_beginning(make: MakeStage) -> None:
    """The broker can read the request, then."""
    stage = make()
    stage.push(A, A)
    hang_up(stage, stage.kafka.requests[0])
    stage.advance(0.5)
    stage.refuse(6)
    stage.advance(0.5)
    hang_up(stage, stage.kafka.requests[0])
    stage.advance(0.5)
    assert flying(stage) == [[[1, 2]]]
    assert stage.kafka.requests[0].batches[0].epoch == 0
    stage.finish()


def test_a_broker_that_takes_no_connection_is_tried_less_and_less_often(make: MakeStage) -> None:
    """Up to every two seconds; and it is said why."""
    stage = make()
    stage.kafka.refusing = {1}
    stage.push(A)
    stage.advance(20.0)
    before = stage.kafka.opened
    stage.advance(20.0)
    assert 8 <= stage.kafka.opened - before <= 30
    assert "broker 1, advertised as localhost:1" in stage.produce.last_error
    stage.finish()
    assert not stage.produce.last_error


def test_what_is_on_its_way_to_a_former_leader_goes_to_the_new_one_at_once(make: MakeStage) -> None:
    """With the same numbers; other partitions' answers are waited for."""
    stage = make()
    stage.push(A, B)
    [request] = stage.kafka.requests
    request.serve()
    stage.kafka.leaders[STATUS, placed(record(A, 0), LANES)] = 2
    stage.learn()
    stage.advance(0.1)
    assert [each.numbers for each in stage.flying_to(2)] == [[[1]]]
    stage.serve(stage.flying_to(2)[0])
    stage.do(request.answer, {each.where: PartitionAnswer(0) for each in request.batches})
    stage.finish()
    assert sorted(stage.log) == [1, 2]


def test_answers_that_speak_of_what_was_not_asked_do_no_harm(make: MakeStage) -> None:
    """Another partition, another topic; what was asked is missing."""
    stage = make()
    stage.push(A)
    [request] = stage.kafka.requests
    stage.do(request.answer, {("other", 0): PartitionAnswer(0), (STATUS, 77): PartitionAnswer(44)})
    assert stage.produce.batches_failed == {("resend", "missing_in_answer"): 1}
    stage.finish()
    assert stage.log == [1]


# --- the end ------------------------------------------------------------------------------------------------------------


def test_an_answer_that_comes_while_the_bridge_stops_begins_nothing(make: MakeStage) -> None:
    """What was refused then stays on disk."""
    stage = make()
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    stage.run(stage.lane(A).stop())
    stage.do(stage.kafka.requests[0].refuse, 87, named=[(0, "no")])
    assert not stage.disk.queue
    assert [numbers(row.records) for row in stage.disk.rows.values()] == [[1]]


def test_a_batch_that_cannot_be_compressed_holds_up_its_own_lane_only(
    make: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the codec: it is logged and tried again, and nothing is lost."""
    stage = make()
    real = Batch._compressed

    def compressed(batch: Batch) -> tuple[int, bytes]:
        if any(each.key == A.encode() for each in batch.records):
            raise RuntimeError("provoked")
        return real(batch)

    monkeypatch.setattr(Batch, "_compressed", compressed)
    stage.push(A, B)
    assert flying(stage) == [[[2]]]
    stage.serve()
    stage.advance(5.0)
    assert stage.produce.batches_failed["resend", "not_written"] > 1
    monkeypatch.undo()
    stage.finish()
    assert sorted(stage.log) == [1, 2]


def test_a_connection_that_raises_when_it_is_written_to_ends_no_lane(
    make: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uvloop does where its handle is closed already. Each batch comes back once, and goes again as it is."""
    stage = make()
    real = ModelConnection.send

    def send(connection: ModelConnection, *arguments: Any) -> None:
        real(connection, *arguments)
        monkeypatch.undo()
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(ModelConnection, "send", send)
    pushed = stage.push(A, B)
    assert stage.produce.batches_failed == {("resend", "not_written"): 2}
    stage.advance(1.0)
    assert sorted(batch for request in flying(stage) for batch in request) == [[1], [2]]
    stage.serve()
    assert ModelStage.answer(pushed) == 200
    stage.finish()
    assert sorted(stage.log) == [1, 2]


@pytest.mark.parametrize("appended", [True, False])
def test_a_lane_that_fails_over_an_answer_goes_on_with_its_head(
    make: MakeStage, monkeypatch: pytest.MonkeyPatch, appended: bool
) -> None:
    """What may be in the log has no numbers any more, so that its partition is free."""
    stage = make()

    def step(*_: Any) -> None:
        monkeypatch.undo()
        raise RuntimeError("provoked")

    monkeypatch.setattr(Refusals, "step", step)
    pushed = stage.push(A)
    [request] = stage.kafka.requests
    if appended:
        request.serve()
    hang_up(stage, request)
    stage.push(A)
    stage.advance(1.2)
    assert flying(stage) == [[[1, 2]]]
    stage.serve()
    assert ModelStage.answer(pushed) == 200
    stage.finish()


def test_a_broker_without_a_known_version_of_produce_costs_no_sockets(
    make: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection to it is closed, and it is said why."""
    stage = make()
    for link in stage.produce.rounds.links():  # opened ahead
        stage.produce.rounds.prune(link, "idle")
    real, opened = ModelProducer.open, []

    async def open_(producer: ModelProducer, node: int) -> Any:
        opened.append(await real(producer, node))
        return opened[-1]

    monkeypatch.setattr(ModelProducer, "open", open_)
    stage.kafka.newest = 2
    stage.push(A)
    stage.advance(10.0)
    assert len(opened) > 3
    assert all(connection.end for connection in opened)
    assert "the bridge knows 3 to 8" in stage.produce.last_error
    stage.kafka.newest = 8
    stage.finish()
