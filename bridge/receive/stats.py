"""What the handler counts: plain integers, read by the metrics, the page and ``chatapp-bridge status``."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from bridge.observe.metrics import Histogram
from bridge.report.report import Reason
from bridge.report.symbols import Status

ABORTED: Final = "aborted"
"""In place of an HTTP status: the client ended before its body was whole."""
ANSWERS: Final = ("200", "400", "404", "405", "408", "413", "415", "429", "431", "501", "503", ABORTED)
OUTCOMES: Final = ("kafka", "spool", "refused")
NOT_UNDERSTOOD: Final = "NONE"
"""In place of a status: of a quarantined item."""
STATUSES: Final = (*(status.value for status in Status), NOT_UNDERSTOOD)

# Around what matters: a healthy answer takes milliseconds, a journalled one half a second; 2 s is ours, 3 s the provider's.
_ACK_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)
_KEPT_FAULTS = 20


class Fault(NamedTuple):
    """A quarantined item, without its data. ``at_ms``: milliseconds since the epoch."""

    at_ms: int
    reason: str
    path: str
    callback: str


class CallbackStats:
    """Since the start; label values are bounded by the constants above."""

    def __init__(self) -> None:
        self.started_at = time.time()
        #: callbacks by answer
        self.callbacks = dict.fromkeys(ANSWERS, 0)
        #: pushes with a secret that was removed, from a network that is not allowed, beyond limits.callbacks_per_second
        self.retired_secret = self.refused_by_network = self.rate_limited = 0
        #: requests without a valid secret beyond limits.unauthenticated_per_second
        self.unauthenticated_limited = 0
        #: reports by what their callback was answered for, and by status
        self.reports = {outcome: dict.fromkeys(STATUSES, 0) for outcome in OUTCOMES}
        #: reports by the path that their records were made on
        self.by_path = {"fast": 0, "slow": 0}
        self.quarantined = dict.fromkeys((reason.value for reason in Reason), 0)
        self.faults: deque[Fault] = deque(maxlen=_KEPT_FAULTS)
        #: when a callback was last answered 200, seconds since the epoch; 0: never
        self.last_callback_at = 0.0
        self.ack_latency = Histogram(
            "ack_latency_seconds", "From a callback's arrival in the application to its answer of 200.", _ACK_BOUNDS
        )

    def answered(self, answer: str) -> None:
        """A callback was answered."""
        self.callbacks[answer] += 1

    def acknowledged(self, seconds: float, trace_id: str | None) -> None:
        """It was answered 200, so long after it came."""
        self.ack_latency.observe(seconds, trace_id)
        self.last_callback_at = time.time()

    def reported(self, outcome: str, statuses: Iterable[str | None]) -> None:
        """What became of a callback's items, by the status of each; None of one that was not understood."""
        counts = self.reports[outcome]
        for status in statuses:
            counts[status or NOT_UNDERSTOOD] += 1

    def encoded(self, fast: int, slow: int) -> None:
        """A callback's reports were made into records: so many on the fast path, so many on the slow one."""
        self.by_path["fast"] += fast
        self.by_path["slow"] += slow

    def quarantine(self, faults: Sequence[Fault]) -> None:
        """Items that were not understood."""
        for fault in faults:
            self.quarantined[fault.reason] += 1
        self.faults.extend(faults[-_KEPT_FAULTS:])
