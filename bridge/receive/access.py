"""Who may push: whoever holds a secret of the callback address."""

import hmac
from collections.abc import Sequence


class Access:
    """Secrets of the path; two or more are valid at once while one replaces another.

    Args:
        secrets: those in force, of characters that a URL does not escape; none at all: open to everyone.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
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
