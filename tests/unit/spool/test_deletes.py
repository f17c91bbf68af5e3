"""Deletes that are not done yet: what a commit deletes and inserts for a round of operations."""

import asyncio
from collections.abc import Iterator

import pytest
from support.spools import row

from bridge.spool.deletes import PendingDeletes
from bridge.spool.mailbox import Append, Delete
from bridge.spool.rows import encode_row


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop to make futures on."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def append(loop: asyncio.AbstractEventLoop, *places: tuple[int, int]) -> Append:
    """An append of rows at these lanes and seqs."""
    return Append([encode_row(row(lane, seq)) for lane, seq in places], 0, loop.create_future())


def test_a_delete_leaves_out_what_was_appended_before_it_and_spares_the_rest(loop: asyncio.AbstractEventLoop) -> None:
    """Only rows of its lane, up to its seq; every append is planned, so that it is answered, even without rows."""
    deletes = PendingDeletes()
    ops: list[Append | Delete] = [
        append(loop, (1, 1), (2, 1), (1, 9)),
        Delete(1, 5),
        append(loop, (1, 2)),
        Delete(1, 3),
    ]
    last = append(loop, (1, 3))
    deletes.begin([*ops, last])
    planned = deletes.plan([*ops, last])
    assert [ops[0], ops[2], last] == [op for op, _ in planned]
    assert [[(2, 1), (1, 9)], [], [(1, 3)]] == [[(each.lane, each.seq) for each in rows] for _, rows in planned]
    assert {1: 5} == deletes.through


def test_a_round_that_breaks_off_forgets_no_delete() -> None:
    """Those it had not planned are noted afterwards, those it had are not lowered."""
    deletes = PendingDeletes()
    ops = [Delete(1, 5), Delete(2, 4), Delete(1, 3)]
    deletes.begin(ops)
    deletes.plan(ops[:1])
    deletes.note_unplanned()
    assert {1: 5, 2: 4} == deletes.through
    assert 2 == len(deletes)


def test_a_commit_leaves_what_it_did_not_get_to() -> None:
    """A large delete goes on in the next round, and one that failed is tried again."""
    deletes = PendingDeletes()
    deletes.plan([Delete(1, 5), Delete(2, 4)])
    deletes.failed = True
    deletes.done({2: 4})
    assert ({2: 4}, False) == (deletes.through, deletes.failed)
