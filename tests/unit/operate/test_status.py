"""What ``status`` refuses before it asks anybody."""

import pytest

from bridge.cli import main
from bridge.operate.status import _kafka


@pytest.mark.parametrize("url", ["http://[", "http://", "localhost:8081", "ftp://localhost", "//"])
def test_what_is_not_an_address_is_refused_in_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of a wrong usage."""
    assert main(["status", "--url", url]) == 2
    assert "--url: " in capsys.readouterr().err


@pytest.mark.parametrize(("idempotent", "is_said"), [(True, False), (None, False), (False, True)])
def test_it_says_that_batches_carry_no_producer_id(idempotent: bool | None, *, is_said: bool) -> None:
    """Not before this is known."""
    kafka = {
        "up": True,
        "servers": ["kafka:9092"],
        "p99_seconds": 0.1,
        "connections_opened": 3,
        "idempotent": idempotent,
    }
    assert ("no producer id: a batch that is sent again may be in the log twice" in _kafka(kafka)) is is_said
