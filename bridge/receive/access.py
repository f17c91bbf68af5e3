"""Who may push: whoever holds a secret of the callback address."""

import asyncio
import hmac
from collections.abc import Sequence
from typing import Never

import structlog

from bridge import config
from bridge.errors import ConfigurationError
from bridge.observe import logs

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
# A mount that has not given the file by then hangs.
_READ_SECONDS = 5.0


class Access:
    """Secrets of the path; two or more are valid at once while one replaces another.

    Args:
        secrets: those in force, of characters that a URL does not escape; none at all: open to everyone.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self.replace(secrets)

    def replace(self, secrets: Sequence[str]) -> None:
        """From now on these are in force, and no others."""
        self._secrets = [b"/" + secret.encode() for secret in secrets]

    @property
    def open(self) -> bool:
        """Whether no secret is asked for."""
        return not self._secrets

    def admits(self, rest: str) -> bool:
        """Whether a request may push, by what follows the callback path: ``/{secret}``, or nothing where it is open.

        Takes as long whichever secret it is, and however much of it is right. A final slash makes no difference.
        """
        given = rest.removesuffix("/").encode(errors="replace")
        if self.open:
            return given == b""
        return sum(hmac.compare_digest(given, secret) for secret in self._secrets) > 0


class SecretsWatcher:
    """Takes over what stands in ``access.path_secrets_file``, as often as it changes; what can't be used changes nothing.

    The file is read again every second, so that it makes no difference how it is changed: in place, by another file's
    taking its name, or by the link that Kubernetes swaps.

    Args:
        settings: ``[access]``.
        access: what is to be kept up to date.

    Attributes:
        usable: whether the file could be used when it was last read; where not, the last good secrets are in force.
    """

    def __init__(self, settings: config.Access, access: Access) -> None:
        self._settings = settings
        self._access = access
        self._failure = ""
        self._known: list[str] | None = None
        self._reading: asyncio.Task[list[str]] | None = None

    @property
    def usable(self) -> bool:
        """Whether what was last read is in force."""
        return not self._failure

    async def run(self) -> Never:
        """Look every second."""
        while True:
            if self._settings.path_secrets_file:
                await self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        # In a thread, as a mounted file may be slow to read; one that hangs is waited for again, not read by another.
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(config.path_secrets, self._settings))
        if not (await asyncio.wait([self._reading], timeout=_READ_SECONDS))[0]:
            path = self._settings.path_secrets_file
            self._complain(
                f"access.path_secrets_file: reading {path} takes longer than {_READ_SECONDS:g} s; mend the mount"
            )
            return
        reading, self._reading = self._reading, None
        try:
            secrets = reading.result()
        except ConfigurationError as error:
            self._complain(str(error))
            return
        if secrets != self._known:
            logs.hide(secrets)
            self._access.replace(secrets)
            if self._known is not None:
                log.info("secrets_replaced", count=len(secrets))
        elif self._failure:
            log.info("secrets_loaded_again", count=len(secrets))
        self._known, self._failure = secrets, ""

    def _complain(self, why: str) -> None:
        if why != self._failure:
            log.error("secrets_unusable", reason=why, remedy="those read before stay in force until it is mended")
        self._failure = why
