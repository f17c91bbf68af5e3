"""What ``status`` refuses before it asks anybody."""

import pytest

from bridge.cli import main


@pytest.mark.parametrize("url", ["http://[", "http://", "localhost:8081", "ftp://localhost", "//"])
def test_what_is_not_an_address_is_refused_in_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of a wrong usage."""
    assert main(["status", "--url", url]) == 2
    assert "--url: " in capsys.readouterr().err
