"""A test that hangs, wherever it does, is ended and named, and the others are run all the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOON_SECONDS = 60.0
SETTINGS = """
[pytest]
timeout = 1
timeout_method = signal
asyncio_mode = auto
markers = alone
"""
CONFTEST = """
from support import limits

limits.GRACE_SECONDS = 1.0
"""
INTERRUPTED = """
import asyncio, subprocess, time
import pytest

def test_sleeps():
    time.sleep(1000)

async def test_awaits():
    await asyncio.Event().wait()

def test_waits_for_a_process():
    process = subprocess.Popen(["sleep", "1000"])
    try:
        process.wait()
    finally:
        process.kill()

@pytest.fixture
def never():
    time.sleep(1000)

def test_is_never_set_up(never):
    pass

@pytest.fixture
def endless():
    yield
    time.sleep(1000)

def test_is_never_taken_down(endless):
    pass
"""
KILLED = """
import asyncio, collections, itertools, threading, time

async def test_leaves_a_thread_that_its_loop_waits_for():
    await asyncio.to_thread(threading.Event().wait)

def test_is_in_c_and_holds_the_lock():
    collections.deque(itertools.repeat(0), maxlen=0)
"""
GOOD = """
import threading

def test_ends():
    pass

def test_ends_as_well():
    pass
"""
LEFT = """
def test_leaves_a_thread():
    threading.Thread(target=threading.Event().wait).start()
"""
SLOW = """
import time
import pytest

@pytest.mark.timeout(30)
def test_is_allowed_to_be_slow():
    time.sleep(4)
"""
BETWEEN = """
import time

def test_lets_the_slow_one_begin():
    time.sleep(0.5)
"""
ALONE = """
import pytest

@pytest.mark.alone
def test_ends_alone():
    pass
"""


def run(place: Path, workers: int, **modules: str) -> subprocess.CompletedProcess[str]:
    """Run modules of tests under the limits and on the workers of this suite."""
    (place / "pytest.ini").write_text(SETTINGS)
    (place / "conftest.py").write_text(CONFTEST)
    for name, text in modules.items():
        (place / f"test_{name}.py").write_text(text)
    foreign = ("BRIDGE_LONG", "BRIDGE_FUZZ_SECONDS", "PYTEST_ADDOPTS", "PYTEST_TIMEOUT", "PYTEST_XDIST_WORKER")
    command = (sys.executable, "-m", "pytest", "-p", "support.limits", "-p", "support.workers", "-rA", f"-n{workers}")
    return subprocess.run(
        command,
        cwd=place,
        env={key: value for key, value in os.environ.items() if key not in foreign} | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=SOON_SECONDS,
        check=False,
    )


def names(*modules: str) -> set[str]:
    """Of the tests in these modules."""
    return {name for text in modules for name in re.findall(r"def (test_\w+)", text)}


def reported(output: str, *outcomes: str) -> set[str]:
    """The tests that the summary tells of with one of these outcomes."""
    return set(re.findall(rf"^(?:{'|'.join(outcomes)}) \S+::(test_\w+)", output, re.MULTILINE))


def test_without_workers_what_can_be_interrupted_is(tmp_path: Path) -> None:
    """One process goes on to the next test."""
    ended = run(tmp_path, 0, interrupted=INTERRUPTED, good=GOOD)
    assert reported(ended.stdout, "FAILED", "ERROR") == names(INTERRUPTED), ended.stdout + ended.stderr
    assert reported(ended.stdout, "PASSED") >= names(GOOD)
    assert ended.returncode == 1


@pytest.mark.parametrize("name", sorted(names(KILLED)))
def test_without_workers_what_cannot_be_interrupted_ends_the_run(tmp_path: Path, name: str) -> None:
    """Its name, or a traceback through it, is the last that is said."""
    module = KILLED[: KILLED.index("\n\n")] + "\n\n" + next(each for each in KILLED.split("\n\n") if name in each)
    ended = run(tmp_path, 0, killed=module)
    assert name in ended.stderr, ended.stdout + ended.stderr
    assert "Timeout (0:00:0" in ended.stderr
    assert ended.returncode == 1


def test_a_thread_that_a_test_left_does_not_keep_the_process(tmp_path: Path) -> None:
    """Python waits for it at the end; the result was told before."""
    ended = run(tmp_path, 0, left=GOOD + LEFT)
    assert reported(ended.stdout, "PASSED") == names(GOOD, LEFT), ended.stdout + ended.stderr
    assert "The end of the tests did not end" in ended.stderr
    assert ended.returncode == 1


@pytest.mark.long
def test_of_several_workers_only_the_one_that_hangs_ends(tmp_path: Path) -> None:
    """Each test that hangs has failed, by its name; the others passed."""
    ended = run(tmp_path, 2, interrupted=INTERRUPTED, killed=KILLED, good=GOOD, alone=ALONE)
    assert reported(ended.stdout, "FAILED", "ERROR") == names(INTERRUPTED, KILLED), ended.stdout + ended.stderr
    assert reported(ended.stdout, "PASSED") >= names(GOOD, ALONE)
    assert ended.stdout.count("Timeout (>1.0s)") >= len(names(INTERRUPTED))
    for name in names(KILLED):
        assert re.search(rf"worker '\w+' crashed while running '\S+::{name}'", ended.stdout), ended.stdout
    assert ended.returncode == 1


@pytest.mark.long
def test_another_worker_does_what_is_left(tmp_path: Path) -> None:
    """The only one ends in the first test, and so does the next one in the second."""
    ended = run(tmp_path, 1, at_first=KILLED, good=GOOD, later=ALONE)
    assert reported(ended.stdout, "FAILED", "ERROR") == names(KILLED), ended.stdout + ended.stderr
    assert reported(ended.stdout, "PASSED") == names(GOOD, ALONE)
    assert ended.returncode == 1


@pytest.mark.long
def test_waiting_for_a_turn_is_not_a_tests_own_time(tmp_path: Path) -> None:
    """One that must be alone waits for another, which takes longer than the limit of the first."""
    ended = run(tmp_path, 2, at_first=SLOW, between=BETWEEN, good=GOOD[: GOOD.index("def test_ends_as")], later=ALONE)
    assert reported(ended.stdout, "PASSED") == {*names(SLOW, BETWEEN, ALONE), "test_ends"}, ended.stdout + ended.stderr
    assert ended.returncode == 0
