"""A file as the destination of a replay: whatever others do to it, and to its checkpoint, no line is lost or doubled unsaid."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from bridge.errors import ReplayError
from bridge.operate.ndjson import Lines
from bridge.operate.replay.destination import Context
from bridge.operate.replay.files import FileDestination, check_new, checkpoint_path, read_checkpoint
from bridge.operate.replay.state import Run, State
from bridge.operate.replay.stream import StreamDestination, is_stream


class Plain(Lines):
    """Of lines that are there already."""

    def encode(self, messages: Sequence[Any]) -> bytes:
        """All of them."""
        return b"".join(messages)


class PlainContext(Context):
    """Of a command whose lines are there already."""

    def lines(self, topic: str) -> Lines:
        """As they are."""
        return Plain(topic, None)


CONTEXT = PlainContext(cast("Any", None), cast("Any", None), 1.0)


def state(position: int) -> State:
    """Of a run that came so far."""
    return State(
        run=Run(id="r", topic="t", made_at_ms=0, file="out"),
        ranges={0: (0, 10)},
        positions={0: position},
        read=position,
    )


def begun(file: Path) -> FileDestination:
    """Two lines, durable."""
    destination = FileDestination(str(file), CONTEXT)
    destination.open(state(0))
    messages: Any = [b'{"n":0}\n', b'{"n":1}\n']
    destination.write(messages)
    destination.commit(state(2))
    return destination


@pytest.mark.parametrize("what", ["grow", "cut", "move", "replace"])
def test_who_else_touches_the_file_is_noticed(tmp_path: Path, what: str) -> None:
    """Before a checkpoint speaks of what is not there; what it spoke of before can be gone on from."""
    file, away = tmp_path / "out", tmp_path / "away"
    destination = begun(file)
    before = checkpoint_path(file).read_bytes()
    if what == "grow":
        with file.open("ab") as other:
            other.write(b"theirs\n")
    elif what == "cut":
        file.write_bytes(b"")
    else:
        file.rename(away)
        if what == "replace":
            file.write_bytes(away.read_bytes())
    with pytest.raises(ReplayError, match="somebody else" if what in {"grow", "cut"} else "moved or removed"):
        destination.commit(state(3))
    destination.close()
    assert checkpoint_path(file).read_bytes() == before
    if what == "grow":
        resumed = FileDestination(str(file), CONTEXT)
        assert resumed.resume(state(0)).positions == {0: 2}
        resumed.close()
        assert file.read_bytes() == b'{"n":0}\n{"n":1}\n'


def test_a_file_that_was_changed_before_its_checkpoint_is_not_gone_on_with(tmp_path: Path) -> None:
    """Where the checkpoint says it ends, no line does; nothing is cut."""
    file = tmp_path / "out"
    begun(file).close()
    changed = b"theirs\n" + file.read_bytes()
    file.write_bytes(changed)
    with pytest.raises(ReplayError, match="no line ends at byte 16"):
        FileDestination(str(file), CONTEXT).resume(state(2))
    assert file.read_bytes() == changed
    file.unlink()
    with pytest.raises(ReplayError, match="not there, though its checkpoint is"):
        FileDestination(str(file), CONTEXT).resume(state(2))


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": -1},
        {"state": {"positions": {}}},
        {"state": {"positions": {"0": 11}}},
        {"state": {"positions": {"9": 2}}},
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """And so is one that is cut off; both say what to do."""
    file = tmp_path / "out"
    begun(file).close()
    path = checkpoint_path(file)
    whole = json.loads(path.read_bytes())
    whole["state"] |= change.get("state", {})
    path.write_text(json.dumps(whole | {name: value for name, value in change.items() if name != "state"}))
    with pytest.raises(ReplayError, match=r"contradicts itself.* start anew"):
        read_checkpoint(file)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ReplayError, match=r"can't be read as a checkpoint.* start anew"):
        read_checkpoint(file)


def test_where_no_new_file_can_be_is_known_before_it_is_planned(tmp_path: Path) -> None:
    """A directory, a directory that is not there, a file that is."""
    assert not is_stream(str(tmp_path))
    for path, says in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "out", "there is no directory"),
        (tmp_path / "out", "holds a part of run r; go on with --resume r"),
    ):
        if path.name == "out" and path.parent == tmp_path:
            begun(path).close()
        with pytest.raises(ReplayError, match=says):
            check_new(path)
    check_new(tmp_path / "other")


def test_a_device_that_takes_no_more_ends_it_with_words() -> None:
    """As a full disk behind standard output does."""
    destination = StreamDestination("/dev/full", CONTEXT)
    destination.open(state(0))
    messages: Any = [b"x\n"]
    with pytest.raises(ReplayError, match="/dev/full: No space left"):
        destination.write(messages)
    destination.close()
