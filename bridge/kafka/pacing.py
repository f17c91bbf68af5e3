"""When Kafka refuses everything, one lane tries at a time and the others are held.

If Kafka refuses a single lane, only that lane pauses. If Kafka has refused two lanes or more and accepted no batch
since, the cluster refuses everything. Attempts of many lanes would then only add load. So one lane tries, and another
one after a pause; the pauses grow up to 30 s. The first accepted batch releases all lanes.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

_PAUSE_SECONDS: Final = (0.1, 30.0)
# If at least this many lanes are refused, the cluster refuses everything.
_LANES: Final = 2


class Pacing:
    """See the module docstring.

    Args:
        offer: called with a source that may try now.
    """

    def __init__(self, offer: Callable[[Any], None]) -> None:
        self._offer = offer
        self._loop = asyncio.get_running_loop()
        self._refused: set[Any] = set()
        self._held: dict[Any, None] = {}
        self._admitted: set[Any] = set()
        self._pause = _PAUSE_SECONDS[0]
        # A refused request refuses all its lanes at once, which counts once: the pause cannot grow again before this time.
        self._grows_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def refuses_everything(self) -> bool:
        """Whether the cluster refuses all lanes, and not one lane only."""
        return len(self._refused) >= _LANES

    def admits(self, source: Any) -> bool:
        """Whether the source may try now; if not, it is held and offered later."""
        if not self.refuses_everything:
            return True
        if source in self._admitted:
            self._admitted.discard(source)
            return True
        self._held[source] = None
        self._wait()
        return False

    def admit(self, source: Any) -> None:
        """Let the source try at once: its next attempt differs from the refused one, or it was admitted before."""
        if self.refuses_everything:
            self._admitted.add(source)

    def accepted(self) -> None:
        """Release all lanes, because a batch is in the log."""
        if not self._refused:
            return
        self._refused.clear()
        self._admitted.clear()
        self._pause, self._grows_at = _PAUSE_SECONDS[0], 0.0
        self.stop()
        held, self._held = self._held, {}
        for source in held:
            self._offer(source)

    def refused(self, source: Any, most_seconds: float) -> None:
        """Count a refused batch of this source; the pause grows to ``most_seconds`` at most."""
        self._refused.add(source)
        now = self._loop.time()
        if self.refuses_everything and now >= self._grows_at:
            self._pause = min(self._pause * 2, most_seconds)
            self._grows_at = now + self._pause / 2

    def stop(self) -> None:
        """Stop the timer that offers held sources."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._held:
            self._timer = self._loop.call_later(self._pause * random.uniform(0.5, 1.0), self._next)  # noqa: S311 - jitter

    def _next(self) -> None:
        self._timer = None
        source = next(iter(self._held))
        del self._held[source]
        self._admitted.add(source)
        self._offer(source)
        self._wait()
