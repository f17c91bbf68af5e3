"""Connecting: what is wrong before any broker is asked."""

from types import SimpleNamespace

import pytest

from bridge.config import load
from bridge.errors import KafkaUnavailable
from bridge.operate.doctor import reach
from bridge.operate.doctor.session import Session


async def test_a_token_that_does_not_come_is_not_blamed_on_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take longer than a broker may, and no broker is asked without it."""

    async def token() -> str:
        raise KafkaUnavailable("no token came within 20 s")

    async def asked(_: object) -> dict[str, str]:
        raise AssertionError

    provider = {"sasl_oauth_token_provider": SimpleNamespace(token=token)}
    monkeypatch.setattr(reach, "client_arguments", lambda _: provider)
    monkeypatch.setattr(reach, "_asked", asked)
    with pytest.raises(reach.UnreachableError) as caught:
        await reach.connection(Session(load(None, environment={}).settings, None))
    assert caught.value.finding.seen == "there is no token for the login: no token came within 20 s"
