"""Settings: typed, documented once, and refused with words when they are wrong.

Every key stands in ``bridge.toml`` with its default; the comment above it is its documentation, and is quoted when a value is
refused. Sources, each overriding the one before: the packaged ``bridge.toml``, ``--config FILE``, the environment
(``BRIDGE_SECTION__KEY``), ``--set section.key=value``.
"""

from bridge.config.access import CALLBACK_PATH, Network, networks, path_secrets, tokens
from bridge.config.secrets import SECRET_KEYS, read_secret_file
from bridge.config.sections import (
    Access,
    Delivery,
    Events,
    Kafka,
    Limits,
    Log,
    Registry,
    Server,
    Settings,
    Spool,
    Topics,
)
from bridge.config.sources import ENVIRONMENT_PREFIX, Loaded, Value, data_directory, documentation, load

__all__ = [
    "CALLBACK_PATH",
    "ENVIRONMENT_PREFIX",
    "SECRET_KEYS",
    "Access",
    "Delivery",
    "Events",
    "Kafka",
    "Limits",
    "Loaded",
    "Log",
    "Network",
    "Registry",
    "Server",
    "Settings",
    "Spool",
    "Topics",
    "Value",
    "data_directory",
    "documentation",
    "load",
    "networks",
    "path_secrets",
    "read_secret_file",
    "tokens",
]
