"""What follows from what was seen: producer ids, latency, sizes, and what a listener speaks."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import config
from bridge.config.contradictions import contradictions
from bridge.kafka.errors import CLOSED, ProduceError
from bridge.operate.doctor import sizes
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.publishing import _judged, _judged_latency
from bridge.operate.doctor.reach import Listener, _keys
from bridge.operate.doctor.sending import Sent
from bridge.operate.doctor.session import Session

DEFAULTS = config.load(environment={}).settings
NO_ID = "CLUSTER_AUTHORIZATION_FAILED (31)"


@pytest.mark.parametrize(
    ("configured", "refusals", "is_given", "advice"),
    [
        ("auto", 0, True, {}),
        ("auto", 2, True, {}),
        ("auto", 3, True, {"kafka.idempotence": "true"}),
        ("true", 4, True, {}),
        ("auto", 5, False, {"kafka.idempotence": "false"}),
        ("true", 5, False, {"kafka.idempotence": "false"}),
        ("false", 5, False, {}),
        ("false", 0, True, {}),
    ],
)
def test_a_producer_id(configured: str, refusals: int, is_given: bool, advice: dict[str, Any]) -> None:
    """Refused for good: do without. Refused at first, as often as "auto" believes it: wait for it."""
    finding = _judged(configured, [NO_ID] * refusals, given=is_given, facts={})
    assert finding.set == advice
    assert finding.outcome is (Outcome.ADVICE if advice else Outcome.GOOD)
    assert not refusals or NO_ID in finding.seen


def judged_latency(usual_ms: float, spool_after_ms: int = 500) -> Finding:
    """With the default deadline."""
    delivery = msgspec.structs.replace(DEFAULTS.delivery, spool_after_ms=spool_after_ms)
    return _judged_latency(Session(msgspec.structs.replace(DEFAULTS, delivery=delivery), None), usual_ms, "", {})


@given(st.floats(0.1, 30_000))
def test_the_advice_about_latency_is_followed_once(usual_ms: float) -> None:
    """It can be configured, is larger than the latency, and asks for nothing more where it is in force."""
    finding = judged_latency(usual_ms)
    if not finding.set:
        assert usual_ms <= 250 or (usual_ms >= 1300 and finding.outcome is Outcome.ADVICE)
        return
    (advised,) = finding.set.values()
    assert usual_ms < advised <= 1300
    changed = msgspec.structs.replace(DEFAULTS.delivery, spool_after_ms=advised)
    assert list(contradictions(msgspec.structs.replace(DEFAULTS, delivery=changed))) == []
    assert judged_latency(usual_ms, advised).set == {}


@given(st.integers(32_768, 20_000_000), st.integers(16_384, 20_000_000), st.integers(32_768, 8_000_000))
def test_the_advice_about_sizes_can_be_configured_and_is_followed_once(
    request: int, record: int, configured: int
) -> None:
    """Whatever Kafka takes: no key contradicts another, none is raised, and each is within what Kafka takes."""
    kafka = msgspec.structs.replace(
        DEFAULTS.kafka, max_request_bytes=configured, max_batch_bytes=max(16_384, configured // 2)
    )
    session = Session(msgspec.structs.replace(DEFAULTS, kafka=kafka), None)
    advice = sizes.limits(kafka, request, record)
    session.apply(advice)
    changed = session.settings.kafka
    assert list(contradictions(session.settings)) == []
    assert all(value < getattr(kafka, key.partition(".")[2]) for key, value in advice.items())
    assert changed.max_request_bytes <= request
    assert max(changed.max_batch_bytes, changed.max_record_bytes) <= record
    assert sizes.limits(changed, request, record) == {}


class _Broker(sizes._Probe):
    """Takes records up to a limit."""

    def __init__(self, limit: int, error: ProduceError) -> None:
        self._limit, self._error, self.tries = limit, error, 0
        self._results, self.refusal, self.refused_by_topic = {}, "", False

    async def _try(self, size: int) -> Sent:
        self.tries += 1
        return Sent(None if size <= self._limit else self._error, 0.01)


@given(st.integers(16_384, 8_000_000), st.sampled_from([CLOSED, ProduceError(10), ProduceError(18)]))
def test_a_limit_is_found_within_a_few_tries(limit: int, error: ProduceError) -> None:
    """Never above the limit, and close to it."""
    broker = _Broker(limit, error)
    found = asyncio.run(broker.largest(1_000_000, broker.is_taken))
    assert found <= limit
    assert found >= 0.97 * min(limit, 1_000_000)
    assert broker.tries <= 12
    assert broker.refused_by_topic == (limit < 1_000_000 and error != CLOSED)


def test_a_connection_that_is_closed_once_is_no_limit() -> None:
    """The same size is tried again."""

    class Flaky(_Broker):
        async def _try(self, size: int) -> Sent:
            self._limit = 1_000_000 if self.tries else 0
            return await super()._try(size)

    broker = Flaky(0, CLOSED)
    assert asyncio.run(broker.largest(1_000_000, broker.is_taken)) == 1_000_000


@pytest.mark.parametrize(
    ("protocol", "mechanism", "listener", "advice"),
    [
        ("PLAINTEXT", "PLAIN", Listener(True, False, ()), {"kafka.security_protocol": "SSL"}),
        ("SASL_PLAINTEXT", "SCRAM-SHA-512", Listener(False, True, ["SCRAM-SHA-256"]), {"kafka.sasl_mechanism": "SCRAM-SHA-256"}),
        ("SASL_PLAINTEXT", "SCRAM-SHA-512", Listener(False, True, ["PLAIN"]), {}),
        (
            "SASL_PLAINTEXT",
            "SCRAM-SHA-512",
            Listener(True, True, ["PLAIN"]),
            {"kafka.security_protocol": "SASL_SSL", "kafka.sasl_mechanism": "PLAIN"},
        ),
        ("SASL_SSL", "SCRAM-SHA-512", Listener(False, True, ["SCRAM-SHA-512"]), {}),
        ("SASL_SSL", "SCRAM-SHA-512", Listener(True, False, ()), {}),
        ("PLAINTEXT", "SCRAM-SHA-512", Listener(False, True, ["PLAIN"]), {}),
        ("SASL_SSL", "OAUTHBEARER", Listener(True, True, ["PLAIN"]), {}),
    ],
)  # fmt: skip
def test_a_listener_is_used_by_its_own_words_but_never_with_a_weaker_login(
    protocol: Any, mechanism: Any, listener: Listener, advice: dict[str, str]
) -> None:
    """TLS is turned on, never off; a password that was never sent as it is goes so over TLS alone."""
    kafka = msgspec.structs.replace(DEFAULTS.kafka, security_protocol=protocol, sasl_mechanism=mechanism)
    assert _keys(kafka, listener) == advice
