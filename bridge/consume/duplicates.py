"""Dropping repeats: the same event may come twice, always with the same id."""

import time
from collections import OrderedDict
from collections.abc import Callable

DEFAULT_CAPACITY = 200_000


class Deduplicator:
    """Ids of events seen lately, in bounded memory.

    Ask before the work, add after it: what failed half-way is then done again, not lost.

        if event_id in seen:
            continue
        ...
        seen.add(event_id)

    What it promises: an id is known from its ``add`` until ``capacity`` other ids were added or asked for since it was
    last seen, or ``seconds`` passed, or the process ended. Repeats of the provider come within minutes, those of an outage
    or a replay after hours or days: so it spares work where doing something twice does no harm. Where it does, as for
    money, put the id into your own table, in the transaction of what follows from the event.

    Not thread-safe: one for each consuming thread. An id takes some 200 bytes.

    Args:
        capacity: how many ids it holds; the one not seen for longest goes first.
        seconds: how long it holds one that isn't seen again; None: as long as there is room.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        capacity: int = DEFAULT_CAPACITY,
        seconds: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: it must be at least 1")
        self._capacity = capacity
        self._seconds = seconds
        self._clock = clock
        # When each was last seen, the longest ago first.
        self._seen: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, event_id: object) -> bool:
        """Whether the event was seen; a repeat keeps its id alive."""
        self._forget_old()
        if not isinstance(event_id, str) or event_id not in self._seen:
            return False
        self._touch(event_id)
        return True

    def __len__(self) -> int:
        self._forget_old()
        return len(self._seen)

    def add(self, event_id: str) -> None:
        """Remember an event that was dealt with."""
        self._touch(event_id)
        self._forget_old()
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def _touch(self, event_id: str) -> None:
        self._seen[event_id] = self._clock()
        self._seen.move_to_end(event_id)

    def _forget_old(self) -> None:
        if self._seconds is None:
            return
        horizon = self._clock() - self._seconds
        while self._seen and next(iter(self._seen.values())) <= horizon:
            self._seen.popitem(last=False)
