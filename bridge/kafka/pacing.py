"""When Kafka refuses everything: one lane tries at a time, the others are held.

A refusal that hits one lane is that lane's to wait out. When two lanes or more were refused and no batch was accepted since, it
is the cluster that refuses, and many lanes' attempts would be a load that helps nobody. Then one lane tries, another one after a
pause, with pauses that grow to 30 s. The first batch that is accepted lets all of them go on.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

_PAUSE_SECONDS: Final = (0.1, 30.0)
# From so many lanes on it is the cluster.
_LANES: Final = 2


class Pacing:
    """See the module's head.

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
        # All lanes of a request are refused at once, which is one refusal: the pause grows once in each pause.
        self._grows_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def refuses_everything(self) -> bool:
        """Whether it is the cluster that refuses."""
        return len(self._refused) >= _LANES

    def admits(self, source: Any) -> bool:
        """Whether the source may try now; else it is held, and offered later."""
        if not self.refuses_everything:
            return True
        if source in self._admitted:
            self._admitted.discard(source)
            return True
        self._held[source] = None
        self._wait()
        return False

    def admit(self, source: Any) -> None:
        """It will try something else than what was refused: let it, at once."""
        if self.refuses_everything:
            self._admitted.add(source)

    def accepted(self) -> None:
        """A batch is in the log: all may go on."""
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
        """A batch of this source was refused; no pause is to be longer than told."""
        self._refused.add(source)
        now = self._loop.time()
        if self.refuses_everything and now >= self._grows_at:
            self._pause = min(self._pause * 2, most_seconds)
            self._grows_at = now + self._pause / 2

    def stop(self) -> None:
        """Offer nothing more."""
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
