"""Mounted files of secrets, taken over while the bridge runs."""

import asyncio
from collections.abc import Callable
from typing import Never

import structlog

from bridge.errors import ConfigurationError
from bridge.observe import logs

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
# A mount that has not given the file by then hangs.
_READ_SECONDS = 5.0


class SecretsWatcher:
    """Takes over what a mounted file holds, as often as it changes. What can't be used changes nothing.

    The bridge reads the file again every second. So it makes no difference how it is changed: in place, by another file
    that takes its name, or by the link that Kubernetes swaps.

    Args:
        key: the configuration key that names the file.
        file: the file; empty: none, and nothing is read.
        read: reads the secrets, in a thread; raises ConfigurationError if they can't be used.
        take_over: called with the secrets, at the first look and at each change.
    """

    def __init__(
        self, key: str, file: str, read: Callable[[], list[str]], take_over: Callable[[list[str]], None]
    ) -> None:
        self._key = key
        self._file = file
        self._read = read
        self._take_over = take_over
        self._failure = ""
        self._known: list[str] | None = None
        self._reading: asyncio.Task[list[str]] | None = None

    @property
    def usable(self) -> bool:
        """Whether the file could be used when it was last read; if not, the last good secrets are in force."""
        return not self._failure

    async def run(self) -> Never:
        """Look every second."""
        while True:
            if self._file:
                await self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        # In a thread, as a mounted file may be slow to read; one that hangs is waited for again, not read by another.
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        if not (await asyncio.wait([self._reading], timeout=_READ_SECONDS))[0]:
            self._complain(f"{self._key}: reading {self._file} takes longer than {_READ_SECONDS:g} s; check the mount")
            return
        reading, self._reading = self._reading, None
        try:
            secrets = reading.result()
        except ConfigurationError as error:
            self._complain(str(error))
            return
        if secrets != self._known:
            logs.hide(secrets)
            self._take_over(secrets)
            if self._known is not None:
                log.info("secrets_replaced", key=self._key, count=len(secrets))
        elif self._failure:
            log.info("secrets_loaded_again", key=self._key, count=len(secrets))
        self._known, self._failure = secrets, ""

    def _complain(self, why: str) -> None:
        if why != self._failure:
            log.error(
                "secrets_unusable", reason=why, remedy="correct the file; until then the secrets read before are valid"
            )
        self._failure = why
