"""Addresses that are dead, and names that have them.

with BlackHole() as hole:
resolve_to(monkeypatch, hole, ("127.0.0.1", port))
...
"""

import asyncio
import socket
from typing import Any

import pytest

HOST = "127.0.0.1"


class BlackHole:
    """An address that takes no connection and refuses none: its queue is full."""

    def __enter__(self) -> tuple[str, int]:
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self._listener.listen(0)
        address: tuple[str, int] = self._listener.getsockname()
        self._waiting = [socket.socket() for _ in range(4)]
        for each in self._waiting:
            each.setblocking(False)
            each.connect_ex(address)
        return address

    def __exit__(self, *_: object) -> None:
        for each in (*self._waiting, self._listener):
            each.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Every name has these."""

    async def found(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
