"""People under one message_id: as many as are known to differ, and to whom an event belongs, whatever came first."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.consume import Named, count_people, people

A, B, C = "12005550101", "12005550102", "12005550103"
NAMED: st.SearchStrategy[list[Named]] = st.lists(
    st.tuples(st.sampled_from([None, A, B, C]), st.sampled_from([None, "US.1", "US.2", "US.3"])),
    unique=True,
    max_size=10,
)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([], {}),
        ([(None, None)], [""]),
        # Two people without a number.
        ([(None, "US.1"), (None, "US.2")], ["US.1", "US.2"]),
        # One person, by number first and by user id alone later; the last event names nobody.
        ([(A, None), (None, "US.1"), (None, None)], [A, A, A]),
        # Linked by an event that names both, against the order of the text.
        ([(A, "US.2"), (B, "US.1"), (None, "US.1"), (None, "US.2")], [A, B, B, A]),
        # US.1 is A's, so US.2 is the other one's.
        ([(A, "US.1"), (B, None), (None, "US.2")], [A, B, B]),
        # Nothing links them: in the order of their text.
        ([(A, None), (B, None), (None, "US.1")], [A, B, A]),
        ([(A, None), (B, None), (None, "US.2"), (None, "US.1")], [A, B, B, A]),
        # More user ids than numbers: people go by user id.
        ([(A, None), (A, "US.2"), (None, "US.1")], ["US.2", "US.2", "US.1"]),
        ([(A, None), (None, "US.1"), (None, "US.2")], ["US.1", "US.1", "US.2"]),
        # A number with two user ids, and a user id with two numbers: the first.
        ([(A, "US.2"), (A, "US.1"), (A, None)], ["US.2", "US.1", "US.1"]),
        ([(B, "US.1"), (A, "US.1"), (None, "US.1")], [B, A, A]),
    ],
)
def test_events_belong_to_people(named: list[Named], expected: list[str]) -> None:
    """In every order of the events."""
    for order in itertools.permutations(named):
        assert people(order) == dict(zip(named, expected, strict=True))


@given(NAMED)
def test_there_are_as_many_as_are_known_to_differ(named: list[Named]) -> None:
    """Each has an event at least, and none fewer than before whenever one is added."""
    recipients, user_ids = ({pair[side] for pair in named} - {None} for side in (0, 1))
    assert count_people(named) == max(len(recipients), len(user_ids), bool(named))
    assert len(set(people(named).values())) == count_people(named)
    counts = [count_people(named[:taken]) for taken in range(len(named) + 1)]
    assert counts == sorted(counts)


@given(NAMED)
def test_an_event_belongs_to_a_person_it_names_or_is_linked_to(named: list[Named]) -> None:
    """One that has a single name goes where an event with that name and another does, if there is such an event."""
    person_of = people(named)
    for recipient, user_id in named:
        person = person_of[recipient, user_id]
        if recipient and user_id:
            assert person in {recipient, user_id}
        elif alone := recipient or user_id:
            links = [pair for pair in named if all(pair) and alone in pair]
            assert not links or person in {name for pair in links for name in pair}


@given(NAMED.flatmap(lambda named: st.tuples(st.just(named), st.permutations(named))))
def test_the_order_of_events_changes_nothing(orders: tuple[list[Named], list[Named]]) -> None:
    """Empty text is no name, as None is not."""
    named, other = orders
    assert people(other) == people(named)
    blank = [(recipient or "", user_id or "") for recipient, user_id in named]
    assert list(people(blank).values()) == list(people(named).values())
