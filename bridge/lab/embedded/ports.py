"""Ports that stay ours while nothing listens on them: a killed broker must come back at the same address."""

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 10_240
ATTEMPTS = 200


class Port:
    """A port on the loopback address, held for the life of this object.

    It lies below the range from which the kernel takes the near end of outgoing connections, so that none
    of those sits on it while the broker is down. Other processes that choose in this way are kept off by a
    socket with a name and no file, which the kernel frees when this process ends.
    """

    def __init__(self) -> None:
        for _ in range(ATTEMPTS):
            number = LOWEST + secrets.randbelow(max(_ephemeral_start() - LOWEST, 1))
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0chatapp-bridge-port-{number}")
                _try_bind(number)
            except OSError:
                claim.close()
                continue
            self.number = number
            self._claim = claim
            return
        msg = f"no free port found in {ATTEMPTS} attempts"
        raise OSError(msg)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{HOST}:{self.number}"

    def release(self) -> None:
        """Let others have it."""
        self._claim.close()


def _ephemeral_start() -> int:
    """The first port for outgoing connections' near end; Linux's default where that is set very low."""
    start = int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    return start if start > LOWEST else 32_768


def _try_bind(number: int) -> None:
    """Raise OSError where something listens there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, number))
