"""What the provider pushes: campaigns, each with a ledger of every attempt."""

import time
from collections.abc import Iterable, Iterator

from bridge.lab.simulate.campaign import Campaign, CampaignOptions, Mix
from bridge.lab.simulate.connection import Target
from bridge.lab.simulate.ledger import Ledger
from bridge.lab.simulate.provider import Provider, ProviderOptions
from bridge.lab.simulate.push import Push
from bridge.lab.simulate.run import new_run

RETRY_SCALE = 0.05
"""Times the provider's 1 and 5 minutes: 3 and 15 s, so that nobody has to wait for them."""

# Enough that some need quarantine in a short campaign, too, and some people hide their number in the middle of it.
_MIX = Mix(undecodable=0.006, hidden=0.05)
_ENDLESS = 10_000_000


class Pushing:
    """One campaign on its way to the bridge.

    Args:
        url: the callback's address.
        messages: how many; None: until ``stop``.
        rate: reports per second.
        seed: what happens to each message.
    """

    def __init__(self, url: str, messages: int | None, rate: float, seed: int) -> None:
        options = CampaignOptions(
            messages=messages or _ENDLESS,
            run=new_run(),
            seed=seed,
            size=(1, 40),
            reports_per_second=rate,
            mix=_MIX,
            started_at_ms=time.time_ns() // 1_000_000,
        )
        pushes: Iterable[Push] = Campaign(options).pushes()
        self.total_reports: int | None = None
        if messages is not None:
            pushes = list(pushes)
            self.total_reports = sum(len(push.reports) for push in pushes)
        self.ledger = Ledger()
        self._pushes = pushes
        self._stopped = False
        self._provider = Provider(
            Target.parse(url), self.ledger, ProviderOptions(connections=64, retry_scale=RETRY_SCALE)
        )

    @property
    def waiting_for_retry(self) -> int:
        """Callbacks that will be pushed again."""
        return self._provider.waiting_for_retry

    def stop(self) -> None:
        """Push nothing new; what is under way comes to its end."""
        self._stopped = True

    async def run(self) -> None:
        """Push until every callback is acknowledged or given up."""
        await self._provider.run(self._until_stopped())

    def _until_stopped(self) -> Iterator[Push]:
        for push in self._pushes:
            if self._stopped:
                return
            yield push
