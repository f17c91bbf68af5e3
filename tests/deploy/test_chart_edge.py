"""What stands in front of the bridge: ingress classes, health checks, the admin token of a scrape, objects of the user's own."""

from typing import Any

import pytest
from support import helm

Object = dict[str, Any]

NGINX, F5, ALB = "nginx.ingress.kubernetes.io", "nginx.org", "alb.ingress.kubernetes.io"


def only(kind: str, values: dict[str, Any]) -> Object:
    """The one object of this kind that the chart makes of these values."""
    (found,) = (each for each in helm.render(values) if each["kind"] == kind)
    return found


def annotations(class_name: str | None, **more: Any) -> dict[str, str]:
    """Of the Ingress of this class."""
    given = {
        "enabled": True,
        "hosts": ["a.example"],
        "className": class_name,
        "annotations": more.pop("annotations", {}),
    }
    found: dict[str, str] = only("Ingress", {"ingress": given, **more})["metadata"].get("annotations", {})
    return found


def test_nginx_takes_every_body_that_the_bridge_takes() -> None:
    """Its default of 1 MB would answer 413 to a push of 3,000 reports. Above the bridge's bound, which refuses and counts."""
    for given, body in ((8_388_608, "16777216"), (20_000_000, "40000000")):
        found = annotations("nginx", config={"limits": {"body_bytes": given}})
        assert found[f"{NGINX}/proxy-body-size"] == found[f"{F5}/client-max-body-size"] == body
        # A body in a file is a warning in nginx's error log, with the path, and so with the secret.
        assert found[f"{NGINX}/client-body-buffer-size"] == found[f"{F5}/client-body-buffer-size"] == body
    assert annotations("nginx-public")[f"{NGINX}/proxy-body-size"] == "16777216"


def test_nginx_waits_for_an_answer_and_does_not_log_the_secret() -> None:
    """An answer takes up to 3 s; a pod that is gone must not use that time up. The secret is in the path."""
    found = annotations("nginx")
    assert found[f"{NGINX}/proxy-read-timeout"] == "10"
    assert found[f"{F5}/proxy-read-timeout"] == "10s"
    assert found[f"{NGINX}/proxy-connect-timeout"] == "1"
    assert found[f"{NGINX}/enable-access-log"] == "false"


def test_annotations_of_the_user_win() -> None:
    """Beside those of the chart."""
    own = {f"{NGINX}/proxy-body-size": "64m", "a": "b"}
    found = annotations("nginx", annotations=own)
    assert own.items() <= found.items()
    assert found[f"{NGINX}/proxy-read-timeout"] == "10"


@pytest.mark.parametrize("class_name", ["alb", "alb-public", "internal.alb"])
def test_an_alb_asks_the_health_path(class_name: str) -> None:
    """AWS's and Alibaba Cloud's both ask for / otherwise, which is 404, and take every bridge for unhealthy."""
    assert annotations(class_name) == {
        f"{ALB}/healthcheck-enabled": "true",
        f"{ALB}/healthcheck-method": "GET",
        f"{ALB}/healthcheck-path": "/healthz",
    }


@pytest.mark.parametrize("class_name", [None, "traefik", "globalbalancer"])
def test_other_classes_get_no_annotations(class_name: str | None) -> None:
    """What their controllers need is in docs/edge.md."""
    assert annotations(class_name) == {}


def test_a_route_can_do_without_the_method() -> None:
    """For Gateways that can't match methods."""
    values = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "method": None}}
    (rule,) = only("HTTPRoute", values)["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/callbacks/chatapp/status"}}]


@pytest.mark.parametrize("monitor", ["ServiceMonitor", "PodMonitor"])
def test_a_scrape_shows_the_token_of_the_admin_port(monitor: str) -> None:
    """None where the port asks for none; that which the bridge reads, or one of Prometheus' own where the file has several."""
    enabled: dict[str, Any] = {"metrics": {monitor[0].lower() + monitor[1:]: {"enabled": True}}}
    bridges, own = {"name": "bridge-admin", "key": "tokens"}, {"name": "bridge-scrape", "key": "token"}
    asked = enabled | {"secrets": {"server": {"admin_token_file": bridges}}}
    for values, wanted in (
        (enabled, {}),
        (asked, {"type": "Bearer", "credentials": bridges}),
        (helm.overlaid(asked, {"metrics": {"tokenSecret": own}}), {"type": "Bearer", "credentials": own}),
    ):
        spec = only(monitor, values)["spec"]
        (endpoint,) = spec["endpoints" if monitor == "ServiceMonitor" else "podMetricsEndpoints"]
        assert endpoint.get("authorization", {}) == wanted


def test_objects_of_the_user_are_installed_too() -> None:
    """A map as it is, braces and all; a string as a template that knows the release."""
    text = """apiVersion: networking.gke.io/v1
kind: HealthCheckPolicy
metadata: {name: '{{ include "bridge.fullname" . }}'}
spec: {path: '{{ include "bridge.healthPath" . }}'}
"""
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"a": "{{ $labels.b }}"}}
    objects = helm.render({"extraObjects": [text, given]})
    (policy,) = (each for each in objects if each["kind"] == "HealthCheckPolicy")
    assert (policy["metadata"]["name"], policy["spec"]["path"]) == ("release-chatapp-bridge", "/healthz")
    assert given in objects
    assert len(objects) == len(helm.render({})) + 2


def test_a_changed_user_can_use_kept_volumes() -> None:
    """The spool is a directory of mode 0700 below a root that is as it was: only `Always` opens it to the group again."""
    security = only("StatefulSet", {})["spec"]["template"]["spec"]["securityContext"]
    assert security["fsGroupChangePolicy"] == "Always"
    assert security["fsGroup"] == 10001
    changed = only("StatefulSet", {"podSecurityContext": {"runAsUser": 20002}})["spec"]["template"]["spec"]
    assert changed["securityContext"] == security | {"runAsUser": 20002}


def test_the_platform_may_choose_the_user() -> None:
    """OpenShift does, from a range of the namespace: with the chart's numbers its admission refuses the pod."""
    values = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    security = only("StatefulSet", values)["spec"]["template"]["spec"]["securityContext"]
    assert security == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "Always",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_a_policy_lets_dns_through_on_the_ports_that_its_pods_have() -> None:
    """On 53 and 5353 (OpenShift) by default, on others by a value; both protocols, for every pod that asks for names."""
    for given, ports in ((None, [53, 5353]), ([53, 10053], [53, 10053])):
        values = {"networkPolicy": {"dnsPorts": given}} if given else {}
        policies = [each for each in helm.render(values) if each["kind"] == "NetworkPolicy"]
        assert len(policies) == 3
        for policy in policies:
            rules = policy["spec"]["egress"]
            wanted = [{"port": port, "protocol": protocol} for port in ports for protocol in ("UDP", "TCP")]
            assert {"ports": wanted} in rules
