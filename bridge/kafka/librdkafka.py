"""``[kafka]`` in librdkafka's words, for the commands whose clients are its own. The service itself has no part of it."""

from typing import Any

from bridge.config import Kafka
from bridge.kafka.connection import client_arguments
from bridge.kafka.credentials import secret

_CONNECT_MS = 10_000
# Hosted services close connections that are idle for four minutes.
_IDLE_MS = 180_000


def librdkafka_arguments(settings: Kafka) -> dict[str, Any]:
    """Arguments for connecting, of any of confluent_kafka's clients: the brokers, TLS, SASL.

    Raises:
        ConfigurationError: a mounted secret can't be read, a certificate or key can't be used.
    """
    checked = client_arguments(settings)  # the same refusals, in the same words
    arguments: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.bootstrap_servers),
        "client.id": settings.client_id,
        "security.protocol": settings.security_protocol,
        # Of one address of a name, before the next one is tried; the library's own limit is 30 s.
        "socket.connection.setup.timeout.ms": _CONNECT_MS,
        "connections.max.idle.ms": _IDLE_MS,
    }
    if "SSL" in settings.security_protocol:
        files = {
            "ssl.ca.location": settings.ssl_cafile,
            "ssl.certificate.location": settings.ssl_certfile,
            "ssl.key.location": settings.ssl_keyfile or settings.ssl_certfile,
            "ssl.key.password": secret(settings, "ssl_password"),
        }
        arguments |= {name: value for name, value in files.items() if value}
        arguments["ssl.endpoint.identification.algorithm"] = "https" if settings.ssl_check_hostname else "none"
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl.mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            arguments["oauth_cb"] = checked["sasl_oauth_token_provider"].for_librdkafka
        else:
            arguments["sasl.username"] = checked["sasl_plain_username"]
            arguments["sasl.password"] = checked["sasl_plain_password"]
    return arguments
