"""The real lanes and the real producer on a model of Kafka: nothing is lost, and nothing is out of order, whatever comes."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from support.kafka_frames import Partition, PartitionAnswer
from support.model_broker import NOT_APPENDED, Arrived, ModelStage
from support.promises import Promises
from support.scripted import LANES, STATUS, numbers, record

from bridge.delivery.layout import placed

LONG = os.environ.get("BRIDGE_LONG") == "1"
MORE = 3
"""Partitions after there were two: each lane then writes to all of them, and each partition is written to by both lanes."""


def where(key: str, partitions: int = LANES) -> Partition:
    """The partition of a key."""
    return STATUS, placed(record(key, 0), partitions)


def _keys(count: int) -> list[str]:
    """Keys of all lanes and partitions, whether there are few or more."""
    found: dict[tuple[int, int], str] = {}
    for key in map("k{}".format, range(999)):
        found.setdefault((where(key)[1], where(key, MORE)[1]), key)
    return list(found.values())[:count]


KEYS = _keys(LANES * MORE)


@pytest.fixture
def stage() -> Iterator[ModelStage]:
    """Two brokers and a process; what holds at every moment is looked at in the end too."""
    stage = ModelStage()
    yield stage
    stage.check()
    stage.close()


def test_lanes_that_share_a_partition_take_turns_without_a_pause(stage: ModelStage) -> None:
    """A topic with fewer partitions than lanes: each round has one lane's batch, and the next begins with its answer."""
    stage.kafka.partitions[STATUS] = 1
    stage.learn()
    began = stage.clock.now
    for _ in range(3):
        stage.push(*KEYS[:6])
        while stage.kafka.requests:
            stage.serve()
    assert stage.clock.now == began
    assert len(stage.log) == 18
    stage.finish()


# --- numbers ------------------------------------------------------------------------------------------------------------


def test_a_duplicate_that_was_sent_once_is_no_acknowledgement(stage: ModelStage) -> None:
    """Other records have its numbers: it is sent again under a new epoch."""
    pushed = stage.push(KEYS[0])
    stage.refuse(46)
    assert stage.answer(pushed) is None
    stage.advance(1.0)
    assert stage.produce.sequences.epochs_raised == 1
    stage.serve()
    assert stage.answer(pushed) == 200
    stage.finish()
    assert stage.log == [1]


def test_a_recreated_kafka_gets_no_numbers_of_the_former_one(stage: ModelStage) -> None:
    """Neither with a batch that may be in the former log, nor with the next ones; and all of them come in their order."""
    other = next(key for key in KEYS if where(key) != where(KEYS[0]))
    stage.push(KEYS[0])
    stage.push(KEYS[0])
    stage.push(other)
    stage.kafka.reachable = False
    stage.do(stage.kafka.recreate)
    stage.advance(1.0)
    assert not stage.kafka.connections  # those that were opened since were not confirmed, and are closed
    stage.kafka.reachable = True
    stage.advance(1.0)
    stage.serve()
    stage.finish()
    assert stage.kafka.producer_ids == 2
    assert stage.first_occurrences() == {KEYS[0]: [1, 2], other: [3]}
    assert len(stage.log) == 3


# --- without numbers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def without() -> Iterator[ModelStage]:
    """The same of a cluster without idempotent producers."""
    stage = ModelStage(idempotent=False)
    yield stage
    stage.check()
    stage.close()


def lose(stage: ModelStage, *, served: bool = False) -> None:
    """The connection of the one request is closed; the broker served the request, or its bytes may still arrive."""
    [request] = stage.kafka.requests
    if served:
        request.serve()
    stage.do(request.connection.hang_up, late=not served)


def test_a_copy_that_is_late_is_appended_before_what_comes_next(without: ModelStage) -> None:
    """The partition rests after the batch that was sent again; others go on."""
    first, other = KEYS[0], next(key for key in KEYS if where(key) != where(KEYS[0]))
    pushed = without.push(first)
    lose(without)
    without.advance(0.5)
    without.serve()
    assert without.answer(pushed) == 200
    without.push(first)
    without.push(other)
    without.advance(0.5)
    assert without.flying == [[3]]
    without.kafka.deliver_late()
    without.serve()
    without.advance(1.0)
    assert without.flying == [[2]]
    without.finish()
    assert without.log == [1, 1, 3, 2]


def test_a_copy_of_a_batch_that_is_taken_apart_is_appended_before_its_parts(without: ModelStage) -> None:
    """The partition rests before the parts are sent, so that the copy is not behind anything newer."""
    key = KEYS[0]
    without.push(key, key)
    lose(without)
    without.advance(0.5)
    without.refuse(10)
    without.advance(0.5)
    assert without.flying == []
    without.kafka.deliver_late()
    without.advance(1.0)
    without.push(key)
    without.finish()
    assert without.log == [1, 2, 1, 2, 3]


def test_a_batch_that_was_sent_once_is_followed_at_once(without: ModelStage) -> None:
    """Nothing rests where no copy can be late, also where the answer said that nothing was appended."""
    began = without.clock.now
    for _ in range(3):
        without.push(KEYS[0])
        without.serve()
    assert (without.log, without.clock.now) == ([1, 2, 3], began)
    without.push(KEYS[0])
    without.refuse(44)
    without.advance(0.5)
    without.serve()
    without.push(KEYS[0])
    assert without.flying == [[5]]
    without.finish()


def test_a_duplicate_without_numbers_is_no_acknowledgement(without: ModelStage) -> None:
    """A broker cannot know it, and a report must not be lost by such an answer."""
    pushed = without.push(KEYS[0])
    lose(without)
    without.advance(0.5)
    without.refuse(46)
    assert without.answer(pushed) is None
    without.finish()
    assert without.log == [1]
    assert without.produce.sequences.epochs_raised == 0


@pytest.mark.parametrize("served", [True, False])
def test_a_batch_without_numbers_is_settled_as_such_before_the_id_is_used(without: ModelStage, *, served: bool) -> None:
    """A producer id is given while the batch may be in the log: with numbers, it would be another batch to the broker."""
    without.push(KEYS[0])
    lose(without, served=served)
    without.push(KEYS[0])
    without.kafka.idempotent = True
    without.learn()
    without.advance(0.5)
    without.serve()
    without.advance(1.5)
    assert without.flying == [[2]]
    without.finish()
    assert [batch.numbered for batch in without.kafka.log] == [False] * (1 + served) + [True]
    assert without.log == [1] * (1 + served) + [2]


def test_a_batch_with_numbers_is_settled_as_such_where_no_more_ids_are_given(stage: ModelStage) -> None:
    """The other way round: the broker that knows its numbers appends it once."""
    stage.push(KEYS[0])
    lose(stage, served=True)
    stage.kafka.idempotent = False
    stage.do(stage.produce.cluster.want_producer_id)
    stage.learn()
    stage.advance(0.5)
    stage.serve()
    other = next(key for key in KEYS if where(key) != where(KEYS[0]))
    stage.push(other)
    stage.finish()
    assert [batch.numbered for batch in stage.kafka.log] == [True, False]
    assert stage.log == [1, 2]


def test_where_followers_are_late_few_copies_are_sent(without: ModelStage) -> None:
    """REQUEST_TIMED_OUT says that the leader has the batch: each attempt adds a copy, so the pauses grow to half a minute."""
    without.push(KEYS[0])
    until = without.clock.now + 160.0
    while without.clock.now < until:
        for request in list(without.kafka.requests):
            request.serve()
            without.do(request.answer, {each.where: PartitionAnswer(7) for each in request.batches})
        without.advance(0.5)
    assert 5 <= len(without.log) <= 25
    without.finish()


def test_a_missing_right_may_be_why_there_is_no_producer_id(without: ModelStage) -> None:
    """When it is there, the bridge asks at once and not after an hour."""
    without.push(KEYS[0])
    without.refuse(29)
    without.kafka.idempotent = True
    without.produce.cluster.wanted = False
    without.advance(1.5)
    assert not without.produce.cluster._id_wanted
    without.serve()
    without.advance(0.5)
    without.push(KEYS[0])
    without.finish()
    assert [batch.numbered for batch in without.kafka.log] == [False, True]


# --- more partitions than lanes, or fewer -------------------------------------------------------------------------------


def both_lanes(partition: int) -> tuple[str, str]:
    """Keys of one partition, each of another lane."""
    first, second = (next(k for k in KEYS if where(k, MORE)[1] == partition and where(k)[1] == lane) for lane in (0, 1))
    return first, second


@pytest.mark.parametrize("appended", [True, False])
def test_while_a_batch_may_be_in_the_log_no_other_lane_has_its_numbers(stage: ModelStage, appended: bool) -> None:
    """Two lanes write to one partition: the second waits, or the broker would take its records for the first one's."""
    stage.kafka.partitions[STATUS] = MORE
    stage.learn()
    first, second = both_lanes(0)
    pushed = [stage.push(first)]
    request = stage.kafka.requests[0]
    if appended:
        request.serve()
    stage.do(request.connection.hang_up)
    pushed.append(stage.push(second))
    assert stage.flying == []  # the first lane pauses
    stage.advance(1.0)
    assert stage.flying == [[1]]
    stage.serve()
    stage.advance(0.2)
    assert stage.flying == [[2]]
    stage.serve()
    assert [stage.answer(each) for each in pushed] == [200, 200]
    assert stage.log == [1, 2]
    assert stage.produce.sequences.epochs_raised == 0


def test_lanes_never_wait_for_each_other_in_a_circle(stage: ModelStage) -> None:
    """Each has a batch that may be in the log, and one that has to be sent again to the other's partition."""
    stage.kafka.partitions[STATUS] = MORE
    stage.kafka.leaders = {(STATUS, number): 1 for number in range(MORE)}
    stage.learn()
    mine, theirs = zip(both_lanes(1), both_lanes(0), strict=True)
    stage.push(*mine)
    stage.push(*theirs)
    [request] = stage.kafka.requests
    assert len(request.batches) == 2
    stage.do(request.answer, dict.fromkeys((each.where for each in request.batches), PartitionAnswer(45)))
    for _ in range(30):
        for request in list(stage.kafka.requests):
            # In this order: the partition that is free again comes first.
            free = 45 if request.numbers[0][0] > 2 else 6
            batches = sorted(request.batches, key=lambda batch: -batch.where[1])
            said = {each.where: PartitionAnswer(free if each.where[1] == 1 else 6) for each in batches}
            stage.do(request.answer, said)
        stage.advance(0.25)
    stage.finish()
    assert sorted(stage.log) == [1, 2, 3, 4]


def test_a_batch_of_a_partition_that_is_gone_keeps_no_numbers(stage: ModelStage) -> None:
    """The topic was made anew, with fewer partitions, and has got them back since."""
    stage.kafka.partitions[STATUS] = MORE
    stage.learn()
    stage.push(*both_lanes(MORE - 1))
    stage.do(stage.kafka.requests[0].connection.hang_up)
    stage.kafka.partitions[STATUS] = LANES
    stage.learn()
    stage.advance(1.0)
    stage.serve()
    stage.kafka.partitions[STATUS] = MORE
    stage.learn()
    for key in both_lanes(MORE - 1):
        stage.push(key)
    stage.finish()
    assert sorted(stage.log) == [1, 2, 3, 4]


def lanes_keys(lane: int) -> list[str]:
    """Keys of one lane, by partition."""
    return sorted((key for key in KEYS if where(key)[1] == lane), key=lambda key: where(key, MORE))


@pytest.mark.parametrize("again", [0, 1])
def test_of_a_round_only_what_was_acknowledged_is_done(stage: ModelStage, again: int) -> None:
    """One batch of a lane is taken apart, the other is sent again as it is, and acknowledged first."""
    stage.kafka.partitions[STATUS] = MORE
    stage.kafka.leaders = {(STATUS, number): 1 for number in range(MORE)}
    stage.learn()
    keys = lanes_keys(0)[:2]
    stage.push(*keys)
    [request] = stage.kafka.requests
    answers = {(STATUS, number): PartitionAnswer(6 if number == again else 44) for number in (0, 1)}
    stage.do(request.answer, answers)
    stage.advance(1.0)
    assert stage.flying == [[again + 1]]
    stage.finish()
    assert stage.first_occurrences() == {keys[0]: [1], keys[1]: [2]}
    assert len(stage.log) == 2


# --- numbers of records that are given away -----------------------------------------------------------------------------


def test_the_numbers_of_a_record_that_is_given_away_go_to_no_other(stage: ModelStage) -> None:
    """The broker closes the connection each time, and the record may be in the log all the same."""
    first, other = KEYS[0], next(key for key in KEYS if where(key) != where(KEYS[0]))
    stage.kafka.leaders = dict.fromkeys((where(first), where(other)), 1)
    stage.learn()
    stage.push(first)
    stage.advance(0.6)
    while not stage.disk.dead_letters:
        stage.push(other)
        for request in list(stage.kafka.requests):
            if [1] in request.numbers:
                request.serve()
                stage.do(request.connection.hang_up)
            else:
                stage.serve(request)
        stage.commit()
        stage.advance(1.0)
        assert stage.clock.now < 1400.0
    assert [numbers(row.records) for row in stage.disk.dead_letters] == [[1]]

    stage.push(first)
    [number] = stage.kafka.requests[0].numbers[0]
    stage.finish()
    assert number in stage.log


# --- any fault ----------------------------------------------------------------------------------------------------------

REFUSALS = [*NOT_APPENDED, 45, 45, 45, 47, 59]
MAYBE_APPENDED = [-1, 3, 5, 6, 7, 13, 20, 56, 999]


class AnyFault(Promises):
    """Callbacks, every answer that a broker may give, lost and late bytes, moves, commits, failures, deaths, in any order.

    Always: the reconciliation balances, what was answered 200 is in a log, on disk, or a dead letter, and no log has two lists of
    records under the same numbers. In the end, when all is well: what was promised is in the log, by key in the order it was
    pushed, and nothing waits.
    """

    stage: ModelStage

    @initialize(
        window=st.sampled_from([4_000, 1 << 20]),
        batch=st.sampled_from([80, 160, 1 << 20]),
        request=st.sampled_from([130, 300, 1 << 20]),
        newest=st.sampled_from([3, 7, 8]),
        largest=st.sampled_from([None, 10, 1 << 20]),
    )
    def start(self, window: int, batch: int, request: int, newest: int, largest: int | None) -> None:
        """A process."""
        self.begin(ModelStage(window_bytes=window, max_batch_bytes=batch, max_request_bytes=request))
        self.kafka = self.stage.kafka
        self.kafka.newest, self.kafka.largest = newest, largest

    # --- the provider, the disk, time -----------------------------------------------------------------------------------

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def push(self, keys: list[str]) -> None:
        """A callback."""
        self.pushed(self.stage.push(*keys))

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def push_and_serve(self, keys: list[str]) -> None:
        """A callback while all is well."""
        self.push(keys)
        self.stage.serve()

    @rule(seconds=st.sampled_from([0.1, 0.51, 0.51, 1.1, 3.1, 6.6, 31.0]))
    def wait(self, seconds: float) -> None:
        """Time passes: pauses end, lanes degrade, deadlines pass, requests are given up."""
        self.stage.advance(seconds)

    # --- answers --------------------------------------------------------------------------------------------------------

    def drawn(self, data: st.DataObject) -> Arrived:
        """A request that is on its way."""
        return data.draw(st.sampled_from(self.kafka.requests))

    @precondition(lambda self: self.kafka.requests)
    @rule()
    def serve_all(self) -> None:
        """All brokers are well."""
        self.stage.serve()

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), throttle_ms=st.sampled_from([0, 0, 1500]))
    def serve(self, data: st.DataObject, throttle_ms: int) -> None:
        """A broker does what is right."""
        request = self.drawn(data)
        self.stage.do(lambda: request.answer(request.serve(), throttle_ms))

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), code=st.sampled_from(MAYBE_APPENDED), appended=st.booleans())
    def fail(self, data: st.DataObject, code: int, appended: bool) -> None:
        """It answers with an error that says nothing of the log."""
        self.answer(data, PartitionAnswer(code), appended=appended)

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), code=st.sampled_from(REFUSALS), named=st.none() | st.integers(0, 3))
    def refuse(self, data: st.DataObject, code: int, named: int | None) -> None:
        """It appends nothing, and says so."""
        self.answer(data, PartitionAnswer(code, record_errors=[] if named is None else [(named, "no")]), appended=False)

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), code=st.sampled_from(MAYBE_APPENDED), then=st.sampled_from(REFUSALS), appended=st.booleans())
    def fail_and_refuse(self, data: st.DataObject, code: int, then: int, appended: bool) -> None:
        """A batch that may be in the log is refused when it is sent again, and more came meanwhile."""
        self.answer(data, PartitionAnswer(code), appended=appended)
        self.push(data.draw(st.lists(st.sampled_from(KEYS), max_size=2)) or KEYS[:1])
        self.stage.advance(1.1)
        if self.kafka.requests:
            self.answer(data, PartitionAnswer(then), appended=False)

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), appended=st.booleans())
    def leave_out(self, data: st.DataObject, appended: bool) -> None:
        """It says nothing of some partitions."""
        self.answer(data, None, appended=appended)

    def done(self, data: st.DataObject) -> None:
        """Some time may pass after each answer, in which the bridge does what it calls for."""
        self.stage.advance(data.draw(st.sampled_from([0.0, 0.06, 0.3])))

    def answer(self, data: st.DataObject, said: PartitionAnswer | None, *, appended: bool) -> None:
        """Some partitions are answered thus, the others as is right."""
        request = self.drawn(data)
        chosen = [request.batches[0], *(each for each in request.batches[1:] if data.draw(st.booleans()))]

        def do() -> None:
            answers = {}
            for batch in request.batches:
                right = self.kafka.append(request.node, batch) if appended or batch not in chosen else 0
                if batch not in chosen:
                    answers[batch.where] = PartitionAnswer(right)
                elif said is not None:
                    answers[batch.where] = said
            request.answer(answers)

        self.stage.do(do)
        self.done(data)

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), known=st.booleans())
    def duplicate(self, data: st.DataObject, known: bool) -> None:
        """It says that it has what it was sent before, or, of what it was not sent before, that its numbers are used."""
        request = self.drawn(data)

        def do() -> None:
            answers = {}
            for batch in request.batches:
                used = not known and self.kafka.sent_once(batch)
                right = 0 if used else self.kafka.append(request.node, batch)
                answers[batch.where] = PartitionAnswer(46 if right == 0 else right)
            request.answer(answers)

        self.stage.do(do)
        self.done(data)

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), appended=st.booleans(), body=st.binary(max_size=12))
    def nonsense(self, data: st.DataObject, appended: bool, body: bytes) -> None:
        """Its answer is none."""
        request = self.drawn(data)
        if appended:
            request.serve()
        self.stage.do(request.answer_bytes, body)
        self.done(data)

    @precondition(lambda self: self.kafka.requests)
    @rule(data=st.data(), fate=st.sampled_from(["appended", "lost", "late"]))
    def hang_up(self, data: st.DataObject, fate: str) -> None:
        """The connection is closed before an answer."""
        request = self.drawn(data)
        if fate == "appended":
            request.serve()
        self.stage.do(request.connection.hang_up, late=fate == "late")
        self.done(data)

    @precondition(lambda self: self.kafka.late)
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        """Bytes of a closed connection."""
        self.kafka.deliver_late(data.draw(st.integers(0, len(self.kafka.late) - 1)))

    # --- the cluster ----------------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), node=st.sampled_from([None, 1, 2, 1, 2]))
    def move(self, key: str, node: int | None) -> None:
        """Another leader, or none."""
        if node is None or node in self.kafka.brokers:
            self.kafka.leaders[where(key, self.kafka.partitions[STATUS])] = node

    @rule(
        reachable=st.sampled_from([True, True, False]),
        gives_ids=st.sampled_from([True, True, False]),
        idempotent=st.booleans(),
    )
    def learn(self, reachable: bool, gives_ids: bool, idempotent: bool) -> None:
        """The cluster tells of itself, or can't be asked any more, or gives no producer id, or has none to give."""
        self.kafka.reachable, self.kafka.gives_ids, self.kafka.idempotent = reachable, gives_ids, idempotent
        self.stage.learn()

    @rule(node=st.sampled_from([1, 2]), how=st.sampled_from(["refusing", "silent", "well", "well"]))
    def turn_away(self, node: int, how: str) -> None:
        """A broker takes no new connections any more, or does again."""
        for each in (self.kafka.refusing, self.kafka.silent):
            each.discard(node)
        if how != "well":
            getattr(self.kafka, how).add(node)

    @rule(key=st.sampled_from(KEYS), what=st.sampled_from(["forget", "fence"]))
    def know_otherwise(self, key: str, what: str) -> None:
        """A partition knows no producer any more, or a newer epoch of each."""
        getattr(self.kafka, what)(where(key, self.kafka.partitions[STATUS]))

    @rule(partitions=st.sampled_from([LANES, MORE]))
    def add_partitions(self, partitions: int) -> None:
        """At any moment; or the topic is made anew with fewer, or as many."""
        if self.kafka.partitions[STATUS] < partitions:
            self.kafka.partitions[STATUS] = partitions
        else:
            self.kafka.make_anew(STATUS, partitions)

    @rule()
    def recreate(self) -> None:
        """The cluster is created again without its data."""
        self.stage.do(self.kafka.recreate)

    @rule(node=st.sampled_from([1, 2]), comes=st.booleans())
    def broker(self, node: int, comes: bool) -> None:
        """One leaves the cluster, or is of it again."""
        if not comes:
            self.kafka.leave(node)
        elif node not in self.kafka.brokers:
            self.kafka.brokers.append(node)

    def teardown(self) -> None:
        """All is well again."""
        if not hasattr(self, "stage"):
            return
        stage = self.stage
        try:
            stage.finish()
            self.check_promises(KEYS)
        finally:
            stage.close()


TestAnyFault = AnyFault.TestCase
TestAnyFault.settings = settings(
    max_examples=10_000 if LONG else 200,
    stateful_step_count=60 if LONG else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
