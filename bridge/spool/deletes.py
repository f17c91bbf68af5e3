"""Deletes that are not done yet: none is forgotten, whatever fails."""

from collections.abc import Iterable, Sequence

from bridge.spool.mailbox import Append, Delete, Op
from bridge.spool.rows import EncodedRow

PlannedAppend = tuple[Append, list[EncodedRow]]
"""An append, and those of its rows that are to be inserted."""


class PendingDeletes:
    """What is left to delete, by lane. ``failed``: the last attempt at them failed."""

    def __init__(self) -> None:
        self.through: dict[int, int] = {}  # lane → seq
        self.failed = False
        self._unplanned: list[Delete] = []  # of this round, not in `through` yet

    def __len__(self) -> int:
        return len(self.through)

    def begin(self, ops: Iterable[Op]) -> None:
        """Take in the deletes of a round, which `plan` gets to one after the other."""
        self._unplanned = [op for op in ops if isinstance(op, Delete)]

    def plan(self, ops: Sequence[Append | Delete]) -> list[PlannedAppend]:
        """Appends with the rows to insert, without those that a later delete covers; notes the deletes.

        The commit deletes first and inserts these rows afterwards: so a delete never touches a row that was appended
        after it.
        """
        through: dict[int, int] = {}
        planned: list[PlannedAppend] = []
        for op in reversed(ops):
            if isinstance(op, Delete):
                through[op.lane] = max(op.seq, through.get(op.lane, op.seq))
            elif not through:
                planned.append((op, op.rows))
            else:
                left = [row for row in op.rows if row.seq > through.get(row.lane, row.seq - 1)]
                planned.append((op, left))
        deletes = [op for op in ops if isinstance(op, Delete)]
        self._note(deletes)
        del self._unplanned[: len(deletes)]
        planned.reverse()
        return planned

    def note_unplanned(self) -> None:
        """Keep the deletes of a round that broke off before it planned them."""
        self._note(self._unplanned)

    def done(self, remaining: dict[int, int]) -> None:
        """A commit did all of them but these."""
        self.through = remaining
        self.failed = False

    def _note(self, deletes: Iterable[Delete]) -> None:
        for op in deletes:
            self.through[op.lane] = max(op.seq, self.through.get(op.lane, op.seq))
