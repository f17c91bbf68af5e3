"""``argocd-values.yaml``: the chart as Argo CD renders and syncs it, without a cluster to look at and without NOTES."""

from typing import Any

import pytest
import yaml
from support import helm

Object = dict[str, Any]

VALUES: dict[str, Any] = yaml.safe_load((helm.CHART / "argocd-values.yaml").read_text())
# Both of Argo CD's protections: from the pruning of a sync, and from the deletion of the Application.
PROTECTED = {"Prune=false", "Delete=false"}


def rendered(**values: Any) -> list[Object]:
    """What Argo CD would have in its hands: `helm template`, in which every `lookup` is empty."""
    return helm.render(helm.overlaid(VALUES, values))


def claim(objects: list[Object]) -> Object:
    """The template of the volumes' claims."""
    (workload,) = (each for each in objects if each["kind"] == "StatefulSet")
    (found,) = workload["spec"]["volumeClaimTemplates"]
    return dict(found["metadata"])


def test_it_renders_offline_and_the_same_each_time() -> None:
    """What differed between two renderings would be out of sync for ever."""
    assert rendered() == rendered()
    assert {"StatefulSet", "Service", "ConfigMap"} <= {each["kind"] for each in rendered()}


def test_no_hook_stands_before_the_objects() -> None:
    """Argo CD makes PreSync hooks of Helm's pre hooks, and syncs nothing until they succeed: never, without Kafka."""
    objects = rendered(config={"registry": {"url": "http://registry"}})
    hooks = [each["metadata"]["annotations"]["helm.sh/hook"] for each in objects if "helm.sh/hook" in str(each)]
    assert set(hooks) == {"post-install,post-upgrade"}
    jobs = {each["metadata"]["name"] for each in objects if each["kind"] == "Job"}
    assert jobs == {"release-chatapp-bridge-topics", "release-chatapp-bridge-schema"}
    # A failing Job ends its sync, rather than holding the next one up.
    assert all(each["spec"]["activeDeadlineSeconds"] <= 120 for each in objects if each["kind"] == "Job")


def test_bridges_are_ready_without_what_the_jobs_make() -> None:
    """PostSync hooks wait for the pods to be healthy: these ask for the spool alone, and warn of a missing topic."""
    objects = rendered()
    (workload,) = (each for each in objects if each["kind"] == "StatefulSet")
    (spool,) = (each for each in workload["spec"]["volumeClaimTemplates"] if each["metadata"]["name"] == "spool")
    assert spool
    for without in ({"spool": {"enabled": False}}, {"config": {"topics": {"check": "refuse"}}}):
        assert "hooks.phase" in helm.refusal(helm.overlaid(VALUES, without))


def test_the_application_of_the_page_is_complete() -> None:
    """docs/operations.md: the file exists where it says, and its values are all that has to be given."""
    text = (helm.ROOT / "docs/operations.md").read_text().partition("### Argo CD")[2]
    application = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    source = application["spec"]["source"]
    (file,) = source["helm"]["valueFiles"]
    assert yaml.safe_load((helm.ROOT / source["path"] / file).read_text()) == VALUES
    given = source["helm"]["valuesObject"]
    assert helm.refusal(helm.overlaid(VALUES, given), over={}) == ""
    assert given["image"]["repository"].startswith("REGISTRY/")
    # The Secret that the values name is made before the first sync, in the namespace of the release.
    namespace, secret = application["spec"]["destination"]["namespace"], given["secrets"]["access"]["path_secrets_file"]
    assert f"--namespace {namespace} create secret generic {secret['name']} --from-literal={secret['key']}=" in text


@pytest.mark.parametrize("own", [{}, {"annotations": {"team": "crm"}}], ids=["as they are", "with more"])
def test_claims_are_kept_from_pruning(own: dict[str, Any]) -> None:
    """They carry the instance label, by which Argo CD may take them for its own, and lose their owner with the StatefulSet."""
    metadata = claim(rendered(spool=own))
    assert metadata["labels"]["app.kubernetes.io/instance"] == helm.RELEASE
    assert set(metadata["annotations"]["argocd.argoproj.io/sync-options"].split(",")) == PROTECTED
    assert metadata["annotations"]["argocd.argoproj.io/compare-options"] == "IgnoreExtraneous"


def test_claims_are_kept_from_pruning_by_default() -> None:
    """Kubernetes never changes a claim's template: who turns to Argo CD later could not add it."""
    assert claim(helm.render({}))["annotations"] == claim(rendered())["annotations"]


def test_an_alert_says_what_notes_would() -> None:
    """Of volumes that were left with reports; and what comes of a topics Job that failed."""
    (rules,) = (each for each in rendered() if each["kind"] == "PrometheusRule")
    alerts = {rule.get("alert") for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert {"ChatappBridgeSpoolLeftBehind", "ChatappBridgeTopicSettingsDrift", "ChatappBridgeSpooling"} <= alerts


def test_nothing_that_argo_cd_does_not_run_is_left() -> None:
    """It knows no tests of Helm's."""
    assert [each["metadata"]["name"] for each in rendered() if each["kind"] == "Pod"] == []
