"""The options of ``doctor``. What it runs is imported only then."""

import argparse
from typing import Any, Final, NoReturn

from bridge.operate.console import interruptible
from bridge.operate.replay.options import named, number_in

_SECONDS: Final = 60.0


def add_doctor(commands: Any, configured: argparse.ArgumentParser) -> None:
    """Add the command; ``configured`` brings the options of the configuration."""
    doctor = commands.add_parser(
        "doctor", parents=[configured], help="try on Kafka what the bridge and replay need, and say what to set"
    )
    add = doctor.add_argument
    add(
        "--topic",
        type=named,
        metavar="NAME",
        help="write the test records to this topic, which no consumer may read (default: make a topic, and delete it)",
    )
    add("--timeout", type=_seconds, default=_SECONDS, metavar="SEC", help="for all checks (default: %(default)g)")
    add("--format", choices=("text", "json"), default="text", help="json: one object")
    doctor.set_defaults(handler=_doctor)


def _seconds(text: str) -> float:
    number = number_in(text)
    if not 0 < number <= 3600:  # noqa: PLR2004 - an hour
        raise argparse.ArgumentTypeError("it must be a number of seconds, more than 0 and at most 3600")
    return number


def _doctor(options: argparse.Namespace) -> int:
    return interruptible(_perform, options, "nothing was tried")  # until the command heeds signals itself


def _perform(options: argparse.Namespace) -> NoReturn:
    from bridge.operate.doctor import command  # noqa: PLC0415

    command.main(options)
