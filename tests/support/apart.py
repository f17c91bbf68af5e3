"""Await something from code that is not async, wherever it is called from."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from support.bridge_process import BridgeProcess

T = TypeVar("T")


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own, in a thread of its own.

    Fixtures of the session's scope need this: a test's loop lives as short as the test, and a loop may be
    running or set in the thread that sets a fixture up.
    """
    with ThreadPoolExecutor(1, "apart") as pool:
        return pool.submit(asyncio.run, work).result()


@contextmanager
def running_apart(process: BridgeProcess, *never_logged: str) -> Iterator[BridgeProcess]:
    """A bridge for a fixture of any scope: it must still run at the end, and must not have logged these words."""
    try:
        run_apart(process.start())
        yield process
        assert process.running, process.log()
        for words in never_logged:
            assert words not in process.log()
    finally:
        process.close()
