"""What a login at Kafka needs: secrets from the configuration or from mounted files, and tokens for OAUTHBEARER.

A token comes from a file, from the token endpoint of an OIDC provider, or from AWS. The last two are kept, and shared by
all clients of the process, until four fifths of their life are over. If a new token can't be fetched then, clients get
the old one as long as it is valid.
"""

import asyncio
import base64
import json
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote_plus, urlsplit

import msgspec
from aiokafka.abc import AbstractTokenProvider

from bridge.config import Kafka, read_secret_file
from bridge.errors import BridgeError, ConfigurationError, KafkaUnavailable
from bridge.network import causes, client_context, why_unresolved
from bridge.threads import in_daemon_thread

if TYPE_CHECKING:
    import httpx

# The standard library's, which writes to standard error in commands too, where nobody configures structlog.
log = logging.getLogger(__name__)

# The file is read again after this time at the latest, whatever its token's own end is.
_FILE_SECONDS: Final = 60.0
# After this share of its life, a token is replaced.
_RENEW_SHARE: Final = 0.8
# A token that ends sooner is not used: its login would end at once.
_LEAST_SECONDS: Final = 1.0
# The shortest and the longest pause after a failed fetch.
_BACKOFF_SECONDS: Final = (0.5, 10.0)
# The limit for each step of a request to the endpoint, and for a fetch while a valid token is left; and for any fetch.
_STEP_SECONDS, _FETCH_SECONDS = 10.0, 20.0
# The life of a token if neither the endpoint nor the token says it.
_UNKNOWN_SECONDS: Final = 300.0
_MOST_SAID: Final = 300
_UNAUTHORIZED, _SERVER_ERROR = 401, 500
_BUSY: Final = {408, 425, 429}
_AWS_SIGNER: Final = "aws_msk_iam_sasl_signer"


def secret(settings: Kafka, key: str) -> str:
    """A secret of ``[kafka]`` from the key itself, or from the file that ``{key}_file`` names.

    Raises:
        ConfigurationError: the file can't be read, or is empty.
    """
    written: str = getattr(settings, key)
    path: str = getattr(settings, f"{key}_file")
    if written or not path:
        return written
    text = read_secret_file(path, f"kafka.{key}_file")
    if not text:
        raise ConfigurationError(f"kafka.{key}_file: {path} is empty; write the secret there")
    return text


class Token(NamedTuple):
    """A token, and when it ends, in the time of ``time.monotonic``."""

    text: str
    ends_at: float

    @property
    def seconds_left(self) -> float:
        """How long it is valid; negative if it is not."""
        return self.ends_at - time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether a login with it lasts for more than a moment."""
        return self.seconds_left > _LEAST_SECONDS


class TokenSource:
    """Keeps a token, and fetches the next one in time; may be called from any thread.

    Args:
        fetch: gets a new token.
    """

    def __init__(self, fetch: Callable[[], Token]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._token = Token("", float("-inf"))
        self._renew_at = self._retry_at = float("-inf")
        self._pause = _BACKOFF_SECONDS[0]
        self._failure: BridgeError | None = None

    def token(self) -> Token:
        """A valid token. Waits for a fetch only if there is none.

        Raises:
            ConfigurationError, KafkaUnavailable: there is no valid token, and no new one can be had.
        """
        current = self._token
        if time.monotonic() < self._renew_at or not self._lock.acquire(blocking=not current.usable):
            return current
        try:
            now = time.monotonic()
            if now >= self._renew_at and now >= self._retry_at:
                self._renew()
            if not self._token.usable and self._failure is not None:
                raise type(self._failure)(str(self._failure))
            return self._token
        finally:
            self._lock.release()

    def _renew(self) -> None:
        began, limit = time.monotonic(), _STEP_SECONDS if self._token.usable else _FETCH_SECONDS
        try:
            self._token = in_daemon_thread(self._fetch, "kafka-token").result(limit)
        except BridgeError as error:
            self._failed(error)
            return
        except TimeoutError:
            self._failed(KafkaUnavailable(f"no token came within {limit:g} s"))
            return
        self._failure, self._pause = None, _BACKOFF_SECONDS[0]
        self._renew_at = began + (self._token.ends_at - began) * _RENEW_SHARE
        log.info("kafka_token_fetched", extra={"valid_seconds": round(self._token.seconds_left)})

    def _failed(self, error: BridgeError) -> None:
        self._failure = error
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _BACKOFF_SECONDS[1])
        if self._token.usable:
            left = round(self._token.seconds_left)
            log.warning("kafka_token_not_renewed", extra={"error": str(error), "valid_seconds": left})


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Tokens and SASL extensions for OAUTHBEARER, as aiokafka and librdkafka ask for them.

    Args:
        settings: ``[kafka]``.

    Raises:
        ConfigurationError: ``kafka.sasl_oauth`` needs a package that is not installed.
    """

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        if settings.sasl_oauth == "aws_msk_iam" and find_spec(_AWS_SIGNER) is None:
            raise ConfigurationError(
                "kafka.sasl_oauth: aws_msk_iam needs a package that is not installed; install chatapp-bridge[msk], or "
                "build the image with --build-arg REQUIREMENTS=requirements/msk.txt"
            )

    async def token(self) -> str:
        """See aiokafka. In a thread: a mount or an endpoint may be slow."""
        return (await asyncio.wrap_future(in_daemon_thread(self.current, "kafka-login"))).text

    def extensions(self) -> dict[str, str]:
        """See aiokafka: what RFC 7628 sends with the token."""
        return dict(each.split("=", 1) for each in self._settings.sasl_oauth_extensions)

    def current(self) -> Token:
        """A valid token; waits for it.

        Raises:
            ConfigurationError, KafkaUnavailable: none can be had; says why.
        """
        settings = self._settings
        return _from_file(settings) if settings.sasl_oauth == "file" else _shared(settings).token()

    def for_librdkafka(self, _configuration: str) -> tuple[str, float, str, dict[str, str]]:
        """As ``oauth_cb`` returns it: the token, when it ends, whose it is (nobody reads that), its extensions."""
        token = self.current()
        return token.text, time.time() + token.seconds_left, "", self.extensions()


_sources: dict[bytes, TokenSource] = {}


def _shared(settings: Kafka) -> TokenSource:
    """The process's source for these settings."""
    fetch = partial(_from_aws, settings) if settings.sasl_oauth == "aws_msk_iam" else _TokenEndpoint(settings).fetch
    return _sources.setdefault(msgspec.msgpack.encode(settings), TokenSource(fetch))


# --- files and AWS ------------------------------------------------------------------------------------------------------


def _from_file(settings: Kafka) -> Token:
    path, key = settings.sasl_oauth_token_file, "kafka.sasl_oauth_token_file"
    text = read_secret_file(path, key).strip()
    if not text:
        raise ConfigurationError(f"{key}: {path} is empty; write the token there")
    return Token(text, time.monotonic() + _FILE_SECONDS)


def _from_aws(settings: Kafka) -> Token:
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 - the package is an extra

    try:
        text, ends_ms = MSKAuthTokenProvider.generate_auth_token(settings.sasl_oauth_aws_region)
    except AttributeError as error:  # the signer's, where there are no credentials
        raise KafkaUnavailable(
            "AWS has no credentials for this process; give it a role (IRSA, EKS Pod Identity, an instance profile) or "
            "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except Exception as error:
        raise KafkaUnavailable(f"AWS gives no credentials: {error}; look at the role of this process") from error
    return Token(text, time.monotonic() + ends_ms / 1000 - time.time())


# --- the token endpoint of an OIDC provider -----------------------------------------------------------------------------


class _TokenEndpoint:
    """Asks for tokens with the client's credentials (RFC 6749, 4.4).

    The credentials go as HTTP Basic, which every provider has to take. If it refuses them, they go in the form.
    """

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._name = f"the token endpoint {settings.sasl_oauth_token_endpoint}"
        self._in_form = False

    def fetch(self) -> Token:
        """Get a token.

        Raises:
            ConfigurationError: the endpoint refuses the client, or is not to be trusted.
            KafkaUnavailable: it can't be reached, is in trouble, or its answer has no token.
        """
        began, password = time.monotonic(), secret(self._settings, "sasl_oauth_client_secret")
        response = self._ask(password)
        if response.status_code == _UNAUTHORIZED or _answer(response).get("error") == "invalid_client":
            self._in_form = not self._in_form
            response = self._ask(password)
        answer = _answer(response)
        if not response.is_success:
            raise self._refusal(response.status_code, answer, password)
        text = answer.get("access_token")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text or " " in text:
            raise KafkaUnavailable(
                f"{self._name}: its answer has no access_token; correct kafka.sasl_oauth_token_endpoint"
            )
        return Token(text, began + _life(answer.get("expires_in"), text))

    def _ask(self, password: str) -> "httpx.Response":
        import httpx  # noqa: PLC0415 - a tenth of a second for a few

        settings = self._settings
        form = {"grant_type": "client_credentials"}
        if settings.sasl_oauth_scope:
            form["scope"] = settings.sasl_oauth_scope
        basic: httpx.Auth | None = None
        if self._in_form:
            form |= {"client_id": settings.sasl_oauth_client_id, "client_secret": password}
        else:
            basic = httpx.BasicAuth(quote_plus(settings.sasl_oauth_client_id), quote_plus(password))
        try:
            # No proxy of the environment: the configuration does not show it.
            with httpx.Client(verify=self._context(), auth=basic, timeout=_STEP_SECONDS, trust_env=False) as http:
                return http.post(settings.sasl_oauth_token_endpoint, data=form, headers={"Accept": "application/json"})
        except httpx.TimeoutException as error:
            raise KafkaUnavailable(
                f"{self._name}: no answer within {_STEP_SECONDS:g} s; see that it is well"
            ) from error
        except httpx.HTTPError as error:
            raise self._not_reached(error) from error

    def _context(self) -> ssl.SSLContext:
        cafile = self._settings.sasl_oauth_cafile
        try:
            return client_context(cafile)
        except OSError as error:
            raise ConfigurationError(f"kafka.sasl_oauth_cafile: can't use {cafile}: {error}; correct it") from error

    def _not_reached(self, error: Exception) -> BridgeError:
        for cause in causes(error):
            if isinstance(cause, socket.gaierror):
                host = urlsplit(self._settings.sasl_oauth_token_endpoint).hostname or ""
                return KafkaUnavailable(
                    f"{self._name}: {why_unresolved(host, cause, 'kafka.sasl_oauth_token_endpoint')}"
                )
            if isinstance(cause, ssl.SSLCertVerificationError):
                return ConfigurationError(
                    f"{self._name}: its certificate is not trusted: {cause.verify_message}; look at kafka.sasl_oauth_cafile"
                )
        said = str(error) or type(error).__name__
        return KafkaUnavailable(f"{self._name}: can't be reached: {said}; look at kafka.sasl_oauth_token_endpoint")

    def _refusal(self, status: int, answer: Mapping[str, Any], password: str) -> BridgeError:
        said = " ".join(str(answer[key]) for key in ("error", "error_description") if answer.get(key))
        said = f"{status} {said.replace(password, '<masked>')[:_MOST_SAID]}".strip()
        if status >= _SERVER_ERROR or status in _BUSY:
            return KafkaUnavailable(f"{self._name} is in trouble ({said}); look at its log")
        if answer.get("error") == "invalid_scope":
            keys = "kafka.sasl_oauth_scope"
        elif status == _UNAUTHORIZED or answer.get("error") in {"invalid_client", "unauthorized_client"}:
            keys = "kafka.sasl_oauth_client_id and kafka.sasl_oauth_client_secret"
        else:
            keys = "kafka.sasl_oauth_token_endpoint"
        return ConfigurationError(f"{self._name} gives no token ({said}); correct {keys}")


def _answer(response: "httpx.Response") -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:  # also if it is not UTF-8
        return {}
    return answer if isinstance(answer, dict) else {}


def _life(expires_in: object, token: str) -> float:
    """How many seconds a token is valid: what the endpoint says, or else the token itself, if it is a JWT."""
    try:
        said = float(expires_in)  # type: ignore[arg-type]  # some providers send a text
    except (TypeError, ValueError):
        said = _life_in(token)
    return said if math.isfinite(said) else _UNKNOWN_SECONDS


def _life_in(token: str) -> float:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"]) - time.time()
    except (IndexError, KeyError, TypeError, ValueError):
        return _UNKNOWN_SECONDS
