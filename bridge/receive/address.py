"""The client's address: the connection's, or what trusted proxies say in X-Forwarded-For."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, TypeAlias

from bridge.config import Network

Address: TypeAlias = IPv4Address | IPv6Address

# Some proxies add the port: ``v4:port``, ``[v6]:port``.
_WITH_PORT: Final = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([^:]*):[0-9]{1,5}")
# Longer than any address with its port and the name of an interface: nothing longer is parsed, remembered or logged.
_LONGEST: Final = 80


class ClientAddress:
    """Finds the address that a request comes from.

    Args:
        proxies: whose X-Forwarded-For is believed.
    """

    def __init__(self, proxies: Sequence[Network] = ()) -> None:
        self._proxies = tuple(proxies)

    def of(self, scope: dict[str, Any]) -> Address | None:
        """The last address that is not a trusted proxy; None if the connection has none.

        What is malformed ends the search, with the last good address: nobody vouches for what is left of it.
        """
        client = scope.get("client")
        address = _parsed(client[0]) if client else None
        if address is None or not within(address, self._proxies):
            return address
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for element in reversed(b",".join(lines).split(b",")):
            further = _parsed(element.decode("latin-1").strip()) if len(element) <= _LONGEST else None
            if further is None:
                break
            address = further
            if not within(address, self._proxies):
                break
        return address


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether any of the networks has the address."""
    return any(address in network for network in networks)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    """An address, with or without a port; an IPv4-mapped IPv6 address is the IPv4 address. None: it is not one."""
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
