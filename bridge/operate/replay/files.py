"""A file, or standard output, as the sink of a replay: lines of JSON.

A file has a checkpoint beside it, ``FILE.checkpoint``: the run, how far it came, and how long the file was then. First the
file's bytes are on disk, then the checkpoint is renamed into its place; so whenever the process dies, the file holds at least
what the checkpoint says. A resumed run cuts off the rest and goes on from there.
"""

import fcntl
import os
import shlex
import stat
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import msgspec
from confluent_kafka import Message

from bridge import durable
from bridge.errors import ReplayError
from bridge.operate.ndjson import Lines
from bridge.operate.replay.state import State

STANDARD_OUTPUT: Final = "-"
_SUFFIX: Final = ".checkpoint"
_ANEW: Final = "remove both, the file and its checkpoint, and start anew"
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
        checkpoint = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReplayError(f"{path}: can't be read as a checkpoint: {error}; {_ANEW}") from error
    if checkpoint.bytes < 0 or not checkpoint.state.is_sound:
        raise ReplayError(f"{path}: it contradicts itself, so it was changed; {_ANEW}")
    return checkpoint


def is_stream(file: str) -> bool:
    """Whether a file is standard output, a pipe or a device: what can't be cut, and so not be resumed."""
    if file == STANDARD_OUTPUT:
        return True
    try:
        mode = Path(file).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_new(file: Path) -> None:
    """See that a new file can be made, before anything is planned.

    Raises:
        ReplayError: it is there already, perhaps with a part of a run; or its directory is not.
    """
    if file.is_dir():
        raise ReplayError(f"{file} is a directory; name a file")
    if not file.parent.is_dir():
        raise ReplayError(f"{file}: there is no directory {file.parent}")
    if not os.path.lexists(file):
        return
    found = read_checkpoint(file)
    if found is not None and not found.complete:
        run = found.state.run.id
        raise ReplayError(
            f"{file} holds a part of run {run}; go on with --resume {run} --to-file {shlex.quote(str(file))}, or "
            f"remove it and {checkpoint_path(file)}"
        )
    raise _there_already(file)


def _there_already(file: Path) -> ReplayError:
    return ReplayError(f"{file} is there already; give another name, or remove it and its checkpoint")


class StreamSink:
    """Standard output, a pipe or a device; nothing of it can be taken back.

    Raises:
        ReplayError: it can't be opened, or written to.
        BrokenPipeError: of ``write``: whoever read it went away.
    """

    def __init__(self, file: str, lines: Lines) -> None:
        self._lines = lines
        self._owned = file != STANDARD_OUTPUT
        self._name = file if self._owned else "standard output"
        try:
            self._out = os.open(file, os.O_WRONLY | os.O_CLOEXEC) if self._owned else 1
        except OSError as error:
            raise ReplayError(f"{file}: {error.strerror}") from error

    def write(self, messages: Sequence[Message]) -> None:
        """Write them at once."""
        encoded = self._lines.encode(messages)
        try:
            _write_all(self._out, encoded)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ReplayError(f"{self._name}: {error.strerror}") from error

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
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_APPEND
        try:
            self._out = os.open(file, flags if checkpoint else flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise _there_already(file) from None
        except FileNotFoundError:
            raise ReplayError(f"{file} is not there, though its checkpoint is; bring it back, or start anew") from None
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
                f"{self._file} has {size:,} bytes, its checkpoint speaks of {checkpoint.bytes:,}: it was changed since; {_ANEW}"
            )
        if checkpoint.bytes and os.pread(self._out, 1, checkpoint.bytes - 1) != b"\n":
            raise ReplayError(
                f"{self._file}: no line ends at byte {checkpoint.bytes:,}, as its checkpoint says: it was changed since; {_ANEW}"
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
            ReplayError: the disk failed, perhaps at an earlier commit that was not waited for; or the file is not as it was left.
        """
        self._flush()
        self._look()
        state.undecodable = self._lines.undecodable
        if self._syncing is not None and (wait or self._syncing.done()):
            self._syncing.result()
            self._syncing = None
        if self._syncing is None:
            checkpoint = Checkpoint(state=state, bytes=self._bytes, complete=state.left == 0)
            self._syncing = self._disk.submit(self._sync, msgspec.json.encode(checkpoint))
        if wait:
            self._syncing.result()

    def _look(self) -> None:
        """See that nobody else writes to the file, cuts it, or puts it away: a checkpoint would speak of what is not there."""
        own = os.fstat(self._out)
        try:
            alike = os.path.samestat(own, self._file.stat())
        except OSError:
            alike = False
        if not alike:
            raise ReplayError(f"{self._file} was moved or removed while it was written; bring it back, or start anew")
        if own.st_size != self._bytes:
            raise ReplayError(
                f"{self._file} has {own.st_size:,} bytes, {self._bytes:,} were written: somebody else writes to it, or cut it"
            )

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
