"""The secrets of the callback address: which are valid, and which were."""

from collections.abc import Sequence

from bridge.config.secrets import is_one_of
from bridge.receive.retired import RetiredSecrets


class Access:
    """Secrets of the path; two or more are valid at once while one replaces another.

    Args:
        secrets: those in force, of characters that a URL does not escape; none at all: open to everyone.
        retired: remembers those that were; None: in memory only.
    """

    def __init__(self, secrets: Sequence[str], retired: RetiredSecrets | None = None) -> None:
        self.retired = RetiredSecrets() if retired is None else retired
        self.replace(secrets)

    def replace(self, secrets: Sequence[str]) -> None:
        """From now on these are in force, and no others."""
        self._secrets = [b"/" + secret.encode() for secret in secrets]
        self.retired.replace(secrets)

    @property
    def open(self) -> bool:
        """Whether no secret is asked for."""
        return not self._secrets

    def admits(self, rest: str) -> bool:
        """Whether a request may push, by what follows the callback path: ``/{secret}``, or nothing where it is open.

        Takes as long whichever secret it is, and however much of it is right. A final slash makes no difference.
        """
        given = _given(rest)
        if self.open:
            return given == b""
        return is_one_of(given, self._secrets)

    def admitted(self, rest: str) -> bool:
        """Whether it would have been admitted by a secret that was removed within the last 30 days."""
        return self.retired.has(_given(rest).removeprefix(b"/"))


def _given(rest: str) -> bytes:
    return rest.removesuffix("/").encode(errors="replace")
