"""How often something may happen: token buckets, one for all or one for each client address."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from bridge.receive.address import Address

_BURST_SECONDS: Final = 5.0
# Addresses that are remembered; the one not seen for longest is forgotten first. About 280 bytes each.
MOST_ADDRESSES: Final = 10_000
_NETWORK_BITS: Final = 64


class Bucket:
    """Holds up to five seconds' worth of requests.

    Args:
        per_second: how many become free in a second; more than 0.
        now: a monotonic clock, in seconds.
    """

    __slots__ = ("_at", "_left", "_now", "_per_second")

    def __init__(self, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._now = now
        self._left, self._at = self._most, now()

    @property
    def _most(self) -> float:
        return max(1.0, self._per_second * _BURST_SECONDS)

    def take(self) -> int:
        """Take one; 0, or whole seconds until there is one again."""
        now = self._now()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0
        return math.ceil((1 - self._left) / self._per_second)


class AddressBuckets:
    """A bucket for each client address; the addresses of an IPv6 network of 64 bits share one.

    Args:
        per_second: of each; more than 0.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._now = now
        self._buckets: OrderedDict[tuple[int, int], Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def take(self, address: Address | None) -> int:
        """Take one of this address; 0, or whole seconds until there is one again."""
        key = _key(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MOST_ADDRESSES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = Bucket(self._per_second, self._now)
        else:
            self._buckets.move_to_end(key)
        return bucket.take()


def _key(address: Address | None) -> tuple[int, int]:
    if address is None:
        return 0, 0
    number = int(address)
    return address.version, number if address.version == 4 else number >> _NETWORK_BITS  # noqa: PLR2004 - IPv4
