"""A file as the destination of a replay: lines of JSON.

A file has a checkpoint beside it, ``FILE.checkpoint``: the run, how far it came, and how long the file was then. First the
file's bytes are on disk, then the checkpoint is renamed into its place; so whenever the process dies, the file holds at least
what the checkpoint says. A resumed run cuts off the rest and goes on from there.
"""

import fcntl
import os
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from confluent_kafka import Message

from bridge import durable
from bridge.errors import ReplayError
from bridge.operate.ndjson import new_file, refusal
from bridge.operate.replay.destination import Context, Destination
from bridge.operate.replay.state import Run, State
from bridge.operate.replay.stream import write_all

if TYPE_CHECKING:
    from bridge.operate.ndjson import Lines

_SUFFIX: Final = ".checkpoint"
_T = TypeVar("_T")
_ITS_CHECKPOINT: Final = "its checkpoint"
_ANEW: Final = "remove both, the file and its checkpoint, and start anew"
# One write each, rather than one a batch.
_BUFFER_BYTES: Final = 1 << 20


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
    raise ReplayError(refusal(file, FileExistsError(), _ITS_CHECKPOINT))


class FileDestination(Destination):
    """Writes a new file, or goes on with one that has a checkpoint.

    Args:
        file: where the lines go; it is made readable by its owner only.
        context: of the command.
    """

    def __init__(self, file: str, context: Context) -> None:
        self.context = context
        self._name = file
        self._file = Path(file)
        self._buffer = bytearray()
        self._out, self._bytes = -1, 0
        self._lines: Lines
        self._disk: ThreadPoolExecutor
        self._syncing: Future[None] | None = None

    def describe(self, run: Run) -> str:  # noqa: ARG002 - the same for all
        """The file."""
        return f"{self._name}, as lines of JSON"

    def recorded(self) -> dict[str, str]:
        """The file."""
        return {"file": self._name}

    def is_of(self, run: Run) -> bool:
        """Whether it is the run's file."""
        return run.file is not None and self._file.absolute() == Path(run.file).absolute()

    def check(self, run: Run) -> list[str]:  # noqa: ARG002 - the same for all
        """Check that the file can be made.

        Raises:
            ReplayError: it is there already, perhaps with a part of a run; or its directory is not.
        """
        check_new(self._file)
        return []

    def open(self, state: State) -> None:
        """Make the file.

        Raises:
            ReplayError: it is there already, or can't be made.
        """
        try:
            self._out = new_file(self._file)
        except OSError as error:
            raise ReplayError(refusal(self._file, error, _ITS_CHECKPOINT)) from error
        self._guarded(self._lock)
        self._begin(state.run, undecodable=0)

    def resume(self, state: State) -> State:
        """Open the file and cut off what its checkpoint does not vouch for.

        Raises:
            ReplayError: the file is not as the checkpoint says, or another process writes it.
        """
        try:
            self._out = os.open(self._file, os.O_RDWR | os.O_CLOEXEC | os.O_APPEND)
        except FileNotFoundError:
            raise ReplayError(
                f"{self._file} is not there, though its checkpoint is; bring it back, or start anew"
            ) from None
        except OSError as error:
            raise ReplayError(f"{self._file}: {error.strerror}") from error
        state = self._guarded(self._cut_to_checkpoint)
        self._begin(state.run, undecodable=state.undecodable)
        return state

    def _guarded(self, prepare: Callable[[], _T]) -> _T:
        """Prepare the file that was opened, or close it."""
        try:
            return prepare()
        except BaseException:
            os.close(self._out)
            raise

    def _begin(self, run: Run, *, undecodable: int) -> None:
        self._lines = self.context.lines(run.topic)
        self._lines.undecodable = undecodable
        # A disk may take as long as all the rest: it works at the same time.
        self._disk = ThreadPoolExecutor(1, "disk")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReplayError(f"{self._file}: another replay writes it now; wait for it, or stop it") from None

    def _cut_to_checkpoint(self) -> State:
        self._lock()
        checkpoint = read_checkpoint(self._file)
        if checkpoint is None:
            raise ReplayError(f"{checkpoint_path(self._file)} is not there any more; bring it back, or start anew")
        self._bytes = self._cut(checkpoint)
        return _at(checkpoint, self._file).state

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
            write_all(self._out, self._buffer)
        except OSError as error:
            raise self._failed(error) from error
        self._bytes += len(self._buffer)
        self._buffer.clear()

    def _failed(self, error: OSError) -> ReplayError:
        return ReplayError(f"{self._file}: {error.strerror}; what its checkpoint speaks of is kept")

    def how_to_go_on(self, state: State) -> str:
        """The command."""
        file = shlex.quote(self._name)
        return f"go on with: chatapp-bridge replay --resume {state.run.id} --to-file {file} --execute"


# --- finding a run ----------------------------------------------------------------------------------------------------


def find_checkpoint(run_id: str, file: str | None, _context: Context) -> State | None:
    """The state of a run into a file, by the run's id or its file's name; None where there is no checkpoint of it.

    It is looked for next to the file that was named, next to the one that is named instead of an id, and in this directory.
    """
    named = Path(run_id.removesuffix(_SUFFIX))
    if (found := read_checkpoint(named)) is not None:
        return _at(found, named).state
    if file and (found := read_checkpoint(Path(file))) is not None and found.state.run.id == run_id:
        return _at(found, Path(file)).state
    for path in sorted(Path().glob(f"*{_SUFFIX}")):
        try:
            found = read_checkpoint(path.with_suffix(""))
        except ReplayError:
            continue  # another program's, perhaps
        if found is not None and found.state.run.id == run_id:
            return _at(found, path.with_suffix("")).state
    return None


def _at(checkpoint: Checkpoint, file: Path) -> Checkpoint:
    """The checkpoint with the file's present name: it may have been moved since, its checkpoint with it."""
    checkpoint.state.run = msgspec.structs.replace(checkpoint.state.run, file=str(file))
    return checkpoint
