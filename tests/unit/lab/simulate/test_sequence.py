"""Pushes that share a message go one after the other."""

import random

from hypothesis import given
from hypothesis import strategies as st
from support.simulate_server import push, report

from bridge.lab.simulate.push import Push
from bridge.lab.simulate.sequence import Sequence


def _push(number: int, keys: frozenset[str]) -> Push:
    return push(number, *(report(key) for key in sorted(keys)))


@given(st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1), max_size=30), st.randoms())
def test_pushes_that_share_a_message_never_overlap(keys: list[frozenset[str]], chance: random.Random) -> None:
    """Whatever is resolved first: none under way share a key, a key's pushes go in order, all go."""
    pushes = [_push(number, of_push) for number, of_push in enumerate(keys)]
    sequence = Sequence()
    going: list[Push] = []
    gone: list[Push] = []
    waiting = list(pushes)
    while waiting or going:
        if waiting and (not going or chance.random() < 0.5):
            following = waiting.pop(0)
            freed = [following] if sequence.admit(following) else []
        else:
            freed = sequence.release(going.pop(chance.randrange(len(going))))
        going += freed
        gone += freed
        under_way = [key for each in going for key in each.keys]
        assert len(under_way) == len(set(under_way))
    assert sequence.held == 0
    assert sorted(each.number for each in gone) == list(range(len(pushes)))
    for key in "abcdef":
        of_key = [each.number for each in gone if key in each.keys]
        assert of_key == sorted(of_key)


def test_what_shares_nothing_is_not_held() -> None:
    """Only a shared message holds a push back."""
    sequence = Sequence()
    assert [sequence.admit(_push(number, frozenset(keys))) for number, keys in enumerate(["ab", "cd", "be", "f"])] == [
        True,
        True,
        False,
        True,
    ]
    assert sequence.held == 1
