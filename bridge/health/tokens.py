"""The tokens of the admin port: ``server.admin_token_file``."""

import base64
import binascii
from collections.abc import Iterable, Sequence

from bridge.config.secrets import is_one_of


class AdminTokens:
    """Tokens of which a request has to carry one; two or more are valid at once while one replaces another.

    Args:
        tokens: those in force; none at all: nobody is asked for one.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.replace(tokens)

    def replace(self, tokens: Sequence[str]) -> None:
        """From now on these are in force, and no others."""
        self._tokens = [token.encode() for token in tokens]

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers may be answered; takes as long whichever token it is."""
        if not self._tokens:
            return True
        given = [_token(value) for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False
        return is_one_of(given[0], self._tokens)


def _token(authorization: bytes) -> bytes:
    """The bearer token, or the password of basic authentication, whatever the user name; empty if there is none."""
    scheme, _, credentials = authorization.strip().partition(b" ")
    credentials = credentials.strip()
    if scheme.lower() == b"bearer":
        return credentials
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
