"""How loop and thread talk: every operation is answered once, a round's answers come at once, and nobody waits for ever."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from bridge.errors import SpoolFailed
from bridge.spool.mailbox import Append, Asked, Close, Delete, LoopClosed, Mailbox, Op, Read, Settled
from bridge.spool.stats import SpoolEvent, SpoolStats

if TYPE_CHECKING:
    from collections.abc import Callable


def append(cost_bytes: int = 10) -> Append:
    """An append of no rows."""
    return Append([], cost_bytes, asyncio.get_running_loop().create_future())


def post(mailbox: Mailbox) -> None:
    """Post whatever there is."""
    mailbox.post(SpoolStats(commits=1), {"lanes": "3"}, 7, None)


async def test_a_round_is_taken_in_order_up_to_its_bound() -> None:
    """The appends' bytes bound it; what follows is left for the next round, and nothing follows a close."""
    mailbox = Mailbox(asyncio.get_running_loop(), lambda _: None)
    ops: list[Op] = [append(60), Delete(1, 2), append(60), append(1), Close(), Delete(1, 3)]
    for op in ops:
        mailbox.put(op)
    assert ops[:3] == mailbox.take(1.0, 100)
    assert ops[3:5] == mailbox.take(1.0, 100)
    assert [False, ops[5:], True] == [mailbox.is_empty, mailbox.take(1.0, 100), mailbox.is_empty]
    assert [] == mailbox.take(0.001, 100)


async def test_one_call_brings_all_answers_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, errors and events; the next post has none of them again."""
    loop = asyncio.get_running_loop()
    settled: list[Settled] = []
    mailbox = Mailbox(loop, settled.append)
    ops: list[Asked] = [append(), append(), Read(1, 0, 10, loop.create_future())]
    for op in ops:
        mailbox.put(op)
    mailbox.take(1.0, 100)
    calls: list[Callable[[], None]] = []
    monkeypatch.setattr(loop, "call_soon_threadsafe", calls.append)
    wrong = ValueError("taken")
    mailbox.answer(ops[0], None, None)
    mailbox.answer(ops[1], None, wrong)
    mailbox.answer(ops[2], ["row"], None)
    mailbox.report(SpoolEvent("full", "no room"))
    waiting = [mailbox.has_answers]
    post(mailbox)
    waiting.append(mailbox.has_answers)
    post(mailbox)
    assert [True, False] == waiting
    assert 2 == len(calls)
    for call in calls:
        call()
    first, second = settled
    assert [(ops[0].future, None, None), (ops[1].future, None, wrong), (ops[2].future, ["row"], None)] == first.answers
    assert (2, 20, ["full"]) == (first.appends, first.appended_bytes, [event.kind for event in first.events])
    assert (1, {"lanes": "3"}, 7) == (first.stats.commits, first.meta, first.room_bytes)
    assert ([], 0, 0, []) == (second.answers, second.appends, second.appended_bytes, second.events)


async def test_what_a_round_leaves_unanswered_can_be_failed() -> None:
    """Each operation once: those with an answer keep it."""
    settled: list[Settled] = []
    mailbox = Mailbox(asyncio.get_running_loop(), settled.append)
    first, second = append(), append()
    for op in (first, Delete(1, 1), second):
        mailbox.put(op)
    mailbox.take(1.0, 100)
    mailbox.answer(first, None, None)
    error = SpoolFailed("a bug")
    mailbox.fail_unanswered(error)
    mailbox.fail_unanswered(error)
    post(mailbox)
    await asyncio.sleep(0)
    assert [(first.future, None, None), (second.future, None, error)] == settled[0].answers


async def test_opening_and_ending_are_told_once() -> None:
    """With the error where it failed; a future that was cancelled disturbs nobody."""
    mailbox = Mailbox(asyncio.get_running_loop(), lambda _: None)
    mailbox.tell_opened(SpoolFailed("no disk"))
    with pytest.raises(SpoolFailed, match="no disk"):
        await mailbox.opened
    mailbox.ended.cancel()
    mailbox.tell_ended()
    await asyncio.sleep(0)
    assert mailbox.ended.cancelled()


def test_a_closed_loop_ends_the_thread_and_nothing_else() -> None:
    """A post says so; at its start and end the thread has nobody to tell."""
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop, lambda _: None)
    loop.close()
    with pytest.raises(LoopClosed):
        post(mailbox)
    mailbox.tell_opened()
    mailbox.tell_ended()
