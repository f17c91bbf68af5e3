"""``chatapp-bridge simulate``."""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.signals import ctrl_c_heeded
from support.simulate_server import Exchange, Server, hang, serving, serving_in_background, status, succeed

from bridge.errors import ConfigurationError
from bridge.lab.simulate import run
from bridge.lab.simulate.campaign import Campaign, Mix
from bridge.lab.simulate.console import Progress, progress
from bridge.lab.simulate.ledger import Ledger
from bridge.lab.simulate.run import SimulateOptions, add_arguments, main, simulate

REMOTE = "https://bridge.example/chatapp/s3cret"
COMMAND = """
import argparse, sys
from bridge.lab.simulate.run import add_arguments, main

parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(main(parser.parse_args()))
"""


def _main(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(words))


def _received(server: Server) -> list[dict[str, Any]]:
    """Every report the server received and could read."""
    return [item for exchange in server.exchanges for item in json.loads(exchange.body)]


def test_nothing_lost_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything acknowledged: a table that says so, and no secret."""
    with serving_in_background() as server:
        assert _main("--url", server.url, "--messages", "50", "--plain") == 0
    said = capsys.readouterr()
    assert said.err == ""
    reports = len(_received(server))
    assert f"{reports} reports in {len(server.exchanges)} callbacks" in said.out
    assert "200: " in said.out
    assert "/chatapp/****" in said.out
    assert "s3cret" not in said.out


def test_something_lost_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A push that was given up fails the command, and is counted."""
    with serving_in_background(status(503)) as server:
        arguments = (
            "--url",
            server.url,
            "--messages",
            "5",
            "--size",
            "1-1000",
            "--retry-scale",
            "0",
            "--plain",
        )
        assert _main(*arguments) == 1
    said = capsys.readouterr().out
    assert f"({len(_received(server)) // 3} reports)" in said
    assert "503: " in said


@pytest.mark.parametrize("words", [(), ("--real-statuses",)])
def test_another_machine_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Without --allow-remote nothing is sent; the error says why and what to do, not the secret."""
    assert _main("--url", REMOTE, *words) == 2
    said = capsys.readouterr()
    assert "billing would charge" in said.err
    assert "--allow-remote" in said.err
    assert "bridge.example" in said.err
    assert "s3cret" not in said.out + said.err


def test_another_machine_gets_test_statuses_and_nothing_broken() -> None:
    """Allowed, it is sent what consumers ignore, unless real statuses are asked for as well."""
    options = SimulateOptions(url=REMOTE, allow_remote=True)
    reports = [report for push in Campaign(options.campaign()).pushes() for report in push.reports]
    assert {"BridgeTest"} == {report.status for report in reports}
    assert not any(report.quarantined for report in reports)
    options = SimulateOptions(url=REMOTE, allow_remote=True, real_statuses=True)
    statuses = {report.status for push in Campaign(options.campaign()).pushes() for report in push.reports}
    assert {"Sent", "Delivered", "Read", "Failed"} <= statuses


async def test_another_machine_is_refused_by_the_function_too() -> None:
    """The guard is not the command's alone."""
    with pytest.raises(ConfigurationError, match="billing"):
        await simulate(SimulateOptions(url=REMOTE))


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "ftp://x/s3cret"),
        ("--messages", "0"),
        ("--size", "0"),
        ("--size", "10-1001"),
        ("--rate", "-1"),
        ("--duration", "0"),
        ("--connections", "0"),
        ("--retry-scale", "-1"),
        ("--ca-file", "/nonexistent.pem"),
        ("--ledger", "/nonexistent/ledger"),
    ],
)
def test_what_cannot_be_run_is_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong value is said in one line, before anything is sent."""
    assert _main("--url", "http://127.0.0.1:9/s3cret", *words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("simulate: ")
    assert "s3cret" not in said.err


@pytest.mark.parametrize("words", [("--size", "many"), ("--rate", "1", "--callback-rate", "1"), ("--messages", "x")])
def test_what_cannot_be_understood_is_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Argparse refuses with the same exit code."""
    with pytest.raises(SystemExit) as exited:
        _main("--url", "http://127.0.0.1:9/s3cret", *words)
    assert exited.value.code == 2
    assert "s3cret" not in capsys.readouterr().err


def test_the_ledger_is_written(tmp_path: Path) -> None:
    """--ledger leaves the account in a file."""
    path = tmp_path / "ledger.ndjson"
    with serving_in_background() as server:
        assert _main("--url", server.url, "--messages", "20", "--ledger", str(path), "--run", "77") == 0
        assert _main("--url", server.url, "--ledger", str(path)) == 2
    entries = Ledger.read(path).entries
    assert len(server.exchanges) == len(entries)
    ids = [report.message_id for entry in entries.values() for report in entry.reports if not report.quarantined]
    assert all(message_id.startswith("77") for message_id in ids)


async def test_a_rate_and_a_duration_say_how_much_is_pushed() -> None:
    """So many reports a second for so long, however many messages that takes."""
    async with serving() as server:
        options = SimulateOptions(url=server.url, rate=1000, duration_seconds=0.2, size=(5, 5), mix=Mix.plain())
        began = time.monotonic()
        summary = await simulate(options)
    assert (summary.reports, summary.pushes) == (200, 40)
    assert time.monotonic() - began >= 0.19  # the last of them is not due before


async def test_a_duration_alone_ends_a_run_as_fast_as_possible() -> None:
    """Without a rate the clock ends it."""
    async with serving() as server:
        summary = await simulate(SimulateOptions(url=server.url, duration_seconds=0.1))
    assert summary.pushes > 10
    assert summary.ok
    assert 0.05 < summary.duration_seconds < 5


async def test_progress_tells_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While pushes wait for their retry that is what is said."""
    monkeypatch.setattr(run, "_PROGRESS_EVERY_SECONDS", 0.001)
    seen: list[Progress] = []
    options = SimulateOptions(url="http://127.0.0.1:9/x", messages=1, mix=Mix.plain(), retry_scale=0.0005)
    async with serving(status(503), status(503), succeed) as server:
        await simulate(SimulateOptions(**_fields(options) | {"url": server.url, "size": (1000, 1000)}), seen.append)
    assert any(each.waiting_for_retry == 1 for each in seen)
    assert all(each.lost == 0 for each in seen)
    assert sorted(each.elapsed_seconds for each in seen) == [each.elapsed_seconds for each in seen]


def _fields(options: SimulateOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__struct_fields__}


def _progress(elapsed_seconds: float) -> Progress:
    return Progress(elapsed_seconds, 300, 3000, 280, 7, 1)


def test_elsewhere_than_on_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A line every five seconds, without control characters."""
    with progress(Console()) as show:
        for tenths in range(120):
            show(_progress(tenths / 10))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "5 s: 3,000 reports in 300 callbacks, 600 reports/s" in lines[0]
    assert "7 waiting for a retry, 1 lost" in lines[0]
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_progress_is_live(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, drawn over and over."""
    with progress(Console(force_terminal=True, width=200)) as show:
        show(_progress(2.0))
    assert "\x1b[" in capsys.readouterr().out


async def test_interrupted_it_says_what_became_of_it() -> None:
    """Ctrl-C ends it with the summary so far, and an exit code of its own."""
    process: asyncio.subprocess.Process | None = None

    async def interrupt(exchange: Exchange) -> None:
        assert process is not None
        process.send_signal(signal.SIGINT)
        await hang(exchange)

    async with serving(interrupt) as server:
        command = [sys.executable, "-c", COMMAND, "--url", server.url, "--connections", "1"]
        with ctrl_c_heeded():
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
    assert process.returncode == 130
    assert b"unresolved            1" in said


def test_two_runs_have_different_message_ids() -> None:
    """Without --run each run has digits of its own."""
    runs = [SimulateOptions(url=REMOTE).run for _ in range(3)]
    assert all(len(each) == 20 and each.isdigit() for each in runs)
    assert runs == sorted(set(runs))


def test_options_do_not_show_the_secret() -> None:
    """Neither the options nor what is made of them."""
    options = SimulateOptions(url=REMOTE, allow_remote=True)
    assert "s3cret" not in f"{options!r} {options.target()!r} {options.campaign()!r}"


def test_nothing_of_the_service_is_imported() -> None:
    """The checker shares no code with what it checks, bridge.errors aside."""
    code = "import sys, bridge.lab.simulate.run, bridge.lab.simulate.check; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    ours = {name for name in modules if name.split(".")[0] == "bridge"}
    assert {"bridge", "bridge.errors", "bridge.lab"} == {
        name for name in ours if not name.startswith("bridge.lab.simulate")
    }
