"""No test runs for ever: what becomes of one that takes longer than its limit.

The limit is of a test with all that is set up and taken down for it, a broker of the session included. Waiting for a turn
(``support/workers.py``) does not count. At the limit pytest-timeout raises in the main thread: the test has failed, what it has
in ``finally`` is done, and the next one begins. That does not help where the main thread is in C and does not return, and where
the end of an event loop waits for one of its threads. So a watchdog in C ends the process when a grace has passed as well. Of
several workers only that one ends, pytest-xdist tells its test as failed, and another worker goes on with the rest.
"""

import faulthandler
import os
import threading
import time
from typing import Any

import pytest

LONG_SECONDS = 3600.0
"""The limit of a test in its long form: some wait several times for a drain of up to ten minutes."""
GRACE_SECONDS = 120.0
"""After the limit: as long as a cluster may take to be whole again."""
_NAMED_BEFORE_SECONDS = 1.0

_LONG = os.environ.get("BRIDGE_LONG") == "1"
_FUZZ_SECONDS = float(os.environ.get("BRIDGE_FUZZ_SECONDS", "0"))


class _Watchdog:
    """Ends the process unless it is called off in time; a moment before it says whose fault that is, if Python still can."""

    def __init__(self) -> None:
        self._error = 2
        self._timer: threading.Timer | None = None
        self._until = 0.0

    def open(self) -> None:
        """Keep the standard error of the process; that of a test is captured."""
        self._error = os.dup(2)

    def watch(self, what: str, seconds: float) -> None:
        """Begin, in the place of what was watched before."""
        self.call_off()
        said = f"\n{what} did not end within {seconds:g} s, nor when it was interrupted; this process is ended.\n"
        self._timer = threading.Timer(seconds, os.write, (self._error, said.encode()))
        self._timer.daemon = True
        self._timer.start()
        self._until = time.monotonic() + seconds + _NAMED_BEFORE_SECONDS
        self.go_on()

    def go_on(self) -> None:
        """Arm what is in C; again where somebody else disarmed it, of which there is one in a process."""
        if self._timer is not None:
            faulthandler.dump_traceback_later(max(0.1, self._until - time.monotonic()), exit=True, file=self._error)

    def call_off(self) -> None:
        """It ended."""
        faulthandler.cancel_dump_traceback_later()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_watchdog = _Watchdog()


def pytest_configure() -> None:
    """Prepare; nothing is captured yet."""
    _watchdog.open()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a test in its long form more time than pyproject.toml does; what is marked has a limit of its own."""
    if (_LONG or _FUZZ_SECONDS) and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(LONG_SECONDS + _FUZZ_SECONDS))


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """A test begins that has a limit; pytest-timeout sets its own timer, too."""
    _watchdog.watch(item.nodeid, settings.timeout + GRACE_SECONDS)


@pytest.hookimpl(trylast=True)
def pytest_exception_interact() -> None:
    """A test failed, and pytest has disarmed every watchdog; what is taken down may hang, too."""
    _watchdog.go_on()


def pytest_runtest_logfinish() -> None:
    """A test has ended, with all that was set up for it."""
    _watchdog.call_off()


def pytest_enter_pdb() -> None:
    """Somebody looks into a test, and takes the time that it takes."""
    _watchdog.call_off()


def pytest_unconfigure() -> None:
    """All have ended; now Python waits for the threads that they left."""
    _watchdog.watch("The end of the tests", GRACE_SECONDS)
