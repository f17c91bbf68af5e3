"""``chatapp-bridge demo``: its options. What it runs is imported only when it runs: every other command loads this."""

import argparse
import math

ACTS = (1, 2, 3)
_MIN_MESSAGES = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--acts", type=_acts, default=ACTS, metavar="N,…", help="which acts to play (default: 1,2,3)")
    add("--messages", type=_messages, default=2000, metavar="N", help="of a campaign (default: 2000)")
    add("--rate", type=_rate, default=500.0, metavar="R", help="reports per second (default: 500)")
    add(
        "--bootstrap",
        metavar="HOST:PORT",
        help="a Kafka of yours: two topics are made there, and removed at the end; BRIDGE_KAFKA__* say how to connect",
    )
    add("--keep", action="store_true", help="leave all running at the end, until Ctrl-C")


def main(args: argparse.Namespace) -> int:
    """Run the command. 0: all counts agree; 1: some differ, or it could not go on; 130: interrupted."""
    from bridge.lab.demo.run import run  # noqa: PLC0415  the other commands start quickly
    from bridge.lab.demo.stage import Options  # noqa: PLC0415

    return run(
        Options(acts=args.acts, messages=args.messages, rate=args.rate, bootstrap=args.bootstrap, keep=args.keep)
    )


def _acts(text: str) -> tuple[int, ...]:
    try:
        acts = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        acts = ()
    if not acts or not set(acts) <= set(ACTS):
        raise argparse.ArgumentTypeError(f"{text}: of 1, 2 and 3, such as 1 or 1,3")
    return acts


def _messages(text: str) -> int:
    number = int(text)
    if number < _MIN_MESSAGES:
        raise argparse.ArgumentTypeError(f"{text}: at least {_MIN_MESSAGES}")
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: above 0")
    return rate
