"""What ``spool drain`` says without a Kafka."""

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from support.spools import MIB

from bridge import config
from bridge.cli import main
from bridge.lab.embedded.ports import Port
from bridge.operate.drain import drain as drain_of
from bridge.record import Record
from bridge.registry.ids import RegisteredIds
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


async def test_an_empty_spool_is_reported_to_prometheus(tmp_path: Path) -> None:
    """At the bridge's own port, for as long as it takes until it was scraped."""
    directory = await asyncio.to_thread(made, tmp_path / "spool", 0)
    port = Port()
    assignments = [NOWHERE, f"spool.directory={directory}", f"server.admin_port={port.number}"]
    settings = config.load(environment={}, assignments=assignments).settings
    draining = asyncio.create_task(drain_of(settings, RegisteredIds.of, 20, 600))
    found = ""
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while not found:
            with suppress(httpx.ConnectError):
                found = (await client.get(f"http://127.0.0.1:{port.number}/metrics")).text
            await asyncio.sleep(0.02)
    draining.cancel()
    await asyncio.wait([draining])
    port.release()
    assert found == "# TYPE chatapp_bridge_spool_rows gauge\nchatapp_bridge_spool_rows 0\n"


async def test_a_connection_that_stays_open_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.12 on ``wait_closed`` waits for the clients."""

    async def wait_for_clients(_server: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("asyncio.base_events.Server.wait_closed", wait_for_clients)
    directory = await asyncio.to_thread(made, tmp_path / "spool", 0)
    assignments = [NOWHERE, f"spool.directory={directory}", "server.admin_port=0", "server.admin_host=127.0.0.1"]
    settings = config.load(environment={}, assignments=assignments).settings
    async with asyncio.timeout(20):
        assert await drain_of(settings, RegisteredIds.of, 10, 0.01) == 0


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
