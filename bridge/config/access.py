"""Who may use which port: the callback address with its secrets, the networks, the tokens of the admin port."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Final, TypeAlias

from bridge.config.secrets import read_secret_file
from bridge.config.sections import Access
from bridge.errors import ConfigurationError

CALLBACK_PATH: Final = "/callbacks/chatapp/status"
"""The callback address, without its secret."""

Network: TypeAlias = IPv4Network | IPv6Network

# What a secret may consist of: nothing that a URL escapes, so that it arrives as it was written.
_SECRET = re.compile(r"[A-Za-z0-9._~-]{16,256}")
# What a header carries as a bearer token (RFC 6750).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")
_MAPPED_BITS = 96


def path_secrets(access: Access) -> list[str]:
    """All secrets in force, of both places.

    Raises:
        ConfigurationError: there is none and ``access.allow_unauthenticated`` is false; or one can't be used.
    """
    secrets = [(secret, "access.path_secrets") for secret in access.path_secrets]
    if access.path_secrets_file:
        key = "access.path_secrets_file"
        secrets += [(line, key) for line in _lines(access.path_secrets_file, key, "secret")]
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


def tokens(path: str, key: str) -> list[str]:
    """The tokens of the admin port in a mounted file; none if no file is named.

    Args:
        path: the file, or empty.
        key: the configuration key or option that names it, for messages.

    Raises:
        ConfigurationError: the file can't be read, has no token, or one that can't be used.
    """
    found = _lines(path, key, "token") if path else []
    for number, token in enumerate(found, 1):
        if not _TOKEN.fullmatch(token):
            raise ConfigurationError(
                f"{key}: token {number} of {len(found)} (masked, {len(token)} characters) can't be used; take 16 to 256 "
                "characters of A-Z a-z 0-9 - . _ ~ + / ="
            )
    return found


def _lines(path: str, key: str, what: str) -> list[str]:
    text = read_secret_file(path, key)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ConfigurationError(f"{key}: there is no {what} in {path}; write one a line, or leave the key empty")
    return lines


def networks(entries: Iterable[str], key: str) -> list[Network]:
    """The networks that a key names; one of IPv4-mapped IPv6 addresses is the IPv4 network.

    Raises:
        ConfigurationError: an entry is not a network.
    """
    return [_network(entry, key) for entry in entries]


def _network(entry: str, key: str) -> Network:
    try:
        whole: Network = ip_interface(entry).network
    except ValueError as error:
        raise ConfigurationError(
            f"{key}: {entry} is not a network; write one such as 10.0.0.0/8 or 2001:db8::/32"
        ) from error
    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ConfigurationError(
            f"{key}: {entry} is an address within a network; write {whole} for the network"
        ) from error
    if network.version == 6 and network.prefixlen >= _MAPPED_BITS:  # noqa: PLR2004 - IPv6
        mapped = network.network_address.ipv4_mapped
        return network if mapped is None else IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network
