"""The sockets that the bridge listens on: bound before anything else, on both families of addresses where there are both."""

import errno
import socket
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server
from litestar import Litestar

from bridge.config import Limits
from bridge.errors import ConfigurationError

EVERY_ADDRESS = "::"
"""Every address of the machine, IPv6 and IPv4."""

# Connections held at once; each idle one costs a few KiB.
_CONNECTIONS = 65_536
# What says that the kernel has no IPv6.
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
# What says that the address is wrong; the last one, that it is an IPv4 address in IPv6's form.
_NOT_THE_PORT = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EINVAL})


def bind(host: str, port: int, host_key: str, port_key: str) -> socket.socket:
    """A socket that does not listen yet. The system chooses a port for 0, and looks up the address of a name.

    ``::`` takes IPv4 connections too, whatever the system's default is; where the kernel has no IPv6 it takes those alone.

    Raises:
        ConfigurationError: the address is taken, or isn't this machine's.
    """
    try:
        if host == EVERY_ADDRESS and not socket.has_ipv6:
            return _bound("0.0.0.0", port)  # noqa: S104 - it is asked for
        try:
            return _bound(host, port)
        except OSError as error:
            if host != EVERY_ADDRESS or error.errno not in _NO_IPV6:
                raise
            return _bound("0.0.0.0", port)  # noqa: S104 - it is asked for
    except (OSError, UnicodeError) as error:
        key, why = port_key, getattr(error, "strerror", "not a host name")
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno in _NOT_THE_PORT:
            key = host_key
        remedy = "free it or take another" if key == port_key else 'give an address of this machine, or "::" for all'
        raise ConfigurationError(f"{key}: can't listen on {host}:{port}: {why}; {remedy}") from error


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != EVERY_ADDRESS)
        # Not SO_REUSEPORT, by which a second bridge would quietly take half of the callbacks.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def addresses(bound: socket.socket) -> list[str]:
    """Where it listens, for people."""
    host, port = bound.getsockname()[:2]
    if bound.family == socket.AF_INET:
        return [f"{host}:{port}"]
    return [f"[{host}]:{port}", *([f"0.0.0.0:{port}"] if host == EVERY_ADDRESS else [])]


class Listener(Server):
    """Serves an application on a socket that is bound already; Granian's own would share its port (SO_REUSEPORT).

    Args:
        app: the application.
        bound: the socket; it is the server's from its start on.
        backlog: connections that the kernel queues.
        limits: of a request.

    Raises:
        ConfigurationError: another process took the port between the binding and now.
    """

    def __init__(self, app: Litestar, bound: socket.socket, backlog: int, limits: Limits) -> None:
        try:
            bound.listen(backlog)  # Granian does so too, and ends the process where it fails
        except OSError as error:
            address = addresses(bound)[0]
            raise ConfigurationError(
                f"can't listen on {address}: {error.strerror}; another process took the port"
            ) from error
        self._bound = bound
        super().__init__(
            app,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=backlog,
            backpressure=_CONNECTIONS,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(limits.header_read_seconds * 1000),
                # Twice, so that headers somewhat too large are answered by the application, with words.
                max_buffer_size=max(16_384, 2 * limits.header_bytes),
            ),
            log_enabled=False,
        )

    def _init_shared_socket(self) -> None:
        self._shd: Any = SocketHolder(self._bound.detach(), False, self.backlog)  # type: ignore[call-arg]
