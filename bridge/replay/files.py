"""A file, or standard output, as the sink of a replay: lines of JSON.

A file has a checkpoint beside it, ``FILE.checkpoint``: the run, how far it came, and how long the file was then. First the
file's bytes are on disk, then the checkpoint is renamed into its place; so whenever the process dies, the file holds at least
what the checkpoint says. A resumed run cuts off the rest and goes on from there.
"""

import fcntl
import os
import stat
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import msgspec
from confluent_kafka import Message

from bridge import durable
from bridge.errors import ReplayError
from bridge.replay.lines import Lines
from bridge.replay.state import State

STANDARD_OUTPUT: Final = "-"
_SUFFIX: Final = ".checkpoint"
# One write each, rather than one a batch.
_BUFFER_BYTES: Final = 1 << 20


class Sink(Protocol):
    """Where records go. What is written counts when it is committed, and not before."""

    def write(self, messages: Sequence[Message]) -> None:
        """Take messages, in their order."""

    def commit(self, state: State, *, wait: bool = True) -> None:
        """Make what was written durable, together with how far the run came; without ``wait``, soon."""

    def close(self) -> None:
        """Let go of it; what was not committed may be lost."""


class Checkpoint(msgspec.Struct, kw_only=True):
    """The file beside the file."""

    state: State
    bytes: int
    complete: bool = False


def checkpoint_path(file: Path) -> Path:
    """Where the checkpoint of a file is."""
    return file.with_name(file.name + _SUFFIX)


def read_checkpoint(file: Path) -> Checkpoint | None:
    """The checkpoint beside a file; None where there is none.

    Raises:
        ReplayError: it can't be read as one.
    """
    path = checkpoint_path(file)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ReplayError(f"{path}: can't be read as a checkpoint: {error}") from error


def is_stream(file: str) -> bool:
    """Whether a file is standard output, a pipe or a device: what can't be cut, and so not be resumed."""
    if file == STANDARD_OUTPUT:
        return True
    try:
        return not stat.S_ISREG(Path(file).stat().st_mode)
    except OSError:
        return False


class StreamSink:
    """Standard output, a pipe or a device; nothing of it can be taken back.

    Raises:
        BrokenPipeError: of ``write``: whoever read it went away.
    """

    def __init__(self, file: str, lines: Lines) -> None:
        self._lines = lines
        self._owned = file != STANDARD_OUTPUT
        self._out = os.open(file, os.O_WRONLY | os.O_CLOEXEC) if self._owned else 1

    def write(self, messages: Sequence[Message]) -> None:
        """Write them at once."""
        _write_all(self._out, self._lines.encode(messages))

    def commit(self, state: State, *, wait: bool = True) -> None:  # noqa: ARG002 - it is done
        """Nothing is left to be done."""
        state.undecodable = self._lines.undecodable

    def close(self) -> None:
        """Close what was opened."""
        if self._owned:
            os.close(self._out)


class FileSink:
    """A file of its own; new, or one that a checkpoint speaks of.

    Args:
        file: where the lines go; readable by its owner only.
        lines: makes them.
        checkpoint: where to go on; None for a new file.

    Raises:
        ReplayError: the file is there already, or is not as the checkpoint says, or another process writes it.
    """

    def __init__(self, file: Path, lines: Lines, checkpoint: Checkpoint | None = None) -> None:
        self._file = file
        self._lines = lines
        self._buffer = bytearray()
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_APPEND
        try:
            self._out = os.open(file, flags if checkpoint else flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ReplayError(f"{file} is there already; give another name, or remove it and its checkpoint") from None
        except OSError as error:
            raise ReplayError(f"{file}: {error.strerror}") from error
        try:
            self._lock()
            self._bytes = self._cut(checkpoint) if checkpoint else 0
        except BaseException:
            os.close(self._out)
            raise
        lines.undecodable = checkpoint.state.undecodable if checkpoint else 0
        # A disk may take as long as all the rest: it works beside it.
        self._disk: Final = ThreadPoolExecutor(1, "disk")
        self._syncing: Future[None] | None = None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReplayError(f"{self._file}: another replay writes it now; wait for it, or stop it") from None

    def _cut(self, checkpoint: Checkpoint) -> int:
        size = os.fstat(self._out).st_size
        if size < checkpoint.bytes:
            raise ReplayError(
                f"{self._file} has {size:,} bytes, its checkpoint speaks of {checkpoint.bytes:,}: it was changed since; "
                "remove both and start anew"
            )
        os.ftruncate(self._out, checkpoint.bytes)
        return checkpoint.bytes

    def write(self, messages: Sequence[Message]) -> None:
        """Write them behind what is there."""
        self._buffer += self._lines.encode(messages)
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def commit(self, state: State, *, wait: bool = True) -> None:
        """The file first, then the checkpoint; each on disk before the next.

        Raises:
            ReplayError: the disk failed; perhaps at an earlier commit that was not waited for.
        """
        self._flush()
        state.undecodable = self._lines.undecodable
        if self._syncing is not None and (wait or self._syncing.done()):
            self._syncing.result()
            self._syncing = None
        if self._syncing is None:
            checkpoint = Checkpoint(state=state, bytes=self._bytes, complete=state.left == 0)
            self._syncing = self._disk.submit(self._sync, msgspec.json.encode(checkpoint))
        if wait:
            self._syncing.result()

    def _sync(self, checkpoint: bytes) -> None:
        try:
            os.fdatasync(self._out)
            durable.replace(checkpoint_path(self._file), checkpoint)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file, which lets others write it."""
        self._disk.shutdown()
        os.close(self._out)

    def _flush(self) -> None:
        try:
            _write_all(self._out, self._buffer)
        except OSError as error:
            raise self._failed(error) from error
        self._bytes += len(self._buffer)
        self._buffer.clear()

    def _failed(self, error: OSError) -> ReplayError:
        return ReplayError(f"{self._file}: {error.strerror}; what its checkpoint speaks of is kept")


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
