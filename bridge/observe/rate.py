"""How quickly a count grows."""

from collections import deque


class Rate:
    """The growth of a count per second, over the last samples.

    Args:
        samples: how many are kept; with one a second, the seconds it looks back.
    """

    def __init__(self, samples: int = 10) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=samples + 1)

    def sample(self, now_seconds: float, count: float) -> None:
        """Take the count as it is now."""
        self._samples.append((now_seconds, count))

    @property
    def per_second(self) -> float:
        """0 until two samples are there."""
        if len(self._samples) < 2:  # noqa: PLR2004 - a rate is between two
            return 0.0
        (since, before), (until, after) = self._samples[0], self._samples[-1]
        return (after - before) / (until - since) if until > since else 0.0
