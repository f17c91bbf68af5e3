"""Secrets: which keys hold one, what is shown in its place, and where it is read from."""

import hmac
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import ConfigurationError

SECRET_KEYS = frozenset(
    {
        "access.path_secrets",
        "kafka.sasl_oauth_client_secret",
        "kafka.sasl_plain_password",
        "kafka.ssl_password",
        "registry.password",
        "registry.ssl_password",
        "registry.token",
    }
)

_CREDENTIALS_IN_URL = re.compile(r"//.*@")


def read_secret_file(path: str, key: str) -> str:
    """The text of a mounted secret, without its last line end.

    Raises:
        ConfigurationError: it can't be read; names the key and the path, never the content.
    """
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigurationError(
            f"{key}: can't read {path}: {reason}; mount the secret there, or correct the key"
        ) from error


def without_credentials(text: str) -> str:
    """The text, with what may be a user name and a password in an address masked."""
    return _CREDENTIALS_IN_URL.sub("//<masked>@", text)


def as_utf8(text: str) -> str:
    r"""With ``\udcff`` for a byte ``ff`` of an argument or a variable that is no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def shown(key: str, value: Any) -> str:
    """The value of a key as TOML-like text, secrets masked."""
    if key in SECRET_KEYS and value:
        return f"<{len(value)} masked>" if isinstance(value, list) else "<masked>"
    # Where somebody put a password into an address it is shown in nothing that is printed.
    text = as_utf8(value) if isinstance(value, str) else value
    return without_credentials(msgspec.json.encode(text).decode())


def is_one_of(given: bytes, known: Iterable[bytes]) -> bool:
    """Whether what was given is one of the known secrets; takes as long whichever it is, and however much of it is right."""
    return sum(hmac.compare_digest(given, each) for each in known) > 0
