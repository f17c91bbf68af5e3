"""The options of ``redrive``, ``tail`` and ``audit``. What they run is imported only then: every other command loads this."""

import argparse
import math
from typing import Any, Final

from bridge.operate.audit.index import SLOTS_MS
from bridge.operate.console import interruptible
from bridge.operate.reading.select import LATEST, add_filter_arguments, parse_bound, parse_time, take_times
from bridge.operate.replay.options import named, number_in

GROUP: Final = "chatapp-bridge-redrive"

_LISTED: Final = 50
_SETTLE_SECONDS: Final = 60.0
_TIME: Final = "ISO 8601 with its zone, or so long ago: -6h (s, m, h, d, w)"


def add_commands(commands: Any, configured: argparse.ArgumentParser) -> None:
    """Add the three; ``configured`` brings the options of the configuration."""
    redrive = commands.add_parser(
        "redrive", parents=[configured], help="publish what was quarantined and today's decoder understands"
    )
    _add_redrive(redrive)
    redrive.set_defaults(handler=_redrive)
    tail = commands.add_parser("tail", parents=[configured], help="follow live events, a line each")
    _add_tail(tail)
    tail.set_defaults(handler=_tail)
    audit = commands.add_parser(
        "audit", parents=[configured], help="what the topics alone can prove; exit 1 where it is wrong"
    )
    _add_audit(audit)
    audit.set_defaults(handler=_audit)


def _add_redrive(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--execute", action="store_true", help="publish; without it the plan is shown, and nothing is written")
    add(
        "--at-least-once",
        action="store_true",
        help="where Kafka has no transactions: after a run that was cut short the next one repeats some events",
    )
    add(
        "--group",
        type=named,
        default=GROUP,
        metavar="ID",
        help="consumer group that keeps how far was looked (default: %(default)s)",
    )
    add(
        "--max-listed",
        type=_count,
        default=_LISTED,
        metavar="N",
        help="how many that still fail are listed (default: %(default)s)",
    )


def _add_tail(parser: argparse.ArgumentParser) -> None:
    take_times(parser)
    add = parser.add_argument
    add("--topic", default="status", help="status, quarantine, or a topic's name (default: %(default)s)")
    add(
        "--from",
        dest="since",
        type=parse_bound,
        default=parse_bound(LATEST),
        metavar="WHERE",
        help=f"begin there: earliest, latest, an offset, 3:1200 for partition 3 alone, or a time: {_TIME} (default: latest)",
    )
    add("--unmask", action="store_true", help="telephone numbers and ids of people as they are, not masked")
    add("--format", choices=("text", "json"), default="text", help="json: a JSON object a line, as replay writes them")
    add_filter_arguments(parser)


def _add_audit(parser: argparse.ArgumentParser) -> None:
    take_times(parser)
    add = parser.add_argument
    add("--from", dest="since", type=parse_time, metavar="TIME", help=f"{_TIME} (default: the oldest there is)")
    add("--to", dest="until", type=parse_time, metavar="TIME", help=f"{_TIME}, itself not included (default: now)")
    add(
        "--bucket",
        choices=list(SLOTS_MS),
        help="slots of the counts (default: minute; in text the finest that gives few lines)",
    )
    add(
        "--max-listed",
        type=_count,
        default=_LISTED,
        metavar="N",
        help="how many of each kind of fault are named (default: %(default)s)",
    )
    add(
        "--settle-seconds",
        type=_seconds,
        default=_SETTLE_SECONDS,
        metavar="SEC",
        help="what was received within so many seconds may be on its way, and is not judged (default: %(default)g)",
    )
    add("--format", choices=("text", "json"), default="text", help="json: one object")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError("it must be a number, 0 or above")
    return int(text)


def _seconds(text: str) -> float:
    number = number_in(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("it must be a number, 0 or above")
    return number


def _redrive(options: argparse.Namespace) -> int:
    from bridge.operate.redrive import redrive  # noqa: PLC0415

    return interruptible(redrive.main, options, "what was published is known: run it again")


def _tail(options: argparse.Namespace) -> int:
    from bridge.operate import tail  # noqa: PLC0415

    return tail.main(options)


def _audit(options: argparse.Namespace) -> int:
    from bridge.operate.audit import audit  # noqa: PLC0415

    return interruptible(audit.main, options, "nothing was said")
