"""How several workers (pytest-xdist) share one machine: what they keep together, and what must have it for itself.

Tests that share a fixture of the session are run by one worker, so that it is started once. A test marked ``alone`` measures
times, so nothing else runs beside it.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from support import brokers

# Fixtures made once, the most expensive first; a test goes with the first that it has.
_SHARED = (
    "_three_nodes",
    "secured",
    "_guarded",
    "_one_node",
    "kafka",
    "login_kafka",
    "kafka_bootstrap",
    "_registry",
    "wheel",
    "values",
    "made",
)
_TOLD = "shared.json"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long; a worker tells the one that divides the work what each test shares, and all tell the same."""
    if os.environ.get("BRIDGE_LONG") != "1" and "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if not hasattr(config, "workerinput"):
        return
    shared = {item.nodeid: next((n for n in _SHARED if n in getattr(item, "fixturenames", ())), None) for item in items}
    place = Path(config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    (place / _TOLD).write_text(json.dumps(shared))
    (place / _TOLD).replace(place.parent / _TOLD)


class _Together(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
    """Keeps the tests of a shared fixture on one worker; pytest 9.2 no longer knows the way of ``--dist=loadgroup``."""

    _shared: dict[str, str | None] | None = None

    def _split_scope(self, nodeid: str) -> str:
        if self._shared is None:
            place = Path(self.config._tmp_path_factory.getbasetemp())
            self._shared = json.loads((place / _TOLD).read_text())
        return self._shared[nodeid] or nodeid

    def remove_node(self, node: Any) -> str | None:
        """Give others what a worker that died had still to do, without the test that it died of; xdist would give them all."""
        workload: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
        left = [(unit, nodeid) for unit in workload.values() for nodeid, done in unit.items() if not done]
        if not left:
            return None
        unit, died_of = left[0]
        unit[died_of] = True
        self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return died_of

    def schedule(self) -> None:
        """Begin; or give one that came later so much that it begins.

        A worker runs a test when it has the next one, or knows that there is none; xdist gives such a one the first alone.
        """
        later = self.collection is not None
        super().schedule()
        if later:
            for node in self.nodes:
                self._reschedule(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Divide the work."""
    return _Together(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells which Kafka it had."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["used"] = brokers.used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker tells."""
    brokers.used.extend(getattr(node, "workeroutput", {}).get("used", []))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test, with what it sets up, beside others or alone; what it waits for its turn is not its own time (tryfirst)."""
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
