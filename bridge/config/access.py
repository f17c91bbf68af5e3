"""The secrets of the callback address, wherever they are set."""

import re

from bridge.config.secrets import read_secret_file
from bridge.config.sections import Access
from bridge.errors import ConfigurationError

# What a secret may consist of: nothing that a URL escapes, so that it arrives as it was written.
_SECRET = re.compile(r"[A-Za-z0-9._~-]{16,256}")


def path_secrets(access: Access) -> list[str]:
    """All secrets in force, of both places.

    Raises:
        ConfigurationError: none, and not told to run open; or one is too weak or can't stand in a path.
    """
    secrets = [(secret, "access.path_secrets") for secret in access.path_secrets]
    if access.path_secrets_file:
        text = read_secret_file(access.path_secrets_file, "access.path_secrets_file")
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            raise ConfigurationError(
                f"access.path_secrets_file: there is no secret in {access.path_secrets_file}; write one a line, or leave the "
                "key empty"
            )
        secrets += [(line, "access.path_secrets_file") for line in lines]
    if not secrets and not access.allow_unauthenticated:
        raise ConfigurationError(
            "access.path_secrets: no secret is set, so anyone could publish; set one (access.path_secrets or "
            "access.path_secrets_file; `openssl rand -hex 24` makes one), or access.allow_unauthenticated=true to run open"
        )
    if secrets and access.allow_unauthenticated:
        raise ConfigurationError(
            "access.allow_unauthenticated: true contradicts the secrets that are set; remove one or the other"
        )
    for number, (secret, key) in enumerate(secrets, 1):
        if not _SECRET.fullmatch(secret):
            raise ConfigurationError(
                f"{key}: secret {number} of {len(secrets)} (masked, {len(secret)} characters) can't be "
                "used; take 16 to 256 characters of A-Z a-z 0-9 - . _ ~"
            )
    return [secret for secret, _ in secrets]
