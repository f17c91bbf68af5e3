"""What no single key shows: values that contradict each other, and values of what is not there yet."""

import re
from collections.abc import Container, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bridge.config.access import CALLBACK_PATH, networks
from bridge.config.secrets import shown, without_credentials
from bridge.config.sections import LAST_PORT, Access, Kafka, Registry, Settings
from bridge.errors import ConfigurationError

# What a Produce request has beside its batches, from above.
_REQUEST_HEAD_BYTES = 1024
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")

# The keys of a token, by the value of kafka.sasl_oauth that uses each; and those that it can't do without.
_OAUTH_KEYS = {
    "sasl_oauth_token_file": "file",
    "sasl_oauth_token_endpoint": "oidc",
    "sasl_oauth_cafile": "oidc",
    "sasl_oauth_client_id": "oidc",
    "sasl_oauth_client_secret": "oidc",
    "sasl_oauth_client_secret_file": "oidc",
    "sasl_oauth_scope": "oidc",
    "sasl_oauth_aws_region": "aws_msk_iam",
}
_OAUTH_NEEDED = (
    ("sasl_oauth_token_file", "file", "mount the token and name its file"),
    ("sasl_oauth_token_endpoint", "oidc", "set the provider's address for tokens"),
    ("sasl_oauth_client_id", "oidc", "set it"),
    ("sasl_oauth_aws_region", "aws_msk_iam", "set the cluster's region"),
)


def contradictions(settings: Settings) -> Iterator[str]:
    """What no single key shows: values that contradict each other, and values of what is not there yet."""
    server, limits, kafka, delivery = settings.server, settings.limits, settings.kafka, settings.delivery
    if server.port and server.port == server.admin_port:
        yield f"server.admin_port: {server.admin_port} is server.port as well; take another"
    if f"{server.health_path}/".startswith(f"{CALLBACK_PATH}/"):
        yield f"server.health_path: {server.health_path} is the callback address or below it; take another, such as /healthz"
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
    if kafka.max_batch_bytes + _REQUEST_HEAD_BYTES > kafka.max_request_bytes:
        yield (
            f"kafka.max_request_bytes: {kafka.max_request_bytes} has no room for a batch of kafka.max_batch_bytes "
            f"({kafka.max_batch_bytes}) and the {_REQUEST_HEAD_BYTES} bytes around it; raise it, or lower that"
        )
    servers = [_SERVER.fullmatch(server) for server in kafka.bootstrap_servers]
    if not servers or not all(match and 0 < int(match[1]) <= LAST_PORT for match in servers):
        given = shown("kafka.bootstrap_servers", kafka.bootstrap_servers)
        yield f"kafka.bootstrap_servers: {given} is no list of host:port; give at least one"
    yield from _network_problems(settings.access)
    yield from _tls_contradictions(kafka)
    yield from _sasl_contradictions(kafka)
    yield from _registry_contradictions(settings.registry)


def _network_problems(access: Access) -> Iterator[str]:
    for key in ("allowed_networks", "trusted_proxies"):
        for entry in getattr(access, key):
            try:
                networks([entry], f"access.{key}")
            except ConfigurationError as error:
                yield str(error)


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
    unwanted += [] if token_wanted else [*_OAUTH_KEYS, "sasl_oauth_extensions"]
    chosen = f"sasl_mechanism is {kafka.sasl_mechanism}" if sasl else f"security_protocol is {kafka.security_protocol}"
    for key in unwanted:
        if getattr(kafka, key):
            yield f"kafka.{key}: is set but kafka.{chosen}; remove it, or choose what uses it"
    if token_wanted:
        yield from _oauth_contradictions(kafka)
    if password_wanted and not kafka.sasl_plain_username:
        yield f"kafka.sasl_plain_username: {kafka.sasl_mechanism} needs it; set it"
    if password_wanted and bool(kafka.sasl_plain_password) == bool(kafka.sasl_plain_password_file):
        yield (
            f"kafka.sasl_plain_password: {kafka.sasl_mechanism} needs a password from exactly one place; set "
            "kafka.sasl_plain_password or kafka.sasl_plain_password_file"
        )


def _oauth_contradictions(kafka: Kafka) -> Iterator[str]:
    for key, method in _OAUTH_KEYS.items():
        if getattr(kafka, key) and kafka.sasl_oauth != method:
            yield f"kafka.{key}: is set but kafka.sasl_oauth is {kafka.sasl_oauth}; remove it, or set that to {method}"
    for key, method, remedy in _OAUTH_NEEDED:
        if kafka.sasl_oauth == method and not getattr(kafka, key):
            yield f"kafka.{key}: OAUTHBEARER with kafka.sasl_oauth = {method} needs it; {remedy}"
    if kafka.sasl_oauth != "oidc":
        return
    endpoint, cafile = kafka.sasl_oauth_token_endpoint, kafka.sasl_oauth_cafile
    if endpoint and not _is_address(endpoint, {"http", "https"}):
        yield f"kafka.sasl_oauth_token_endpoint: {_masked(endpoint)} is not the address of an endpoint; give https://host/path"
    elif "@" in endpoint:
        yield f"kafka.sasl_oauth_token_endpoint: {_masked(endpoint)} carries credentials; set kafka.sasl_oauth_client_id"
    if cafile and not Path(cafile).is_file():
        yield f"kafka.sasl_oauth_cafile: there is no file {cafile}; mount it, or correct the path"
    if bool(kafka.sasl_oauth_client_secret) == bool(kafka.sasl_oauth_client_secret_file):
        yield (
            "kafka.sasl_oauth_client_secret: kafka.sasl_oauth = oidc needs a secret from exactly one place; set "
            "kafka.sasl_oauth_client_secret or kafka.sasl_oauth_client_secret_file"
        )


def _registry_contradictions(registry: Registry) -> Iterator[str]:
    yield from _url_problems(registry)
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
    if registry.proxy and not registry.urls:
        yield "registry.proxy: is set but registry.url is empty; set the address, or remove it"
    if registry.proxy and not _is_address(registry.proxy, {"http"}):
        yield f"registry.proxy: {_masked(registry.proxy)} is not the address of an HTTP proxy; give http://host:port, or http://user:password@host:port"
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


def _url_problems(registry: Registry) -> Iterator[str]:
    """Never with what may be a secret in an address."""
    # The whole text, as a password may hold the comma that separates two addresses.
    if "@" in registry.url:
        masked = _masked(registry.url).partition("?")[0]
        yield f"registry.url: {masked} carries credentials; set registry.username and registry.password, or registry.token"
        return
    for url in registry.urls:
        if not _is_address(url, {"http", "https"}):
            address = url.partition("?")[0]
            yield (
                f"registry.url: {address} is not the address of a registry; give http://host:port or https://host:port, "
                "with a path if it has one"
            )


def _masked(url: str) -> str:
    """The address without what may be credentials in it, also where ``//`` is missing."""
    before, at, host = url.rpartition("@")
    return f"<masked>@{host}" if at and "//" not in before else without_credentials(url)


def _is_address(url: str, schemes: Container[str]) -> bool:
    """Whether it has one of the schemes and a host, and no query."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and parts.hostname and parts.port != 0 and _VISIBLE.fullmatch(url)
    except ValueError:
        return False
    return bool(usable) and not (parts.query or parts.fragment)
