"""The client's address: nothing that a client says counts, only what trusted proxies say."""

from typing import Any

import pytest

from bridge.config import networks
from bridge.receive.address import ClientAddress, within

PROXIES = networks(["10.0.0.0/8", "2001:db8:ffff::/48"], "access.trusted_proxies")
PROXY, CLIENT = "10.1.1.1", "203.0.113.7"


def address(peer: str, *lines: str, proxies: Any = PROXIES) -> str:
    """Of a request from there with these lines of X-Forwarded-For."""
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]
    scope = {"client": (peer, "1234"), "headers": [(b"host", b"x"), *headers]}
    return str(ClientAddress(proxies).of(scope))


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        (PROXY, [CLIENT], CLIENT),
        ("2001:db8:ffff::1", [CLIENT], CLIENT),
        (PROXY, ["2001:db8::7"], "2001:db8::7"),
        # Of several the last one that is not a proxy: a client may have written the others.
        (PROXY, ["198.51.100.1, 203.0.113.7"], CLIENT),
        (PROXY, ["198.51.100.1, 203.0.113.7, 10.2.2.2"], CLIENT),
        (PROXY, ["198.51.100.1", "203.0.113.7", "10.2.2.2,10.3.3.3"], CLIENT),
        (PROXY, ["203.0.113.7", "10.2.2.2"], CLIENT),
        (PROXY, ["10.9.9.9, 10.2.2.2"], "10.9.9.9"),
        # With a port, and IPv4-mapped IPv6.
        (PROXY, ["203.0.113.7:443"], CLIENT),
        (PROXY, ["[2001:db8::7]:443"], "2001:db8::7"),
        (PROXY, ["[2001:db8::7]"], "2001:db8::7"),
        (PROXY, ["::ffff:203.0.113.7"], CLIENT),
        (PROXY, ["[::ffff:203.0.113.7]:443"], CLIENT),
        ("::ffff:10.1.1.1", [CLIENT], CLIENT),
        ("::ffff:203.0.113.7", [], CLIENT),
        # What is malformed ends the search at the last good address.
        (PROXY, ["203.0.113.7, unknown"], PROXY),
        (PROXY, ["203.0.113.7, unknown, 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["203.0.113.7,, 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["203.0.113.7:x"], PROXY),
        (PROXY, ["203.0.113"], PROXY),
        (PROXY, ["203.0.113.7/32"], PROXY),
        (PROXY, ["\xff"], PROXY),
        (PROXY, [""], PROXY),
        # What is too long for an address isn't parsed: it would be remembered, and logged.
        (PROXY, ["fe80::1%eth0"], "fe80::1%eth0"),
        (PROXY, ["fe80::1%" + "x" * 80], PROXY),
        (PROXY, [], PROXY),
        # Who is not a proxy says nothing about others.
        (CLIENT, ["198.51.100.1"], CLIENT),
        ("2001:db8:fffe::1", ["198.51.100.1"], "2001:db8:fffe::1"),
        ("not an address", ["198.51.100.1"], "None"),
    ],
)
def test_the_address_is_the_last_one_that_is_not_a_trusted_proxy(peer: str, lines: list[str], expected: str) -> None:
    """Over all lines of the header, in their order, from the right."""
    assert address(peer, *lines) == expected


def test_without_trusted_proxies_the_header_says_nothing() -> None:
    """The default."""
    assert address(PROXY, CLIENT, proxies=()) == PROXY


def test_a_connection_without_an_address_has_none() -> None:
    """A socket of another kind."""
    assert ClientAddress(PROXIES).of({"client": None, "headers": []}) is None


def test_a_network_of_mapped_addresses_is_the_ipv4_network() -> None:
    """However it is written, it has the same addresses."""
    for entry in ("10.0.0.0/8", "::ffff:10.0.0.0/104"):
        found = ClientAddress().of({"client": ("::ffff:10.1.1.1", "1"), "headers": []})
        assert found is not None
        assert within(found, networks([entry], "access.allowed_networks"))
