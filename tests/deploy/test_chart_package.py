"""The chart as a whole: linted, packaged, described; and what in it follows from something else is up to date."""

import itertools
import re
import shlex
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import helm
from support.scripts import script

from bridge import cli

ROOT = helm.ROOT


def test_what_is_generated_is_up_to_date() -> None:
    """`make chart` writes the schema of the configuration and the table of values anew."""
    made = script("helm/generate.py")
    assert made.schema() == made.SCHEMA.read_text(), "run make chart"
    assert made.readme() == made.README.read_text(), "run make chart"


def test_every_value_is_described_and_known_to_the_schema() -> None:
    """In both directions: a value without a comment, or one that only the schema knows, would be found by nobody."""
    described = {line.split("`")[1] for line in script("helm/generate.py").values_table().splitlines()[2:]}

    def leaves(values: Any, schema: dict[str, Any], path: str) -> list[str]:
        if path in described:
            return []
        assert isinstance(values, dict), f"{path} has no comment"
        parents = set() if path else {"global", "enabled"}  # of a chart that depends on this one
        assert set(values) == set(schema["properties"]) - parents, path
        return list(
            itertools.chain(
                *(leaves(each, schema["properties"][key], f"{path}.{key}".lstrip(".")) for key, each in values.items())
            )
        )

    assert leaves(helm.defaults(), helm.json_of(helm.CHART / "values.schema.json"), "") == []


@pytest.mark.parametrize("values", [None, helm.MINIMAL], ids=["defaults", "minimal"])
def test_lint_finds_nothing(values: dict[str, Any] | None) -> None:
    """Strictly, with the values that have to be given and without any."""
    done = helm.run("lint", "--strict", helm.CHART, "--kube-version", helm.NEWEST, values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_the_chart(tmp_path: Path) -> None:
    """What is packaged needs nothing of the checkout and makes the same objects, alerts and dashboard included."""
    done = helm.run("package", helm.CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    assert package.name == f"chatapp-bridge-{helm.chart()['version']}.tgz"
    values = {"metrics": {each: {"enabled": True} for each in ("serviceMonitor", "prometheusRule", "dashboard")}}
    assert helm.render(values, chart=package) == helm.render(values)


def test_it_can_be_a_dependency(tmp_path: Path) -> None:
    """Of another chart, which turns it on and off by the usual condition and has global values."""
    (tmp_path / "charts").mkdir()
    assert helm.run("package", helm.CHART, "--destination", tmp_path / "charts").returncode == 0
    needed = {"name": "chatapp-bridge", "version": helm.chart()["version"], "condition": "chatapp-bridge.enabled"}
    parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [needed]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    for enabled in (True, False):
        values = {"global": {"region": "x"}, "chatapp-bridge": {**helm.MINIMAL, "enabled": enabled}}
        done = helm.run("template", helm.RELEASE, tmp_path, "--kube-version", helm.NEWEST, values=values)
        assert done.returncode == 0, done.stderr
        assert ("kind: StatefulSet" in done.stdout) is enabled


def test_versions_agree() -> None:
    """The chart installs the bridge that it is released with; both follow semantic versioning."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = helm.chart()
    assert chart["appVersion"] == project["version"]
    for version in (chart["version"], chart["appVersion"]):
        assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?", version)


def notes(values: dict[str, Any]) -> str:
    """What a person reads after the installation."""
    # Helm 3 wants a cluster for them, even to try; there tests/kubernetes read them.
    arguments = ("install", helm.RELEASE, helm.CHART, "--dry-run=client")
    done = helm.run(*arguments, values=helm.overlaid(helm.MINIMAL, values), program=helm.packaged())
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:\n")[2]


def test_the_notes_give_the_address_and_the_next_three_commands() -> None:
    """The shape of the address as the provider needs it, never the secret; commands that exist."""
    plain = notes({})
    assert "http://release-chatapp-bridge.space.svc:80/callbacks/chatapp/status/SECRET\n" in plain
    commands = [line.strip() for line in plain.splitlines() if line.startswith(("  kubectl", "  helm"))]
    assert [command.split()[0] for command in commands] == ["kubectl", "helm", "kubectl"]
    _, _, inside = commands[2].partition(" -- chatapp-bridge ")
    cli._parser(words := shlex.split(inside)).parse_args(words)

    routed = notes({"ingress": {"enabled": True, "hosts": ["a.example"], "tls": [{"secretName": "tls"}]}})
    assert "https://a.example/callbacks/chatapp/status/SECRET\n" in routed
    clear = notes({"ingress": {"enabled": True, "hosts": ["a.example"]}})
    assert "the secret travels in the clear" in clear
    gateway = notes({"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}})
    assert "https://HOST/callbacks/chatapp/status/SECRET\n" in gateway
    balanced = notes({"service": {"type": "LoadBalancer"}})
    assert "get service release-chatapp-bridge" in balanced
    assert not any("from inside the cluster only" in each for each in (routed, gateway, balanced))


def test_the_notes_say_what_has_to_stand_in_front() -> None:
    """Size, timeout, log and health check, wherever the chart does not set them itself; and where to read on."""

    def ingress(class_name: str | None) -> dict[str, Any]:
        return {"ingress": {"enabled": True, "hosts": ["a.example"], "className": class_name}}

    opened: list[dict[str, Any]] = [
        ingress(None),
        ingress("alb"),
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}},
        {"service": {"type": "LoadBalancer"}},
    ]
    for values in opened:
        said = notes(values | {"config": {"limits": {"body_bytes": 9_000_000}}})
        assert "has to let a body of 9000000 bytes through" in said
        assert "Its health check is GET /healthz on the public port." in said
        assert "files/edge.md" in said
    known = notes(ingress("nginx"))
    assert "has to let a body" not in known
    assert "files/edge.md" in known
    assert "files/edge.md" not in notes({})


def test_the_notes_warn_of_claims_that_go_with_the_release() -> None:
    """With the reports that wait on them."""
    deleted = {"spool": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}}
    assert "whenDeleted is Delete" in notes(deleted)
    assert "whenDeleted" not in notes({})


def alerts(chart: Path, **values: Any) -> dict[str, dict[str, str]]:
    """The annotations of each alert that a chart, or its package, makes."""
    objects = helm.render({"metrics": {"prometheusRule": {"enabled": True, **values}}}, chart=chart)
    (found,) = (each["spec"]["groups"] for each in objects if each["kind"] == "PrometheusRule")
    return {rule["alert"]: rule["annotations"] for group in found for rule in group["rules"] if "alert" in rule}


def test_an_alert_leads_into_the_runbook_for_who_has_the_chart_alone(tmp_path: Path) -> None:
    """By default its link is a file of the package with that very heading; and it carries the entry itself."""
    helm.run("package", helm.CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    found = alerts(package)
    with tarfile.open(package) as archive:
        for alert, annotations in found.items():
            path, _, anchor = annotations["runbook_url"].partition("#")
            file = archive.extractfile(path)
            assert file is not None
            text = file.read().decode()
            assert anchor == alert.lower()
            _, heading, after = text.partition(f"\n### {alert}\n")
            assert heading, alert
            assert after.strip().startswith(annotations["runbook"])
            assert re.findall(r"^- \*\*(.+?)\*\*", annotations["runbook"], re.MULTILINE) == [
                "Means", "Impact", "Look at", "Do"
            ]  # fmt: skip
            # Prometheus takes annotations for templates.
            assert "{{" not in annotations["runbook"]
    assert len(found) > 15


def test_the_runbook_may_be_published_elsewhere() -> None:
    """One value moves all links; the anchors stay."""
    found = alerts(helm.CHART, runbookUrl="https://wiki.example/runbook")
    assert {alert: each["runbook_url"] for alert, each in found.items()} == {
        alert: f"https://wiki.example/runbook#{alert.lower()}" for alert in found
    }
    assert "runbookUrl" in helm.refusal(
        {"metrics": {"prometheusRule": {"runbookUrl": "https://wiki.example/runbook#"}}}
    )


def test_commands_in_pods_are_the_programs_own() -> None:
    """Every pod's arguments are taken by the command line."""
    values = {"spool": {"drain": [4]}, "config": {"registry": {"url": "http://registry"}}}
    for each in helm.render(values):
        spec = each["spec"] if each["kind"] == "Pod" else each.get("spec", {}).get("template", {}).get("spec", {})
        for container in spec.get("containers", []):
            cli._parser(container["args"]).parse_args(container["args"])


def test_the_readmes_commands_are_taken() -> None:
    """Its values too: the example that Helm is given there is rendered, for three brokers and for one."""
    text = (helm.CHART / "README.md").read_text()
    commands = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("helm upgrade --install")]
    # A failed `helm install` can't be repeated: "cannot re-use a name that is still in use".
    assert "\nhelm install" not in text
    (command,) = commands
    arguments = [word for word in shlex.split(command)[3:] if word != "--wait"]
    arguments[1] = str(helm.CHART)
    (single,) = re.findall(r"`--set (topicsJob\.singleBroker=true)`", text)
    for more in ([], ["--set", single]):
        done = subprocess.run(
            [helm.helm(), "template", *arguments, *more, "--kube-version", helm.NEWEST],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("--single-broker" in done.stdout) is bool(more)
    example = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert helm.refusal(example) == ""
