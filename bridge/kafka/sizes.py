"""Limits for the size of requests and batches: as configured, or lower if the brokers accept less.

A broker closes the connection when a request is too large, but connections are closed for other reasons too. So the
bridge finds the limits by trying: it halves them after losses, and doubles them again after a while.
"""

import asyncio
from collections import defaultdict, deque
from typing import Final

import structlog

from bridge.config import Kafka
from bridge.kafka.batch import Batch

log = structlog.get_logger(__name__)

_LEAST_BYTES: Final = 16_384
# A halved limit is doubled after this long without another lost request.
_REGROW_SECONDS: Final = 60.0
_LOST_TO_HALVE: Final = 2
# For each broker, this many of the largest accepted requests are remembered.
_LARGEST_KEPT: Final = 64


class Sizes:
    """See the module docstring.

    Args:
        settings: ``[kafka]``.

    Attributes:
        most_request_bytes: the limit for a request with several batches.
        most_batch_bytes: the limit for a batch before compression.
    """

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.most_request_bytes = settings.max_request_bytes
        self.most_batch_bytes = settings.max_batch_bytes
        self._lost_in_a_row, self._lost_at = 0, 0.0
        # By broker: when it accepted a request, and the size. A later request that is as large replaces it.
        self._largest: defaultdict[int, deque[tuple[float, int]]] = defaultdict(lambda: deque(maxlen=_LARGEST_KEPT))

    def accepted(self, node: int, size: int, batches: int) -> None:
        """Record that the broker accepted a request with this number of bytes and batches."""
        largest = self._largest[node]
        while largest and largest[-1][1] <= size:
            largest.pop()
        largest.append((self._loop.time(), size))
        if batches > 1:
            self._lost_in_a_row = 0

    def largest_accepted(self, node: int | None, since: float) -> int:
        """Bytes of the largest request that the broker accepted since then, in the loop's time; 0 if there is none."""
        accepted = self._largest[node] if node is not None else ()
        return next((size for at, size in accepted if at >= since), 0)

    def request_lost(self) -> None:
        """Count a lost request of several batches. If losses repeat, the batches may be too large together."""
        now = self._loop.time()
        self._lost_in_a_row = self._lost_in_a_row + 1 if now - self._lost_at < _REGROW_SECONDS else 1
        self._lost_at = now
        if self._lost_in_a_row >= _LOST_TO_HALVE and self.most_request_bytes > _LEAST_BYTES:
            self._lost_in_a_row = 0
            self.most_request_bytes = max(self.most_request_bytes // 2, _LEAST_BYTES)
            log.warning("kafka_requests_halved", most_bytes=self.most_request_bytes)

    def batch_too_large(self, batch: Batch) -> None:
        """Make smaller batches from now on, because a batch of several records was too large."""
        if batch.size_before_compression <= _LEAST_BYTES:
            return  # the limit is never lower than this: the lane puts fewer records into its batches instead
        self._lost_at = self._loop.time()
        half = max(batch.size_before_compression // 2, _LEAST_BYTES)
        if half < self.most_batch_bytes:
            self.most_batch_bytes = half
            log.warning("kafka_batches_halved", most_bytes=half)

    def regrow(self) -> None:
        """Double the halved limits if the last loss was long ago."""
        if self._loop.time() - self._lost_at > _REGROW_SECONDS:
            self._lost_at = self._loop.time()
            self.most_request_bytes = min(self.most_request_bytes * 2, self._settings.max_request_bytes)
            self.most_batch_bytes = min(self.most_batch_bytes * 2, self._settings.max_batch_bytes)
