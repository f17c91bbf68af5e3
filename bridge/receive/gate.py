"""Who may push now: a client with a valid secret, from an allowed network, within the rate.

secret? ─no─► 404, or 429 beyond limits.unauthenticated_per_second
  │
network? ─no─► the same, so that nobody outside learns which secret is valid
  │
rate? ─no─► 429
"""

from typing import Any

import structlog

from bridge import config
from bridge.receive.access import Access
from bridge.receive.address import ClientAddress, within
from bridge.receive.answers import NOT_FOUND, Answer, too_many
from bridge.receive.rates import AddressBuckets, Bucket
from bridge.receive.stats import CallbackStats

log = structlog.get_logger(__name__)


class Gate:
    """Decides by the head of a request alone.

    Args:
        settings: the whole configuration.
        access: the secrets.
        stats: where what is refused is counted.
    """

    def __init__(self, settings: config.Settings, access: Access, stats: CallbackStats) -> None:
        limits = settings.limits
        self._access = access
        self._stats = stats
        self._networks = config.networks(settings.access.allowed_networks, "access.allowed_networks")
        self._address = ClientAddress(config.networks(settings.access.trusted_proxies, "access.trusted_proxies"))
        self._rate = Bucket(limits.callbacks_per_second) if limits.callbacks_per_second else None
        per_second = limits.unauthenticated_per_second
        self._unauthenticated = AddressBuckets(per_second) if per_second else None

    def refuses(self, scope: dict[str, Any]) -> Answer | None:
        """The answer to a request that may not push; None: it may."""
        is_push = scope["method"] == "POST"
        if not self._access.admits(scope["path"]):
            if is_push and self._access.admitted(scope["path"]):
                self._stats.retired_secret += 1
                remedy = "put the secret back, or change the address at the provider"
                log.error("retired_secret_used", address=str(self._address.of(scope)), remedy=remedy)
            return self.unknown(scope)
        if self._networks:
            address = self._address.of(scope)
            if address is None or not within(address, self._networks):
                if is_push:
                    self._stats.refused_by_network += 1
                    log.error(
                        "push_refused_by_network",
                        address=str(address),
                        remedy="add its network to access.allowed_networks; if it is a proxy, to access.trusted_proxies",
                    )
                return self.unknown(scope)
        if self._rate is not None and is_push and (wait := self._rate.take()):
            self._stats.rate_limited += 1
            return too_many(wait)
        return None

    def unknown(self, scope: dict[str, Any]) -> Answer:
        """The answer to a request without a valid secret, on any path."""
        if self._unauthenticated is not None and (wait := self._unauthenticated.take(self._address.of(scope))):
            self._stats.unauthenticated_limited += 1
            return too_many(wait)
        return NOT_FOUND
