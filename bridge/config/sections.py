"""The sections of the configuration and the types of their keys. What a key means is the comment above it in ``bridge.toml``."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridge.config.secrets import without_credentials

_TOPIC = r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$"
_HEALTH_PATH = r"^(?:(?:/[A-Za-z0-9._~-]+)+|/)?$"
_URI_REFERENCE = r"^(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+$"
# RFC 7628, 3.1; "auth" is the token's own.
_SASL_EXTENSION = r"^(?!auth=)[A-Za-z]+=[\x20-\x7e]*$"

LAST_PORT = 65535

Port = Annotated[int, Meta(ge=0, le=LAST_PORT)]
Bytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=600)]
PerSecond = Annotated[float, Meta(ge=0, le=1_000_000)]
TopicName = Annotated[str, Meta(pattern=_TOPIC)]


class Server(msgspec.Struct, frozen=True):
    """``[server]``."""

    host: str
    port: Port
    admin_host: str
    admin_port: Port
    health_path: Annotated[str, Meta(pattern=_HEALTH_PATH)]
    admin_token_file: str
    backlog: Annotated[int, Meta(ge=1, le=65535)]
    shutdown_seconds: Seconds


class Access(msgspec.Struct, frozen=True):
    """``[access]``; ``secrets`` joins both places."""

    path_secrets: list[str]
    path_secrets_file: str
    allow_unauthenticated: bool
    allowed_networks: list[str]
    trusted_proxies: list[str]

    def __repr__(self) -> str:
        return f"Access(path_secrets=<{len(self.path_secrets)} masked>, allow_unauthenticated={self.allow_unauthenticated})"


class Limits(msgspec.Struct, frozen=True):
    """``[limits]``."""

    body_bytes: Bytes
    body_items: Annotated[int, Meta(ge=1)]
    in_flight_bytes: Bytes
    body_read_seconds: Seconds
    header_read_seconds: Annotated[float, Meta(gt=0, le=86_400)]
    header_bytes: Annotated[int, Meta(ge=1024)]
    header_count: Annotated[int, Meta(ge=8)]
    unauthenticated_per_second: PerSecond
    callbacks_per_second: PerSecond


class Kafka(msgspec.Struct, frozen=True):
    """``[kafka]``: by the names that Kafka's clients have for them."""

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
    sasl_oauth: Literal["file", "oidc", "aws_msk_iam"]
    sasl_oauth_token_file: str
    sasl_oauth_token_endpoint: str
    sasl_oauth_cafile: str
    sasl_oauth_client_id: str
    sasl_oauth_client_secret: str
    sasl_oauth_client_secret_file: str
    sasl_oauth_scope: str
    sasl_oauth_extensions: list[Annotated[str, Meta(pattern=_SASL_EXTENSION)]]
    sasl_oauth_aws_region: Annotated[str, Meta(pattern=r"^[a-z0-9-]*$")]
    idempotence: Literal["auto", "true", "false"]
    request_timeout_ms: Annotated[int, Meta(ge=100, le=60_000)]
    metadata_max_age_ms: Annotated[int, Meta(ge=1000, le=180_000)]
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"]
    max_record_bytes: Annotated[int, Meta(ge=16_384)]
    max_batch_bytes: Annotated[int, Meta(ge=16_384)]
    max_request_bytes: Annotated[int, Meta(ge=32_768)]

    def __repr__(self) -> str:
        return f"Kafka(bootstrap_servers={self.bootstrap_servers}, security_protocol={self.security_protocol})"


class Topics(msgspec.Struct, frozen=True):
    """``[topics]``."""

    status: TopicName
    quarantine: TopicName
    manage: Literal["bridge", "external"]
    file: str
    check: Literal["warn", "refuse"]
    check_seconds: Annotated[float, Meta(ge=1, le=86_400)]


class Events(msgspec.Struct, frozen=True):
    """``[events]``."""

    format: Literal["json", "avro"]
    source: Annotated[str, Meta(pattern=_URI_REFERENCE)]
    error_codes: str

    @property
    def own_error_codes(self) -> Path | None:
        """The operator's own file of error codes, if one is named."""
        return Path(self.error_codes) if self.error_codes else None


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
    proxy: str
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
        return f"Registry(url={without_credentials(self.url)})"


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
