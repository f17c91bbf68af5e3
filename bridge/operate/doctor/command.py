"""``chatapp-bridge doctor``: perform the checks, print the report.

Exit codes: 0 all is good as configured; 1 something must be set, is broken or could not be tried; 2 wrong usage or
configuration; 3 Kafka can't be reached, or refuses the login; 130, 143 stopped by Ctrl-C or SIGTERM.
"""

import argparse
import asyncio
import os
import signal
import sys
from typing import NoReturn

import msgspec

from bridge import config
from bridge.operate import console
from bridge.operate.doctor.examination import Interrupted, examine
from bridge.operate.doctor.findings import Report


def main(options: argparse.Namespace) -> NoReturn:
    """Perform the command, and end the process with its exit code.

    Raises:
        ConfigurationError: the configuration can't be used, or ``--topic`` is a topic of the bridge.
    """
    settings = config.load(options.config, assignments=options.set).settings
    taken: list[int] = []
    try:
        report = asyncio.run(_examined(settings, options, taken))
    except Interrupted as interrupted:
        left = [f"{each.kind} {each.name}: {each.why}" for each in interrupted.report.left]
        console.say(f"stopped; left on Kafka: {'; '.join(left) or 'nothing'}")
        _end(console.exit_code_of(taken[0]))
    _print(report, options.format)
    _end(report.exit_code)


def _end(code: int) -> NoReturn:
    """End at once: the clients of confluent_kafka take up to a second each to be freed, which nobody has to wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _examined(settings: config.Settings, options: argparse.Namespace, taken: list[int]) -> Report:
    """Examine, in a task that the first Ctrl-C or SIGTERM cancels."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(examine(settings, options.topic, options.timeout))

    def stop(number: int) -> None:
        if not taken:
            taken.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop, number)
        except (RuntimeError, ValueError):
            break  # not in the main thread, where no signal comes
    return await task


def _print(report: Report, form: str) -> None:
    if form == "json":
        console.show(msgspec.json.format(msgspec.json.encode(report.json())).decode())
    else:
        console.show(*report.text())
