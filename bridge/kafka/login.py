"""Logins by SASL, step by step: aiokafka's classes do PLAIN and SCRAM, a small one here does OAUTHBEARER."""

import asyncio
from typing import Any

from aiokafka.conn import SaslPlainAuthenticator, ScramAuthenticator
from aiokafka.errors import SaslAuthenticationFailed


class Login:
    """A login by SASL, up to its first step. What the step needs, such as a token, is fetched before anybody waits for it.

    Attributes:
        mechanism: by SASL's name.
        first: what to send first.
    """

    def __init__(self, arguments: dict[str, Any], authenticator: Any, first: bytes) -> None:
        self._arguments, self._authenticator = arguments, authenticator
        self.mechanism: str = arguments["sasl_mechanism"]
        self.first = first

    @staticmethod
    async def begin(arguments: dict[str, Any]) -> "Login":
        """Begin a login.

        Args:
            arguments: the result of ``client_arguments`` for ``[kafka]``.

        Raises:
            ConfigurationError, KafkaUnavailable: no token can be had.
        """
        authenticator = _authenticator(arguments)
        step = await authenticator.step(None)
        return Login(arguments, authenticator, step[0])

    async def again(self) -> "Login":
        """Begin the same login once more, with a token that is valid then."""
        return await Login.begin(self._arguments)

    async def next_step(self, challenge: bytes) -> bytes | None:
        """What to send next; None when the login is complete.

        Raises:
            SaslAuthenticationFailed: the broker refuses the login, or what it said makes no sense.
        """
        try:
            step = await self._authenticator.step(challenge)
        except (AssertionError, KeyError, ValueError) as error:  # raised by aiokafka's authenticators
            raise SaslAuthenticationFailed(f"its SASL message is invalid: {str(error) or repr(error)}") from error
        return None if step is None else step[0]


class _Bearer:
    """The steps of OAUTHBEARER (RFC 7628). aiokafka's class takes a refusal, which comes as a challenge, for success."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._refusal = ""

    async def step(self, challenge: bytes | None) -> tuple[bytes, bool] | None:
        if challenge is None:
            pairs = {"auth": f"Bearer {await self._provider.token()}", **self._provider.extensions()}
            text = "\x01".join(f"{name}={value}" for name, value in pairs.items())
            return f"n,,\x01{text}\x01\x01".encode(), True
        if self._refusal:
            raise SaslAuthenticationFailed(self._refusal)
        self._refusal = challenge.decode(errors="replace")
        return (b"\x01", True) if self._refusal else None


def _authenticator(login: dict[str, Any]) -> Any:
    mechanism = login["sasl_mechanism"]
    if mechanism == "OAUTHBEARER":
        return _Bearer(login["sasl_oauth_token_provider"])
    user = {key: login[key] for key in ("sasl_plain_username", "sasl_plain_password")}
    loop = asyncio.get_running_loop()
    if mechanism == "PLAIN":
        return SaslPlainAuthenticator(loop=loop, **user)
    return ScramAuthenticator(loop=loop, sasl_mechanism=mechanism, **user)
