"""Holds back a push while an earlier one with one of its message ids is unresolved.

The provider promises no order, so a checker can't know in which order concurrent pushes reached the bridge.
With this, it knows: of two pushes with a message in common the later is not sent before the earlier is
acknowledged or given up.
"""

from collections import deque

from bridge.lab.simulate.push import Push


class Sequence:
    """One queue a message id; a push is free to go at the head of all of its queues."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Push]] = {}
        self._behind: dict[int, int] = {}

    @property
    def held(self) -> int:
        """Pushes admitted and not free to go."""
        return len(self._behind)

    def admit(self, push: Push) -> bool:
        """Queue it after all before; True if it is free to go now, else ``release`` returns it some time."""
        behind = 0
        for key in push.keys:
            queue = self._queues.setdefault(key, deque())
            behind += bool(queue)
            queue.append(push)
        if behind:
            self._behind[push.number] = behind
        return not behind

    def release(self, push: Push) -> list[Push]:
        """It is resolved: the pushes that are free to go now."""
        freed = []
        for key in push.keys:
            queue = self._queues[key]
            queue.popleft()
            if not queue:
                del self._queues[key]
                continue
            following = queue[0]
            self._behind[following.number] -= 1
            if not self._behind[following.number]:
                del self._behind[following.number]
                freed.append(following)
        return sorted(freed, key=lambda push: push.number)
