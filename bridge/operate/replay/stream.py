"""Standard output, a pipe or a device as the destination of a replay: lines of JSON that can't be taken back."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from confluent_kafka import Message

from bridge.errors import ReplayError
from bridge.operate.replay.destination import Context, Destination
from bridge.operate.replay.state import Run, State

if TYPE_CHECKING:
    from bridge.operate.ndjson import Lines

STANDARD_OUTPUT: Final = "-"


def is_stream(file: str) -> bool:
    """Whether a file is standard output, a pipe or a device: what can't be cut, and so not be resumed."""
    if file == STANDARD_OUTPUT:
        return True
    try:
        mode = Path(file).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class StreamDestination(Destination):
    """Writes each batch at once. A run into it can't be resumed, but be begun anew where it ended.

    Args:
        file: ``-`` for standard output, or the path of a pipe or a device.
        context: of the command.
    """

    uses_standard_output: ClassVar[bool] = True

    def __init__(self, file: str, context: Context) -> None:
        self.context = context
        self._file = file
        self._is_path = file != STANDARD_OUTPUT
        self._out = 1
        self._lines: Lines

    @property
    def _name(self) -> str:
        return self._file if self._is_path else "standard output"

    def describe(self, run: Run) -> str:  # noqa: ARG002 - the same for all
        """Standard output, or the path."""
        return f"{self._name}, as lines of JSON"

    def recorded(self) -> dict[str, str]:
        """The path."""
        return {"file": self._file}

    def open(self, state: State) -> None:
        """Open it.

        Raises:
            ReplayError: it can't be opened.
        """
        self._lines = self.context.lines(state.run.topic)
        if self._is_path:
            try:
                self._out = os.open(self._file, os.O_WRONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ReplayError(f"{self._file}: {error.strerror}") from error

    def resume(self, state: State) -> State:
        """Go on behind what was written; nothing of that can be looked at."""
        self.open(state)
        return state

    def write(self, messages: Sequence[Message]) -> None:
        """Write them at once.

        Raises:
            BrokenPipeError: the reader closed it.
            ReplayError: it can't be written to.
        """
        encoded = self._lines.encode(messages)
        try:
            write_all(self._out, encoded)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ReplayError(f"{self._name}: {error.strerror}") from error

    def commit(self, state: State, *, wait: bool = True) -> None:  # noqa: ARG002 - it is done
        """Nothing is left to be done."""
        state.undecodable = self._lines.undecodable

    def close(self) -> None:
        """Close what was opened."""
        if self._is_path:
            os.close(self._out)

    def how_to_go_on(self, state: State) -> str:
        """The bounds of what was not yet read, for a new run."""
        low = ",".join(f"{partition}:{position}" for partition, position in sorted(state.positions.items()))
        high = ",".join(f"{partition}:{end}" for partition, (_, end) in sorted(state.ranges.items()))
        return f"what was not yet read: --from {low} --to {high}"


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of the data, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
