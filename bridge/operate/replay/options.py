"""The options of ``replay`` and of ``replay groups``; what they run is imported only when it runs."""

import argparse
import math
import shlex
from pathlib import Path
from typing import Any, Final

from bridge.operate.console import interruptible
from bridge.operate.reading.select import Bound, add_filter_arguments, parse_bound, parse_time, take_times

_TIMEOUT_SECONDS: Final = 60.0


def add_replay(commands: Any, configured: argparse.ArgumentParser) -> None:
    """Add ``replay`` and the forms below it; ``configured`` brings the options of the configuration."""
    parser = commands.add_parser("replay", parents=[configured], help="read again what the topics still hold")
    take_times(parser)
    _add_which(parser)
    add_filter_arguments(parser)
    _add_where(parser)
    parser.set_defaults(handler=_replay)
    forms = parser.add_subparsers(metavar="")
    _add_groups(forms.add_parser("groups", help="look at a team's consumer group, or move it"))


def _add_which(parser: argparse.ArgumentParser) -> None:
    which = parser.add_argument_group("which records")
    which.add_argument(
        "--from",
        dest="low",
        type=parse_bound,
        metavar="BOUND",
        help="an offset (1200), offsets by partition (3:1200,4:99), a time (2023-08-03T00:00:00+08:00), -6h, "
        "earliest, latest (default: earliest)",
    )
    which.add_argument(
        "--to", dest="high", type=parse_bound, metavar="BOUND", help="likewise, itself not included (default: the end)"
    )
    which.add_argument("--topic", metavar="TOPIC", help="status, quarantine, or a topic's name (default: status)")


def _add_where(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where they go")
    to = where.add_mutually_exclusive_group()
    to.add_argument("--to-file", metavar="FILE", help="lines of JSON into a new file; - is standard output")
    to.add_argument("--to-topic", metavar="TOPIC", help="another topic, which is there; exactly once by default")
    to.add_argument("--count", action="store_true", help="nowhere: read them and count them")
    where.add_argument(
        "--at-least-once",
        action="store_true",
        help="with --to-topic, where Kafka has no transactions: a run that was cut short repeats some records",
    )
    where.add_argument(
        "--allow-own-topic", action="store_true", help="also into the topic that is read, or another of the bridge's"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--execute", action="store_true", help="do it; without it the plan is shown")
    how.add_argument(
        "--resume", type=_run, metavar="RUN", help="go on with a run that was cut short; its file's name will do"
    )
    how.add_argument("--rate", type=_positive, metavar="N", help="write at most so many records a second")
    _add_timeout(how)


def _add_timeout(parser: Any) -> None:
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=_TIMEOUT_SECONDS,
        metavar="SEC",
        help="how long brokers or leaders may be away (default: %(default)g)",
    )


def _add_groups(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="members, and of each partition how far the group is")
    _add_group(show)
    show.set_defaults(handler=_show)
    reset = actions.add_parser("reset", help="move a stopped group on all partitions; what it had is saved first")
    _add_group(reset)
    take_times(reset)
    to = reset.add_mutually_exclusive_group(required=True)
    to.add_argument("--to-time", type=_time, metavar="TIME", help="to the first record not older: ISO 8601, or -6h")
    to.add_argument("--to-offset", type=_offsets, metavar="OFFSET", help="1200, or by partition 3:1200,4:99")
    to.add_argument("--to-earliest", action="store_true", help="to the oldest record there is")
    to.add_argument("--to-latest", action="store_true", help="to the end: what was not yet read is skipped")
    to.add_argument("--undo", type=Path, metavar="FILE", help="to the offsets that an earlier reset saved there")
    reset.add_argument("--undo-file", type=Path, metavar="FILE", help="a new file for what it has now")
    reset.add_argument("--execute", action="store_true", help="do it; without it the plan is shown")
    reset.set_defaults(handler=_reset)


def _add_group(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", type=named, metavar="GROUP", help="the consumer group's id")
    parser.add_argument("--topic", metavar="TOPIC", help="status, quarantine, or a topic's name (default: status)")
    # Not those of a parent, whose defaults would take the place of what stands before the word groups.
    parser.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="a TOML file with any of the keys"
    )
    parser.add_argument(
        "--set", action="append", default=argparse.SUPPRESS, metavar="SECTION.KEY=VALUE", help="one key; repeatable"
    )
    _add_timeout(parser)


def _positive(text: str) -> float:
    number = number_in(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("it must be a number above 0")
    return number


def number_in(text: str) -> float:
    """The number that it is; else one that is no number, and so in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _run(text: str) -> str:
    if not Path(text).name:
        raise argparse.ArgumentTypeError(f"{text!r} names no run")
    return text


def named(text: str) -> str:
    """A group's id, which is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _time(text: str) -> Bound:
    return Bound(text, time_ms=parse_time(text))


def _offsets(text: str) -> Bound:
    bound = parse_bound(text)
    if bound.offsets is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no offset; write 1200, or 3:1200,4:99 by partition")
    return bound


def _replay(options: argparse.Namespace) -> int:
    from bridge.operate.replay import command  # noqa: PLC0415

    return command.main(options)


def _show(options: argparse.Namespace) -> int:
    from bridge.operate.replay import groups  # noqa: PLC0415

    return interruptible(groups.show, options, "nothing was changed")


def _reset(options: argparse.Namespace) -> int:
    from bridge.operate.replay import groups  # noqa: PLC0415

    look = f"look at the group: chatapp-bridge replay groups show {shlex.quote(options.group)}"
    return interruptible(groups.reset, options, f"what it had is saved before anything is moved; {look}")
