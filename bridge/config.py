"""Settings: typed, documented once, and refused with words when they are wrong.

Every key stands in ``bridge.toml`` with its default; the comment above it is its documentation, and is quoted when a value is
refused. Sources, each overriding the one before: the packaged ``bridge.toml``, ``--config FILE``, the environment
(``BRIDGE_SECTION__KEY``), ``--set section.key=value``.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from bridge.errors import ConfigurationError

ENVIRONMENT_PREFIX = "BRIDGE_"
SECRET_KEYS = frozenset(
    {
        "access.path_secrets",
        "kafka.sasl_plain_password",
        "kafka.ssl_password",
        "registry.password",
        "registry.ssl_password",
        "registry.token",
    }
)

# What a secret may consist of: nothing that a URL escapes, so that it arrives as it was written.
_SECRET = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_TOPIC = r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$"
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_CREDENTIALS_IN_URL = re.compile(r"//.*@")
_URI_REFERENCE = r"^(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+$"
_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")

_LAST_PORT = 65535

Port = Annotated[int, Meta(ge=0, le=_LAST_PORT)]
Bytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=600)]
TopicName = Annotated[str, Meta(pattern=_TOPIC)]


class Server(msgspec.Struct, frozen=True):
    """``[server]``."""

    host: str
    port: Port
    admin_host: str
    admin_port: Port
    backlog: Annotated[int, Meta(ge=1, le=65535)]
    shutdown_seconds: Seconds


class Access(msgspec.Struct, frozen=True):
    """``[access]``; ``secrets`` joins both places."""

    path_secrets: list[str]
    path_secrets_file: str
    allow_unauthenticated: bool

    def __repr__(self) -> str:
        return f"Access(path_secrets=<{len(self.path_secrets)} masked>, allow_unauthenticated={self.allow_unauthenticated})"


class Limits(msgspec.Struct, frozen=True):
    """``[limits]``."""

    body_bytes: Bytes
    in_flight_bytes: Bytes
    body_read_seconds: Seconds
    header_read_seconds: Seconds
    header_bytes: Annotated[int, Meta(ge=1024)]
    header_count: Annotated[int, Meta(ge=8)]


class Kafka(msgspec.Struct, frozen=True):
    """``[kafka]``: aiokafka's settings, by its names."""

    bootstrap_servers: list[str]
    client_id: str
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    ssl_cafile: str
    ssl_certfile: str
    ssl_keyfile: str
    ssl_password: str
    ssl_password_file: str
    ssl_check_hostname: bool
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    sasl_plain_username: str
    sasl_plain_password: str
    sasl_plain_password_file: str
    sasl_oauth_token_file: str
    request_timeout_ms: Annotated[int, Meta(ge=100, le=60_000)]
    metadata_max_age_ms: Annotated[int, Meta(ge=1000)]
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"]
    max_record_bytes: Annotated[int, Meta(ge=16_384)]
    max_batch_bytes: Annotated[int, Meta(ge=16_384)]

    def __repr__(self) -> str:
        return f"Kafka(bootstrap_servers={self.bootstrap_servers}, security_protocol={self.security_protocol})"


class Topics(msgspec.Struct, frozen=True):
    """``[topics]``."""

    status: TopicName
    quarantine: TopicName
    file: str
    check: Literal["warn", "refuse"]
    check_seconds: Annotated[float, Meta(ge=1, le=86_400)]


class Events(msgspec.Struct, frozen=True):
    """``[events]``."""

    format: Literal["json", "avro"]
    source: Annotated[str, Meta(pattern=_URI_REFERENCE)]


class Delivery(msgspec.Struct, frozen=True):
    """``[delivery]``."""

    ack_deadline_seconds: Annotated[float, Meta(ge=0.1, le=60)]
    spool_after_ms: Annotated[int, Meta(ge=10)]
    producer_timeout_seconds: Seconds
    memory_bytes: Bytes


class Spool(msgspec.Struct, frozen=True):
    """``[spool]``."""

    enabled: bool
    directory: Annotated[str, Meta(min_length=1)]
    max_bytes: Annotated[int, Meta(ge=1_048_576)]
    min_free_bytes: Annotated[int, Meta(ge=0)]


class Registry(msgspec.Struct, frozen=True):
    """``[registry]``: a Schema Registry with Confluent's API."""

    url: str
    username: str
    password: str
    password_file: str
    token: str
    token_file: str
    ssl_cafile: str
    ssl_certfile: str
    ssl_keyfile: str
    ssl_password: str
    ssl_check_hostname: bool
    timeout_seconds: Seconds

    @property
    def urls(self) -> list[str]:
        """Every address, in the order in which they are tried, without a slash at the end."""
        return [part.strip().rstrip("/") for part in self.url.split(",") if part.strip()]

    def __repr__(self) -> str:
        return f"Registry(url={_CREDENTIALS_IN_URL.sub('//<masked>@', self.url)})"


class Log(msgspec.Struct, frozen=True):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "json", "console"]


class Settings(msgspec.Struct, frozen=True):
    """All sections."""

    server: Server
    access: Access
    limits: Limits
    kafka: Kafka
    topics: Topics
    events: Events
    delivery: Delivery
    spool: Spool
    registry: Registry
    log: Log


class Value(msgspec.Struct, frozen=True):
    """One effective value and the source it came from, as ``chatapp-bridge config`` prints it."""

    key: str
    value: Any
    source: str

    @property
    def shown(self) -> str:
        """The value as TOML-like text, secrets masked."""
        return _shown(self.key, self.value)

    def __repr__(self) -> str:
        return f"Value({self.key} = {self.shown}, from {self.source})"


class Loaded(msgspec.Struct, frozen=True):
    """The settings in force, and each value with its source."""

    settings: Settings
    values: list[Value]


def data_directory(name: str) -> Path:
    """The folder ``config`` or ``avro``: inside an installed wheel, else beside the package in a checkout."""
    packaged = Path(__file__).parent / "data" / name
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / name


def load(
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    *,
    serving: bool = False,
) -> Loaded:
    """Read all sources and check them together.

    Args:
        config_file: a TOML file with any of the keys.
        environment: in place of ``os.environ``.
        assignments: texts ``section.key=value``.
        serving: look at the secrets as well, which only ``serve`` needs.

    Raises:
        ConfigurationError: names every key that is wrong, unknown or contradicts another, and what to do.
    """
    hints = _hints()
    raw: dict[str, tuple[Any, str, bool]] = {}
    problems: list[str] = []
    typed = [
        *_from_file(data_directory("config") / "bridge.toml", "default"),
        *(_from_file(config_file, str(config_file)) if config_file else ()),
    ]
    texts = [
        *_from_environment(os.environ if environment is None else environment),
        *_from_assignments(assignments),
    ]
    for sources, is_text in ((typed, False), (texts, True)):
        for key, value, source in sources:
            if key in hints:
                raw[key] = (value, source, is_text)
            else:
                problems.append(f"{key} (from {source}): there is no such key; {_nearest(key, hints)}")
    values: dict[str, Value] = {}
    for key, hint in hints.items():
        if key not in raw:
            problems.append(f"{key}: has no value, not even a default")
            continue
        value, source, is_text = raw[key]
        try:
            values[key] = Value(key, _convert(value, hint, is_text=is_text), source)
        except msgspec.ValidationError as error:
            problems.append(_refusal(key, value, source, str(error)))
    if len(values) == len(hints):
        problems.extend(_contradictions(_assemble(values.values())))
    if serving:
        problems.extend(_access_problems(values))
    if problems:
        raise ConfigurationError("the configuration can't be used:\n" + "\n".join(f"  {line}" for line in problems))
    return Loaded(_assemble(values.values()), list(values.values()))


def documentation() -> dict[str, str]:
    """What ``bridge.toml`` says of each key: the comment above it, joined to one line."""
    documented: dict[str, str] = {}
    section, comment = "", []
    for line in (data_directory("config") / "bridge.toml").read_text().splitlines():
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
        elif match := re.match(r"\[(\w+)\]", line):
            section, comment = match[1], []
        elif match := re.match(r"(\w+) *=", line):
            documented[f"{section}.{match[1]}"] = " ".join(comment)
            comment = []
        else:
            comment = []
    return documented


def read_secret_file(path: str, key: str) -> str:
    """The text of a mounted secret, without its last line end.

    Raises:
        ConfigurationError: it can't be read; names the key and the path, never the content.
    """
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigurationError(
            f"{key}: can't read {path}: {reason}; mount the secret there, or correct the key"
        ) from error


def path_secrets(access: Access) -> list[str]:
    """All secrets in force, of both places.

    Raises:
        ConfigurationError: none, and not told to run open; or one is too weak or can't stand in a path.
    """
    secrets = [(secret, "access.path_secrets") for secret in access.path_secrets]
    if access.path_secrets_file:
        text = read_secret_file(access.path_secrets_file, "access.path_secrets_file")
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            raise ConfigurationError(
                f"access.path_secrets_file: there is no secret in {access.path_secrets_file}; write one a line, or leave the "
                "key empty"
            )
        secrets += [(line, "access.path_secrets_file") for line in lines]
    if not secrets and not access.allow_unauthenticated:
        raise ConfigurationError(
            "access.path_secrets: no secret is set, so anyone could publish; set one (access.path_secrets or "
            "access.path_secrets_file; `openssl rand -hex 24` makes one), or access.allow_unauthenticated=true to run open"
        )
    if secrets and access.allow_unauthenticated:
        raise ConfigurationError(
            "access.allow_unauthenticated: true contradicts the secrets that are set; remove one or the other"
        )
    for number, (secret, key) in enumerate(secrets, 1):
        if not _SECRET.fullmatch(secret):
            raise ConfigurationError(
                f"{key}: secret {number} of {len(secrets)} (masked, {len(secret)} characters) can't be "
                "used; take 16 to 256 characters of A-Z a-z 0-9 - . _ ~"
            )
    return [secret for secret, _ in secrets]


def _hints() -> dict[str, Any]:
    return {
        f"{section}.{key}": hint
        for section, struct in get_type_hints(Settings).items()
        for key, hint in get_type_hints(struct, include_extras=True).items()
    }


def _from_file(path: Path, source: str) -> Iterator[tuple[str, Any, str]]:
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"--config: can't read {path}: {error.strerror}; give a file that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config: {path} is no TOML: {error}; correct that line") from error
    for section, table in document.items():
        if not isinstance(table, dict):
            yield section, table, source
            continue
        for key, value in table.items():
            yield f"{section}.{key}", value, source


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name, value in sorted(environment.items()):
        section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")
        if name.startswith(ENVIRONMENT_PREFIX) and separator:
            yield f"{section.lower()}.{key.lower()}", value, f"environment {name}"


def _from_assignments(assignments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for number, assignment in enumerate(assignments, 1):
        key, separator, value = assignment.partition("=")
        if not separator:
            # What it is nobody knows; it could be a secret.
            raise ConfigurationError(f"--set: number {number} has no value; write --set section.key=value")
        yield key.strip(), value, "--set"


def _convert(value: Any, hint: Any, *, is_text: bool) -> Any:
    if is_text and _utf8(value) != value:
        raise msgspec.ValidationError("no UTF-8 text")
    if is_text and get_origin(hint) is list:
        value = [part.strip() for part in value.split(",") if part.strip()]
    # Texts (environment, --set) become numbers and booleans; a TOML value must have its type already.
    return msgspec.convert(value, hint, strict=not is_text)


def _assemble(values: Iterable[Value]) -> Settings:
    sections: dict[str, dict[str, Any]] = {}
    for value in values:
        section, key = value.key.split(".", 1)
        sections.setdefault(section, {})[key] = value.value
    return msgspec.convert(sections, Settings)


def _access_problems(values: Mapping[str, Value]) -> Iterator[str]:
    """Why the secrets can't be used, where their keys at least have values of the right types."""
    names = [field.name for field in msgspec.structs.fields(Access)]
    if all(f"access.{name}" in values for name in names):
        try:
            path_secrets(Access(**{name: values[f"access.{name}"].value for name in names}))
        except ConfigurationError as error:
            yield str(error)


def _contradictions(settings: Settings) -> Iterator[str]:
    """What no single key shows: values that contradict each other, and values of what is not there yet."""
    server, limits, kafka, delivery = settings.server, settings.limits, settings.kafka, settings.delivery
    if server.port and server.port == server.admin_port:
        yield f"server.admin_port: {server.admin_port} is server.port as well; take another"
    if limits.body_read_seconds >= delivery.ack_deadline_seconds:
        yield (
            f"limits.body_read_seconds: {limits.body_read_seconds} leaves no time before "
            f"delivery.ack_deadline_seconds ({delivery.ack_deadline_seconds}); lower it"
        )
    if delivery.spool_after_ms >= delivery.ack_deadline_seconds * 1000:
        yield (
            f"delivery.spool_after_ms: {delivery.spool_after_ms} is not below delivery.ack_deadline_seconds "
            f"({delivery.ack_deadline_seconds}), so that nothing could be spooled in time; lower it"
        )
    if limits.in_flight_bytes < limits.body_bytes:
        yield (
            f"limits.in_flight_bytes: {limits.in_flight_bytes} is less than limits.body_bytes ({limits.body_bytes}), "
            "so that the largest body would never be taken; raise it"
        )
    if settings.topics.status == settings.topics.quarantine:
        yield f"topics.quarantine: {settings.topics.quarantine} is topics.status as well; take another"
    servers = [_SERVER.fullmatch(server) for server in kafka.bootstrap_servers]
    if not servers or not all(match and 0 < int(match[1]) <= _LAST_PORT for match in servers):
        shown = _shown("kafka.bootstrap_servers", kafka.bootstrap_servers)
        yield f"kafka.bootstrap_servers: {shown} is no list of host:port; give at least one"
    yield from _tls_contradictions(kafka)
    yield from _sasl_contradictions(kafka)
    yield from _registry_contradictions(settings.registry)


def _tls_contradictions(kafka: Kafka) -> Iterator[str]:
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(kafka, key)
        if path and "SSL" not in kafka.security_protocol:
            yield f"kafka.{key}: {path} is set but kafka.security_protocol is {kafka.security_protocol}; use SSL or SASL_SSL"
        elif path and not Path(path).is_file():
            yield f"kafka.{key}: there is no file {path}; mount it, or correct the path"
    if kafka.ssl_keyfile and not kafka.ssl_certfile:
        yield "kafka.ssl_keyfile: a key without kafka.ssl_certfile; set both"
    for key in ("ssl_password", "ssl_password_file"):
        if getattr(kafka, key) and not kafka.ssl_certfile:
            yield f"kafka.{key}: a passphrase without kafka.ssl_certfile; set both"
    if kafka.ssl_password and kafka.ssl_password_file:
        yield "kafka.ssl_password: kafka.ssl_password_file is set as well; remove one or the other"


def _sasl_contradictions(kafka: Kafka) -> Iterator[str]:
    sasl = kafka.security_protocol.startswith("SASL")
    token_wanted = sasl and kafka.sasl_mechanism == "OAUTHBEARER"
    password_wanted = sasl and not token_wanted
    unwanted = [] if password_wanted else ["sasl_plain_username", "sasl_plain_password", "sasl_plain_password_file"]
    unwanted += [] if token_wanted else ["sasl_oauth_token_file"]
    chosen = f"sasl_mechanism is {kafka.sasl_mechanism}" if sasl else f"security_protocol is {kafka.security_protocol}"
    for key in unwanted:
        if getattr(kafka, key):
            yield f"kafka.{key}: is set but kafka.{chosen}; remove it, or choose what uses it"
    if token_wanted and not kafka.sasl_oauth_token_file:
        yield "kafka.sasl_oauth_token_file: OAUTHBEARER needs it; mount the token and name its file"
    if password_wanted and not kafka.sasl_plain_username:
        yield f"kafka.sasl_plain_username: {kafka.sasl_mechanism} needs it; set it"
    if password_wanted and bool(kafka.sasl_plain_password) == bool(kafka.sasl_plain_password_file):
        yield (
            f"kafka.sasl_plain_password: {kafka.sasl_mechanism} needs a password from exactly one place; set "
            "kafka.sasl_plain_password or kafka.sasl_plain_password_file"
        )


def _registry_contradictions(registry: Registry) -> Iterator[str]:
    for url in registry.urls:
        if problem := _url_problem(url):
            yield f"registry.url: {problem}"
    tls = any(url.startswith("https:") for url in registry.urls)
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(registry, key)
        if path and not tls:
            yield f"registry.{key}: {path} is set but registry.url has no https address; use one, or remove it"
        elif path and not Path(path).is_file():
            yield f"registry.{key}: there is no file {path}; mount it, or correct the path"
    for key in ("ssl_keyfile", "ssl_password"):
        if getattr(registry, key) and not registry.ssl_certfile:
            yield f"registry.{key}: is set without registry.ssl_certfile; set both"
    yield from _registry_credentials(registry)


def _registry_credentials(registry: Registry) -> Iterator[str]:
    given = [key for key in ("username", "password", "password_file", "token", "token_file") if getattr(registry, key)]
    if given and not registry.urls:
        yield f"registry.{given[0]}: is set but registry.url is empty; set the address, or remove it"
    if registry.token and registry.token_file:
        yield "registry.token_file: registry.token is set as well; keep one of them"
    if (registry.token or registry.token_file) and not given[0].startswith("token"):
        yield f"registry.{given[0]}: a token is set as well; keep a user name and password, or the token"
    elif registry.username and bool(registry.password) == bool(registry.password_file):
        yield (
            "registry.password: registry.username needs a password from exactly one place; set registry.password or "
            "registry.password_file"
        )
    elif given and given[0].startswith("password"):
        yield f"registry.{given[0]}: is set without registry.username; set both"
    if ":" in registry.username:
        yield "registry.username: has a colon, which basic authentication can't carry; take another"
    if registry.token and not _VISIBLE.fullmatch(registry.token):
        yield "registry.token: has a blank, a control character or one beyond ASCII, which no header can carry; correct it"


def _url_problem(url: str) -> str:
    """Why the address can't be used, or nothing; never shows what may be a secret in it."""
    shown = _CREDENTIALS_IN_URL.sub("//<masked>@", url).partition("?")[0]
    if shown != url.partition("?")[0]:
        return f"{shown} carries credentials; set registry.username and registry.password, or registry.token"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and _VISIBLE.fullmatch(url)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        return f"{shown} is no address of a registry; give http://host:port or https://host:port, with a path if it has one"
    return ""


def _refusal(key: str, value: Any, source: str, reason: str) -> str:
    reason = reason.removesuffix(" - at `$`").replace("Expected", "expected").replace("Invalid", "invalid")
    return f"{key} = {_shown(key, value)} (from {source}): {reason}. {documentation().get(key, '')}".rstrip()


def _utf8(text: str) -> str:
    r"""With ``\udcff`` for a byte ``ff`` of an argument or a variable that is no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _shown(key: str, value: Any) -> str:
    if key in SECRET_KEYS and value:
        return f"<{len(value)} masked>" if isinstance(value, list) else "<masked>"
    # Where somebody put a password into an address it is shown in nothing that is printed.
    text = _utf8(value) if isinstance(value, str) else value
    return _CREDENTIALS_IN_URL.sub("//<masked>@", msgspec.json.encode(text).decode())


def _nearest(key: str, hints: Mapping[str, Any]) -> str:
    section = key.split(".", 1)[0]
    siblings = [known for known in hints if known.startswith(f"{section}.")]
    if siblings:
        return "this section has " + ", ".join(known.split(".", 1)[1] for known in siblings)
    return "the sections are " + ", ".join(dict.fromkeys(known.split(".", 1)[0] for known in hints))
