"""Who may push now: every reason to refuse, counted apart, and nothing that tells them apart from outside."""

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from bridge.config import Settings, load
from bridge.receive.access import Access
from bridge.receive.gate import Gate
from bridge.receive.stats import CallbackStats

SECRET, FORMER = "a-secret-of-the-tests-1", "a-former-one-of-the-tests"
NETWORKS = ["access.allowed_networks=203.0.113.0/24,2001:db8::/32", "access.trusted_proxies=10.0.0.0/8"]
UNLIMITED = "limits.unauthenticated_per_second=0"


class Tried:
    """A gate, and what came of it."""

    def __init__(self, *assignments: str) -> None:
        self.settings: Settings = load(environment={}, assignments=assignments).settings
        self.access = Access([FORMER])
        self.access.replace([SECRET])
        self.stats = CallbackStats()
        self.gate = Gate(self.settings, self.access, self.stats)

    def answer(
        self, secret: str = SECRET, *, peer: str = "192.0.2.1", via: str = "", method: str = "POST"
    ) -> bytes | None:
        """Of one request: the whole answer; None where it may push."""
        headers = [(b"x-forwarded-for", via.encode())] if via else []
        scope: dict[str, Any] = {"path": f"/{secret}", "method": method, "client": (peer, "1"), "headers": headers}
        answer = self.gate.refuses(scope)
        return None if answer is None else msgspec.json.encode((answer[0]["status"], repr(answer)))

    def status(self, secret: str = SECRET, **more: Any) -> int:
        """Of one request; 0 where it may push."""
        answer = self.answer(secret, **more)
        return 0 if answer is None else int(msgspec.json.decode(answer)[0])

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Retired secret, network, rate, rate of strangers."""
        stats = self.stats
        return stats.retired_secret, stats.refused_by_network, stats.rate_limited, stats.unauthenticated_limited


def test_a_push_with_a_former_secret_is_counted_and_said_and_gets_the_same_404() -> None:
    """Other methods are nobody's push; the line names no secret and says what to do."""
    tried = Tried(UNLIMITED)
    with capture_logs() as lines:
        answers = {
            tried.answer("x" * 20),
            tried.answer(FORMER),
            tried.answer(f"{FORMER}/"),
            tried.answer(FORMER, method="GET"),
        }
    assert len(answers) == 1
    assert tried.counts == (2, 0, 0, 0)
    assert [line["event"] for line in lines] == ["retired_secret_used"] * 2
    assert lines[0]["remedy"] == "put the secret back, or change the address at the provider"
    assert FORMER not in str(lines)


def test_only_allowed_networks_may_push() -> None:
    """By the client's address, whichever way it came; others get what a wrong secret gets, and are counted apart."""
    tried = Tried(UNLIMITED, *NETWORKS)
    allowed = [
        {"peer": "203.0.113.9"},
        {"peer": "::ffff:203.0.113.9"},
        {"peer": "2001:db8::1"},
        {"peer": "10.1.1.1", "via": "198.51.100.1, 203.0.113.9"},
    ]
    assert [tried.status(**each) for each in allowed] == [0] * len(allowed)
    refused = [
        {"peer": "192.0.2.1"},
        {"peer": "192.0.2.1", "via": "203.0.113.9"},
        {"peer": "10.1.1.1"},
        {"peer": "10.1.1.1", "via": "203.0.113.9, 198.51.100.1"},
        {"peer": "10.1.1.1", "via": "203.0.113.9, unknown"},
    ]
    with capture_logs() as lines:
        answers = [tried.answer(**each) for each in refused]
    assert set(answers) == {tried.answer("x" * 20)}
    assert tried.counts == (0, len(refused), 0, 0)
    assert [line["address"] for line in lines] == ["192.0.2.1", "192.0.2.1", "10.1.1.1", "198.51.100.1", "10.1.1.1"]
    assert {line["event"] for line in lines} == {"push_refused_by_network"}


def test_wrong_secrets_have_a_rate_for_each_address_and_valid_ones_are_not_in_it() -> None:
    """Beyond it 429 with the time to wait, and the end of the connection; a former secret counts all the same."""
    tried = Tried("limits.unauthenticated_per_second=0.2")
    assert [tried.status("x" * 20), tried.status("x" * 20), tried.status(FORMER)] == [404, 429, 429]
    assert [tried.status() for _ in range(100)] == [0] * 100
    assert [tried.status("x" * 20, peer=peer) for peer in ("192.0.2.2", "2001:db8::1", "2001:db8::2")] == [
        404,
        404,
        429,
    ]
    assert tried.counts == (1, 0, 0, 3)
    start, _ = tried.gate.unknown({"client": ("192.0.2.1", "1"), "headers": []})
    headers = dict(start["headers"])
    assert 1 <= int(headers[b"retry-after"]) <= 5
    assert headers[b"connection"] == b"close"


def test_the_rate_of_wrong_secrets_does_not_betray_a_valid_one_outside_of_the_networks() -> None:
    """Else 404 where others get 429 would say that the secret is right."""
    tried = Tried("limits.unauthenticated_per_second=0.2", *NETWORKS)
    assert [tried.status(), tried.status()] == [404, 429]
    assert tried.counts == (0, 2, 0, 1)


def test_valid_callbacks_have_a_rate_where_one_is_set() -> None:
    """All addresses together; other methods are not callbacks."""
    tried = Tried("limits.callbacks_per_second=0.2")
    assert [tried.status(), tried.status(method="GET"), tried.status(peer="192.0.2.2")] == [0, 0, 429]
    assert tried.counts == (0, 0, 1, 0)


@pytest.mark.parametrize("secret", [SECRET, "x" * 20])
def test_the_defaults_limit_wrong_secrets_alone(secret: str) -> None:
    """Fifty at once."""
    tried = Tried()
    found = [tried.status(secret) for _ in range(60)]
    assert found[:50] == [0 if secret == SECRET else 404] * 50
    assert (429 in found) == (secret != SECRET)
