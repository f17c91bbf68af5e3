"""How to connect to Kafka by ``[kafka]``, and in words why it did not work."""

import asyncio
import ssl
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from aiokafka.errors import (
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from bridge.config import Kafka
from bridge.errors import BridgeError, ConfigurationError, ConnectionEnded
from bridge.kafka.credentials import TokenProvider, secret
from bridge.network import client_context

# OpenSSL's codes of a certificate whose authority is not in the file: no other failed check is about that file.
_UNKNOWN_AUTHORITY: Final = {2, 18, 19, 20, 21}


def client_arguments(settings: Kafka) -> dict[str, Any]:
    """Arguments for connecting, of any of aiokafka's clients; mounted files are read anew.

    Raises:
        ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
    }
    if "SSL" in settings.security_protocol:
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            arguments["sasl_oauth_token_provider"] = TokenProvider(settings)
        else:
            arguments["sasl_plain_username"] = settings.sasl_plain_username
            arguments["sasl_plain_password"] = secret(settings, "sasl_plain_password")
    return arguments


class MountedFiles:
    """The files a connection is made with, which may be changed while the bridge runs: certificates, keys, passwords.

    Their contents are compared, so that it makes no difference how they are changed: in place, by another file's taking
    the name, or by the link that Kubernetes swaps. Files for OAUTHBEARER are not among them: they are read for each token, and
    connections get a new token when their login is renewed.

    Args:
        settings: ``[kafka]``.
    """

    def __init__(self, settings: Kafka) -> None:
        keys = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password_file", "sasl_plain_password_file")
        self._paths = [Path(getattr(settings, key)) for key in keys if getattr(settings, key)]
        self._seen = self._digests()

    async def changed(self) -> bool:
        """Whether any is other than it was when this was last asked. Reads them, in a thread: a mount may be slow."""
        if not self._paths:
            return False
        before, self._seen = self._seen, await asyncio.to_thread(self._digests)
        return before != self._seen

    def _digests(self) -> list[bytes]:
        return [self._digest(path) for path in self._paths]

    def _digest(self, path: Path) -> bytes:
        try:
            return sha256(path.read_bytes()).digest()
        except OSError:
            return b""  # that it can't be read is said by whoever wants to use it


def _ssl_context(settings: Kafka) -> ssl.SSLContext:
    try:
        context = client_context(settings.ssl_cafile)
        if settings.ssl_certfile:
            # "" rather than None, with which an encrypted key would ask for its passphrase at a terminal
            password = secret(settings, "ssl_password")
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None, password)
    except OSError as error:  # ssl.SSLError is one
        keys = "kafka.ssl_cafile, kafka.ssl_certfile, kafka.ssl_keyfile, kafka.ssl_password"
        raise ConfigurationError(
            f"{keys}: they can't be used together: {error}; correct the one that is wrong"
        ) from error
    context.check_hostname = settings.ssl_check_hostname
    return context


def reason(error: BaseException) -> str:  # noqa: PLR0911 - an answer for each kind
    """Why a connection failed, and which key to look at where that can be told."""
    if isinstance(error, ConnectionEnded):
        return f"{error}; look at kafka.security_protocol and kafka.ssl_certfile"
    if isinstance(error, BridgeError):
        return str(error)
    cause = error.__cause__ if isinstance(error, KafkaConnectionError) and error.__cause__ is not None else error
    for kind, words in _WORDS:
        if isinstance(cause, kind):
            return words
    if isinstance(cause, ssl.SSLCertVerificationError):
        message = cause.verify_message.rstrip(".")
        if "mismatch" in message or "not valid for" in message:
            where = "kafka.bootstrap_servers and advertised.listeners"
        else:
            where = (
                "kafka.ssl_cafile"
                if cause.verify_code in _UNKNOWN_AUTHORITY
                else "that certificate, and the clock here"
            )
        return f"the broker's certificate is refused: {message}; look at {where}"
    if isinstance(cause, SaslAuthenticationFailed):
        said = cause.args[0] if cause.args and cause.args[0] else "authentication failed"
        keys = "kafka.sasl_plain_username and its password, or kafka.sasl_oauth and its keys"
        return f"the broker refuses the login: {said}; look at {keys}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}; look at kafka.security_protocol and kafka.ssl_certfile"
    return str(cause) or repr(cause)


_WORDS: Final[list[tuple[type[BaseException], str]]] = [
    (UnsupportedSaslMechanismError, "the broker does not offer kafka.sasl_mechanism on this listener"),
    *(
        (kind, "the broker hung up; look at kafka.security_protocol and kafka.ssl_certfile")
        for kind in (KafkaConnectionError, ConnectionResetError, EOFError)
    ),
    (TimeoutError, "no answer in time"),
]
