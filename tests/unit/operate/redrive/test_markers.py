"""What a redrive notes is what the next one knows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.operate.redrive.markers import Published, is_note, note_headers, note_value


@given(st.lists(st.sets(st.integers(100, 163))))
def test_what_was_noted_is_known_and_nothing_else(noted: list[set[int]]) -> None:
    """Over any number of notes, in any stretches."""
    published = Published("status", 100, 164)
    for offsets in noted:
        assert published.take(note_value("status", sorted(offsets), {}))
    assert {offset for offset in range(100, 164) if offset in published} == set().union(*noted)


def test_of_a_note_only_what_lies_in_the_range_and_is_about_the_topic_counts() -> None:
    """The head may have expired; another topic is another story."""
    published = Published("status", 10, 20)
    assert published.take(note_value("status", [5, 6, 10, 25], {}))
    assert published.take(note_value("another", [11], {12: ["$[0]"]}))
    assert [offset for offset in range(10, 20) if offset in published] == [10]
    assert published.paths(12) == set()


def test_items_of_a_record_are_known_by_their_paths() -> None:
    """What further runs published adds to it."""
    published = Published("status", 0, 8)
    published.take(note_value("status", [], {3: ["$[0]"]}))
    published.take(note_value("status", [], {3: ["$[0]", "$[2]"]}))
    assert published.paths(3) == {"$[0]", "$[2]"}
    assert 3 not in published


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"[1]", b"\xff", b'{"topic":"status","published":[1],"partly":{}}']
)
def test_a_note_that_cannot_be_read_is_said_to_be_one(value: bytes | None) -> None:
    """So that nothing is published on its account."""
    assert not Published("status", 0, 8).take(value)


def test_notes_are_told_by_their_header() -> None:
    """Quarantined records have none such."""
    assert is_note(list(note_headers("run")))
    assert not is_note([("quarantine_reason", b"not_json")])
    assert not is_note(None)
