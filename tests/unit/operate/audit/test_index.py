"""What the topics alone can prove: each kind of wrong is found, and what only looks wrong is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.operate.audit.index import AuditIndex, Count, Disorder, IncompleteCallback, Repeats, Topic

AT_MS = 1_700_000_000_000
ONE, OTHER = "0123456789abcdef", "fedcba9876543210"


class Book:
    """Takes records as they stand on the topics: one partition, unless told."""

    def __init__(self, index: AuditIndex) -> None:
        self.index = index
        self._offset = 0

    def event(
        self,
        event: str,
        callback: str,
        position: str,
        *,
        key: str = "m",
        partition: int = 0,
        mark: str | None = None,
        time_ms: int = AT_MS,
        status: str = "sent",
    ) -> None:
        """One on the status topic."""
        headers = {"ce_id": event, "ce_type": f"chatapp.status.{status}"}
        headers |= {"bridge_callback": callback, "bridge_position": position} | ({mark: "run"} if mark else {})
        self._add(Topic.STATUS, partition, time_ms, key.encode(), b"{}", **headers)

    def quarantined(self, value: bytes, callback: str, position: str) -> None:
        """One in the quarantine."""
        headers = {"quarantine_reason": "no_status", "bridge_callback": callback, "bridge_position": position}
        self._add(Topic.QUARANTINE, 0, AT_MS, None, value, **headers)

    def note(self) -> None:
        """What a redrive leaves there."""
        self._add(Topic.QUARANTINE, 0, AT_MS, None, b"{}", bridge_redrive="run")

    def foreign(self) -> None:
        """Of somebody else."""
        self._add(Topic.STATUS, 0, AT_MS, b"k", b"?", ce_id="x")

    def _add(self, topic: Topic, partition: int, at_ms: int, key: bytes | None, value: bytes, **headers: str) -> None:
        pairs = [(name, text.encode()) for name, text in headers.items()]
        self.index.add(topic, partition, self._offset, at_ms, key=key, value=value, headers=pairs)
        self._offset += 1


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """An empty one."""
    index = AuditIndex(tmp_path / "index.sqlite")
    yield Book(index)
    index.close()


def incomplete(book: Book) -> list[IncompleteCallback]:
    """After everything was added."""
    book.index.complete()
    return list(book.index.incomplete())


def disorder(book: Book, since_ms: int = 0) -> list[Disorder]:
    """After everything was added."""
    book.index.complete()
    return list(book.index.disorder(since_ms))


def test_a_callback_is_whole_over_both_topics(book: Book) -> None:
    """Its quarantined items are on the other one."""
    book.event("a", f"{ONE}-1", "1/3")
    book.event("b", f"{ONE}-1", "3/3")
    book.quarantined(b"x", f"{ONE}-1", "2/3")
    assert incomplete(book) == []
    assert book.index.callbacks == 1


def test_a_callback_that_lacks_a_place_is_not_whole(book: Book) -> None:
    """Also where another of its records stands twice; copies by a replay or a redrive fill no gap."""
    book.event("a", f"{ONE}-1", "1/3")
    book.event("a", f"{ONE}-1", "1/3")
    book.event("c", f"{ONE}-1", "3/3")
    book.event("b", f"{ONE}-1", "2/3", mark="bridge_replay")
    book.event("b", f"{ONE}-1", "2/3", mark="bridge_redrive")
    assert incomplete(book) == [IncompleteCallback(f"{ONE}-1", AT_MS, 2, 3, contradictory=False, again=None)]


@pytest.mark.parametrize("position", ["2/3", "3/2"])
def test_records_of_a_callback_that_contradict_each_other(book: Book, position: str) -> None:
    """Another total, or a place behind it."""
    book.event("a", f"{ONE}-1", "1/2")
    book.event("b", f"{ONE}-1", "2/2")
    book.event("c", f"{ONE}-1", position)
    (found,) = incomplete(book)
    assert found.contradictory


def test_a_broken_callback_that_was_pushed_again_and_is_whole_then_is_explained(book: Book) -> None:
    """The same bytes make as many items, and what is here of the first stands at the same places of the second."""
    book.event("a", f"{ONE}-1", "1/3")
    book.quarantined(b"x", f"{ONE}-1", "3/3")
    for other, third in ((f"{OTHER}-7", b"x"), (f"{OTHER}-8", b"y")):
        book.event("a", other, "1/3")
        book.event("b", other, "2/3")
        book.quarantined(third, other, "3/3")
    (found,) = incomplete(book)
    assert (found.callback, found.again) == (f"{ONE}-1", f"{OTHER}-7")


def test_a_broken_callback_is_not_explained_by_one_that_is_broken_as_well(book: Book) -> None:
    """Nor by a whole one in which something else stands at its places."""
    book.event("a", f"{ONE}-1", "1/2")
    book.event("a", f"{ONE}-2", "1/2")
    book.event("b", f"{ONE}-3", "1/2")
    book.event("a", f"{ONE}-3", "2/2")
    assert [(each.callback, each.again) for each in incomplete(book)] == [(f"{ONE}-1", None), (f"{ONE}-2", None)]


def test_first_occurrences_of_a_key_ascend_within_a_process(book: Book) -> None:
    """What stands behind something received after it is told, with both places."""
    book.event("a", f"{ONE}-2", "1/1")
    book.event("b", f"{ONE}-1", "1/1")
    assert disorder(book) == [Disorder(0, 1, AT_MS, f"{ONE}-1", 1, 0, f"{ONE}-2", 1)]
    assert book.index.ordered_keys(0) == 1


def test_within_a_callback_the_place_counts(book: Book) -> None:
    """A key may stand in it twice."""
    book.event("a", f"{ONE}-1", "2/2")
    book.event("b", f"{ONE}-1", "1/2")
    assert len(disorder(book)) == 1


def test_what_may_stand_in_any_order(book: Book) -> None:
    """Other keys, other processes, repeats, copies, and events that moved when partitions were added."""
    book.event("a", f"{ONE}-5", "1/1")
    book.event("b", f"{ONE}-1", "1/1", key="another")
    book.event("c", f"{OTHER}-1", "1/1")
    book.event("d", f"{ONE}-6", "1/1")
    book.event("a", f"{ONE}-5", "1/1")
    book.event("e", f"{ONE}-1", "1/1", mark="bridge_replay")
    book.event("f", f"{ONE}-9", "1/1", partition=1)
    book.event("d", f"{ONE}-6", "1/1", partition=1)
    assert disorder(book) == []


def test_what_was_received_too_early_to_be_judged_is_not(book: Book) -> None:
    """Its first occurrence may have been removed."""
    book.event("a", f"{ONE}-2", "1/1")
    book.event("b", f"{ONE}-1", "1/1", time_ms=AT_MS - 1)
    assert disorder(book, AT_MS) == []


def test_repeats_tell_the_providers_from_the_bridges(book: Book) -> None:
    """By whether they came in another callback; copies are none."""
    book.event("a", f"{ONE}-1", "1/2")
    book.event("b", f"{ONE}-1", "2/2")
    book.event("a", f"{ONE}-1", "1/2")
    book.event("b", f"{ONE}-2", "2/2")
    book.event("b", f"{ONE}-2", "2/2")
    book.event("c", f"{ONE}-3", "1/1")
    book.event("c", f"{ONE}-3", "1/1", mark="bridge_replay")
    book.index.complete()
    assert book.index.repeats() == Repeats(distinct=3, events=2, records=3, pushed_again=1)


def test_counts_are_by_time_status_and_outcome(book: Book) -> None:
    """Each record is in one of them."""
    book.event("a", f"{ONE}-1", "1/1")
    book.event("a", f"{ONE}-1", "1/1")
    book.event("b", f"{ONE}-2", "1/1", status="read", time_ms=AT_MS + 60_000)
    book.event("a", f"{ONE}-1", "1/1", mark="bridge_replay")
    book.event("q", f"{ONE}-3", "1/1", mark="bridge_redrive")
    book.quarantined(b"x", f"{ONE}-3", "1/1")
    book.note()
    book.foreign()
    book.index.complete()
    minute = AT_MS // 60_000 * 60_000
    sent, read = "chatapp.status.sent", "chatapp.status.read"
    assert {(each.time_ms, each.outcome, each.word): each.records for each in book.index.counts(60_000)} == {
        (minute, "event", sent): 1,
        (minute, "repeat", sent): 1,
        (minute, "replayed", sent): 1,
        (minute, "redriven", sent): 1,
        (minute, "quarantined", "no_status"): 1,
        (minute + 60_000, "event", read): 1,
    }
    assert next(iter(book.index.counts(86_400_000))) == Count(AT_MS // 86_400_000 * 86_400_000, "event", sent, 1)
    assert (book.index.slots(60_000), book.index.notes, book.index.foreign_records) == (2, 1, 1)


def test_ids_of_another_form_are_callbacks_all_the_same(book: Book) -> None:
    """Whole or not; nothing is said about their order."""
    book.event("a", "by hand", "1/2")
    book.event("b", "by hand", "2/2")
    book.event("c", "alone", "1/2")
    assert [each.callback for each in incomplete(book)] == ["alone"]
    assert list(book.index.disorder(0)) == []
