"""What commands print and how they end: tables, durations, errors in words, exit codes."""

import argparse
import errno
import logging
import signal

import pytest
from support.signals import ctrl_c_heeded

from bridge.errors import ConfigurationError, ReplayError
from bridge.operate import console

DAY = 86_400


def test_a_line_of_the_log_has_its_reason() -> None:
    """In a command, where no log is configured."""
    assert console.ended(lambda: 0) == 0
    assert logging.lastResort is not None
    record = logging.makeLogRecord({"msg": "kafka_token_not_renewed", "error": "no token came within 10 s"})
    assert logging.lastResort.format(record) == "chatapp-bridge: kafka_token_not_renewed: no token came within 10 s"
    record = logging.makeLogRecord({"msg": "no record of %s", "args": ("t",)})
    assert logging.lastResort.format(record) == "chatapp-bridge: no record of t"


def test_a_table_aligns_each_column() -> None:
    """To the right, but for the cells that are said to go to the left; no line ends in blanks."""
    rows = [["topic", "records", "of"], ["a", "12,000", ""]]
    assert console.table(rows) == ["  topic  records  of", "      a   12,000"]
    assert console.table(rows, indent="", to_the_left=lambda column, _: column == 0) == [
        "topic  records  of",
        "a       12,000",
    ]


@pytest.mark.parametrize(
    ("seconds", "full", "short"),
    [
        (0.012, "1 s", "12 ms"),
        (1.5, "2 s", "1.5 s"),
        (40, "40 s", "40 s"),
        (720, "12 min", "12 min"),
        (12_000, "3 h 20 min", "3 h"),
        (35 * DAY, "35 d", "35 days"),
    ],
)
def test_a_duration_is_readable(seconds: float, full: str, short: str) -> None:
    """In full for plans, in one unit for figures that change."""
    assert (console.duration(seconds), console.short_duration(seconds)) == (full, short)
    assert console.short_duration(None) == "-"


def test_numbers_have_their_units() -> None:
    """One is no plural, and a thousand has its comma."""
    assert [console.counted(number, "event") for number in (0, 1, 1_200)] == ["0 events", "1 event", "1,200 events"]
    assert console.mebibytes(3 << 19) == "1.5 MiB"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("key: wrong"), console.EXIT_USAGE, "chatapp-bridge: key: wrong\n"),
        (ReplayError("it failed"), console.EXIT_FAILED, "chatapp-bridge: it failed\n"),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the program's name before it, on standard error."""

    def command() -> int:
        raise error

    assert console.ended(command) == code
    assert capsys.readouterr() == ("", said)


def test_an_error_that_nobody_expects_is_not_hidden() -> None:
    """Only a full disk is put into words."""

    def command() -> int:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        console.ended(command)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_in_order(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C and SIGTERM alike: a line that says what that leaves, and the exit code of a shell."""

    def perform(_options: argparse.Namespace) -> int:
        signal.raise_signal(number)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    with ctrl_c_heeded():
        assert console.interruptible(perform, argparse.Namespace(), "nothing was changed") == 128 + number
    assert capsys.readouterr().err == "\nchatapp-bridge: stopped; nothing was changed\n"
    assert signal.getsignal(signal.SIGTERM) is before
