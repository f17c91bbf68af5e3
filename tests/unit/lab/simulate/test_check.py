"""The checker finds every kind of damage, and none where there is none."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulate_server import push, report

from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.lab.simulate.check import CheckResult, Consumed, check
from bridge.lab.simulate.ledger import Attempt, LateAnswer, Ledger
from bridge.lab.simulate.push import Push, Report

SENT, DELIVERED, READ = (report("m", state) for state in ("Sent", "Delivered", "Read"))


class World:
    """A ledger, and the topics that a bridge without a fault would have filled from it."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.records: list[Consumed] = []
        self.raws: list[str] = []

    def push(self, each: Push, sent_at: float, answered_at: float, status: int | None = 200) -> None:
        """One more push, published if it was answered 200."""
        self.attempt(each, sent_at, answered_at, status)
        if status == 200:
            self.publish(*each.reports)

    def attempt(self, each: Push, sent_at: float, answered_at: float, status: int | None) -> None:
        """One more push, in the ledger alone."""
        self.ledger.opened(each, sent_at)
        error = None if status == 200 else "status" if status else "timeout"
        self.ledger.attempted(
            Attempt(each.number, 1, sent_at, sent_at, answered_at, status, error, gave_up=error is not None)
        )

    def publish(self, *reports: Report) -> None:
        """Records as a bridge writes them: partition by key, offsets ascending."""
        for each in reports:
            if each.event_id is None:
                assert each.raw_sha256 is not None
                self.raws.append(each.raw_sha256)
            else:
                partition = len(each.message_id) % 3
                self.records.append(Consumed(each.event_id, each.message_id, partition, len(self.records)))

    def check(self, *, ordered: bool = True) -> CheckResult:
        """Check the world as it is."""
        return check(self.ledger.entries.values(), self.records, self.raws, ordered=ordered)

    def kinds(self) -> dict[str, int]:
        """The kinds of damage found, each with how often."""
        result = self.check()
        assert result.ok == (not result.damages)
        for kind in {damage.kind for damage in result.damages}:
            assert kind.upper() in result.describe()
        assert result.describe().endswith("NOT OK" if result.damages else "\nok")
        return dict(Counter(damage.kind for damage in result.damages))


def _campaign(messages: int = 300, **mix: float) -> World:
    """A whole campaign, each push sent after the one before was answered."""
    world = World()
    shares = Mix(undecodable=0.02, truncated=0.05, duplicate=0.1, **mix)
    for each in Campaign(CampaignOptions(messages=messages, size=(1, 5), mix=shares)).pushes():
        world.push(each, each.number, each.number + 0.5)
    return world


def test_a_campaign_without_damage_is_ok() -> None:
    """Everything is found, repeats are counted, and the order of most keys was really compared."""
    world = _campaign()
    result = world.check()
    assert result.ok
    assert result.describe().endswith("\nok")
    assert result.promised == result.found
    assert result.repeats == len(world.records) - len({record.event_id for record in world.records})
    assert result.repeats > 10
    assert result.ordered_keys > 250


@given(st.randoms())
def test_repeats_and_unordered_reading_are_no_damage(chance: random.Random) -> None:
    """Consumers read in any order across partitions, and any record may come again later."""
    world = _campaign(20)
    again = chance.sample(world.records, 10)
    world.records += [record._replace(offset=10_000 + n) for n, record in enumerate(again)]
    world.raws += chance.sample(world.raws, min(1, len(world.raws)))
    chance.shuffle(world.records)
    assert world.kinds() == {}


@given(st.randoms())
def test_a_lost_event_is_found(chance: random.Random) -> None:
    """Any promised event that is nowhere on the topic, and only that."""
    world = _campaign(20)
    lost = chance.choice(world.records)
    world.records = [record for record in world.records if record.event_id != lost.event_id]
    assert world.kinds() == {"lost": 1}
    [damage] = world.check().damages
    assert lost.event_id in damage.detail


def test_a_lost_repeat_is_no_damage() -> None:
    """An event that was pushed twice has to be there once."""
    world = World()
    world.push(push(0, SENT), 0, 1)
    world.push(push(1, SENT), 2, 3)
    for record in list(world.records):
        world.records.remove(record)
        assert world.kinds() == {}
        world.records.append(record)


@given(st.randoms())
def test_an_invented_event_is_found(chance: random.Random) -> None:
    """Any event that was never pushed."""
    world = _campaign(20)
    place = chance.choice(world.records)
    world.records.append(place._replace(event_id=f"{chance.getrandbits(128):032x}", offset=9999))
    assert world.kinds() == {"invented": 1}


def test_a_changed_event_is_lost_and_invented() -> None:
    """A mistake in what an event's id is made of can't hide."""
    world = World()
    world.push(push(0, SENT), 0, 1)
    world.records = [world.records[0]._replace(event_id="0" * 32)]
    assert world.kinds() == {"lost": 1, "invented": 1}


@given(st.randoms())
def test_a_swapped_order_is_found(chance: random.Random) -> None:
    """Any two first occurrences of a key that change places, wherever they were pushed."""
    world = _campaign(20)
    first: dict[str, dict[str, int]] = {}
    for index, record in enumerate(world.records):
        first.setdefault(record.key, {}).setdefault(record.event_id, index)
    one, two = chance.sample(list(chance.choice([each for each in first.values() if len(each) > 1]).values()), 2)
    a, b = world.records[one], world.records[two]
    # Repeats in between would still stand in front: only the swapped pair may speak for its events.
    world.records = [
        record
        for record in world.records
        if record.event_id not in {a.event_id, b.event_id} or record.offset in {a.offset, b.offset}
    ]
    world.records = [
        record._replace(event_id=b.event_id)
        if record.offset == a.offset
        else record._replace(event_id=a.event_id)
        if record.offset == b.offset
        else record
        for record in world.records
    ]
    assert {"out of order"} == world.kinds().keys()
    assert world.check(ordered=False).ok


def test_a_lost_quarantined_item_is_found() -> None:
    """What had to be quarantined and was dropped."""
    world = _campaign()
    lost = world.raws.pop()
    assert world.kinds() == {"lost quarantined": 1}
    assert lost in world.check().damages[0].detail


def test_changed_raw_bytes_are_found() -> None:
    """Quarantined bytes that are not those that were sent: the right ones are lost, these are invented."""
    world = _campaign()
    world.raws[0] = "f" * 64
    assert world.kinds() == {"lost quarantined": 1, "invented quarantined": 1}


def test_a_quarantined_good_report_is_found() -> None:
    """A report that should have become an event is lost although its bytes were kept."""
    world = World()
    world.attempt(push(0, SENT), 0, 1, 200)
    world.raws.append("a" * 64)
    assert world.kinds() == {"lost": 1, "invented quarantined": 1}


def test_a_wrong_key_is_found() -> None:
    """An event with another message's key can't be in its message's partition."""
    world = World()
    world.push(push(0, SENT), 0, 1)
    world.records = [world.records[0]._replace(key="n")]
    assert world.kinds() == {"wrong key": 1}


def test_a_key_in_two_partitions_is_found() -> None:
    """States of one message in two partitions have no order."""
    world = World()
    world.push(push(0, SENT), 0, 1)
    world.push(push(1, READ), 2, 3)
    world.records[1] = world.records[1]._replace(partition=2)
    assert world.kinds() == {"split key": 1}


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("status", [503, None])
def test_what_was_not_promised_may_be_there_or_not(status: int | None, published: bool) -> None:
    """A push that was refused, or never answered, is neither lost nor invented."""
    world = World()
    world.push(push(0, SENT), 0, 1, status)
    if published:
        world.publish(SENT)
    assert world.kinds() == {}
    assert int(published) == world.check().unpromised
    assert world.check().promised == 0


def test_a_push_under_way_when_the_run_was_killed_may_be_there_or_not() -> None:
    """Opened and never answered: its events are allowed, not required."""
    world = World()
    world.ledger.opened(push(0, SENT), 0)
    assert world.kinds() == {}
    world.publish(SENT)
    assert world.kinds() == {}


def test_a_late_200_is_a_promise_too() -> None:
    """The bridge said 200: that it was too late for the provider takes nothing back."""
    world = World()
    world.attempt(push(0, SENT), 0, 3, None)
    world.ledger.answered_late(LateAnswer(0, 1, 503, 3.5))
    assert world.kinds() == {}
    world.ledger.answered_late(LateAnswer(0, 1, 200, 4))
    assert world.kinds() == {"lost": 1}


def test_order_is_known_where_the_first_was_promised_before_the_second_was_sent() -> None:
    """Overlapping pushes may arrive either way; those one after the other may not."""
    for sent_at, damage in ((0.9, {}), (1.1, {"out of order": 1})):
        world = World()
        world.attempt(push(0, SENT), 0, 1, 200)
        world.attempt(push(1, READ), sent_at, 2, 200)
        world.publish(READ, SENT)
        assert damage == world.kinds()
        assert len(damage) == world.check().ordered_keys


def test_order_over_an_unpromised_push() -> None:
    """What a refused push may have brought early is no reason to complain of its order."""
    world = World()
    world.push(push(0, SENT), 0, 1)
    world.attempt(push(1, READ), 1.5, 1.6, 503)
    world.attempt(push(2, DELIVERED), 2, 3, 200)
    world.publish(READ, DELIVERED)
    assert world.kinds() == {}
    world.attempt(push(3, READ), 4, 5, 200)  # it was pushed again: the first time may be what was published
    assert world.kinds() == {}


def test_order_within_a_push() -> None:
    """Events of one key in one callback keep their order."""
    world = World()
    world.attempt(push(0, SENT, DELIVERED, READ), 0, 1, 200)
    world.publish(SENT, READ, DELIVERED)
    assert world.kinds() == {"out of order": 1}
    world.records = []
    world.publish(SENT, DELIVERED, READ, SENT)
    assert world.kinds() == {}
    assert world.check().ordered_keys == 1


def test_order_within_a_push_that_repeats_itself() -> None:
    """A push that holds an event twice is in order when the first of both stands where the push had it."""
    world = World()
    world.push(push(0, DELIVERED, SENT, DELIVERED), 0.0, 1.0)
    assert world.kinds() == {}


def test_order_within_a_push_that_another_push_explains() -> None:
    """If a push at the same time brought the later event too, it may have been first."""
    world = World()
    world.attempt(push(0, SENT, READ), 0, 1, 200)
    world.attempt(push(1, READ), 0.5, 2, 200)
    world.publish(READ, SENT)
    assert world.kinds() == {}
    later = World()
    later.attempt(push(0, SENT, READ), 0, 1, 200)
    later.attempt(push(1, READ), 1.5, 2, 200)
    later.publish(READ, SENT)
    assert later.kinds() == {"out of order": 1}


def test_several_ledgers_are_checked_together() -> None:
    """Two simulators against one bridge: neither's events are invented."""
    one, two = World(), World()
    one.push(push(0, SENT), 0, 1)
    two.push(push(0, READ), 2, 3)
    entries = [*one.ledger.entries.values(), *two.ledger.entries.values()]
    records = [one.records[0], two.records[0]._replace(offset=1)]
    assert check(entries, records, []).ok
    assert not check(entries, [records[0]._replace(offset=2), records[1]], []).ok


def test_only_the_first_of_many_are_described() -> None:
    """A disaster does not print a line for each event."""
    world = _campaign()
    world.records = []
    text = world.check().describe()
    assert "LOST: " in text
    assert "more" in text
    assert len(text.splitlines()) < 20
