"""The demo opens a browser where somebody sits before a desktop, and nowhere else."""

import sys
from pathlib import Path

import pytest

from bridge.lab.demo.process import open_on_desktop


@pytest.mark.parametrize(
    ("desktop", "terminal", "installed"),
    [
        ("DISPLAY", True, True),
        ("WAYLAND_DISPLAY", True, True),
        ("", True, True),
        ("DISPLAY", False, True),
        ("DISPLAY", True, False),
    ],
)
def test_a_browser_is_opened_on_a_desktop_only(
    desktop: str, terminal: bool, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A desktop session, a terminal that it is run from, and something to open with."""
    if installed:
        (tmp_path / "xdg-open").write_text("#!/bin/sh\n")
        (tmp_path / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, ":0" if name == desktop else "")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)

    assert bool(desktop and terminal and installed) == open_on_desktop("http://127.0.0.1:1/")
