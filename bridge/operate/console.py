"""What commands print, and how they end.

Results go to standard output (``show``), everything about the work goes to standard error (``say``), so output can be piped on.
``ended`` is the one place where errors become words and exit codes.
"""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Final, TextIO

from bridge.errors import BridgeError, ConfigurationError

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
"""The command failed, or what it looked at is not as it should be."""
EXIT_USAGE: Final = 2
"""The usage or the configuration is wrong."""
EXIT_BROKEN_PIPE: Final = 141
"""The reader of the output closed it: as a shell reports a process that SIGPIPE ended."""
_EXIT_SIGNAL: Final = 128

_SHORT_UNITS: Final = ((172_800, 86_400, "days"), (7_200, 3_600, "h"), (120, 60, "min"), (10, 1, "s"))
_LONGEST_IN_SECONDS: Final = 90


# --- printing ---------------------------------------------------------------------------------------------------------


def show(*lines: str, out: TextIO | None = None) -> None:
    """Print lines on standard output, or on ``out``, and flush them."""
    out = out or sys.stdout
    out.write("".join(f"{line}\n" for line in lines))
    out.flush()


def say(text: str) -> None:
    """Print a line about the work on standard error, with the program's name before it."""
    show(f"chatapp-bridge: {text}", out=sys.stderr)


class _LogLine(logging.Formatter):
    """A line of the log, in a command that configures no log: with its reason, which is not part of the message."""

    def format(self, record: logging.LogRecord) -> str:
        why = getattr(record, "error", "")
        return f"chatapp-bridge: {record.getMessage()}{f': {why}' if why else ''}"


def table(
    rows: Sequence[Sequence[str]], *, indent: str = "  ", to_the_left: Callable[[int, str], bool] | None = None
) -> list[str]:
    """Rows as lines with aligned columns.

    Args:
        rows: the cells of each row, the headings first.
        indent: what each line begins with.
        to_the_left: decides by a cell's column and text whether it is aligned to the left; without it none is.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if to_the_left is not None and to_the_left(column, text) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


# --- numbers and times ------------------------------------------------------------------------------------------------


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 event``, ``1,200 events``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def mebibytes(count: float) -> str:
    """A size: ``1.5 MiB``."""
    return f"{count / (1 << 20):,.1f} MiB"


def duration(seconds: float) -> str:
    """A duration in full: ``40 s``, ``12 min``, ``3 h 20 min``, ``35 d``."""
    if seconds < _LONGEST_IN_SECONDS:
        return f"{max(1, round(seconds))} s"
    days, minutes = divmod(round(seconds / 60), 24 * 60)
    parts = [(days, "d"), (minutes // 60, "h"), (minutes % 60, "min")]
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count)


def short_duration(seconds: float | None) -> str:
    """A duration in the one unit that fits, milliseconds too: ``12 ms``, ``1.5 s``, ``3 h``; a dash where there is none."""
    if seconds is None:
        return "-"
    for least, size, unit in _SHORT_UNITS:
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def time_text(time_ms: int) -> str:
    """A time in UTC, with milliseconds only where they are not zero; after the year 9999 in milliseconds."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms since the epoch"
    return moment.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")


# --- ending -----------------------------------------------------------------------------------------------------------


def ended(command: Callable[[], int]) -> int:
    """Run a command to its end: its exit code, or that of the error it ended with, after the error was printed."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_LogLine())
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(f"{error.filename or 'standard output'}: {error.strerror}")
        discard_output()
        return EXIT_FAILED
    except ConfigurationError as error:
        say(str(error))
        return EXIT_USAGE
    except BridgeError as error:
        say(str(error))
        return EXIT_FAILED
    return code


def discard_output() -> None:
    """Let what is left in the buffer of standard output go nowhere, where it would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code_of(number: int) -> int:
    """The exit code of a command that a signal ended, as shells report it."""
    return _EXIT_SIGNAL + number


def interruptible(perform: Callable[[argparse.Namespace], int], options: argparse.Namespace, what_now: str) -> int:
    """Perform a command that Ctrl-C and SIGTERM end alike, in order; ``what_now`` says what that leaves."""
    taken = [signal.SIGINT]

    def terminate(number: int, _frame: FrameType | None) -> None:
        taken[0] = signal.Signals(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        return perform(options)
    except KeyboardInterrupt:
        show("", out=sys.stderr)  # behind the terminal's ^C
        say(f"stopped; {what_now}")
        return exit_code_of(taken[0])
    finally:
        signal.signal(signal.SIGTERM, before)
