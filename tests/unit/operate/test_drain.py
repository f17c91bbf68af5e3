"""What ``spool drain`` says without a Kafka: the spool is not empty, and which error was the last."""

import asyncio
import logging
from pathlib import Path

import pytest
import structlog
from support.spools import MIB

from bridge.cli import main
from bridge.config import load
from bridge.observe import logs
from bridge.operate.drain import LastError
from bridge.record import Record
from bridge.spool.rows import SpoolRow
from bridge.spool.spool import Spool

NOWHERE = "kafka.bootstrap_servers=127.0.0.1:1"


def made(directory: Path, dead_letters: int) -> Path:
    """A spool where no row waits."""

    async def make() -> None:
        spool = await Spool.open(directory, max_bytes=64 * MIB, min_free_bytes=0)
        for number in range(dead_letters):
            record = Record("topic", b"key", b"value-%d" % number, [], 1_700_000_000_000)
            await spool.dead_letter([SpoolRow(0, 0, 1, [record])], "PolicyViolationError")
        await spool.close(10)

    asyncio.run(make())
    return directory


def drain(directory: Path) -> int:
    """The command's exit code; there is nothing that it would need a Kafka for."""
    return main(["spool", "drain", "--directory", str(directory), "--set", NOWHERE, "--timeout", "20"])


def test_a_drain_of_an_empty_spool_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and `spool show` says that it is empty."""
    directory = made(tmp_path / "spool", 0)
    assert drain(directory) == 0
    assert main(["spool", "show", "--directory", str(directory)]) == 0
    assert "The spool is empty: no waiting rows, no dead letters, no damaged files." in capsys.readouterr().out


def test_dead_letters_of_before_fail_a_drain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They would be lost with the volume: exit code 1, their number, and nothing calls the spool empty."""
    directory = made(tmp_path / "spool", 2)
    assert drain(directory) == 1
    out, err = capsys.readouterr()
    assert "2 rows (2 reports) are dead letters, 0 of them since this drain began" in err
    assert "do not delete the volume" in err
    assert "became dead letters" not in out
    assert main(["spool", "show", "--directory", str(directory)]) == 0
    assert "is empty" not in capsys.readouterr().out


def test_damaged_files_fail_a_drain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that was moved aside may hold reports that could not be taken over."""
    directory = made(tmp_path / "spool", 0)
    (directory / "damaged" / "20260101T000000").mkdir(parents=True)
    assert drain(directory) == 1
    assert "1 damaged files are in damaged/" in capsys.readouterr().err
    assert main(["spool", "show", "--directory", str(directory)]) == 0
    assert "is empty" not in capsys.readouterr().out


@pytest.mark.parametrize("level", ["warning", "error"])
@pytest.mark.parametrize(
    ("logged", "text"),
    [
        ({"error": "PolicyViolationError"}, "PolicyViolationError (POLICY_VIOLATION, 44)"),
        ({"error": "UnknownError"}, "UnknownError (-1, or a code that the client has no name for)"),
        ({"error": "UnknownError", "code": 87}, "UnknownError (87)"),
        ({"error": "KafkaTimeoutError"}, "KafkaTimeoutError"),
        ({"error": "the broker refuses the login"}, "the broker refuses the login"),
    ],
)
def test_the_last_error_is_known_at_every_level_of_the_log(
    level: str, logged: dict[str, object], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Kafka's own name and number; what `log.level` leaves out is still not printed."""
    logs.configure(load(environment={}, assignments=[f"log.level={level}"]).settings.log)
    log = structlog.get_logger("bridge.delivery.lane")
    with LastError() as last:
        assert last.text == ""
        log.warning("batch_refused", **logged)
        log.warning("lane_degraded")
    assert last.text == text
    assert ("batch_refused" in capsys.readouterr().err) == (level == "warning")
    log.warning("batch_refused", error="another")
    assert last.text == text


def test_levels_are_as_before_afterwards() -> None:
    """Of the loggers and of the handler that prints."""
    logs.configure(load(environment={}, assignments=["log.level=error"]).settings.log)
    loggers = [logging.getLogger(name) for name in ("bridge.delivery", "bridge.kafka")]
    (printing,) = logging.getLogger().handlers

    def state() -> list[object]:
        return [printing.level, *((each.level, list(each.handlers)) for each in loggers)]

    before = state()
    with LastError():
        assert state() != before
    assert state() == before
