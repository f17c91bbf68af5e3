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


def test_the_rules_are_wellformed() -> None:
    """As Prometheus loads them."""
    assert "SUCCESS" in promtool("check", "rules", RULES)
