"""What the chart does not take: each with words that name the values and say what to do; and everything at once."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support import helm

from bridge import config

SASL = {"kafka": {"security_protocol": "SASL_SSL"}}
PASSWORD = {"kafka": {"sasl_plain_password_file": {"name": "kafka", "key": "password"}}}
IPV4 = "0.0.0.0"  # noqa: S104 - every address of a pod
RULE = {"metrics": {"prometheusRule": {"enabled": True}}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # What JSON Schema says of a single value.
    "an unknown value": ({"replicaCount": 2}, "additional properties 'replicaCount' not allowed"),
    "an unknown value below": ({"spool": {"sise": "1Gi"}}, "at '/spool': additional properties 'sise' not allowed"),
    "an unknown section": ({"config": {"kafkaa": {}}}, "at '/config': additional properties 'kafkaa' not allowed"),
    "an unknown key": ({"config": {"kafka": {"bootstrapServers": "a:1"}}}, "additional properties 'bootstrapServers'"),
    "a key of the wrong type": ({"config": {"spool": {"max_bytes": "10Gi"}}}, "at '/config/spool/max_bytes'"),
    "a key of a value there is not": ({"config": {"log": {"level": "loud"}}}, "at '/config/log/level'"),
    "a secret of a key that is no file": ({"secrets": {"kafka": {"client_id": {}}}}, "'client_id' not allowed"),
    "a secret in clear": (
        {"secrets": {"access": {"path_secrets_file": "abc"}}},
        "at '/secrets/access/path_secrets_file'",
    ),
    "half a secret": (
        {"secrets": {"access": {"path_secrets_file": {"name": "a", "key": None}}}},
        "missing property 'key'",
    ),
    "a digest that is none": ({"image": {"digest": "latest"}}, "at '/image/digest'"),
    "a label of the selectors": (
        {"podLabels": {"app.kubernetes.io/name": "x"}},
        "invalid propertyName 'app.kubernetes.io/name'",
    ),
    "a label of Helm's": ({"commonLabels": {"helm.sh/chart": "x"}}, "invalid propertyName 'helm.sh/chart'"),
    "a port of a policy that was taken away": (
        {"networkPolicy": {"dnsPorts": None}},
        "at '/networkPolicy': missing property 'dnsPorts'",
    ),
    "a probe that was taken away": ({"probes": {"liveness": None}}, "at '/probes': missing property 'liveness'"),
    "a grace that liveness cuts short": (
        {"probes": {"liveness": {"terminationGracePeriodSeconds": 1}}},
        "additional properties 'terminationGracePeriodSeconds' not allowed",
    ),
    "a volume for many": ({"spool": {"accessModes": ["ReadWriteMany"]}}, "at '/spool/accessModes/0'"),
    # What contradicts something else.
    "no broker": (
        {"config": {"kafka": {"bootstrap_servers": []}}},
        "config.kafka.bootstrap_servers: names no broker; give at least one host:port",
    ),
    "a broker without a port": (
        {"config": {"kafka": {"bootstrap_servers": ["kafka"]}}},
        'config.kafka.bootstrap_servers: "kafka" is no host:port; give each broker as an entry of its own, with its port',
    ),
    "brokers in one": ({"config": {"kafka": {"bootstrap_servers": ["a:1,b:2"]}}}, '"a:1,b:2" is no host:port'),
    "nobody's secret": (
        {"secrets": {"access": {"path_secrets_file": None}}},
        "secrets.access.path_secrets_file: names no Secret, so anyone could publish; make one",
    ),
    "open with a secret": (
        {"config": {"access": {"allow_unauthenticated": True}}},
        "config.access.allow_unauthenticated: true contradicts",
    ),
    "two files for one key": (
        {"config": {"access": {"path_secrets_file": "/x"}}},
        "config.access.path_secrets_file: secrets.access.path_secrets_file mounts a file for the same key; keep one",
    ),
    "a variable for a key": (
        {"extraEnv": [{"name": "BRIDGE_SERVER__PORT", "value": "1"}]},
        "extraEnv: BRIDGE_SERVER__PORT would overrule what the chart reckons with; put it under config",
    ),
    "a password in an address": (
        {"config": {"registry": {"url": "https://user:password@registry"}}},
        "config.registry.url: has a password in it",
    ),
    "a password in a proxy's address": (
        {"config": {"registry": {"url": "https://registry", "proxy": "http://user:password@proxy:3128"}}},
        "config.registry.proxy: has a password in it",
    ),
    "SASL without a password": ({"config": SASL}, "secrets.kafka.sasl_plain_password_file: names no Secret, and"),
    "OAuth with a password": (
        {"config": {"kafka": {**SASL["kafka"], "sasl_mechanism": "OAUTHBEARER"}}, "secrets": PASSWORD},
        "secrets.kafka.sasl_plain_password_file: is not used with config.kafka.security_protocol SASL_SSL and this",
    ),
    "OAuth without a token": (
        {"config": {"kafka": {**SASL["kafka"], "sasl_mechanism": "OAUTHBEARER"}}},
        "secrets.kafka.sasl_oauth_token_file: names no Secret, and config.kafka.security_protocol SASL_SSL needs it",
    ),
    "OIDC without a secret": (
        {"config": {"kafka": {**SASL["kafka"], "sasl_mechanism": "OAUTHBEARER", "sasl_oauth": "oidc"}}},
        "secrets.kafka.sasl_oauth_client_secret_file: names no Secret, and config.kafka.security_protocol SASL_SSL needs it",
    ),
    "a client's secret in the open": (
        {"config": {"kafka": {"sasl_oauth_client_secret": "secret"}}},
        "config.kafka.sasl_oauth_client_secret: a secret would stand in a ConfigMap for all to read",
    ),
    "a password without SASL": (
        {"secrets": PASSWORD},
        "is not used with config.kafka.security_protocol PLAINTEXT; remove",
    ),
    "certificates without TLS": (
        {"secrets": {"kafka": {"ssl_cafile": {"name": "a", "key": "b"}}}},
        "secrets.kafka.ssl_cafile: is not used with config.kafka.security_protocol PLAINTEXT; take SSL or SASL_SSL",
    ),
    "a grace that is too short": (
        {"preStopSeconds": 5, "terminationGracePeriodSeconds": 17},
        (
            "terminationGracePeriodSeconds: 17 is not above preStopSeconds (5) + config.delivery.ack_deadline_seconds (2) + "
            "config.server.shutdown_seconds (10), so that a bridge would be killed while it saves what it promised"
        ),
    ),
    "a stop too short for answers": (
        {"config": {"server": {"shutdown_seconds": 5}}},
        (
            "config.server.shutdown_seconds: 5 is too short: three tenths of it are for answering what is in flight, which may "
            "take config.delivery.ack_deadline_seconds (2); raise it to 7"
        ),
    ),
    "a volume too small": (
        {"spool": {"size": "10Gi"}},
        "spool.size: 10Gi can't hold config.spool.max_bytes (10737418240) and config.spool.min_free_bytes (268435456)",
    ),
    "a spool too large": ({"config": {"spool": {"max_bytes": 13_000_000_000}}}, "spool.size: 12Gi can't hold"),
    "a limit too low": (
        {"resources": {"limits": {"memory": "500Mi"}}},
        "resources.limits.memory: 500Mi is less than twice config.delivery.memory_bytes and config.limits.in_flight_bytes",
    ),
    "scaling that orphans spools unseen": (
        {"autoscaling": {"enabled": True}},
        (
            "autoscaling.enabled: with the spool on, scaling down during an outage leaves reports on a volume that nobody "
            "mounts, and nobody would be told; turn on metrics.prometheusRule.enabled"
        ),
    ),
    "scaling the wrong way": (
        {"autoscaling": {"enabled": True, "minReplicas": 9}, **RULE},
        "autoscaling.minReplicas: 9 is more than autoscaling.maxReplicas (6); lower it",
    ),
    "scaling by what is not there": (
        {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}, **RULE},
        "autoscaling.enabled: it measures CPU in percent of resources.requests.cpu, which is not set",
    ),
    "a budget that holds all nodes": (
        {"podDisruptionBudget": {"minAvailable": 2}},
        "podDisruptionBudget.minAvailable: 2 of 2 bridges may never be away, so that no node could be drained; lower it",
    ),
    "a budget that holds most nodes": (
        {"podDisruptionBudget": {"minAvailable": "60%"}},
        "podDisruptionBudget.minAvailable: 60% of 2 bridges may never be away",
    ),
    "a budget of nothing": (
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        "podDisruptionBudget.maxUnavailable: 0 lets no node be drained; raise it",
    ),
    "a budget of no share": ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "maxUnavailable: 0% lets no node"),
    "a budget of all": (
        {"podDisruptionBudget": {"minAvailable": "100%"}},
        "podDisruptionBudget.minAvailable: 100% of 2 bridges may never be away",
    ),
    "draining a replica that runs": ({"spool": {"drain": [1]}}, "spool.drain: 1 is the ordinal of a replica that runs"),
    "draining what has no volume": (
        {"spool": {"enabled": False, "drain": [3]}},
        "spool.drain: 3: with spool.enabled=false there are no volumes to drain",
    ),
    "an ingress for all hosts": (
        {"ingress": {"enabled": True}},
        "ingress.hosts: is empty, so that the ingress would take",
    ),
    "a route from nowhere": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: is empty"),
    "claims that go with their replica": (
        {"spool": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}},
        "spool.persistentVolumeClaimRetentionPolicy.whenScaled: Delete would remove a volume with the reports that wait",
    ),
    "an address that nobody reaches": (
        {"config": {"server": {"host": "127.0.0.1"}}},
        "config.server.host: 127.0.0.1 is the pod's own loopback, where neither probes nor Services come; give 0.0.0.0",
    ),
    "an admin address that no probe reaches": (
        {"config": {"server": {"admin_host": "localhost"}}},
        "config.server.admin_host: localhost is the pod's own loopback",
    ),
    "an IPv6 Service before an IPv4 address": (
        {"config": {"server": {"host": IPV4}}, "service": {"ipFamilies": ["IPv6"]}},
        "config.server.host: 0.0.0.0 takes IPv4 only, and service.ipFamilies has IPv6; give ::, or remove one of them",
    ),
    "two families in one stack": (
        {"adminService": {"ipFamilies": ["IPv4", "IPv6"]}},
        "adminService.ipFamilies: two families need adminService.ipFamilyPolicy PreferDualStack or RequireDualStack",
    ),
    "outside traffic of a Service that has none": (
        {"service": {"externalTrafficPolicy": "Local"}},
        "service.externalTrafficPolicy: is for service.type NodePort and LoadBalancer; choose one of them, or remove it",
    ),
    "a load balancer's class without one": (
        {"service": {"type": "NodePort", "loadBalancerClass": "a.example/b"}},
        "service.loadBalancerClass: is for service.type LoadBalancer, which is NodePort; change the type, or remove it",
    ),
    "a load balancer's networks without one": (
        {"service": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}},
        "service.loadBalancerSourceRanges: is for service.type LoadBalancer, which is ClusterIP",
    ),
    "a network that is none": (
        {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.7"]}},
        "at '/service/loadBalancerSourceRanges/0'",
    ),
    "scraped twice": (
        {"metrics": {each: {"enabled": True} for each in ("serviceMonitor", "podMonitor")}},
        "metrics.podMonitor.enabled: with metrics.serviceMonitor.enabled each bridge would be scraped, and counted, twice",
    ),
    "topics that nobody makes first": (
        {"hooks": {"phase": "post"}, "spool": {"enabled": False}},
        "hooks.phase: post makes the topics when the bridges are ready, and with spool.enabled=false they are not ready",
    ),
    "topics that the bridges wait for": (
        {"hooks": {"phase": "post"}, "config": {"topics": {"check": "refuse"}}},
        "config.topics.check: refuse keeps the bridges from starting until the topics are there, and with hooks.phase post",
    ),
    "annotations for nobody": (
        {"serviceAccount": {"create": False, "annotations": {"a": "b"}}},
        "serviceAccount.annotations: are for an account that the chart makes",
    ),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_words(values: dict[str, Any], words: str) -> None:
    """Nothing is made of it, and what is said can be acted upon."""
    assert words in helm.refusal(values)


def test_numbers_of_the_command_line_are_numbers() -> None:
    """`--set` gives integers where a file gives floating ones."""
    arguments = ("template", helm.RELEASE, helm.CHART, "--kube-version", helm.NEWEST)
    done = helm.run(*arguments, "--set", "podDisruptionBudget.minAvailable=2", values=helm.MINIMAL)
    assert "minAvailable: 2 of 2 bridges may never be away" in done.stderr


def test_secrets_and_what_the_chart_decides_are_no_configuration() -> None:
    """All are named at once; secrets with the place where they belong. Their values are not repeated."""
    text = {"path_secrets": ["hush-hush-hush-hush"]}
    secrets = {key: text["path_secrets"] if key == "access.path_secrets" else "hush" for key in config.SECRET_KEYS}
    chart: dict[str, Any] = {"server.port": 1, "server.admin_port": 2}
    chart |= {"spool.enabled": False, "spool.directory": "/x", "topics.file": "/x", "events.error_codes": "/x"}
    values: dict[str, Any] = {}
    for key, value in {**secrets, **chart}.items():
        section, name = key.split(".")
        values = helm.overlaid(values, {section: {name: value}})
    said = helm.refusal({"config": values})
    for key in secrets:
        assert f"config.{key}: a secret would stand in a ConfigMap for all to read;" in said
        assert f"secrets.{key}_file" in said
    assert all(f"config.{key}: the chart sets it; remove it" in said for key in chart)
    assert "hush" not in said


@pytest.mark.parametrize(
    "values",
    [
        {"autoscaling": {"enabled": True}, **RULE},
        {"autoscaling": {"enabled": True}, "spool": {"enabled": False}},
        {"terminationGracePeriodSeconds": 23},
        {"podDisruptionBudget": {"minAvailable": "50%", "maxUnavailable": None}},
        {"podDisruptionBudget": {"enabled": False, "maxUnavailable": 0}},
        {"replicas": 0},
        {"config": {"spool": {"max_bytes": 5_000_000_000}}, "spool": {"size": "5.5G"}},
        {"config": {"access": {"allow_unauthenticated": True}}, "secrets": {"access": None}},
        {"config": {"access": {"path_secrets_file": "/vault/secrets"}}, "secrets": {"access": None}},
        {
            "extraEnv": [
                {"name": "BRIDGE_KAFKA__SSL_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
            ]
        },
        {"global": {"anything": 1}},
        {"config": {"server": {"host": "::", "admin_host": "::"}}, "service": {"ipFamilies": ["IPv6"]}},
        {"config": {"server": {"host": IPV4, "admin_host": IPV4}}},
        {"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}},
        {"hooks": {"phase": "post"}, "spool": {"enabled": False}, "topicsJob": {"enabled": False}},
        {"hooks": {"phase": "post"}, "config": {"topics": {"manage": "external", "check": "refuse"}}},
        {"topics": {"status": {"replication_factor": ""}}},
    ],
    ids=str,
)
def test_what_is_just_right_is_taken(values: dict[str, Any]) -> None:
    """The refusals end where there is no contradiction."""
    assert helm.refusal(values) == ""


def test_the_defaults_alone_say_what_is_missing() -> None:
    """Both, in one go."""
    said = helm.refusal({}, over={})
    assert "config.kafka.bootstrap_servers: names no broker" in said
    assert "secrets.access.path_secrets_file: names no Secret" in said


def test_every_object_of_the_schema_is_closed_or_free_on_purpose() -> None:
    """No place where a typing error would be taken in silence, but those that are Kubernetes' own or the user's."""
    free = {
        "global", "behavior", "requests", "limits", "podSecurityContext", "securityContext", "affinity",
    }  # fmt: skip
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    for name, each in _objects(schema["properties"]):
        closed = "additionalProperties" in each
        assert closed or name in free, name


def _objects(properties: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in properties.items():
        if each.get("type") == "object":
            yield name, each
            yield from _objects(each.get("properties", {}))
