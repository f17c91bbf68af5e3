"""What releases the project: the workflows do what their heads say, and notes come from the changelog or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.helm import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What a release looks at, of version 1.2.3."""
    files = {
        "pyproject.toml": '[project]\nversion = "1.2.3"\n',
        "helm/chatapp-bridge/Chart.yaml": 'appVersion: "1.2.3"\n',
        "CHANGELOG.md": "## [Unreleased]\n\n- later\n\n## [1.2.3] - 2026-12-01\n\n### Added\n\n- this\n\n## [1.2.2]\n\n- that\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".github").mkdir()
    shutil.copy(ROOT / ".github/release-notes", tmp_path / ".github")
    return tmp_path


def notes(project: Path, version: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the workflow does."""
    command = [str(project / ".github/release-notes"), version]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_notes_are_the_changelogs_section(project: Path) -> None:
    """Of this version and no other."""
    done = notes(project, "1.2.3")
    assert (done.returncode, done.stdout) == (0, "### Added\n\n- this\n"), done.stderr


@pytest.mark.parametrize(
    ("version", "words"),
    [("v1.2.3", "no version of semantic versioning"), ("1.2.4", "pyproject.toml has version 1.2.3, not 1.2.4")],
)
def test_a_version_that_files_do_not_agree_on_is_refused(project: Path, version: str, words: str) -> None:
    """Before anything is built."""
    done = notes(project, version)
    assert done.returncode == 1
    assert words in done.stderr


def test_a_version_without_notes_is_refused(project: Path) -> None:
    """Nobody should learn from the code what changed."""
    (project / "CHANGELOG.md").write_text("## [Unreleased]\n\n- later\n")
    assert "CHANGELOG.md has nothing under ## [1.2.3]" in notes(project, "1.2.3").stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_whole(path: Path) -> None:
    """Each job has steps, rights are named, and what is run is here."""
    document = yaml.safe_load(path.read_text())
    assert set(document) >= {"name", "permissions", "jobs"}
    runs = [step.get("run", "") for job in document["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in runs
    assert any("helm package helm/chatapp-bridge" in each for each in runs)
    targets = {word for each in runs if each.startswith("make ") for word in each.split()[1:2]}
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
    assert targets
