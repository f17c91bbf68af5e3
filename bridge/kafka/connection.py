"""How to connect to Kafka by ``[kafka]``, and in words why it did not work."""

import asyncio
import socket
import ssl
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.helpers import create_ssl_context

from bridge.config import Kafka, read_secret_file
from bridge.errors import BridgeError, ConfigurationError, ConnectionEnded
from bridge.kafka.wire import CONNECTION_FAILURES, connect

# For all bootstrap servers, which are tried at once.
_WHY_SECONDS: Final = 5.0


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """OAUTHBEARER token from a mounted file, read for each connection so that it can be renewed beside the bridge."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings

    async def token(self) -> str:
        return oauth_token(self._settings)


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
            arguments["sasl_oauth_token_provider"] = _TokenFile(settings)
        else:
            arguments["sasl_plain_username"] = settings.sasl_plain_username
            arguments["sasl_plain_password"] = secret(settings, "sasl_plain_password")
    return arguments


class MountedFiles:
    """The files a connection is made with, which may be changed while the bridge runs: certificates, keys, passwords.

    Their contents are compared, so that it makes no difference how they are changed: in place, by another file's taking
    the name, or by the link that Kubernetes swaps.

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


def secret(settings: Kafka, key: str) -> str:
    """A secret of ``[kafka]`` that stands in the key itself, or in the file that ``{key}_file`` names.

    Raises:
        ConfigurationError: the file can't be read, or there is nothing in it.
    """
    written: str = getattr(settings, key)
    path: str = getattr(settings, f"{key}_file")
    if written or not path:
        return written
    text = read_secret_file(path, f"kafka.{key}_file")
    if not text:
        raise ConfigurationError(f"kafka.{key}_file: {path} is empty; write the secret there")
    return text


def oauth_token(settings: Kafka) -> str:
    """What ``kafka.sasl_oauth_token_file`` holds now, without the blanks around it.

    Raises:
        ConfigurationError: it can't be read, or there is nothing in it.
    """
    path, key = settings.sasl_oauth_token_file, "kafka.sasl_oauth_token_file"
    text = read_secret_file(path, key).strip()
    if not text:
        raise ConfigurationError(f"{key}: {path} is empty; write the token there")
    return text


def _ssl_context(settings: Kafka) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.ssl_cafile or None,
            certfile=settings.ssl_certfile or None,
            keyfile=settings.ssl_keyfile or None,
            # "" rather than None, with which an encrypted key would ask for its passphrase at a terminal
            password=secret(settings, "ssl_password"),
        )
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
    if isinstance(cause, socket.gaierror):
        keys = "kafka.bootstrap_servers, advertised.listeners and DNS (in the chart: networkPolicy.dnsPorts)"
        return f"DNS gives no address for this name ({cause.strerror}); look at {keys}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        of_the_name = "mismatch" in cause.verify_message or "not valid for" in cause.verify_message
        key = "kafka.bootstrap_servers and advertised.listeners" if of_the_name else "kafka.ssl_cafile"
        return f"the broker's certificate is refused: {cause.verify_message.rstrip('.')}; look at {key}"
    if isinstance(cause, SaslAuthenticationFailed):
        said = cause.args[0] if cause.args and cause.args[0] else "authentication failed"
        keys = "kafka.sasl_plain_username and its password, or kafka.sasl_oauth_token_file"
        return f"the broker refuses the login: {said}; look at {keys}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}; look at kafka.security_protocol and kafka.ssl_certfile"
    return str(cause) or repr(cause)


async def why_unreachable(settings: Kafka) -> str:
    """Connect to each bootstrap server once, and say for each why that fails: ``host:port: why; host:port: why``.

    aiokafka's clients only say that they could not start.

    Raises:
        ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
    """
    arguments = client_arguments(settings)

    async def why(host: str, port: int) -> str:
        try:
            connection = await connect(host, port, arguments, _WHY_SECONDS)
        except ConfigurationError:
            raise
        except CONNECTION_FAILURES as error:
            return f"{host}:{port}: {reason(error)}"
        connection.abort("not used")
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = {address[4][0] for address in found}
        if len(addresses) > 1:  # aiokafka's clients spend all their time on the first
            which = f"one of its {len(addresses)} addresses takes a connection now"
            return f"{host}:{port}: {which}; see that each of them can be reached, and try again"
        return f"{host}:{port}: a connection can be made now; try again"

    servers = collect_hosts(settings.bootstrap_servers, randomize=False)
    return "; ".join(await asyncio.gather(*(why(host, port) for host, port, _ in servers)))


_WORDS: Final[list[tuple[type[BaseException], str]]] = [
    (UnsupportedSaslMechanismError, "the broker does not offer kafka.sasl_mechanism on this listener"),
    (ClusterAuthorizationFailedError, "no ACL lets this user write to a topic; see `chatapp-bridge topics acls`"),
    *(
        (kind, "the broker hung up; look at kafka.security_protocol and kafka.ssl_certfile")
        for kind in (KafkaConnectionError, ConnectionResetError, EOFError)
    ),
    (TimeoutError, "no answer in time"),
]
