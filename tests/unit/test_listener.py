"""The sockets: both families where the kernel has both, IPv4 where it has no more, and nothing shared."""

import errno
import socket
from contextlib import closing

import pytest
from litestar import Litestar

from bridge import listener
from bridge.config import load
from bridge.errors import ConfigurationError


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def bound(host: str, port: int = 0) -> socket.socket:
    """As the public listener's."""
    return listener.bind(host, port, "server.host", "server.port")


def reached(on: socket.socket, host: str) -> bool:
    """Whether a connection to that address arrives."""
    try:
        socket.create_connection((host, on.getsockname()[1]), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("::", [True, True]),
        ("0:0:0:0:0:0:0:0", [True, True]),
        ("0.0.0.0", [True, False]),  # noqa: S104
        ("127.0.0.1", [True, False]),
        ("::1", [False, True]),
    ],
)
def test_every_address_is_of_both_families_and_an_explicit_one_of_its_own(host: str, found: list[bool]) -> None:
    """Whatever net.ipv6.bindv6only says."""
    with closing(bound(host)) as on:
        on.listen()
        assert [reached(on, "127.0.0.1"), reached(on, "::1")] == found
        said = [address.rpartition(":")[0] for address in listener.addresses(on)]
        every = ["[::]", "0.0.0.0"]  # noqa: S104
        assert said == {"::": every, "0:0:0:0:0:0:0:0": every, "::1": ["[::1]"]}.get(host, [host])


@pytest.mark.parametrize("lacking", ["python", errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_every_address_is_ipv4(lacking: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python without it, a kernel without it (ipv6.disable=1), one where it is switched off."""
    if lacking == "python":
        monkeypatch.setattr(socket, "has_ipv6", False)
    else:
        original = listener._bound

        def fails(host: str, port: int) -> socket.socket:
            if host == "::":
                raise OSError(lacking, "no IPv6 here")
            return original(host, port)

        monkeypatch.setattr(listener, "_bound", fails)
    with closing(bound("::")) as on:
        assert on.family == socket.AF_INET
        assert listener.addresses(on) == [f"0.0.0.0:{on.getsockname()[1]}"]


@pytest.mark.parametrize("host", ["2001:db8::1", "::ffff:127.0.0.1", "[::]", "not..a.name", "x" * 64, ""])
def test_what_is_not_an_address_of_this_machine_is_refused(host: str) -> None:
    """In words that name the key; only the address of every interface may become another."""
    with pytest.raises(ConfigurationError, match=r"^server\.host: can't listen on .*:0: .+ \"::\" for all"):
        bound(host)


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "127.0.0.1"])  # noqa: S104
def test_a_port_that_is_taken_is_refused(host: str) -> None:
    """Also where who has it would share it."""
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigurationError, match=r"server\.port: .* free it or take another"):
            bound(host, other.getsockname()[1])


def test_a_port_that_is_taken_while_the_bridge_starts_is_refused() -> None:
    """Both may have bound it before one of them listens."""
    with closing(bound("127.0.0.1")) as first:
        port = first.getsockname()[1]
        with closing(bound("127.0.0.1", port)) as second:
            first.listen()
            with pytest.raises(ConfigurationError, match=f"can't listen on 127.0.0.1:{port}: .* took the port"):
                listener.Listener(Litestar([]), second, 10, load(environment={}).settings.limits)
