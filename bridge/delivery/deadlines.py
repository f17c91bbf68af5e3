"""The deadlines of callbacks: a timer a tick, as a timer a callback would cost more than all its futures."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from bridge.delivery.entry import PendingAck

_TICK_SECONDS: Final = 0.025
"""Resolution; a deadline is met this much early at most, never late by it."""


class Deadlines:
    """Calls ``on_deadline`` with each ack that is still watched when its deadline comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_deadline: Callable[[PendingAck], None]) -> None:
        self._loop = loop
        self._on_deadline = on_deadline
        self._ticks: dict[int, set[PendingAck]] = {}

    @property
    def watched(self) -> list[PendingAck]:
        """All acks that are watched."""
        return [ack for acks in self._ticks.values() for ack in acks]

    def watch(self, ack: PendingAck) -> None:
        """Begin to watch."""
        tick = self._tick(ack)
        acks = self._ticks.get(tick)
        if acks is None:
            acks = self._ticks[tick] = set()
            self._loop.call_at(tick * _TICK_SECONDS, self._on_tick, tick)
        acks.add(ack)

    def discard(self, ack: PendingAck) -> None:
        """End watching, if it has begun."""
        if ack.deadline < math.inf:
            self._ticks.get(self._tick(ack), set()).discard(ack)

    @staticmethod
    def _tick(ack: PendingAck) -> int:
        return int(ack.deadline / _TICK_SECONDS)

    def _on_tick(self, tick: int) -> None:
        for ack in self._ticks.pop(tick, ()):
            self._on_deadline(ack)
