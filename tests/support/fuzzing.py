"""How long to look for what nobody thought of: a moment in ``make test``, an hour by ``make fuzz``."""

import os
import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings

SECONDS = float(os.environ.get("BRIDGE_FUZZ_SECONDS", "0"))
"""Of the whole run; 0: each property once, with few examples."""
DECODER_SHARE = 0.7
_LEAST_A_ROUND = 50


def few_or_many(examples: int) -> settings:
    """Settings of one round: so many examples; where there is a budget not so few that a round is mostly its beginning."""
    return settings(
        max_examples=max(examples, _LEAST_A_ROUND) if SECONDS else examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def while_budget_lasts(check: Callable[[], None], share: float) -> int:
    """Run a property again and again, with other examples, for its share of the budget; at least once.

    Returns:
        How many rounds it were.
    """
    until, rounds = time.monotonic() + SECONDS * share, 0
    while rounds == 0 or time.monotonic() < until:
        check()
        rounds += 1
    return rounds
