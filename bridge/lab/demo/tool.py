"""The bridge's own commands, run as the person on call runs them: a process each, of which what it says is shown."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from bridge.errors import BridgeError
from bridge.lab.embedded.java import GUARD

_TIMEOUT_SECONDS = 60.0


class ToolFailedError(BridgeError):
    """A command ended with another exit code than 0. The message is what it said."""


class Tool:
    """``chatapp-bridge``, with its configuration.

    Args:
        assignments: texts ``section.key=value``; they are left out of what is shown.
        environment: all of its environment variables.
    """

    def __init__(self, assignments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._arguments = [word for assignment in assignments for word in ("--set", assignment)]
        self._environment = dict(environment)

    async def run(self, *words: str) -> str:
        """Run a command to its end; what it printed.

        Raises:
            ToolFailedError: it failed, or took too long.
        """
        # The guard ends it with this process, however this one ends.
        guarded = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid())]
        process = await asyncio.create_subprocess_exec(
            *guarded,
            *(sys.executable, "-m", "bridge", *words, *self._arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                said, complained = await process.communicate()
        except TimeoutError:
            raise ToolFailedError(f"`{typed(words)}` was not done after {_TIMEOUT_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise ToolFailedError(f"`{typed(words)}` ended with {process.returncode}: {(said + complained).decode()}")
        return said.decode()


def typed(words: Sequence[str]) -> str:
    """A command as people type it."""
    return " ".join(["chatapp-bridge", *words])
