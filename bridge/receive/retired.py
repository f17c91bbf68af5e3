"""Secrets that were valid until they were removed: a push with one of them is lost.

The bridge knows them by a salted hash only. With a spool it keeps the hashes in a file there, so that a restart with other
secrets knows the former ones.
"""

import asyncio
import hashlib
import secrets as random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from bridge import durable
from bridge.config.secrets import is_one_of

log = structlog.get_logger(__name__)

FILE: Final = "retired-secrets.json"
"""The file's name, in the spool's directory."""

KEPT_SECONDS: Final = 30 * 86_400.0
"""How long a secret that was removed is remembered."""

# Enough for a rotation every few hours; beyond it the oldest is forgotten.
_MOST: Final = 200
_LONGEST: Final = 256
_RETRY_SECONDS: Final = 60.0


class _Known(msgspec.Struct, forbid_unknown_fields=True):
    """The file."""

    #: Hexadecimal, and so are the hashes.
    salt: str
    valid: set[str]
    #: When each was removed, Unix time.
    retired: dict[str, float]


class RetiredSecrets:
    """Recognises a secret that was removed within the last 30 days.

    Args:
        file: where the hashes are kept; None: in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._secrets: list[str] = []
        self._known = _Known(random.token_hex(16), set(), {})
        self._changed = asyncio.Event()

    def replace(self, secrets: Iterable[str]) -> None:
        """These are valid from now on. What was valid and is not among them is retired."""
        self._secrets = list(secrets)
        known, now = self._known, time.time()
        valid = {self._hash(secret.encode()) for secret in self._secrets}
        retired = known.retired | dict.fromkeys(known.valid, now)
        # A clock that was set back makes no entry last longer.
        dated = [(min(at, now), hashed) for hashed, at in retired.items() if hashed not in valid]
        kept = [(at, hashed) for at, hashed in dated if now - at < KEPT_SECONDS]
        retired = {hashed: at for at, hashed in sorted(kept)[-_MOST:]}
        if (valid, retired) != (known.valid, known.retired):
            self._known = _Known(known.salt, valid, retired)
            self._changed.set()

    def has(self, secret: bytes) -> bool:
        """Whether it was removed within the last 30 days; takes as long whichever it is."""
        retired = self._known.retired
        if not retired or len(secret) > _LONGEST:
            return False
        hashed, since = self._hash(secret).encode(), time.time() - KEPT_SECONDS
        return is_one_of(hashed, (each.encode() for each, at in retired.items() if at > since))

    def _hash(self, secret: bytes) -> str:
        return hashlib.blake2b(secret, key=self._known.salt.encode(), digest_size=32).hexdigest()

    # --- the file -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the file, if there is one: secrets that were valid then and are not now are retired."""
        if self._file is None:
            return
        try:
            known = await asyncio.to_thread(_read, self._file)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:  # msgspec's are ValueErrors
            outcome = "a new file replaces it; secrets that were removed before now are not recognised"
            log.warning("retired_secrets_file_unusable", file=str(self._file), reason=str(error), outcome=outcome)
            return
        self._known = known
        self.replace(self._secrets)

    async def run(self) -> None:
        """Write the file at every change; what can't be written is tried again every minute."""
        said = ""
        while self._file is not None:
            await self._changed.wait()
            self._changed.clear()
            data = msgspec.json.format(msgspec.json.encode(self._known)) + b"\n"
            try:
                await asyncio.to_thread(durable.replace, self._file, data)
            except OSError as error:
                reason = error.strerror or str(error)
                if reason != said:
                    log.warning("retired_secrets_not_kept", file=str(self._file), reason=reason)
                said = reason
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()
            else:
                said = ""


def _read(file: Path) -> _Known:
    known = msgspec.json.decode(file.read_bytes(), type=_Known)
    for text in (known.salt, *known.valid, *known.retired):
        bytes.fromhex(text)
    if not 0 < len(known.salt) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise ValueError("its salt has the wrong length")
    return known
