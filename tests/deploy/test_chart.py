"""The chart in many combinations of its values: what must hold in every one of them, template by template."""

import itertools
import json
import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import importlib_resources
import jsonschema
import pytest
import referencing
from support import helm

from bridge import config
from bridge.report.catalogue import load_catalogue
from bridge.topics.spec import declared_topics

Object = dict[str, Any]

NAME = f"{helm.RELEASE}-chatapp-bridge"
CONFIG_VALUES = {"log": {"level": "debug"}, "spool": {"max_bytes": 5_000_000_000}, "server": {"shutdown_seconds": 12.5}}
TLS = {"kafka": {"security_protocol": "SASL_SSL", "sasl_plain_username": "bridge"}}
TLS_SECRETS = {
    "sasl_plain_password_file": {"name": "kafka", "key": "password"},
    "ssl_cafile": {"name": "kafka-ca", "key": "ca.crt"},
}
EXTRAS = {
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "extraContainers": [{"name": "beside", "image": "beside:1"}],
    "extraInitContainers": [{"name": "before", "image": "before:1"}],
}
RULES = {"prometheusRule": {"enabled": True}}
PEER = {"podSelector": {"matchLabels": {"app": "peer"}}}
OWN_SPREAD = {
    "maxSkew": 1,
    "topologyKey": "zone",
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "bridge"}},
}
SERVICE = {
    "externalTrafficPolicy": "Local",
    "internalTrafficPolicy": "Cluster",
    "loadBalancerClass": "example.com/internal",
    "loadBalancerSourceRanges": ["203.0.113.0/24", "2001:db8::/32"],
    "ipFamilies": ["IPv6", "IPv4"],
    "ipFamilyPolicy": "PreferDualStack",
    "sessionAffinity": "None",
}
ADMIN_SERVICE = {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}
SERVICES: dict[str, Any] = {
    "service": {"type": "LoadBalancer", **SERVICE},
    "adminService": {"annotations": {"a": "b"}, **ADMIN_SERVICE},
    "config": {"server": {"host": "::", "admin_host": "::"}},
}
ERROR_CODES = {
    "131021": {"category": "UNDELIVERABLE", "retry": "LATER"},
    "Own.Code": {"category": "OPT_OUT", "retry": "NO", "what": 'said "no"'},
}
# Each option with its alternatives to the defaults; what is not among the defaults may stand beside any other.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "names": [{"nameOverride": "other"}, {"fullnameOverride": "a-name-that-is-as-long-as-names-may-be-in-kubernetes"}],
    "labels": [{"commonLabels": {"team": "crm"}, "podLabels": {"team": "ops"}, "podAnnotations": {"a": "b"}}],
    "image": [{"image": {"digest": "sha256:" + "0" * 64}}, {"image": {"tag": "2.0"}, "imagePullSecrets": [{"name": "x"}]}],
    "spool": [
        {"spool": {"enabled": False}},
        {"spool": {"storageClassName": "fast", "drain": [6, 7]}, "drainJob": {"timeoutSeconds": 60}},
        {
            "spool": {
                "labels": {"team": "crm"},
                "annotations": {"a": "b"},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
            }
        },
    ],
    "config": [{"config": CONFIG_VALUES}],
    "topics": [{"topics": {"status": {"partitions": 24, "config": {"retention.ms": 604_800_000, "cleanup.policy": ""}}}}],
    "error codes": [{"errorCodes": ERROR_CODES}],
    "kafka": [{"config": TLS, "secrets": {"kafka": TLS_SECRETS}}],
    "registry": [{"config": {"registry": {"url": "https://registry:8443,http://other"}}}],
    "service": [{"service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}}}, SERVICES],
    "ingress": [
        {"ingress": {"enabled": True, "hosts": ["a.example"]}},
        {
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "annotations": {"a": "b"},
                "hosts": ["a.example", "b.example"],
                "tls": [{"secretName": "tls", "hosts": ["a.example"]}],
            }
        },
    ],
    "route": [
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]}},
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "timeouts": {"request": "10s"}}},
    ],
    "policy": [
        {"networkPolicy": {"enabled": False}},
        {
            "networkPolicy": {
                "callbacksFrom": [PEER],
                "adminFrom": [],
                "kafkaTo": [PEER],
                "kafkaPorts": [19092],
                "extraIngress": [{"from": [PEER]}],
                "extraEgress": [{"to": [PEER]}],
            }
        },
    ],
    "budget": [{"podDisruptionBudget": {"enabled": False}}, {"podDisruptionBudget": {"minAvailable": "0%"}}],
    "scale": [{"replicas": 1}, {"replicas": 0}, {"autoscaling": {"enabled": True}, "metrics": RULES}],
    "times": [{"preStopSeconds": 0}, {"preStopSeconds": 30, "terminationGracePeriodSeconds": 60}],
    "account": [{"serviceAccount": {"create": False}}, {"serviceAccount": {"name": "own", "annotations": {"a": "b"}}}],
    "placing": [
        {
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "priorityClassName": "high",
        },
        {"topologySpreadConstraints": []},
        {"topologySpreadConstraints": [OWN_SPREAD]},
    ],
    "extras": [EXTRAS],
    "metrics": [
        {"metrics": {each: {"enabled": True} for each in ("serviceMonitor", "prometheusRule", "dashboard")}},
        {"metrics": {"podMonitor": {"enabled": True, "labels": {"a": "b"}}}},
    ],
    "jobs": [
        {"topicsJob": {"enabled": False}, "test": {"enabled": False}},
        {"topicsJob": {"singleBroker": True}, "schemaJob": {"enabled": False}},
        {"hooks": {"phase": "post"}, "topicsJob": {"enabled": False}},
        {"config": {"topics": {"manage": "external"}}},
    ],
}  # fmt: skip


def combinations(count: int) -> list[dict[str, Any]]:
    """The defaults, and so many mixtures, which hold every alternative several times beside others; always the same ones."""
    chance = random.Random(9)  # noqa: S311 - no secret
    queues = {name: itertools.cycle(chance.sample([{}, *each], len(each) + 1)) for name, each in OPTIONS.items()}
    mixtures = []
    for _ in range(count):
        mixture: dict[str, Any] = {}
        for queue in queues.values():
            mixture = helm.overlaid(mixture, next(queue))
            if chance.random() < 0.3:  # so that the same alternatives don't always meet
                next(queue)
        mixtures.append(mixture)
    return [{}, *mixtures]


COMBINATIONS = combinations(14)


@pytest.fixture(scope="module", params=COMBINATIONS, ids=[str(number) for number in range(len(COMBINATIONS))])
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One combination, with the chart's own defaults beneath."""
    merged: dict[str, Any] = helm.overlaid(helm.overlaid(helm.defaults(), helm.MINIMAL), request.param)
    return merged


@pytest.fixture(scope="module")
def objects(values: dict[str, Any]) -> list[Object]:
    """What the chart makes of it."""
    return helm.render(values)


def of(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def one(objects: list[Object], *kinds: str) -> Object:
    """The one object of these kinds that is no hook."""
    (found,) = (each for each in of(objects, *kinds) if not is_hook(each))
    return found


def is_hook(each: Object) -> bool:
    """Whether Helm makes it at one moment only."""
    return "helm.sh/hook" in each["metadata"].get("annotations", {})


def pods(objects: list[Object]) -> dict[str, Object]:
    """The pods that these objects become, each with metadata and spec, by component."""
    found = {}
    for each in of(objects, "StatefulSet", "Deployment", "Job", "Pod"):
        pod = each if each["kind"] == "Pod" else each["spec"]["template"]
        found[f"{pod['metadata']['labels']['app.kubernetes.io/component']}/{each['metadata']['name']}"] = pod
    return found


def bridge(objects: list[Object]) -> Object:
    """The pod of the bridge itself."""
    (found,) = (pod for name, pod in pods(objects).items() if name.startswith("bridge/"))
    return found


def selects(selector: Object, pod: Object) -> bool:
    """Whether a label selector matches a pod."""
    labels = pod["metadata"]["labels"]
    plain = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(key) == value for key, value in plain.items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


# --- every object ------------------------------------------------------------------------------------------------------


@cache
def schemas(kubernetes: str) -> tuple[Path, Any]:
    """The folder of the API's strict schemas, and a registry with their definitions."""
    folder = Path(str(importlib_resources.files("kubernetes_validate"))) / "kubernetes-json-schema"
    folder /= f"v{kubernetes}.0-local-strict"
    definitions = helm.json_of(folder / "_definitions.json")
    registry: Any = referencing.Resource.from_contents(definitions) @ referencing.Registry()
    return folder, registry


@cache
def validator(kind: str, api_version: str, kubernetes: str) -> Any:
    """Of one kind, as the API of that version would take it and nothing else."""
    folder, registry = schemas(kubernetes)
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], version]))
    schema = helm.json_of(folder / f"{name}.json")
    resource = referencing.Resource.from_contents(schema)
    return jsonschema.Draft202012Validator(schema, registry=resource @ registry)


CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute"}


@pytest.mark.parametrize("kubernetes", [helm.OLDEST, helm.NEWEST])
def test_the_api_takes_every_object(objects: list[Object], kubernetes: str) -> None:
    """Of the oldest Kubernetes that the chart takes, and of the newest known: no unknown field, none missing."""
    for each in objects:
        if each["kind"] not in CUSTOM:
            errors = validator(each["kind"], each["apiVersion"], kubernetes).iter_errors(each)
            assert [(each["kind"], error.json_path, error.message) for error in errors] == []


def test_names_are_unique_and_fit_and_labels_say_whose_they_are(objects: list[Object], values: dict[str, Any]) -> None:
    """A name of 52 characters still leaves room for what Kubernetes adds to it; of a Job's it cuts off what does not fit."""
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    assert all(len(name) <= (63 if kind == "Job" else 52) for kind, name in names)
    for each in objects:
        labels = each["metadata"]["labels"]
        assert {"app.kubernetes.io/instance": helm.RELEASE, **values["commonLabels"]}.items() <= labels.items()
        assert "namespace" not in each["metadata"]


def test_no_secret_is_made(objects: list[Object]) -> None:
    """They are named, never contained."""
    assert of(objects, "Secret") == []


# --- pods --------------------------------------------------------------------------------------------------------------


def test_every_pod_passes_pod_security_restricted(objects: list[Object]) -> None:
    """As the admission controller would hold it to the standard; root is read-only besides, and no token is there."""
    for name, pod in pods(objects).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {
            "configMap", "projected", "persistentVolumeClaim", "emptyDir"
        }  # fmt: skip
        for container in spec["containers"]:
            if container["name"] != "beside":
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False, name
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert security["readOnlyRootFilesystem"] is True


def test_every_mount_has_its_volume_and_every_volume_its_source(objects: list[Object]) -> None:
    """A volume is the pod's own, the StatefulSet's, or names a ConfigMap that is there when the pod starts."""
    claims = {
        each["metadata"]["name"] for kind in of(objects, "StatefulSet") for each in kind["spec"]["volumeClaimTemplates"]
    }
    maps = {each["metadata"]["name"]: is_hook(each) for each in of(objects, "ConfigMap")}
    for name, pod in pods(objects).items():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        known = set(volumes) | (claims if name.startswith("bridge/") else set())
        hook = name.startswith(("topics/", "schema/"))
        assert {mount["name"] for each in pod["spec"]["containers"] for mount in each.get("volumeMounts", [])} <= known
        assert maps[volumes["config"]["configMap"]["name"]] is hook


def test_probes_are_apart(objects: list[Object]) -> None:
    """Liveness asks whether the process turns, readiness whether a callback could be stored; a start has minutes."""
    container = bridge(objects)["spec"]["containers"][0]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert {container[f"{name}Probe"]["httpGet"]["port"] for name in paths} == {"admin"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


def test_the_grace_covers_all_that_a_stop_may_take(objects: list[Object], values: dict[str, Any]) -> None:
    """preStop, then the answers, then everything else: only then may the kubelet kill."""
    spec = bridge(objects)["spec"]
    settings = loaded(values)
    container = spec["containers"][0]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"] if values["preStopSeconds"] else 0
    assert before == values["preStopSeconds"]
    bound = before + settings.delivery.ack_deadline_seconds + settings.server.shutdown_seconds
    assert spec["terminationGracePeriodSeconds"] > bound


def test_the_workload_suits_the_spool(objects: list[Object], values: dict[str, Any]) -> None:
    """A StatefulSet whose volumes outlive it, or a Deployment without any; replicas only where nothing scales them."""
    workload = one(objects, "StatefulSet", "Deployment")
    spec = workload["spec"]
    assert ("replicas" in spec) is not values["autoscaling"]["enabled"]
    assert selects(spec["selector"], bridge(objects))
    if values["spool"]["enabled"]:
        assert workload["kind"] == "StatefulSet"
        assert spec["persistentVolumeClaimRetentionPolicy"] == values["spool"]["persistentVolumeClaimRetentionPolicy"]
        (claim,) = spec["volumeClaimTemplates"]
        assert values["spool"]["labels"].items() <= claim["metadata"]["labels"].items()
        assert spec["selector"]["matchLabels"].items() <= claim["metadata"]["labels"].items()
        assert claim["metadata"]["annotations"] == values["spool"]["annotations"]
        # What a StatefulSet lets nobody change must not follow from the chart's version.
        assert helm.chart()["version"] not in str(claim)
        assert spec["serviceName"] in {each["metadata"]["name"] for each in of(objects, "Service")}
    else:
        assert workload["kind"] == "Deployment"
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    scaler = of(objects, "HorizontalPodAutoscaler")
    assert [{"apiVersion": "apps/v1", "kind": workload["kind"], "name": workload["metadata"]["name"]}] * len(
        scaler
    ) == [each["spec"]["scaleTargetRef"] for each in scaler]
    assert len(scaler) == values["autoscaling"]["enabled"]


def test_replicas_are_spread_unless_told_otherwise(objects: list[Object], values: dict[str, Any]) -> None:
    """Over zones and nodes, counting the bridges of this release alone."""
    constraints = bridge(objects)["spec"].get("topologySpreadConstraints", [])
    given = values["topologySpreadConstraints"]
    assert len(constraints) == (2 if given is None else len(given))
    assert all(selects(each["labelSelector"], bridge(objects)) for each in constraints)
    assert [each for each in given or [] if "labelSelector" in each] == [
        each for each in constraints if each == OWN_SPREAD
    ]


# --- configuration -----------------------------------------------------------------------------------------------------


def loaded(values: dict[str, Any]) -> config.Settings:
    """The settings that these values come to, beside the bridge's own defaults."""
    assignments = [
        f"{section}.{key}={','.join(value) if isinstance(value, list) else value}"
        for section, keys in values["config"].items()
        for key, value in keys.items()
        if section in {"server", "delivery"}
    ]
    return config.load(environment={}, assignments=assignments).settings


def test_the_bridge_takes_the_configuration(objects: list[Object], values: dict[str, Any], tmp_path: Path) -> None:
    """Every key is one of the bridge's, of its type, and holds what was given; secrets are files."""
    maps = [each for each in of(objects, "ConfigMap") if "bridge.toml" in each["data"]]
    assert len({each["data"]["bridge.toml"] for each in maps}) == 1
    document = tomllib.loads(maps[0]["data"]["bridge.toml"])
    for section, keys in values["config"].items():
        assert keys.items() <= document[section].items()
    mounted = {"/etc/chatapp-bridge/secrets/" + path for path in projected(bridge(objects))}
    named = {value for keys in document.values() for key, value in keys.items() if key.endswith("file")}
    topics = {"/etc/chatapp-bridge/config/topics.toml"} if values["topics"] else set()
    assert named == mounted | topics
    files = {path: tmp_path / Path(path).name for path in mounted}
    for file in files.values():
        file.write_text("a-secret-of-the-tests")
    text = maps[0]["data"]["bridge.toml"]
    for path, file in files.items():
        text = text.replace(path, str(file))
    for path in topics:
        (tmp_path / "topics.toml").write_text(maps[0]["data"]["topics.toml"])
        text = text.replace(path, str(tmp_path / "topics.toml"))
    own = maps[0]["data"].get("error_codes.toml")
    assert (own is not None) is ("error_codes" in document.get("events", {})) is bool(values["errorCodes"])
    if own is not None:
        (tmp_path / "error_codes.toml").write_text(own)
        text = text.replace(document["events"]["error_codes"], str(tmp_path / "error_codes.toml"))
    (tmp_path / "bridge.toml").write_text(text)
    settings = config.load(tmp_path / "bridge.toml", environment={}, serving=True).settings
    assert settings.spool.enabled is values["spool"]["enabled"]
    declared = declared_topics(settings.topics)[settings.topics.status]
    assert declared.partitions == (24 if values["topics"] else 12)
    assert declared.config["retention.ms"] == ("604800000" if values["topics"] else "3024000000")
    catalogue = load_catalogue(settings.events.own_error_codes)
    for code, entry in values["errorCodes"].items():
        assert catalogue.meaning(code) == (entry["category"], entry["retry"])


def projected(pod: Object) -> dict[str, tuple[str, str]]:
    """The files of the mounted Secrets: the Secret and the key that each comes from."""
    sources = [each["projected"]["sources"] for each in pod["spec"]["volumes"] if each["name"] == "secrets"]
    return {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in itertools.chain(*sources)
        for item in source["secret"]["items"]
    }


def test_a_changed_configuration_rolls_the_pods_and_a_changed_secret_does_not() -> None:
    """By the checksum of bridge.toml; a Secret's content is not known to the chart, and the bridge reads it anew."""

    def template(values: dict[str, Any]) -> Object:
        return bridge(helm.render(values))

    before = template({})
    assert template({"config": {"log": {"level": "debug"}}}) != before
    assert template({"topics": {"status": {"partitions": 24}}}) != before
    assert template({"errorCodes": ERROR_CODES}) != before
    assert template({"metrics": {"dashboard": {"enabled": True}}, "service": {"port": 81}, "replicas": 9}) == before


# --- network -----------------------------------------------------------------------------------------------------------


def test_services_lead_to_the_bridges_alone_and_the_public_one_to_callbacks_alone(objects: list[Object]) -> None:
    """No pod of a hook or a test takes callbacks, and nobody outside reaches the admin port."""
    ports = {each["name"]: each["containerPort"] for each in bridge(objects)["spec"]["containers"][0]["ports"]}
    assert ports == {"callbacks": 8080, "admin": 8081}
    for service in of(objects, "Service"):
        matched = [name for name, pod in pods(objects).items() if selects(service["spec"]["selector"], pod)]
        assert [name.partition("/")[0] for name in matched] == ["bridge"]
        headless = service["spec"].get("clusterIP") == "None"
        targets = {each["targetPort"] for each in service["spec"]["ports"]}
        assert targets == ({"admin"} if headless else {"callbacks"})


def test_services_have_the_options_that_are_set_and_no_others(objects: list[Object], values: dict[str, Any]) -> None:
    """Kubernetes' own defaults stay where a value is null or empty."""
    services = of(objects, "Service")
    for service in services:
        admin = service["spec"].get("clusterIP") == "None"
        given = values["adminService" if admin else "service"]
        wanted = {key: given[key] for key in (ADMIN_SERVICE if admin else SERVICE) if given.get(key)}
        assert {key: value for key, value in service["spec"].items() if key in SERVICE} == wanted
        assert service["metadata"].get("annotations", {}) == given["annotations"]
    assert len(services) == 2


def test_routes_lead_to_the_callback_path_and_nothing_else(objects: list[Object], values: dict[str, Any]) -> None:
    """Of the Ingress and of the HTTPRoute: this path, to a service and port that are there."""
    path = "/callbacks/chatapp/status"
    public = one([each for each in of(objects, "Service") if "clusterIP" not in each["spec"]], "Service")
    name, port = public["metadata"]["name"], public["spec"]["ports"][0]
    for ingress in of(objects, "Ingress"):
        assert [rule["host"] for rule in ingress["spec"]["rules"]] == values["ingress"]["hosts"]
        for rule in ingress["spec"]["rules"]:
            (only,) = rule["http"]["paths"]
            assert (only["path"], only["pathType"]) == (path, "Prefix")
            assert only["backend"]["service"] == {"name": name, "port": {"name": port["name"]}}
    for route in of(objects, "HTTPRoute"):
        (rule,) = route["spec"]["rules"]
        assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": path}, "method": "POST"}]
        assert rule.get("timeouts", {}) == values["httpRoute"]["timeouts"]
        assert rule["backendRefs"] == [{"name": name, "port": port["port"]}]
    assert len(of(objects, "Ingress")) == values["ingress"]["enabled"]
    assert len(of(objects, "HTTPRoute")) == values["httpRoute"]["enabled"]


def test_every_pod_has_one_policy_both_ways(objects: list[Object], values: dict[str, Any]) -> None:
    """In: callbacks and the admin port, or nothing. Out: DNS, the brokers' ports, the registry's; never all ports."""
    policies = of(objects, "NetworkPolicy")
    if not values["networkPolicy"]["enabled"]:
        assert policies == []
        return
    for name, pod in pods(objects).items():
        (policy,) = (each for each in policies if selects(each["spec"]["podSelector"], pod))
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        own = values["networkPolicy"]
        ins = [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
        assert ins == ([8080, 8081] if name.startswith("bridge/") else [])
        rules = [rule for rule in spec["egress"] if rule not in own["extraEgress"]]
        outs = {port["port"] for rule in rules for port in rule["ports"]}
        registry = {8443, 80} if "registry" in values["config"] else set()
        bridges = {8080} if name.startswith(("probe/", "drain/")) else set()
        assert outs == {53, 5353} | set(own["kafkaPorts"] or [9092, 9192]) | registry | bridges


def ports_out(objects: list[Object]) -> set[int]:
    """All ports that any policy lets out to."""
    policies = of(objects, "NetworkPolicy")
    rules = [rule for policy in policies for rule in policy["spec"].get("egress", [])]
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_with_a_proxy_only_the_proxy_is_let_out_to() -> None:
    """The registry's own port is asked by the proxy."""
    config = {"registry": {"url": "https://registry:8443", "proxy": "http://proxy:3128"}}
    outs = ports_out(helm.render({"config": config}))
    assert 3128 in outs
    assert 8443 not in outs


OIDC = {
    "sasl_oauth": "oidc",
    "sasl_oauth_token_endpoint": "https://idp:8443/token",
    "sasl_oauth_client_id": "bridge",
    "sasl_oauth_extensions": ["logicalCluster=lkc-1"],
}
MSK = {"sasl_oauth": "aws_msk_iam", "sasl_oauth_aws_region": "eu-west-1"}


@pytest.mark.parametrize(("kafka", "ports"), [(OIDC, {8443}), (MSK, {80, 443})], ids=["oidc", "msk"])
def test_what_gives_tokens_is_let_out_to_and_a_clients_secret_is_a_file(
    kafka: dict[str, Any], ports: set[int], tmp_path: Path
) -> None:
    """The bridge takes the configuration as the chart writes it."""
    values: dict[str, Any] = {
        "config": {"kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **kafka}},
        "secrets": {"kafka": {"sasl_oauth_client_secret_file": {"name": "idp", "key": "secret"}}}
        if kafka is OIDC
        else {},
    }
    objects = helm.render(values)
    assert ports_out(objects) >= ports
    file = tmp_path / "bridge.toml"
    file.write_text(
        next(each for each in of(objects, "ConfigMap") if "bridge.toml" in each["data"])["data"]["bridge.toml"]
    )
    settings = config.load(file, environment={}).settings.kafka
    mounted = "/etc/chatapp-bridge/secrets/kafka.sasl_oauth_client_secret_file"
    assert settings.sasl_oauth_client_secret_file == (mounted if kafka is OIDC else "")
    assert settings.sasl_oauth_extensions == kafka.get("sasl_oauth_extensions", [])


def test_the_test_may_push_where_pushing_is_restricted() -> None:
    """The policy lets in whom it names, and the pod of `helm test`."""
    objects = helm.render({"networkPolicy": {"callbacksFrom": [PEER]}})
    (policy,) = (each for each in of(objects, "NetworkPolicy") if each["metadata"]["name"] == NAME)
    peers = policy["spec"]["ingress"][0]["from"]
    (probe,) = (pod for name, pod in pods(objects).items() if name.startswith("probe/"))
    assert peers[0] == PEER
    assert selects(peers[1]["podSelector"], probe)


def test_the_budget_counts_the_bridges_alone(objects: list[Object], values: dict[str, Any]) -> None:
    """And holds either bound, not both."""
    budgets = of(objects, "PodDisruptionBudget")
    assert len(budgets) == values["podDisruptionBudget"]["enabled"]
    for budget in budgets:
        matched = [name for name, pod in pods(objects).items() if selects(budget["spec"]["selector"], pod)]
        assert [name.partition("/")[0] for name in matched] == ["bridge"]
        assert len({"minAvailable", "maxUnavailable"} & set(budget["spec"])) == 1


def test_the_account_has_no_token(objects: list[Object], values: dict[str, Any]) -> None:
    """Where one is made; the pods use it."""
    accounts = of(objects, "ServiceAccount")
    assert [each["automountServiceAccountToken"] for each in accounts] == [False] * values["serviceAccount"]["create"]
    wanted = accounts[0]["metadata"]["name"] if accounts else "default"
    assert bridge(objects)["spec"]["serviceAccountName"] == wanted


# --- hooks, tests, monitoring ------------------------------------------------------------------------------------------


def test_hooks_stand_on_nothing_of_the_release(objects: list[Object], values: dict[str, Any]) -> None:
    """Before an installation there is no account and no ConfigMap of it; what they bring goes when they have succeeded."""
    phase = values["hooks"]["phase"]
    hooks = [each for each in objects if is_hook(each) and each["kind"] != "Pod"]
    for each in hooks:
        annotations = each["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == f"{phase}-install,{phase}-upgrade"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        if each["kind"] == "Job":
            assert "serviceAccountName" not in each["spec"]["template"]["spec"]
            assert each["spec"]["activeDeadlineSeconds"] > 0
    weights = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in hooks}
    if "Job" in weights:
        assert weights["ConfigMap"] < weights["Job"]
    commands = [each["spec"]["template"]["spec"]["containers"][0]["args"][:2] for each in of(hooks, "Job")]
    schema = "registry" in values["config"] and values["schemaJob"]["enabled"]
    external = values["config"].get("topics", {}).get("manage") == "external"
    topics = values["topicsJob"]["enabled"] and not external
    wanted = [["topics", "apply"]] * topics + [["schema", "register"]] * schema
    assert sorted(commands) == sorted(wanted)


def test_orphaned_volumes_are_drained_by_name(objects: list[Object], values: dict[str, Any]) -> None:
    """A Job for each ordinal, on the very claim that the replica of that ordinal had."""
    name = one(objects, "StatefulSet", "Deployment")["metadata"]["name"]
    drains = [pod["spec"] for component, pod in pods(objects).items() if component.startswith("drain/")]
    claims = [volume["persistentVolumeClaim"]["claimName"] for spec in drains for volume in spec["volumes"]
              if volume["name"] == "spool"]  # fmt: skip
    assert claims == [f"spool-{name}-{ordinal}" for ordinal in values["spool"]["drain"]]
    assert all(spec["containers"][0]["args"][:2] == ["spool", "drain"] for spec in drains)


def test_a_drain_that_leaves_something_ends_as_a_failed_job(objects: list[Object], values: dict[str, Any]) -> None:
    """No attempt lasts for ever, there are few of them, and each one's pod stays, with the log that says why."""
    jobs = [each["spec"] for each in of(objects, "Job") if "-drain-" in each["metadata"]["name"]]
    for job in jobs:
        spec = job["template"]["spec"]
        assert spec["restartPolicy"] == "Never"
        assert spec["containers"][0]["args"][2] == f"--timeout={values['drainJob']['timeoutSeconds']}"
        assert 1 <= job["backoffLimit"] <= 3
        assert "podFailurePolicy" not in job
        assert "ttlSecondsAfterFinished" not in job


def test_another_image_makes_another_job_to_drain() -> None:
    """Nobody can change a Job's pod: under the same name an upgrade would fail while spool.drain is set."""

    def jobs(**values: Any) -> dict[str, Object]:
        made = helm.render({"spool": {"drain": [6]}, **values})
        return {each["metadata"]["name"]: each["spec"]["template"] for each in of(made, "Job") if not is_hook(each)}

    before, after = jobs(), jobs(image={"tag": "2.0"})
    assert jobs(replicas=3) == before
    assert not before.keys() & after.keys()


def test_prometheus_finds_the_bridges_and_learns_of_orphans(objects: list[Object], values: dict[str, Any]) -> None:
    """The monitor selects the headless service by its port's name; rules and dashboard come where they are asked for."""
    metrics = values["metrics"]
    for monitor in of(objects, "ServiceMonitor"):
        matched = [each for each in of(objects, "Service") if selects(monitor["spec"]["selector"], each)]
        (service,) = matched
        assert [each["port"] for each in monitor["spec"]["endpoints"]] == [
            each["name"] for each in service["spec"]["ports"]
        ]
    for monitor in of(objects, "PodMonitor"):
        matched_pods = [name for name, pod in pods(objects).items() if selects(monitor["spec"]["selector"], pod)]
        assert [name.partition("/")[0] for name in matched_pods] == ["bridge"]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in bridge(objects)["spec"]["containers"][0]["ports"]}
        assert monitor["metadata"]["labels"]["a"] == "b"
    for rules in of(objects, "PrometheusRule"):
        names = [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
        assert "ChatappBridgeSpoolLeftBehind" in names
        assert all(rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    assert len(of(objects, "ServiceMonitor")) == metrics["serviceMonitor"]["enabled"]
    assert len(of(objects, "PodMonitor")) == metrics["podMonitor"]["enabled"]
    assert len(of(objects, "PrometheusRule")) == metrics["prometheusRule"]["enabled"]
    dashboards = [each for each in of(objects, "ConfigMap") if each["metadata"]["name"].endswith("-dashboard")]
    assert len(dashboards) == metrics["dashboard"]["enabled"]
    assert all(json.loads(text)["panels"] for each in dashboards for text in each["data"].values())
