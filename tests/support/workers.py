"""How several workers (pytest-xdist) share one machine: what they keep together, and what must have it for itself.

Tests that share a fixture of the session are run by one worker, so that it is started once. A test marked ``alone`` measures
times, so nothing else runs beside it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import brokers

# Fixtures made once, the most expensive first; a test goes with the first that it has.
_SHARED = ("_three_nodes", "secured", "_guarded", "_one_node", "kafka", "kafka_bootstrap", "_registry", "wheel", "values", "made")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a shared fixture together."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        shared = next((name for name in _SHARED if name in names), None)
        if shared is not None:
            item.add_marker(pytest.mark.xdist_group(shared))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells which Kafka it had."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["used"] = brokers.used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker tells."""
    brokers.used.extend(getattr(node, "workeroutput", {}).get("used", []))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test, with what it sets up, beside others or alone."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    place = Path(item.config._tmp_path_factory.getbasetemp()).parent  # type: ignore[attr-defined]
    with _turn(place, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _turn(place: Path, *, alone: bool) -> Iterator[None]:
    """Many at once, or one alone; who waits to be alone holds the gate, so that nobody else begins meanwhile."""
    with (place / "gate").open("w") as gate, (place / "running").open("w") as running:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
