"""What a lane promises: order, durability before the answer, and a reconciliation that balances, whatever happens in between."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from support.promises import Promises
from support.scripted import (
    FAILED,
    LANES,
    LOOK_SECONDS,
    QUARANTINE,
    STATUS,
    Sent,
    Stage,
    in_loop,
    kind_of,
    numbers,
    record,
)

from bridge.delivery.entry import PendingAck
from bridge.delivery.layout import placed
from bridge.kafka.errors import CLOSED, MOVED, NOT_SENT, TIMED_OUT, ProduceError, RecordError

SPOOL_AFTER_SECONDS = 0.5
LARGE, INVALID = "too large", "invalid"

UNKNOWN, NOT_LEADER, TOO_LARGE, NOT_ENOUGH_REPLICAS, NO_RIGHT, WRONG_TIME, POLICY, OUT_OF_ORDER = map(
    ProduceError, (-1, 6, 10, 19, 29, 32, 44, 45)
)


def _lane_of(key: str) -> int:
    return placed(record(key, 0), LANES)


# Two keys of one lane, and one of the other.
A = "k0"
A2 = next(key for key in map("k{}".format, range(1, 99)) if _lane_of(key) == _lane_of(A))
B = next(key for key in map("k{}".format, range(1, 99)) if _lane_of(key) != _lane_of(A))


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Lanes with a scripted cluster and disk; the reconciliation is checked at the end as well."""
    stage = Stage()
    yield stage
    stage.check_accounting()
    stage.close()


def answers(*acks: PendingAck) -> list[int | None]:
    """Of callbacks."""
    return [Stage.answer(each) for each in acks]


# --- order and answers --------------------------------------------------------------------------------------------------


def test_nothing_later_is_sent_before_the_head_is_acknowledged(stage: Stage) -> None:
    """While a batch is on its way, what arrives waits, and forms the next one in its order."""
    first = stage.push(A)
    later = [stage.push(A), stage.push(A2), stage.push(A)]

    assert stage.flying == [[1]]
    stage.acknowledge()
    assert stage.flying == [[2, 3, 4]]
    stage.acknowledge()

    assert answers(first, *later) == [200] * 4
    assert all(ack.on_kafka for ack in (first, *later))
    assert stage.log == [1, 2, 3, 4]
    assert not stage.disk.rows
    assert not stage.disk.queue  # while Kafka is well nothing is written to disk


def test_a_batch_is_filled_when_its_link_is_free(stage: Stage) -> None:
    """While the link has other lanes' batches on their way, what arrives gathers."""
    stage.cluster.held = True
    pushed = [stage.push(A), stage.push(A2), stage.push(B)]
    assert stage.flying == []

    stage.cluster.release()
    stage.advance(0.0)

    assert sorted(stage.flying) == [[1, 2], [3]]
    stage.acknowledge()
    stage.acknowledge()
    assert answers(*pushed) == [200] * 3


def test_a_lane_whose_link_is_not_free_is_journalled(stage: Stage) -> None:
    """The time counts from the arrival, whatever is waited for."""
    stage.cluster.held = True
    pushed = stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    assert answers(pushed) == [200]
    assert stage.flying == []

    stage.cluster.release()
    stage.finish()
    assert stage.log == [1]


def test_a_callback_is_answered_when_every_one_of_its_lanes_has_it_safe(stage: Stage) -> None:
    """One callback over two lanes, one acknowledged, one journalled: 200 only after both."""
    pushed = stage.push(A, B)
    mine = next(sent for sent in stage.cluster.flying if sent.records[0].key == A.encode())
    stage.acknowledge(mine)
    assert answers(pushed) == [None]
    stage.check_accounting()

    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    assert answers(pushed) == [None]  # given to the disk, not there yet
    stage.commit()

    assert answers(pushed) == [200]
    assert not pushed.on_kafka
    assert stage.delivery.waiting == 1
    stage.finish()


def test_a_lane_is_degraded_journals_and_is_healthy_again(stage: Stage) -> None:
    """Without an acknowledgement within spool_after_ms all that waits is journalled, what arrives too, until it is over."""
    first, second = stage.push(A), stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    assert stage.lane(A).degraded
    assert not stage.lane(B).degraded
    assert stage.cluster.left == 1  # healthy lanes leave the link on which this one waits
    third = stage.push(A)
    stage.commit()
    assert answers(first, second, third) == [200] * 3
    assert len(stage.disk.rows) == 3

    stage.acknowledge()
    stage.acknowledge()
    stage.commit()

    assert stage.log == [1, 2, 3]
    assert not stage.disk.rows
    assert not stage.lane(A).degraded
    stage.push(A)
    assert not stage.disk.queue


def test_what_can_be_stored_nowhere_is_answered_503_and_forgotten_unless_it_is_in_flight(stage: Stage) -> None:
    """The disk refuses, Kafka is mute: 503 for all, and only what is on its way may still be published."""
    first, second = stage.push(A), stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit(FAILED)
    assert answers(first, second) == [503, 503]
    stage.check_accounting()
    assert stage.delivery.waiting == 0

    stage.acknowledge()

    assert stage.log == [1]
    assert stage.flying == []
    assert stage.delivery.counters.published_after_refusal == 1
    stage.finish()


def test_a_refused_entry_that_comes_back_unsent_is_not_sent_again(stage: Stage) -> None:
    """Answered 503 while in flight: when its batch fails it is forgotten, and the next head goes."""
    first = stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit(FAILED)
    second = stage.push(A)
    stage.commit()
    assert answers(first, second) == [503, 200]

    stage.fail(stage.cluster.flying[0], NO_RIGHT)
    stage.finish()

    assert stage.log == [2]


def test_what_was_answered_503_is_not_stored_again(stage: Stage) -> None:
    """Its fsync failed while it was on its way, and its row may be there: at the next degradation, or the end, it is not owed."""
    first = stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit(FAILED, kept=True)
    assert answers(first) == [503]
    assert not stage.lane(A).unsafe
    stage.run(in_loop(stage.lane(A).degrade))
    assert not stage.disk.queue
    stage.finish()
    assert stage.log == [1]


def test_the_deadline_answers_503_while_the_disk_stalls_and_the_account_balances(stage: Stage) -> None:
    """An fsync that stalls with Kafka down: 503 at the deadline, published later, and nothing waits for ever."""
    pushed = stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.advance(2.0)
    assert answers(pushed) == [503]
    stage.check_accounting()

    stage.commit()
    stage.finish()

    assert stage.log == [1]
    assert stage.delivery.counters.published_after_refusal == 1


def test_without_a_spool_the_deadline_answers_503() -> None:
    """Nothing makes it durable but Kafka."""
    stage = Stage(spool=False)
    pushed = stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    assert answers(pushed) == [None]
    stage.advance(2.0)
    assert answers(pushed) == [503]
    stage.check_accounting()
    stage.finish()
    stage.close()


# --- a late acknowledgement ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before spool_after_ms", "before its commit", "after its commit", "after a crash"])
def test_a_late_acknowledgement_leaves_no_row_behind(stage: Stage, when: str) -> None:
    """Whenever the acknowledgement comes, the callback is answered 200 once, and its row is gone in the end."""
    pushed = stage.push(A)
    if when != "before spool_after_ms":
        stage.advance(SPOOL_AFTER_SECONDS + 0.01)
        assert [kind for kind, *_ in stage.disk.queue] == ["append"]
    if when == "after its commit":
        stage.commit()
    if when == "after a crash":
        stage.crash(unheard=1)
        stage.cluster.deliver_late()
        stage.commit()
        assert stage.delivery.counters.recovered == 1
    stage.acknowledge()
    stage.commit()

    if when != "after a crash":
        assert answers(pushed) == [200]
    assert not stage.disk.rows
    assert set(stage.log) == {1}
    stage.finish()


def test_deletes_are_prefixes_of_what_was_acknowledged(stage: Stage) -> None:
    """Rows behind an unacknowledged head stay, and go in the order they came."""
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    for _ in range(3):
        stage.push(A)
    stage.cluster.batch_records = 2
    stage.commit()

    stage.acknowledge()
    stage.commit()
    assert stage.on_disk == [2, 3, 4]
    assert stage.flying == [[2, 3]]
    stage.acknowledge()
    stage.commit()
    assert stage.on_disk == [4]
    stage.finish()
    first = stage.disk.deletes[0][1]
    number = stage.lane(A).number
    assert stage.disk.deletes == [(number, first), (number, first + 2), (number, first + 3)]


# --- more than memory holds ---------------------------------------------------------------------------------------------


def spilled(stage: Stage, count: int) -> list[PendingAck]:
    """A degraded lane with more than its window."""
    acks = [stage.push(A)]
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    acks += [stage.push(A) for _ in range(count - 1)]
    return acks


def test_what_does_not_fit_the_window_is_read_back_in_its_order() -> None:
    """Memory holds a window, the disk the rest; new arrivals go behind, and the order of the lane is kept."""
    stage = Stage(window_bytes=10_000)
    acks = spilled(stage, 30)
    stage.commit()
    assert answers(*acks) == [200] * 30
    assert stage.lane(A).memory_bytes <= 10_000
    stage.check_accounting()

    for _ in range(10):
        stage.acknowledge()
        stage.push(A)
        stage.disk.work() if stage.disk.queue else None
        stage.settle()
        stage.check_accounting()
    stage.finish()

    assert stage.log == list(range(1, 41))
    assert not stage.disk.rows
    stage.close()


def test_a_refused_entry_on_disk_alone_is_counted_once() -> None:
    """Its append stalls, the deadline passes, then the commit succeeds, and it is read back and published."""
    stage = Stage(window_bytes=10_000)
    spilled(stage, 8)
    stage.commit()
    late = stage.push(A)
    stage.advance(2.1)
    assert answers(late) == [503]

    stage.commit()
    stage.finish()

    assert stage.log == list(range(1, 10))
    assert stage.delivery.counters.published_after_refusal == 1
    stage.close()


def test_a_refused_entry_whose_failed_fsync_left_it_on_disk_is_counted_once() -> None:
    """An fsync error is answered 503; the row may be there all the same, and is then published uncounted."""
    stage = Stage(window_bytes=10_000)
    spilled(stage, 8)
    stage.commit()
    late = stage.push(A)
    stage.commit(FAILED, kept=True)
    assert answers(late) == [503]

    stage.finish()

    assert stage.log == list(range(1, 10))
    stage.close()


def test_a_dropped_entry_whose_row_is_on_disk_after_all_is_counted_once() -> None:
    """It was in memory still when its fsync failed; what was before it goes to disk alone, and is read back with its row."""
    stage = Stage(window_bytes=4_000)
    stage.cluster.leaderless.add((STATUS, _lane_of(A)))
    pushed = [stage.push(A, A) for _ in range(6)]
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    for error in (None, None, None, None, FAILED):
        stage.disk.work(error, kept=True)
        stage.settle()
    stage.commit()
    assert answers(*pushed) == [200, 200, 200, 200, 503, 200]

    stage.finish()

    assert stage.log == list(range(1, 13))
    counters = stage.delivery.counters
    assert (counters.refused, counters.published_after_refusal, counters.dead_lettered) == (2, 2, 0)
    stage.close()


# --- what Kafka refuses -------------------------------------------------------------------------------------------------


def reject(stage: Stage) -> None:
    """The cluster judges all batches on their way by what was pushed, and takes others' meanwhile; until nothing waits."""
    for _ in range(2_000):
        stage.delivery._taken.note(-1, stage.clock.now)
        for sent in list(stage.cluster.flying):
            judge(stage, sent)
        stage.commit()
        if not (stage.cluster.flying or stage.disk.queue or stage.delivery.waiting):
            return
        stage.advance(0.05 if stage.cluster.flying or stage.disk.queue else 0.5)
        stage.check_accounting()


def judge(stage: Stage, sent: Sent) -> None:
    """One verdict, as a broker gives it on a whole batch."""
    kinds = {kind_of(each) for each in sent.records} if sent.topic == STATUS else set()
    if LARGE in kinds:
        stage.fail(sent, TOO_LARGE)
    elif INVALID in kinds:
        stage.fail(sent, POLICY)
    else:
        stage.acknowledge(sent)


def test_what_is_too_large_is_found_by_halves_and_quarantined(stage: Stage) -> None:
    """All others are published in their order; the callback is answered 200, and the reconciliation balances at every step."""
    stage.push(A)
    acks = [stage.push(A, A), stage.push(A, kind=LARGE), stage.push(A, A, A)]
    reject(stage)

    assert answers(*acks) == [200] * 3
    assert stage.log == [1, 2, 3, 5, 6, 7]
    assert numbers([each for each in stage.cluster.log if each.topic == QUARANTINE]) == [4]
    assert stage.delivery.counters.published == {STATUS: 6, QUARANTINE: 1}
    stage.finish()


def test_a_batch_that_was_halved_grows_to_any_size_again(stage: Stage) -> None:
    """Twice as many records with each acknowledgement, and in the end there is no bound that is counted any more."""
    stage.push(A)
    stage.push(A, kind=LARGE)
    stage.push(A, A)
    reject(stage)
    for _ in range(40):
        stage.push(A)
        stage.acknowledge()
    assert stage.lane(A)._most_records is None
    stage.finish()


def test_what_is_too_large_counts_once_while_its_quarantine_waits(stage: Stage) -> None:
    """The report is in one place at every moment: waiting here, then there, then published."""
    stage.push(A, kind=LARGE)
    judge(stage, stage.cluster.flying[0])
    stage.check_accounting()
    assert stage.delivery.waiting == 1
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.check_accounting()
    stage.commit()
    stage.check_accounting()
    stage.crash()
    stage.check_accounting()
    reject(stage)
    stage.finish()


def test_what_is_too_large_and_was_refused_meanwhile_is_counted_as_refused(stage: Stage) -> None:
    """Its callback was answered 503: that it gets into quarantine later adds nothing to the reconciliation."""
    pushed = stage.push(A, kind=LARGE)
    judge(stage, stage.cluster.flying[0])
    stage.advance(2.1)
    assert answers(pushed) == [503]
    stage.check_accounting()
    reject(stage)
    stage.finish()


def test_without_a_spool_what_even_the_quarantine_refuses_ends_no_lane() -> None:
    """Its callback was answered 503, so the provider pushes it again; what comes later is published."""
    stage = Stage(spool=False)
    first = stage.push(A, kind=LARGE)
    for _ in range(30):
        for sent in list(stage.cluster.flying):
            stage.fail(sent, TOO_LARGE)
        stage.advance(0.1)
    assert answers(first) == [503]
    later = stage.push(A)
    stage.acknowledge()
    assert answers(later) == [200]
    assert stage.log == [2]
    assert stage.delivery.counters.published == {STATUS: 1, QUARANTINE: 0}
    assert stage.delivery.counters.published_after_refusal == 0
    stage.check_accounting()
    stage.close()


def test_a_quarantine_that_can_be_stored_nowhere_waits_once(stage: Stage) -> None:
    """Kafka takes nothing, and the disk neither: each attempt forgets the one before."""
    stage.cluster.leaderless.add((QUARANTINE, 0))
    stage.push(A, kind=LARGE)
    judge(stage, stage.cluster.flying[0])
    for _ in range(10):
        stage.advance(1.0)
        while stage.disk.queue:
            stage.disk.work(FAILED)
            stage.settle()
    [lane] = stage.delivery.lanes[QUARANTINE]
    assert len(lane._queue) <= 1
    stage.check_accounting()
    stage.cluster.leaderless.clear()
    stage.finish()
    assert len(numbers([each for each in stage.cluster.log if each.topic == QUARANTINE])) == 1


def test_what_is_refused_for_good_is_dead_lettered_alone(stage: Stage) -> None:
    """It is kept and counted, and never in the way of the next."""
    stage.push(A)
    acks = [stage.push(A, A), stage.push(A, kind=INVALID), stage.push(A)]
    reject(stage)

    assert answers(*acks) == [200] * 3
    assert stage.log == [1, 2, 3, 5]
    assert [numbers(row.records) for row in stage.disk.dead_letters] == [[4]]
    assert stage.delivery.counters.dead_lettered == 1
    stage.finish()


def refused_for(stage: Stage, seconds: float, error: ProduceError) -> None:
    """Every batch is, for so long."""
    until = stage.clock.now + seconds
    while stage.clock.now < until:
        for sent in list(stage.cluster.flying):
            stage.fail(sent, error)
        stage.advance(1.0)
        stage.commit()


@pytest.mark.parametrize("error", [POLICY, UNKNOWN, WRONG_TIME, NO_RIGHT, ProduceError(999)])
def test_a_refusal_of_everything_takes_no_record_away(stage: Stage, error: ProduceError) -> None:
    """Throttling, a wrong clock: an hour of it, and all is published in its order when it is over."""
    pushed = [stage.push(A), stage.push(B), stage.push(A2)]
    refused_for(stage, 3600.0, error)
    assert answers(*pushed) == [200] * 3
    assert stage.delivery.counters.dead_lettered == 0
    stage.finish()
    assert sorted(stage.log) == [1, 2, 3]
    assert stage.log.index(1) < stage.log.index(3)


def test_what_is_refused_alone_for_five_minutes_is_dead_lettered(stage: Stage) -> None:
    """While Kafka takes other lanes' batches; it is not in the way for ever."""
    stage.push(A)
    for _ in range(7):
        refused_for(stage, 30.0, POLICY)
        stage.delivery._taken.note(-1, stage.clock.now)
    assert stage.delivery.counters.dead_lettered == 0
    refused_for(stage, 120.0, POLICY)
    assert stage.delivery.counters.dead_lettered == 0, "nothing was taken elsewhere for a minute"
    stage.delivery._taken.note(-1, stage.clock.now)
    refused_for(stage, 31.0, POLICY)
    assert [numbers(row.records) for row in stage.disk.dead_letters] == [[1]]
    stage.finish()


def test_a_refused_lane_pauses_for_longer_and_longer(stage: Stage) -> None:
    """Some two tries a minute after a while, and what is refused is told."""
    stage.push(A)
    refused_for(stage, 120.0, POLICY)
    before = len(stage.cluster.history)
    refused_for(stage, 300.0, POLICY)
    assert 10 <= len(stage.cluster.history) - before <= 21
    [refusal] = stage.delivery.refusals
    assert refusal.error == "POLICY_VIOLATION (44)"
    stage.finish()
    assert not stage.delivery.refusals


def test_a_callback_refused_after_one_of_its_reports_was_dead_lettered_is_counted_once(stage: Stage) -> None:
    """One lane makes a report a dead letter, the other can store nothing: all reports of a 503 are refused."""
    stage.cluster.leaderless.add((STATUS, _lane_of(B)))
    records = [record(A, 1, INVALID), record(B, 2)]

    async def submit() -> PendingAck:
        return stage.delivery.submit(records, stage.clock.now + 2.0)

    pushed = stage.run(submit())
    stage.settle()
    judge(stage, stage.cluster.flying[0])
    stage.commit()
    stage.check_accounting()
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit(FAILED)

    assert answers(pushed) == [503]
    stage.check_accounting()


@pytest.mark.parametrize("error", [NOT_ENOUGH_REPLICAS, NO_RIGHT, OUT_OF_ORDER, NOT_LEADER, CLOSED, TIMED_OUT, UNKNOWN])
def test_what_may_be_taken_later_stays_the_head(stage: Stage, error: ProduceError) -> None:
    """No later record overtakes it, and the pauses grow."""
    first, second = stage.push(A), stage.push(A)
    for attempt in range(1, 5):
        assert stage.flying[0][0] == 1
        stage.fail(stage.cluster.flying[0], error)
        assert stage.flying == []  # it pauses
        stage.advance(0.05 * 2 ** (attempt - 1))
    stage.acknowledge()
    stage.acknowledge()

    assert stage.log == [1, 2]
    assert answers(first, second) == [200, 200]


@pytest.mark.parametrize("error", [NOT_LEADER, CLOSED, TIMED_OUT, MOVED, UNKNOWN, ProduceError(999)])
def test_a_batch_that_may_be_in_the_log_is_sent_again_as_it_is(stage: Stage, error: ProduceError) -> None:
    """What arrived meanwhile forms the next one; bytes that arrive late are a repeat, never a first occurrence out of order."""
    stage.push(A)
    stage.push(A)
    stage.fail(stage.cluster.flying[0], error, arrives="late")
    stage.advance(1.0)
    assert stage.flying == [[1]]
    stage.acknowledge()
    assert stage.flying == [[2]]
    stage.acknowledge()
    stage.cluster.deliver_late()

    assert stage.first_occurrences() == {A: [1, 2]}
    assert stage.cluster.renumbered == 0
    stage.finish()


@pytest.mark.parametrize("error", [NOT_SENT, NOT_ENOUGH_REPLICAS, NO_RIGHT, POLICY])
def test_a_batch_that_is_not_in_the_log_is_filled_anew(stage: Stage, error: ProduceError) -> None:
    """Its numbers are free: what arrived meanwhile goes with it."""
    stage.push(A)
    stage.push(A)
    stage.fail(stage.cluster.flying[0], error)
    stage.advance(1.0)
    assert stage.flying == [[1, 2]]
    stage.finish()


def test_a_batch_that_may_be_in_the_log_keeps_its_records_whatever_comes_later(stage: Stage) -> None:
    """An answer that says *not appended* says it of one attempt only: the one before may have been."""
    stage.push(A)
    stage.push(A)
    stage.fail(stage.cluster.flying[0], TIMED_OUT, arrives="now")
    stage.advance(1.0)
    stage.fail(stage.cluster.flying[0], NOT_ENOUGH_REPLICAS)
    stage.advance(1.0)
    assert stage.flying == [[1]]
    stage.fail(stage.cluster.flying[0], POLICY)
    assert stage.cluster.renumbered == 1  # from here on it may be taken apart
    stage.finish()
    assert stage.first_occurrences() == {A: [1, 2]}


def test_a_batch_that_the_broker_closes_on_is_halved_under_a_new_epoch(stage: Stage) -> None:
    """Twice alone and unanswered: it may be too large for a request, and it may be in the log."""
    stage.cluster.batch_bytes, stage.cluster.accepted_bytes = 40_000, 30_000
    stage.push(A)
    stage.push(A, A, A, A)
    stage.acknowledge()
    for closes in (1, 2):
        assert stage.flying == [[2, 3, 4, 5]]
        stage.cluster.flying[0].batch.closes = closes
        stage.fail(stage.cluster.flying[0], CLOSED)
        stage.advance(1.0)
    assert stage.flying == [[2, 3]]
    assert stage.cluster.renumbered == 1
    stage.finish()
    assert stage.log == [1, 2, 3, 4, 5]


def test_a_timeout_alone_never_halves(stage: Stage) -> None:
    """A slow Kafka is no reason for smaller batches."""
    stage.push(A, A)
    for _ in range(5):
        assert stage.flying == [[1, 2]]
        stage.fail(stage.cluster.flying[0], TIMED_OUT)
        stage.advance(1.0)
    stage.finish()


def test_a_single_record_that_the_broker_always_closes_on_becomes_a_dead_letter(stage: Stage) -> None:
    """After half a minute, while smaller ones are accepted."""
    stage.cluster.batch_bytes, stage.cluster.accepted_bytes = 40_000, 30_000
    pushed, closes = stage.push(A), 0
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    while stage.cluster.flying and closes < 40:
        closes += 1
        stage.cluster.flying[0].batch.closes = closes
        stage.fail(stage.cluster.flying[0], CLOSED)
        stage.advance(5.0)
        stage.commit()
    assert answers(pushed) == [200]
    assert [numbers(row.records) for row in stage.disk.dead_letters] == [[1]]
    assert closes >= 6
    assert stage.cluster.batches_failed["dead_letter", "refused"] == 1
    stage.finish()


@pytest.mark.parametrize(
    ("size", "accepted", "records"),
    [(40_000, 0, 1), (40_000, 50_000, 1), (40_000, 50_000, 4), (800, 700, 1), (800, 700, 4), (800, 0, 4)],
)
def test_a_broker_that_closes_on_everything_or_on_what_is_small_makes_no_dead_letter(
    stage: Stage, size: int, accepted: int, records: int
) -> None:
    """It is ill, or the network is poor. For half a minute nothing is taken apart either, as it may be in the log."""
    stage.cluster.batch_bytes, stage.cluster.accepted_bytes = size, accepted
    stage.push(A)
    stage.push(*[A] * records)
    stage.acknowledge()
    since, closes = stage.clock.now, 0
    while stage.clock.now < since + 29.0:
        closes += 1
        stage.cluster.flying[0].batch.closes = closes
        stage.fail(stage.cluster.flying[0], CLOSED)
        while not stage.cluster.flying:
            stage.advance(0.5)
        stage.commit()
    assert len(stage.flying[0]) == records
    assert f"{size:,} bytes" in stage.delivery.last_refusal or records > 1
    assert "closes the connection" in stage.delivery.last_refusal
    assert not stage.cluster.renumbered
    assert not stage.disk.dead_letters
    stage.finish()
    assert stage.log == list(range(1, records + 2))


def test_what_an_answer_names_becomes_a_dead_letter_at_once(stage: Stage) -> None:
    """And nothing else; a wrong time is never the record's fault."""
    stage.push(A)
    stage.push(A, A, A)
    stage.acknowledge()
    named = [RecordError(1, "no key")]
    stage.fail(stage.cluster.flying[0], ProduceError(32, "", named))
    assert stage.flying == [[2, 3, 4]]
    stage.fail(stage.cluster.flying[0], ProduceError(87, "", named))
    stage.commit()
    stage.finish()
    assert stage.log == [1, 2, 4]
    assert [numbers(row.records) for row in stage.disk.dead_letters] == [[3]]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_answer_that_names_all_records_is_believed_when_others_are_accepted(stage: Stage, elsewhere: bool) -> None:
    """Else it may be a check of the cluster's that fails for every record there is."""
    stage.push(A)
    stage.push(A, A)
    stage.acknowledge()
    all_of_it = ProduceError(87, "", [RecordError(0, "no"), RecordError(1, "no")])
    for _ in range(8):
        stage.delivery._taken.note(-1, stage.clock.now + 0.1 if elsewhere else 0.0)
        stage.fail(stage.cluster.flying[0], all_of_it)
        stage.advance(31.0)
        stage.commit()
        if not stage.cluster.flying:
            break
    assert len(stage.disk.dead_letters) == (2 if elsewhere else 0)
    stage.finish()
    assert stage.log == ([1] if elsewhere else [1, 2, 3])


def test_closed_connections_are_no_refusals(stage: Stage) -> None:
    """The five minutes of a record that is refused begin with the first answer that refuses it alone."""
    stage.push(A)
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    for closes in range(1, 80):
        stage.cluster.flying[0].batch.closes = closes
        stage.fail(stage.cluster.flying[0], CLOSED)
        stage.advance(5.0)
    stage.delivery._taken.note(-1, stage.clock.now)
    stage.fail(stage.cluster.flying[0], POLICY)
    stage.commit()
    assert not stage.disk.dead_letters
    stage.finish()
    assert stage.log == [1]


def test_what_an_answer_names_is_kept_while_everything_is_refused(stage: Stage) -> None:
    """Whatever is named by such an answer then, it need not be the record's fault."""
    stage.push(A, A, A)
    stage.cluster.refuses_everything = True
    stage.fail(stage.cluster.flying[0], ProduceError(44, "", [RecordError(1, "no")]))
    stage.commit()
    assert not stage.disk.dead_letters
    stage.cluster.refuses_everything = False
    stage.finish()
    assert stage.log == [1, 2, 3]


def test_records_of_a_refused_time_are_stamped_anew_once(stage: Stage) -> None:
    """The next batch has the time of its sending; refused again, the head stays, and the clock is named."""
    stage.push(A)
    stage.fail(stage.cluster.flying[0], WRONG_TIME)
    assert stage.cluster.flying[0].batch.stamped
    stage.fail(stage.cluster.flying[0], WRONG_TIME)
    assert "refuses this clock" in stage.delivery.last_refusal
    stage.finish()
    stage.push(A)
    assert not stage.cluster.flying[0].batch.stamped
    stage.finish()


def test_a_small_record_that_is_too_large_stays_the_head(stage: Stage) -> None:
    """It is smaller than the topic's bound: a setting of the brokers is wrong, which is told."""
    stage.cluster.largest = 1000
    stage.push(A)
    refused_for(stage, 600.0, TOO_LARGE)
    assert not stage.disk.dead_letters
    assert "a setting of the brokers or of a proxy is lower" in stage.delivery.last_refusal
    stage.finish()
    assert stage.log == [1]


def test_a_topic_made_anew_with_fewer_partitions_takes_what_may_be_in_the_old_log(stage: Stage) -> None:
    """Its partition is gone: the records go where their keys lead now."""
    stage.cluster.partition_counts[STATUS] = 2 * LANES
    high = next(k for k in map("k{}".format, range(99)) if placed(record(k, 0), 2 * LANES) >= LANES)
    stage.push(high)
    stage.fail(stage.cluster.flying[0], TIMED_OUT)
    stage.cluster.partition_counts[STATUS] = LANES
    stage.cluster.owed.clear()
    stage.advance(1.0)
    assert stage.cluster.flying[0].partition < LANES
    stage.finish()


def test_a_leader_that_is_away_holds_its_lane_alone(stage: Stage) -> None:
    """Nothing is sent where there is no leader, the other lane goes on, and what waits is journalled and goes later."""
    stage.cluster.leaderless.add((STATUS, _lane_of(A)))
    held, other = stage.push(A), stage.push(B)
    assert stage.flying == [[2]]
    stage.acknowledge()
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    assert answers(held, other) == [200, 200]
    assert not stage.lane(B).degraded

    stage.cluster.leaderless.clear()
    stage.finish()
    assert stage.log == [2, 1]


# --- a start, and what is behind it -------------------------------------------------------------------------------------


def journalled(stage: Stage, *keys: str) -> None:
    """Callbacks that a former process stored and did not publish."""
    stage.cluster.reachable = False
    pushed = [stage.push(key) for key in keys]
    stage.advance(SPOOL_AFTER_SECONDS + 0.01)
    stage.commit()
    assert answers(*pushed) == [200] * len(keys)
    stage.cluster.reachable = True


def test_what_comes_while_a_file_is_salvaged_waits_behind_what_is_in_it(stage: Stage) -> None:
    """It is stored and answered at once; nothing is sent before the last row is there; each report is counted once."""
    journalled(stage, A, A2, B)
    stage.crash(found="damaged")
    pushed = stage.push(A, B)
    stage.commit()
    assert answers(pushed) == [200]
    stage.salvage(2)
    stage.advance(1.0)
    stage.commit()
    assert stage.flying == []

    stage.salvage()
    stage.commit()
    assert min(stage.flying)[0] == 1
    counters = stage.delivery.counters
    assert (counters.recovered, counters.received, stage.delivery.waiting) == (3, 2, 5)
    stage.check_accounting()
    stage.disk.checked = True
    stage.finish()
    assert stage.first_occurrences() == {A: [1, 4], A2: [2], B: [3, 5]}


def test_a_salvage_that_a_crash_interrupts_is_counted_once(stage: Stage) -> None:
    """What was taken over before the crash, and what after it, are of a former process."""
    journalled(stage, A, A, B)
    stage.crash(found="damaged")
    stage.salvage(1)
    stage.push(A)
    stage.commit()
    stage.crash()
    stage.finish()
    assert stage.delivery.counters.recovered == 4
    assert stage.first_occurrences() == {A: [1, 2, 4], B: [3]}


def test_a_file_damaged_while_it_is_used_changes_no_order_and_no_count() -> None:
    """What memory holds is sent meanwhile; what is on disk alone waits for the salvage."""
    stage = Stage(window_bytes=4_000)
    spilled(stage, 6)
    stage.disk.damage()
    stage.commit()
    stage.acknowledge()
    stage.push(A)
    stage.commit()
    stage.check_accounting()
    stage.finish()
    assert stage.log == sorted(stage.log)
    assert len(stage.log) == len(set(stage.log)) == stage.delivery.counters.received
    stage.close()


def test_rows_that_a_salvage_does_not_find_are_counted_as_lost(stage: Stage) -> None:
    """They were waiting; a lane that comes to its end without them says so, and is healthy."""
    journalled(stage, A, B)
    stage.crash()
    stage.disk.damage()
    stage.disk.damaged.clear()
    stage.finish()
    counters = stage.delivery.counters
    assert (counters.recovered, counters.dead_lettered, stage.log) == (2, 2, [])


def test_a_lane_is_not_called_empty_before_the_file_is_checked(stage: Stage) -> None:
    """The index may lack its rows. What comes meanwhile goes on behind them, and is published without waiting for the check."""
    stage.crash(found="unchecked")
    pushed = stage.push(A)
    stage.commit()
    assert answers(pushed) == [200]
    stage.advance(LOOK_SECONDS)
    stage.commit()
    stage.acknowledge()
    stage.commit()
    assert stage.log == [1]
    assert all(lane.degraded for lane in stage.delivery.all_lanes())
    stage.disk.checked = True
    stage.finish()


def test_no_process_gives_a_number_twice(stage: Stage) -> None:
    """An old page of a damaged file may hold the row that had the number before."""
    given: set[int] = set()
    for _ in range(3):
        journalled(stage, A, B)
        seqs = {seq for _, seq in stage.disk.rows}
        assert not seqs & given
        given |= seqs
        stage.finish()
        stage.crash()


# --- any interleaving ---------------------------------------------------------------------------------------------------


class AnyInterleaving(Promises):
    """Callbacks, verdicts, late bytes, commits, failures, deadlines and deaths in any order.

    Always: the reconciliation balances, one batch of a lane is on its way at most, and what is answered 200 is on Kafka or on
    disk at that moment. In the end, when all is well: it is on Kafka, by key in the order it was pushed, and the disk is empty.
    """

    @initialize(window=st.sampled_from([4_000, 1 << 20]), batch=st.sampled_from([1, 2, 1000]))
    def start(self, window: int, batch: int) -> None:
        """A process."""
        self.begin(Stage(window_bytes=window))
        self.stage.cluster.batch_records = batch

    @rule(
        keys=st.lists(st.sampled_from([A, A, A2, B]), min_size=1, max_size=3),
        kind=st.sampled_from(["", "", "", "", "", "", LARGE, INVALID]),
    )
    def push(self, keys: list[str], kind: str) -> None:
        """A callback."""
        self.pushed(self.stage.push(*keys, kind=kind))

    @precondition(lambda self: self.stage.cluster.flying)
    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        """A broker answers as it should."""
        judge(self.stage, data.draw(st.sampled_from(self.stage.cluster.flying)))

    @precondition(lambda self: self.stage.cluster.flying)
    @rule(
        data=st.data(),
        error=st.sampled_from(
            [CLOSED, TIMED_OUT, MOVED, NOT_LEADER, NOT_ENOUGH_REPLICAS, UNKNOWN, OUT_OF_ORDER, POLICY, WRONG_TIME]
        ),
        arrives=st.sampled_from(["never", "now", "late"]),
    )
    def fail(self, data: st.DataObject, error: ProduceError, arrives: Any) -> None:
        """It doesn't; the batch may be there all the same, or get there later."""
        sent = data.draw(st.sampled_from(self.stage.cluster.flying))
        if {kind_of(each) for each in sent.records} - {""}:
            arrives = "never"
        self.stage.fail(sent, error, arrives="never" if error.not_appended else arrives)

    @precondition(lambda self: self.stage.cluster.late)
    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        """Bytes of a given up producer arrive."""
        number = data.draw(st.integers(0, len(self.stage.cluster.late) - 1))
        if {kind_of(each) for each in self.stage.cluster.late[number].records} - {""}:
            self.stage.cluster.late.pop(number)
        else:
            self.stage.cluster.deliver_late(number)

    @rule(seconds=st.sampled_from([0.1, 0.51, 0.51, 2.1, 6.1]))
    def wait(self, seconds: float) -> None:
        """Time passes: pauses end, lanes degrade, deadlines pass, producers are given up."""
        self.stage.advance(seconds)

    @rule(key=st.sampled_from([A, B]))
    def leader(self, key: str) -> None:
        """A leader goes, or comes."""
        self.stage.cluster.leaderless ^= {(STATUS, _lane_of(key))}

    @rule()
    def reach(self) -> None:
        """All producers go, or one comes."""
        self.stage.cluster.reachable = not self.stage.cluster.reachable

    @rule(count=st.sampled_from([LANES, 2 * LANES]))
    def repartition(self, count: int) -> None:
        """More partitions, at any moment."""
        self.stage.cluster.partition_counts[STATUS] = max(count, self.stage.cluster.partition_counts[STATUS])

    def teardown(self) -> None:
        """All is well again."""
        if not hasattr(self, "stage"):
            return
        stage = self.stage
        stage.cluster.reachable = True
        stage.cluster.leaderless.clear()
        stage.salvage()
        stage.disk.checked = True
        for _ in range(100):
            reject(stage)
            stage.advance(1.0)
            if not (stage.delivery.waiting or stage.cluster.flying or stage.disk.queue):
                break
        stage.finish()
        self.check_promises((A, A2, B))
        stage.close()


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
