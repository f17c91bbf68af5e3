"""The Schema Registry's API, as Confluent defined it and others speak it too, over httpx.

Only what every registry answers alike is used: a subject without a compatibility level of its own may answer
404 or the default, the global level may be anything, and messages on incompatibility may be missing.
"""

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from bridge.config import Registry, read_secret_file
from bridge.errors import ConfigurationError, RegistryError, RegistryUnavailable
from bridge.network import causes, client_context, why_unresolved

_T = TypeVar("_T")
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_ANSWER_BYTES = 16 * 1024 * 1024

# The API's own codes, behind the HTTP status.
SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND, NO_LEVEL_OF_ITS_OWN = 40401, 40402, 40403, 40408
_ABSENT = frozenset({SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND, NO_LEVEL_OF_ITS_OWN})
_TROUBLED = frozenset({408, 425, 429})
_FIRST_TROUBLE = 500


def subject_of(topic: str) -> str:
    """Where a registry keeps the schema of a topic's values, unless told otherwise."""
    return f"{topic}-value"


@dataclass(frozen=True)
class Registered:
    """A schema as one subject has it: the registry's id of it, and its version there."""

    id: int
    version: int


class RegistryClient:
    """Asks a registry; one for as many requests as there are, in one event loop.

    Every call raises:
        RegistryUnavailable: No address answered in time, or each is in trouble: trying again can help.
        RegistryError: The registry refuses (credentials, compatibility, an unusable schema), isn't trusted,
            or what answers is none. The message names the address, the subject where there is one, and what to do.
    """

    def __init__(self, settings: Registry) -> None:
        """Read certificates and credentials; nothing is asked yet.

        Raises:
            ConfigurationError: There is no address, or a file can't be used; names the key.
        """
        if not settings.urls:
            raise ConfigurationError("registry.url: is empty; set the address of a Schema Registry")
        self._settings = settings
        self._authorization()  # Read once now, so that a missing file stops the start.
        self._http = httpx.AsyncClient(
            verify=_ssl_context(settings),
            timeout=settings.timeout_seconds,
            trust_env=False,  # a proxy of the environment is nothing that the configuration shows
            proxy=settings.proxy or None,
        )

    async def __aenter__(self) -> Self:
        """Nothing is to be done yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def lookup(self, subject: str, schema: str) -> int | None:
        """The id of a schema registered under a subject; None where it isn't. Registers nothing."""
        found = await self.find(subject, schema)
        return None if found is None else found.id

    async def find(self, subject: str, schema: str) -> Registered | None:
        """Id and version of a schema registered under a subject; None where it isn't. Registers nothing."""
        answer = await self._ask("POST", f"/subjects/{_part(subject)}", subject, {"schema": _compact(schema)})
        if answer is None:
            return None
        name = self._named(subject)
        return Registered(_field(answer, "id", int, name), _field(answer, "version", int, name))

    async def register(self, subject: str, schema: str) -> int:
        """Register a schema under a subject, once however often it is called; its id."""
        body = {"schema": _compact(schema)}
        answer = await self._ask("POST", f"/subjects/{_part(subject)}/versions", subject, body)
        if answer is None:
            raise RegistryError(f"{self._named(subject)}: the registry would not make the subject; look at its log")
        return _field(answer, "id", int, self._named(subject))

    async def versions(self, subject: str) -> list[int]:
        """The versions under a subject, oldest first; none where there is no such subject."""
        answer = await self._ask("GET", f"/subjects/{_part(subject)}/versions", subject)
        if answer is None:
            return []
        if not isinstance(answer, list) or not all(isinstance(version, int) for version in answer):
            raise _no_registry(self._named(subject), "its list of versions is none")
        return sorted(answer)

    async def schema_by_version(self, subject: str, version: int) -> str | None:
        """The schema that a version is, as the registry keeps it; None where there is no such version."""
        answer = await self._ask("GET", f"/subjects/{_part(subject)}/versions/{version}", subject)
        return None if answer is None else _field(answer, "schema", str, self._named(subject))

    async def schema_by_id(self, schema_id: int) -> str | None:
        """The schema of an id, as the registry keeps it; None where there is no such id."""
        answer = await self._ask("GET", f"/schemas/ids/{schema_id}", "")
        return None if answer is None else _field(answer, "schema", str, self._named(""))

    async def compatible(self, subject: str, schema: str) -> list[str]:
        """What makes a schema incompatible with the versions under a subject, at the subject's level; [] if nothing.

        Which versions are looked at follows from the level: the last one, or (``…_TRANSITIVE``) all.
        Without any version nothing can be incompatible.
        """
        path = f"/compatibility/subjects/{_part(subject)}/versions?verbose=true"
        answer = await self._ask("POST", path, subject, {"schema": _compact(schema)})
        if answer is None or _field(answer, "is_compatible", bool, self._named(subject)):
            return []
        messages = [str(message) for message in answer.get("messages") or []]
        return messages or ["the registry finds it incompatible, and doesn't say why"]

    async def compatibility(self, subject: str = "") -> str:
        """The compatibility level of a subject's own, or (without a subject) of the whole registry; "" if it has none.

        A registry may answer the default, or NONE, where others say that there is none.
        """
        answer = await self._ask("GET", f"/config/{_part(subject)}" if subject else "/config", subject)
        return "" if answer is None else _field(answer, "compatibilityLevel", str, self._named(subject))

    async def set_compatibility(self, level: str, subject: str = "") -> bool:
        """Set the level of a subject, or (without one) of the whole registry.

        Returns:
            Whether it is set: some registries refuse it for a subject that has no version yet.
        """
        path = f"/config/{_part(subject)}" if subject else "/config"
        return await self._ask("PUT", path, subject, {"compatibility": level}) is not None

    async def _ask(self, method: str, path: str, subject: str, body: Mapping[str, str] | None = None) -> Any:
        """The answer's JSON, of the first address that is well; None where the registry has no such thing."""
        failures: list[RegistryUnavailable] = []
        for url in self._settings.urls:
            try:
                return await self._ask_one(url, method, path, _named(url, subject), body)
            except RegistryUnavailable as failure:
                failures.append(failure)
        if len(failures) == 1:
            raise failures[0]
        raise RegistryUnavailable("; ".join(str(failure) for failure in failures))

    async def _ask_one(self, url: str, method: str, path: str, name: str, body: Mapping[str, str] | None) -> Any:
        try:
            headers = self._authorization()
        except ConfigurationError as error:  # A mounted secret may be on its way.
            raise RegistryUnavailable(str(error)) from error
        headers["Accept"] = f"{MEDIA_TYPE}, application/json"
        if body is not None:
            headers["Content-Type"] = MEDIA_TYPE
        content = None if body is None else json.dumps(body)
        timeout = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(timeout):
                async with self._http.stream(method, url + path, headers=headers, content=content) as response:
                    answer = await _read(response, name)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RegistryUnavailable(
                f"{name}: no answer within {timeout:g} s; see that it is well, or raise registry.timeout_seconds"
            ) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            proxy = self._settings.proxy
            asked, key = (proxy, "registry.proxy") if proxy else (url, "registry.url")
            raise _not_reached(name, error, urlsplit(asked).hostname or "", key) from error
        return _result(response, answer, name)

    def _authorization(self) -> dict[str, str]:
        settings = self._settings
        if settings.username:
            password = settings.password or read_secret_file(settings.password_file, "registry.password_file")
            pair = base64.b64encode(f"{settings.username}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        token = settings.token
        if settings.token_file:
            token = read_secret_file(settings.token_file, "registry.token_file").strip()
            if not token.isascii() or not token.isprintable() or not token or " " in token:
                raise ConfigurationError(
                    f"registry.token_file: {settings.token_file} holds no token; write one into it"
                )
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _named(self, subject: str) -> str:
        return _named(self._settings.url, subject)


def _named(url: str, subject: str) -> str:
    return f"registry {url}, subject {subject}" if subject else f"registry {url}"


def _part(subject: str) -> str:
    return quote(subject, safe="")


def _compact(schema: str) -> str:
    """The schema without its layout, which some registries would take for another schema."""
    return json.dumps(json.loads(schema), ensure_ascii=False, separators=(",", ":"))


async def _read(response: httpx.Response, name: str) -> bytes:
    content = b""
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise _no_registry(name, f"it answers with more than {MAX_ANSWER_BYTES} bytes")
    return content


def _result(response: httpx.Response, content: bytes, name: str) -> Any:
    """What an answer means: its JSON, None for what isn't there, else an error with words."""
    status = response.status_code
    try:
        answer = json.loads(content)
    except ValueError:  # also what is no UTF-8
        answer = None
    if response.is_success and answer is not None:
        return answer
    described = answer if isinstance(answer, dict) else {}
    code, message = described.get("error_code"), str(described.get("message") or "")[:1000]
    if status == httpx.codes.NOT_FOUND and code in _ABSENT:
        return None
    # 404 as a code says, with the registry's own words, that there is no such path.
    spoken = code is not None and code != httpx.codes.NOT_FOUND
    raise _refused(name, status, f"{status} {message}".strip(), answered_as_registry=spoken)


def _refused(  # noqa: PLR0911 - an answer for each kind
    name: str, status: int, said: str, *, answered_as_registry: bool
) -> RegistryError:
    """The error that a status means, with the registry's words."""
    if status == httpx.codes.UNAUTHORIZED:
        return RegistryError(
            f"{name}: refuses the credentials ({said}); correct registry.username and registry.password, or registry.token"
        )
    if status == httpx.codes.FORBIDDEN:
        return RegistryError(f"{name}: these credentials may not do this ({said}); have them allowed it")
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return RegistryUnavailable(f"{name}: the proxy refuses ({said}); look at registry.proxy")
    if status in _TROUBLED or status >= _FIRST_TROUBLE:
        return RegistryUnavailable(f"{name}: is in trouble ({said}); try again, and look at its log")
    if not answered_as_registry:
        return _no_registry(
            name, f"it answers {said}" if status >= httpx.codes.MULTIPLE_CHOICES else "it gives no JSON"
        )
    if status == httpx.codes.CONFLICT:
        return RegistryError(
            f"{name}: the schema is not compatible ({said}); `chatapp-bridge schema check` says with what"
        )
    return RegistryError(f"{name}: refuses ({said}); correct what it names")


def _no_registry(name: str, what: str) -> RegistryError:
    return RegistryError(f"{name}: is no Schema Registry: {what}; correct registry.url, with its path")


def _field(answer: Any, field: str, kind: type[_T], name: str) -> _T:
    value = answer.get(field) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise _no_registry(name, f"there is no {field} in its answer")
    return value


def _not_reached(name: str, error: httpx.RequestError | httpx.InvalidURL, host: str, key: str) -> RegistryError:
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return RegistryUnavailable(f"{name}: {why_unresolved(host, cause, key)}")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(
                f"{name}: its certificate is not trusted ({cause.verify_message}); set registry.ssl_cafile to who signed "
                "it, or correct the host name"
            )
        if isinstance(cause, ssl.SSLError):
            return RegistryError(
                f"{name}: no TLS connection ({cause.reason or cause}); see that it speaks TLS there, and whether it wants "
                "registry.ssl_certfile"
            )
    if isinstance(error, httpx.ProxyError):
        return RegistryUnavailable(f"{name}: the proxy refuses ({error}); look at registry.proxy")
    if not isinstance(error, httpx.TransportError) or isinstance(error, httpx.LocalProtocolError):
        return _no_registry(name, f"it can't be talked to ({error})")
    return RegistryUnavailable(
        f"{name}: can't be reached ({str(error) or type(error).__name__}); see that it runs, and {key}"
    )


def _ssl_context(settings: Registry) -> ssl.SSLContext:
    try:
        context = client_context(settings.ssl_cafile)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"registry.ssl_cafile: {settings.ssl_cafile} can't be used ({error}); give certificates as PEM"
        ) from error
    if settings.ssl_certfile:
        try:
            # Without a passphrase an encrypted key is refused, never asked for on a terminal.
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None, lambda: settings.ssl_password)
        except OSError as error:
            keys = "registry.ssl_certfile, registry.ssl_keyfile, registry.ssl_password"
            raise ConfigurationError(f"{keys}: can't be used together ({error}); correct them") from error
    context.check_hostname = settings.ssl_check_hostname
    return context
