"""The run itself: read, choose, write, commit; orderly ended by a signal."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from confluent_kafka import Message

from bridge.operate.progress import Progress
from bridge.operate.reading.reader import BATCH_RECORDS, Reader
from bridge.operate.reading.select import Predicate
from bridge.operate.replay.destination import Destination
from bridge.operate.replay.state import Run, State

COMMIT_SECONDS: Final = 1.0
_SLICE_SECONDS: Final = 0.1
# With a limited rate a batch is what a fifth of a second may hold.
_BATCHES_A_SECOND: Final = 5

Choose = Callable[[list[Message]], list[Message]]


class Stop:
    """Whether a signal asked for the end, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @classmethod
    @contextmanager
    def on_signals(cls) -> Iterator["Stop"]:
        """Take SIGINT and SIGTERM as a wish to end in order; a second SIGINT ends at once, as ever."""
        stop = cls()
        before = {number: signal.signal(number, stop._take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)


def batch_records(rate: float | None, most: int) -> int:
    """Most messages to take at once."""
    return most if rate is None else max(1, min(most, int(rate / _BATCHES_A_SECOND)))


def chooser(run: Run, wanted: Predicate | None) -> Choose | None:
    """Chooses a run's messages by time and filters; None where all are wanted."""
    low, high = run.from_ms, run.to_ms
    if low is None and high is None and wanted is None:
        return None

    def choose(batch: list[Message]) -> list[Message]:
        if low is not None:
            batch = [message for message in batch if message.timestamp()[1] >= low]
        if high is not None:
            batch = [message for message in batch if message.timestamp()[1] < high]
        if wanted is not None:
            batch = [message for message in batch if wanted(message.key(), _headers(message), message.value())]
        return batch

    return choose


def _headers(message: Message) -> Any:
    return message.headers()


class Pace:
    """Holds writing back to so many records a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._count = 0

    def wait(self, records: int) -> Iterator[None]:
        """Wait until so many more may have been written; yields in between, so that others get their turn."""
        if self._rate is None or not records:
            return
        now = time.monotonic()
        due = self._began + self._count / self._rate
        if now > due + 1.0:  # what was not used is lost, not saved up
            self._began, self._count = now, 0
        self._count += records
        due = self._began + self._count / self._rate
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_SECONDS))
            yield


def transfer(
    reader: Reader,
    destination: Destination,
    state: State,
    *,
    choose: Choose | None,
    pace: Pace,
    progress: Progress,
    stop: Stop,
) -> None:
    """Write what the reader gives to the destination, until it is all there, or the end was asked for.

    ``state`` is what the destination has as durable, whenever this ends by an error.

    Raises:
        ReplayError: of the reader or the destination.
        BrokenPipeError: nobody reads the stream any more.
    """
    read, written = state.read, state.written
    committed = time.monotonic()

    def commit(*, wait: bool = False) -> None:
        nonlocal committed
        after = State(run=state.run, ranges=state.ranges, positions=dict(reader.positions), read=read, written=written)
        destination.commit(after, wait=wait)
        state.positions, state.read, state.written, state.undecodable = (
            after.positions,
            read,
            written,
            after.undecodable,
        )
        committed = time.monotonic()

    for batch in reader:
        chosen = batch if choose is None else choose(batch)
        if chosen:
            destination.write(chosen)
        read += len(batch)
        written += len(chosen)
        progress.show(read, written, reader.left)
        most = destination.commit_records
        # The next batch has to fit as well: a commit comes behind a batch, never before it.
        if most is not None and written - state.written + BATCH_RECORDS > most:
            commit()
        if time.monotonic() - committed >= COMMIT_SECONDS:
            commit()
        for _ in pace.wait(len(chosen)):
            if time.monotonic() - committed >= COMMIT_SECONDS:
                commit()
            if stop.signal is not None:
                break
        if stop.signal is not None:
            break
    commit(wait=True)
