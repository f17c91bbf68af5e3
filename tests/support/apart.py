"""Await something from code that is not async, wherever it is called from."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own, in a thread of its own.

    Fixtures of the session's scope need this: a test's loop lives as short as the test, and a loop may be
    running or set in the thread that sets a fixture up.
    """
    with ThreadPoolExecutor(1, "apart") as pool:
        return pool.submit(asyncio.run, work).result()
