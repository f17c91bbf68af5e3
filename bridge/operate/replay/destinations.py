"""The destinations that there are: one is chosen by the options, or by the run that is resumed."""

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bridge.errors import ConfigurationError, ReplayError
from bridge.operate.replay.count import CountDestination, NoDestination
from bridge.operate.replay.destination import Context, Destination
from bridge.operate.replay.files import FileDestination, find_checkpoint
from bridge.operate.replay.state import Run, State
from bridge.operate.replay.stream import StreamDestination, is_stream
from bridge.operate.replay.topic import TopicDestination, find_run


class _Kind(NamedTuple):
    """A kind of destination.

    ``option`` chooses it, and its value goes to ``make``; ``field`` of a run holds that value, where runs of this kind can be
    resumed, and ``find`` finds such a run by its id and the option's value.
    """

    option: str
    make: Callable[[Any, Context], Destination]
    field: str | None = None
    find: Callable[[str, Any, Context], State | None] = lambda _run, _value, _context: None

    @property
    def flag(self) -> str:
        return f"--{self.option.replace('_', '-')}"


def _at_path(file: str, context: Context) -> Destination:
    return StreamDestination(file, context) if is_stream(file) else FileDestination(file, context)


_KINDS: Final = (
    _Kind("to_file", _at_path, "file", find_checkpoint),
    _Kind("to_topic", TopicDestination, "target", find_run),
    _Kind("count", CountDestination),
)


def destination_of(options: argparse.Namespace, context: Context) -> Destination:
    """The destination that the options name."""
    for kind in _KINDS:
        if value := getattr(options, kind.option):
            return kind.make(value, context)
    return NoDestination(None, context)


def destination_of_run(run: Run, options: argparse.Namespace, context: Context) -> Destination:
    """The destination of a run that is resumed.

    Raises:
        ConfigurationError: the options name another one.
    """
    (found,) = [
        kind.make(value, context) for kind in _KINDS if kind.field is not None and (value := getattr(run, kind.field))
    ]
    for kind in _KINDS:
        value = getattr(options, kind.option)
        if value and not kind.make(value, context).is_of(run):
            raise ConfigurationError(f"{kind.flag}: run {run.id} writes to {found.describe(run)}; leave it out")
    return found


def find_state(run_id: str, options: argparse.Namespace, context: Context) -> State:
    """How far a run is, by its id, or by what else finds it.

    Raises:
        ReplayError: there is no such run.
    """
    for kind in _KINDS:
        state = kind.find(run_id, getattr(options, kind.option), context)
        if state is not None:
            return state
    raise ReplayError(
        f"there is no run {run_id}: neither a checkpoint of it in this directory (--to-file names its file), nor a "
        "group on Kafka; if it was never begun, start it anew"
    )
