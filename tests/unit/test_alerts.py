"""Rules, dashboard, runbook and the list of metrics fit together; that they work is for ``make check-prometheus``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.alert_cases import CASES, HEALTHY
from support.contract import ROOT, promised, series_of

from bridge.cli import main

RULES_TEXT = "\n".join(path.read_text() for path in sorted((ROOT / "config/prometheus").glob("*.yaml")))
ALL_RULES: list[dict[str, Any]] = [
    rule
    for path in sorted((ROOT / "config/prometheus").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
RULES = [rule for rule in ALL_RULES if "alert" in rule]
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted((ROOT / "config/grafana").glob("*.json"))}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
ENTRIES = {
    title: text
    for title, _, text in (part.partition("\n") for part in re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:])
}


def anchors(text: str) -> set[str]:
    """Of a document's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_has_an_entry_in_the_runbook_and_the_other_way_round() -> None:
    """Meaning, impact, what to look at, what to do: each of them, for each."""
    alerts = [rule["alert"] for rule in RULES]
    assert len(alerts) == len(set(alerts)) > 15
    assert set(alerts) == set(ENTRIES)
    for alert, text in ENTRIES.items():
        assert re.findall(r"^- \*\*(.+?)\*\*: \S", text, re.MULTILINE) == ["Means", "Impact", "Look at", "Do"], alert


def test_what_the_runbook_does_with_a_spool_is_a_command_as_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is taken, and ends for want of a spool, not of an argument."""
    commands = set(re.findall(r"`chatapp-bridge (spool [^`]+)`", RUNBOOK))
    assert len(commands) > 3
    for command in commands:
        assert main([*command.split(), "--set", f"spool.directory={tmp_path / 'none'}"]) == 1, command
        assert "there is no spool here" in capsys.readouterr().err


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """A severity, three annotations, and the link is its own entry's."""
    assert rule["alert"].startswith("ChatappBridge")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors((ROOT / path).read_text())


def test_every_alert_has_a_case_and_a_case_for_what_is_well() -> None:
    """Each is seen to fire by its own fault (tests/monitoring); all that rules read is in the healthy series."""
    assert {rule["alert"] for rule in RULES} == {name.partition(",")[0] for name in CASES if name.startswith("Chatapp")}
    read = series_of(" ".join(rule["expr"] for rule in ALL_RULES))
    assert read == series_of(" ".join(HEALTHY))


def queries(dashboard: Any) -> Iterator[str]:
    """Every expression in it, and every look-up of a variable."""
    if isinstance(dashboard, dict):
        yield from (dashboard[key] for key in ("expr", "query") if isinstance(dashboard.get(key), str))
        dashboard = list(dashboard.values())
    if isinstance(dashboard, list):
        for part in dashboard:
            yield from queries(part)


def test_what_rules_and_dashboards_read_is_in_the_list_of_metrics() -> None:
    """A name that changes there is noticed here; the dashboard shows all that the list promises, but for what never changes."""
    shown = series_of(" ".join(query for dashboard in DASHBOARDS.values() for query in queries(dashboard)))
    assert series_of(RULES_TEXT) <= set(promised())
    assert shown <= set(promised())
    assert len(shown) > 30


def test_links_into_the_runbook_lead_somewhere() -> None:
    """From the list of metrics, from the page's notices, within the runbook itself."""
    linked = re.findall(r"\(runbook\.md#([\w-]+)\)", (ROOT / "docs/metrics.md").read_text())
    linked += [
        name.lower() for name in re.findall(r"\"(ChatappBridge\w+)\"", (ROOT / "bridge/health/verdict.py").read_text())
    ]
    linked += re.findall(r"\(#([\w-]+)\)", RUNBOOK)
    assert len(linked) > 25
    assert set(linked) <= anchors(RUNBOOK)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    """Panels with ids of their own, in a grid without overlaps; a title, a description and the data source's variable each."""
    dashboard = DASHBOARDS[name]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["targets"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "job", "instance"}
