"""What random sequences on a stage share: the disk, deaths, and what must hold of every callback that was answered 200."""

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.delivery.entry import PendingAck
from support.scripted import FAILED, Found, Stage, numbers


class Promises(RuleBasedStateMachine):
    """Always: the reconciliation balances, and what was answered 200 is on Kafka, on disk, or was given away.

    A subclass calls ``begin``, ``pushed`` for each callback, and ``check_promises`` in the end.
    """

    stage: Stage

    def begin(self, stage: Stage) -> None:
        """A process on this stage."""
        self.stage = stage
        self.open: list[tuple[PendingAck, list[Any]]] = []
        self.promised: list[Any] = []

    def pushed(self, ack: PendingAck) -> None:
        """A callback that is not answered yet."""
        self.open.append((ack, [r for _, entry in ack.entries for r in entry.records]))

    @precondition(lambda self: self.stage.disk.queue)
    @rule(times=st.integers(1, 4))
    def commit(self, times: int) -> None:
        """The disk does some of what is queued."""
        for _ in range(min(times, len(self.stage.disk.queue))):
            self.stage.disk.work()
        self.stage.settle()

    @precondition(lambda self: self.stage.disk.queue)
    @rule(kept=st.booleans())
    def commit_fails(self, kept: bool) -> None:
        """An append fails; its row may be there all the same."""
        self.stage.disk.work(FAILED, kept=kept)
        self.stage.settle()

    @rule(unheard=st.integers(0, 3), found=st.sampled_from(["whole", "unchecked", "damaged"]))
    def crash(self, unheard: int, found: Found) -> None:
        """``kill -9`` and a new start, which may find the file damaged."""
        self.note_answers()
        self.open.clear()
        self.stage.crash(unheard, found)

    @rule()
    def damage(self) -> None:
        """The file is damaged while the process uses it."""
        self.stage.disk.damage()

    @precondition(lambda self: self.stage.disk.salvaging)
    @rule(most=st.sampled_from([1, 2, None]))
    def salvage(self, most: int | None) -> None:
        """A piece of it, or all."""
        self.stage.salvage(most)

    @precondition(lambda self: not self.stage.disk.checked)
    @rule()
    def checked(self) -> None:
        """The file is whole."""
        self.stage.disk.checked = True

    @invariant()
    def balances(self) -> None:
        """The reconciliation, and what was just promised."""
        self.note_answers()
        self.stage.check()

    def given_away(self) -> set[int]:
        """Dead letters, and what is in quarantine."""
        dead_letters = {n for row in self.stage.disk.dead_letters for n in numbers(row.records)}
        return dead_letters | set(self.stage.quarantined)

    def note_answers(self) -> None:
        """What is answered 200 has to be somewhere."""
        for ack, records in list(self.open):
            if Stage.answer(ack) is None:
                continue
            self.open.remove((ack, records))
            if Stage.answer(ack) == 503:
                continue
            self.promised += records
            rows = [*self.stage.disk.rows.values(), *self.stage.disk.damaged.values()]
            on_disk = {n for row in rows for n in numbers(row.records)}
            missing = set(numbers(records)) - on_disk - self.given_away() - set(self.stage.log)
            assert not missing, f"answered 200 and nowhere: {missing}"

    def check_promises(self, keys: Iterable[str]) -> None:
        """What was promised is on Kafka or was given away, each key in the order it was pushed."""
        self.note_answers()
        given_away, first = self.given_away(), self.stage.first_occurrences()
        for key in keys:
            promised = numbers([r for r in self.promised if r.key == key.encode()])
            missing = set(promised) - set(first.get(key, [])) - given_away
            assert not missing, f"promised and lost: {missing}"
            found = [n for n in first.get(key, []) if n in promised]
            assert found == sorted(found), "out of order"
