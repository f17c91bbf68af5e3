"""Tests that end something by Ctrl-C do so as well where whoever started them has SIGINT ignored."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.signals import ctrl_c_heeded

ROOT = Path(__file__).parents[2]
SOON_SECONDS = 60.0
WAITING = """
import time
try:
    print("ready", flush=True)
    time.sleep(1000)
except KeyboardInterrupt:
    raise SystemExit(42)
"""


@pytest.fixture
def _ignored() -> Iterator[None]:
    """As after ``trap "" INT`` in a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ignored")
def test_a_program_that_is_started_to_heed_it_does() -> None:
    """And this process ignores it again afterwards."""
    with ctrl_c_heeded():
        process = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_SECONDS) == 42
    finally:
        process.kill()
        process.communicate()
    signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("_ignored")
def test_in_this_process_it_is_an_interruption_meanwhile() -> None:
    """As the command line is tested."""
    with pytest.raises(KeyboardInterrupt), ctrl_c_heeded():
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_where_it_is_not_ignored_nothing_is_changed() -> None:
    """A handler of the event loop stays in force."""
    taken: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: taken.append(number))
    try:
        with ctrl_c_heeded():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert taken == [signal.SIGINT]


@pytest.mark.usefixtures("_ignored")
def test_a_test_that_ends_a_program_by_it_can_be_run_in_the_background() -> None:
    """It would wait for ever for what inherited that."""
    test = "tests/unit/lab/simulate/test_run.py::test_interrupted_it_says_what_became_of_it"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=30", test]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SOON_SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
