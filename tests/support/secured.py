"""One broker as platform teams run them: TLS, SCRAM or client certificates, and an authorizer that allows nothing unasked.

``SCRAM``      SASL_SSL, SCRAM-SHA-512
``EXPIRING``   the same; a login is good for two seconds, then the broker hangs up
``EXPIRED``    SSL, its certificate has expired
``OTHER``      SSL, its certificate is another host's
``ASTRAY``     SSL, and told of by an address where nothing is
``TOKEN``      SASL_SSL, OAUTHBEARER; a login is good for two seconds, or as long as its token if that is less
``MTLS``       SSL, a client's certificate required; its common name is the user's name
``INTERNAL``   plaintext, a super user: for the tests' own hands
"""

import asyncio
import base64
import datetime as dt
import json
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from confluent_kafka.admin import ScramCredentialInfo as Info

from bridge.lab.embedded import EmbeddedKafka
from support.certificates import Authority, Certificate
from support.token_endpoint import CLIENT, SECRET, TokenEndpoint

SESSION_MS = 2000


class SecuredKafka:
    """The broker, its authority, and who may do what there.

    Args:
        directory: for certificates.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory, "the-authority")
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        expired = self._store(self.authority.server(expires=yesterday))
        other = self._store(self.authority.server("kafka.example.org"))
        scram = "scram-sha-512.sasl.jaas.config"
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
        self.kafka = EmbeddedKafka(
            listeners={
                "SCRAM": "SASL_SSL",
                "EXPIRING": "SASL_SSL",
                "EXPIRED": "SSL",
                "OTHER": "SSL",
                "ASTRAY": "SSL",
                "TOKEN": "SASL_SSL",
                "MTLS": "SSL",
            },
            properties={
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                f"listener.name.scram.{scram}": login,
                f"listener.name.expiring.{scram}": login,
                "listener.name.expiring.scram-sha-512.connections.max.reauth.ms": str(SESSION_MS),
                "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
                "listener.name.token.oauthbearer.sasl.jaas.config": f'{bearer} required unsecuredLoginStringClaim_sub="broker";',
                "listener.name.token.oauthbearer.connections.max.reauth.ms": str(SESSION_MS),
                "listener.name.mtls.ssl.client.auth": "required",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": self._store(self.authority.server()),
                **{f"listener.name.{name}.ssl.keystore.type": "PEM" for name in ("expired", "other")},
                "listener.name.expired.ssl.keystore.location": expired,
                "listener.name.other.ssl.keystore.location": other,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.authority.cafile),
                "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
        )

        self.kafka.nodes[0].advertised["ASTRAY"] = "127.0.0.1:1"

    def _store(self, certificate: Certificate) -> str:
        """As Kafka wants it: key and chain in one file."""
        store = certificate.certfile.with_suffix(".store.pem")
        store.write_bytes(certificate.keyfile.read_bytes() + certificate.certfile.read_bytes())
        return str(store)

    @property
    def internal(self) -> str:
        """Where the tests' own hands reach it."""
        return self.kafka.bootstrap("INTERNAL")

    def connecting(self, user: str, password: str, listener: str = "SCRAM") -> dict[str, Any]:
        """``[kafka]`` for a user who logs in by password."""
        return {
            "kafka.bootstrap_servers": self.kafka.bootstrap(listener),
            "kafka.security_protocol": "SASL_SSL",
            "kafka.ssl_cafile": self.authority.cafile,
            "kafka.sasl_mechanism": "SCRAM-SHA-512",
            "kafka.sasl_plain_username": user,
            "kafka.sasl_plain_password": password,
        }

    def by_token(self, file: Path) -> dict[str, Any]:
        """``[kafka]`` for a client who shows the token in that file."""
        return {
            "kafka.bootstrap_servers": self.kafka.bootstrap("TOKEN"),
            "kafka.security_protocol": "SASL_SSL",
            "kafka.ssl_cafile": self.authority.cafile,
            "kafka.sasl_mechanism": "OAUTHBEARER",
            "kafka.sasl_oauth_token_file": file,
        }

    def by_client(self, endpoint: TokenEndpoint) -> dict[str, Any]:
        """``[kafka]`` for a client who gets its tokens from that endpoint."""
        return {
            **{key: value for key, value in self.by_token(Path()).items() if "token_file" not in key},
            "kafka.sasl_oauth": "oidc",
            "kafka.sasl_oauth_token_endpoint": endpoint.url,
            "kafka.sasl_oauth_cafile": self.authority.cafile,
            "kafka.sasl_oauth_client_id": CLIENT,
            "kafka.sasl_oauth_client_secret": SECRET,
            "kafka.sasl_oauth_extensions": "logicalCluster=lkc-1,identityPoolId=pool-2",
        }

    def by_certificate(
        self, certificate: Certificate | None, listener: str = "MTLS", **settings: Any
    ) -> dict[str, Any]:
        """``[kafka]`` for a client who shows this certificate, or none; ``settings`` over it."""
        shown = (
            {"kafka.ssl_certfile": certificate.certfile, "kafka.ssl_keyfile": certificate.keyfile}
            if certificate
            else {}
        )
        return {
            "kafka.bootstrap_servers": self.kafka.bootstrap(listener),
            "kafka.security_protocol": "SSL",
            "kafka.ssl_cafile": self.authority.cafile,
            **shown,
            **{f"kafka.{key}": value for key, value in settings.items()},
        }

    @cached_property
    def _admin(self) -> Any:
        return AdminClient({"bootstrap.servers": self.internal, "log_level": 0})

    async def set_password(self, user: str, password: str) -> None:
        """Make the user, or change the password."""
        upsertion = UserScramCredentialUpsertion(user, Info(ScramMechanism.SCRAM_SHA_512, 4096), password.encode())
        await _done(self._admin.alter_user_scram_credentials([upsertion]))

    async def forget(self, user: str) -> None:
        """The user can't log in any more."""
        await _done(
            self._admin.alter_user_scram_credentials([UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512)])
        )

    async def allow(self, rules: Iterable[AclBinding]) -> None:
        """Add rules."""
        await _done(self._admin.create_acls(list(rules)))

    async def disallow(self, rules: Iterable[AclBinding]) -> None:
        """Take back rules, each as it was given."""
        filters = [
            AclBindingFilter(
                rule.restype, rule.name, rule.resource_pattern_type, rule.principal, rule.host, rule.operation,
                rule.permission_type,
            )
            for rule in rules
        ]  # fmt: skip
        await _done(self._admin.delete_acls(filters))


def token(user: str, seconds: float) -> str:
    """A token for that user, good for so long: an unsigned JWT, which Kafka's own validator takes unless it is given another."""
    now = time.time()
    parts = {"alg": "none"}, {"sub": user, "iat": now - 60, "exp": now + seconds}
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts), ""]
    )


async def _done(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        await asyncio.to_thread(future.result, 30)


def everything(principal: str, topics: Iterable[str]) -> list[AclBinding]:
    """All that can be done with these topics."""
    return [
        AclBinding(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, principal, "*", AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        for topic in topics
    ]  # fmt: skip
