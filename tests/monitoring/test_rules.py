"""Each alert, by Prometheus's own rule tester: it fires by its fault and by no other, not before its time, and clears."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.alert_cases import BEGINS, CASES, HEALTHY, MINUTES, Case
from support.contract import ROOT

RULES = ROOT / "config/prometheus/alerts.yaml"
PROMTOOL = shutil.which("promtool") or "promtool"


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """What it says; it must succeed."""
    ended = subprocess.run([PROMTOOL, *arguments], input=given, capture_output=True, check=False)
    said = (ended.stdout + ended.stderr).decode()
    assert ended.returncode == 0, said
    return said


def labelled(series: str) -> str:
    """With job and instance, where it has none."""
    name, _, rest = series.partition("{")
    labels = ['job="bridge"', *filter(None, rest.removesuffix("}").split(","))]
    if "instance=" not in rest:
        labels.append('instance="a:8081"')
    return f"{name}{{{','.join(labels)}}}"


def firing(at: int, alerts: set[str]) -> dict[str, Any]:
    """Exactly these fire at that minute."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)]
    return {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{at}m",
        "exp_samples": samples,
    }


def group_of(name: str, case: Case) -> dict[str, Any]:
    """As a group of promtool's."""
    alert = name.partition(",")[0]
    series = {labelled(each): values for each, values in (HEALTHY | case.series).items()}
    absent = {"expr": f'ALERTS{{alertstate="firing",alertname="{alert}"}}', "eval_time": f"{case.not_yet}m"}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            firing(BEGINS - 1, set()),
            absent,
            firing(case.at, case.fires),
            firing(MINUTES - 1, set()),
        ],
    }


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_by_its_fault_not_before_its_time_and_clears(name: str, tmp_path: Path) -> None:
    """And no other fires that is not named beside it."""
    document = tmp_path / "test.yaml"  # JSON is YAML
    document.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [group_of(name, CASES[name])]})
    )
    promtool("test", "rules", document)


_ROWS = 'chatapp_bridge_spool_rows{job="bridge",namespace="one",pod="bridge-2",instance="10.0.0.7:8081"}'
_OTHER_ROWS = 'chatapp_bridge_spool_rows{job="bridge",namespace="two",pod="bridge-2",instance="10.0.0.8:8081"}'
_CLAIM = 'kube_persistentvolumeclaim_info{namespace="one",persistentvolumeclaim="spool-bridge-2"}'
_OTHER_CLAIM = 'kube_persistentvolumeclaim_info{namespace="two",persistentvolumeclaim="spool-bridge-2"}'
_JOB = 'kube_job_status_succeeded{namespace="one",job_name="bridge-drain-2-0a1b2c"}'
_DAY = 24 * 60
_OVER = 30 * 60
_LEFT = f"0x29 7 7 stale _x{_OVER + 2 * _DAY}"
LEFT_BEHIND = {
    # What ends it, and the series beside those of the replica that is gone from minute 31 on: from minute `_OVER` on it is over.
    "nothing": {},
    "the replica is back at another address": {
        _ROWS.replace("10.0.0.7", "10.0.0.9"): f"_x{_OVER} 7 0x{_DAY}",
    },
    "the drain Job completes, and is removed later": {_JOB: f"_x{_OVER - 60} 0x59 1x30 stale _x{_DAY}"},
    "the drain Job completes, where ksm's labels are not honoured": {
        _JOB.replace("namespace", 'namespace="monitoring",exported_namespace'): f"_x{_OVER} 1x{_DAY}"
    },
    "the claim is deleted": {_CLAIM: f"1x{_OVER} stale _x{_DAY}", _OTHER_CLAIM: f"1x{_OVER + _DAY}"},
}


@pytest.mark.parametrize("ends", LEFT_BEHIND)
def test_a_spool_that_is_left_behind_is_told_until_it_is_drained(ends: str, tmp_path: Path) -> None:
    """For days, from the tenth minute on; not a quarter of an hour longer than it is true. Others stay left behind."""
    series = {_ROWS: _LEFT, _OTHER_ROWS: _LEFT, **LEFT_BEHIND[ends]}
    expr = 'count by (namespace) (ALERTS{alertstate="firing",alertname="ChatappBridgeSpoolLeftBehind"})'

    def fires(at: int, *namespaces: str) -> dict[str, Any]:
        samples = [{"labels": f'{{namespace="{name}"}}', "value": 1} for name in namespaces]
        return {"expr": expr, "eval_time": f"{at}m", "exp_samples": samples}

    over = () if ends == "nothing" else ("one",)
    group = {
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            fires(40),
            *(fires(at, "one", "two") for at in (44, 7 * 60, _DAY, _OVER - 2)),
            *(
                fires(at, *(name for name in ("one", "two") if name not in over))
                for at in (_OVER + 16, _OVER + 60, _OVER + _DAY)
            ),
        ],
    }
    document = tmp_path / "test.yaml"
    document.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "2m", "tests": [group]}))
    promtool("test", "rules", document)


def test_the_rules_are_wellformed() -> None:
    """As Prometheus loads them."""
    assert "SUCCESS" in promtool("check", "rules", RULES)
