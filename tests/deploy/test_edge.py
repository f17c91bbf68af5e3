"""``docs/edge.md``: every block of YAML is complete, fits the chart and fits the others; no log that it sets up has the path."""

import re
from typing import Any

import pytest
import yaml
from support import helm

from bridge import config
from bridge.config.access import CALLBACK_PATH

Object = dict[str, Any]

TEXT = (helm.ROOT / "docs/edge.md").read_text()
HOST = "callbacks.example.com"


def blocks(language: str) -> dict[str, str]:
    """The fenced blocks of a language, each by its heading and its number."""
    found: dict[str, str] = {}
    for section in re.split(r"^#{2,3} ", TEXT, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for number, text in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)):
            found[f"{title} {number}"] = text
    return found


BLOCKS = {name: list(yaml.safe_load_all(text)) for name, text in blocks("yaml").items()}
MANIFESTS = [each for documents in BLOCKS.values() for each in documents if "apiVersion" in each]
VALUES = {name: documents[0] for name, documents in BLOCKS.items() if "apiVersion" not in documents[0]}


def named(objects: list[Object]) -> set[tuple[str, str]]:
    """Kind and name of each."""
    return {(each["kind"], each["metadata"]["name"]) for each in objects}


def references(part: Any) -> list[Object]:
    """Every reference to another object by kind and name, wherever it stands."""
    if isinstance(part, dict):
        below = [found for value in part.values() for found in references(value)]
        return ([part] if {"group", "kind", "name"} <= part.keys() else []) + below
    return [found for each in part for found in references(each)] if isinstance(part, list) else []


@pytest.mark.parametrize("name", VALUES)
def test_values_are_taken_and_open_the_callback_path(name: str) -> None:
    """The chart makes something of them that leads to the bridge from outside."""
    objects = helm.render(VALUES[name])
    routed = [each for each in objects if each["kind"] in {"HTTPRoute", "Ingress"}]
    (public,) = (each for each in objects if each["kind"] == "Service" and each["spec"].get("clusterIP") != "None")
    assert bool(routed) is (public["spec"]["type"] != "LoadBalancer")
    assert len(routed) <= 1
    assert all(HOST in str(each["spec"]) and CALLBACK_PATH in str(each["spec"]) for each in routed)


@pytest.mark.parametrize("name", VALUES)
def test_what_is_referred_to_is_there(name: str) -> None:
    """A policy's target is an object of the release, a Gateway or a class is one of this page."""
    objects = helm.render(VALUES[name])
    for each in [each for each in objects if each["apiVersion"].split("/")[0].count(".")]:
        assert {(found["kind"], found["name"]) for found in references(each["spec"])} <= named(objects), each["kind"]
    for route in (each for each in objects if each["kind"] == "HTTPRoute"):
        for parent in route["spec"]["parentRefs"]:
            (gateway,) = (each for each in MANIFESTS if named([each]) == {("Gateway", parent["name"])})
            assert gateway["metadata"]["namespace"] == parent["namespace"]
            assert parent.get("sectionName", "https") in {each["name"] for each in gateway["spec"]["listeners"]}
    configs = re.findall(r'\{"default": "([^"]+)"\}', str(objects))
    assert {("BackendConfig", found) for found in configs} <= named(objects)


@pytest.mark.parametrize("name", VALUES)
def test_whatever_checks_health_asks_the_health_path(name: str) -> None:
    """And it is the one that the bridge has, also where a value names it."""
    changed = {"config": {"server": {"health_path": "/up"}}}
    for values, path in ((VALUES[name], "/healthz"), (helm.overlaid(VALUES[name], changed), "/up")):
        text = yaml.safe_dump_all(helm.render(values))
        asked = re.findall(r"(?:requestPath|healthcheck-path): (\S+)", text)
        by_hand = name.startswith("Load balancers")
        assert set(asked) <= {"/healthz" if by_hand else path}
        assert bool(asked) is name.startswith(("Alibaba", "AWS", "Gateway", "Ingress", "Load balancers"))


@pytest.mark.parametrize("name", VALUES)
def test_a_proxy_that_names_the_client_is_trusted_by_network(name: str) -> None:
    """Every recipe for HTTP names its proxies, and the bridge takes the list."""
    given = VALUES[name].get("config", {}).get("access", {}).get("trusted_proxies", [])
    assert bool(given) is not name.startswith("Load balancers")
    assignment = f"access.trusted_proxies={','.join(given)}"
    assert config.load(environment={}, assignments=[assignment]).settings.access.trusted_proxies == given


def test_manifests_fit_together() -> None:
    """A Gateway's parameters and a class's are on this page too; each listener for the provider is HTTPS."""
    for each in MANIFESTS:
        assert {"apiVersion", "kind", "metadata", "spec"} <= each.keys()
        parameters = each["spec"].get("parameters") or each["spec"].get("infrastructure", {}).get("parametersRef")
        if parameters:
            assert (parameters["kind"], parameters["name"]) in named(MANIFESTS)
        assert {listener["protocol"] for listener in each["spec"].get("listeners", [])} <= {"HTTPS"}
    classes = {each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "IngressClass"}
    used = {values["ingress"].get("className") for values in VALUES.values() if "ingress" in values}
    assert classes == {"callbacks-alb"}
    made = {each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "GatewayClass"}
    wanted = {each["spec"]["gatewayClassName"] for each in MANIFESTS if each["kind"] == "Gateway"}
    # What NGINX Gateway Fabric and GKE install themselves.
    assert wanted - made == {"nginx", "gke-l7-global-external-managed"}
    assert used == {None, "nginx", "alb", *classes}


PATH_VARIABLES = {"$request", "$request_uri", "$uri", "$document_uri", "$args", "$http_referer"}


def test_no_access_log_has_the_path() -> None:
    """Envoy's and nginx's formats name no path; where a cloud's can't be changed, it is off."""
    (proxy,) = (each for each in MANIFESTS if each["kind"] == "EnvoyProxy")
    settings = proxy["spec"]["telemetry"]["accessLog"]["settings"]
    logged = [field for each in settings for field in each["format"]["json"].values()]
    assert len(logged) > 5
    assert not [field for field in logged if "PATH" in field or "REFERER" in field.upper()]
    (nginx,) = blocks("nginx").values()
    (format_,) = re.findall(r"log_format without_path '(.*)';", nginx)
    (fabric,) = (each for each in MANIFESTS if each["kind"] == "NginxProxy")
    assert fabric["spec"]["logging"]["accessLog"] == {"format": format_}
    assert "$status" in format_
    assert not PATH_VARIABLES & set(re.findall(r"\$\w+", format_))
    assert re.findall(r"access_log (.*);", nginx) == ["/var/log/nginx/callbacks.log without_path"]
    objects = {name: yaml.safe_dump_all(helm.render(values)) for name, values in VALUES.items()}
    off = {
        "Gateway 1": "logging:\n      enabled: false",
        "Ingress 0": "logging:\n    enable: false",
        "AWS ALB 0": "access_logs.s3.enabled=false",
        "ingress-nginx 0": "enable-access-log: 'false'",
    }
    assert {name for name, words in off.items() if words not in objects[name]} == set()


def test_no_error_log_of_nginx_has_the_path() -> None:
    """Its lines of the levels warn and error contain the first line of the request."""
    (nginx,) = blocks("nginx").values()
    (fabric,) = (each for each in MANIFESTS if each["kind"] == "NginxProxy")
    assert re.findall(r"error_log \S+ (\w+);", nginx) == [fabric["spec"]["logging"]["errorLevel"]] == ["crit"]
    assert '{"error-log-level": "crit"}' in TEXT.partition("\n## ingress-nginx\n")[2].partition("\n## ")[0]
    # A body in a file is a warning.
    (body,) = re.findall(r"client_max_body_size (\w+);", nginx)
    assert re.findall(r"client_body_buffer_size (\w+);", nginx) == [body]


@pytest.mark.parametrize("name", [name for name, values in VALUES.items() if "10.244." in str(values)])
def test_nobody_else_connects_from_a_trusted_network_of_pods(name: str) -> None:
    """Whoever connects from a trusted network chooses the client's address: of all pods only those of the edge may connect."""
    (policy,) = (
        each for each in helm.render(VALUES[name]) if each["kind"] == "NetworkPolicy" and each["spec"].get("ingress")
    )
    (callbacks,) = (rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == 8080)
    edge, probe = callbacks["from"]
    assert edge["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert "probe" in str(probe)


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_reports_an_https_address(name: str) -> None:
    """The provider is given what NOTES print; a load balancer for TCP has no name yet."""
    done = helm.run(
        "install", helm.RELEASE, helm.CHART, "--dry-run=client", values=helm.overlaid(helm.MINIMAL, VALUES[name])
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert (f"https://{HOST}{CALLBACK_PATH}/SECRET" in notes) is not name.startswith("Load balancers")


def test_the_commands_of_the_page_name_what_is_there() -> None:
    """The Secret of the certificate has one name everywhere, and the namespaces are those of the manifests."""
    assert set(re.findall(r"(?:secretName|certificateRefs:\n\s+- name): (\S+)", TEXT)) == {"callbacks-tls"}
    assert "--namespace edge create secret tls callbacks-tls " in TEXT
    assert {each["metadata"].get("namespace", "edge") for each in MANIFESTS} == {"edge"}


def test_nginx_takes_what_the_bridge_takes_and_waits_for_it() -> None:
    """Bodies, answers, and idle connections that end before the bridge's."""
    (nginx,) = blocks("nginx").values()
    limits = config.load(environment={}).settings.limits

    def number(pattern: str) -> int:
        (found,) = re.findall(pattern, nginx)
        return int(found)

    assert number(r"client_max_body_size (\d+)m;") << 20 >= limits.body_bytes
    assert number(r"proxy_read_timeout (\d+)s;") >= 5
    assert number(r"keepalive_timeout (\d+)s;") < limits.header_read_seconds


def test_the_page_is_found() -> None:
    """From the README, the operations page, the chart's README and its NOTES; and it is in the chart's package."""
    assert "(docs/edge.md)" in (helm.ROOT / "README.md").read_text()
    assert "(edge.md)" in (helm.ROOT / "docs/operations.md").read_text()
    assert "docs/edge.md" in (helm.CHART / "README.md").read_text()
    assert "docs/edge.md" in (helm.CHART / "templates/NOTES.txt").read_text()
    for page in ("edge.md", "operations.md", "runbook.md"):
        assert (helm.CHART / "files" / page).read_text() == (helm.ROOT / "docs" / page).read_text()
