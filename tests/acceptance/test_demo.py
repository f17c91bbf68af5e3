"""``chatapp-bridge demo``: it shows what it says, its counts agree, and nothing of it stays."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from support.arena import LONG

from bridge.lab.demo import dashboard
from bridge.lab.demo.process import Reading

DEMO = [sys.executable, "-m", "bridge", "demo"]
SHORT = ["--messages", "400", "--rate", "400"]
WHOLE_SECONDS = 180.0
SOON_SECONDS = 30.0
ROW = re.compile(
    r"^(?P<name>\S.*?)  +(?P<wanted>[\d,]+)  +(?P<found>[\d,]+)  +(?P<verdict>agrees|DIFFERS)", re.MULTILINE
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a demo keeps its temporary files."""
    made = tmp_path / "temporary"
    made.mkdir()
    return made


@pytest.fixture
def running(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that goes on until it is ended."""
    process = subprocess.Popen(
        [*DEMO, *SHORT, "--acts", "1", "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(place),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _environment(place: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1"}


def _demo(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *SHORT, *arguments],
        capture_output=True,
        text=True,
        timeout=WHOLE_SECONDS,
        env=_environment(place),
        check=False,
    )


def _counts(output: str) -> dict[str, tuple[str, str, str]]:
    return {row["name"]: (row["wanted"], row["found"], row["verdict"]) for row in ROW.finditer(output)}


def _left(place: Path) -> list[str]:
    """Files that are still there, and processes that were given a path in this place."""
    files = [str(path) for path in place.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(place) in words:
            files.append(words)
    return files


def _until_gone(place: Path) -> None:
    deadline = time.monotonic() + SOON_SECONDS
    while _left(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _left(place) == []


def test_the_whole_story_ends_with_counts_that_agree(place: Path) -> None:
    """All three acts, Kafka and the bridge killed in between, without a terminal."""
    run = _demo(place)
    assert run.returncode == 0, run.stdout + run.stderr
    counts = _counts(run.stdout)
    assert {verdict for _, _, verdict in counts.values()} == {"agrees"}, run.stdout
    assert all(wanted == found for wanted, found, _ in counts.values())
    assert counts["answers late, or other than 200"][1] == "0"
    assert counts["reports lost, invented, out of order"][1] == "0"
    assert counts["audit: charges"][1] == counts["billing: charges"][1] != "0"
    for act in ("Act 1", "Act 2", "Act 3", "Kafka is killed", "the bridge is killed, too", "every count agrees"):
        assert act in run.stdout
    plan, moved = run.stdout.index("reads again"), run.stdout.index("Moved. The way back: chatapp-bridge replay groups")
    written, loaded = run.stdout.index("This is the plan; nothing was written"), run.stdout.index("it loaded ")
    assert plan < moved < written < loaded
    assert run.stderr == ""
    _until_gone(place)


def test_on_a_kafka_of_somebody_else_it_leaves_nothing_and_kills_nothing(place: Path, kafka_bootstrap: str) -> None:
    """Topics of its own, removed at the end; the act that kills Kafka is left out, with a word."""
    before = _topics(kafka_bootstrap)
    run = _demo(place, "--bootstrap", kafka_bootstrap)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Left out: it kills Kafka, and this Kafka is yours" in run.stdout
    assert {verdict for _, _, verdict in _counts(run.stdout).values()} == {"agrees"}
    assert _topics(kafka_bootstrap) - {"__consumer_offsets"} == before - {"__consumer_offsets"}
    _until_gone(place)


def _topics(bootstrap: str) -> set[str]:
    async def ask() -> set[str]:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await client.start()
        try:
            return set(await client.list_topics())
        finally:
            await client.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("number", [signal.SIGINT, *([signal.SIGTERM, signal.SIGHUP] if LONG else [])])
def test_kept_running_it_takes_the_example_and_is_gone_when_interrupted(
    running: subprocess.Popen[str], place: Path, number: signal.Signals
) -> None:
    """The line it prints works as it stands; whatever ends it, everything is taken down."""
    url, body = _printed_example(running)
    request = urllib.request.Request(url, body.encode())  # noqa: S310  what the demo printed
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        assert (answer.status, answer.read()) == (200, b'{"code":0,"msg":"Success"}')
    running.send_signal(number)
    output, _ = running.communicate(timeout=SOON_SECONDS)
    assert running.returncode == 0, output
    assert "everything was taken down" in output
    _until_gone(place)


def test_interrupted_before_its_end_it_is_gone_at_once(running: subprocess.Popen[str], place: Path) -> None:
    """In the middle of a campaign: exit code 130, and everything is taken down."""
    assert running.stdout is not None
    next(line for line in running.stdout if line.startswith("Act 1"))
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=SOON_SECONDS)
    assert running.returncode == 130, output
    assert "Traceback" not in output
    _until_gone(place)


def test_killed_it_leaves_no_process(running: subprocess.Popen[str], place: Path) -> None:
    """Nobody is asked: the kernel ends what it started. Temporary files stay in this case alone."""
    _printed_example(running)
    running.kill()
    deadline = time.monotonic() + SOON_SECONDS
    while (left := [words for words in _left(place) if "\0" in words]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def _printed_example(running: subprocess.Popen[str]) -> tuple[str, str]:
    """The address and the body of the line that may be copied."""
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if match := re.match(r"curl -sS (\S+) --data '(.*)'", line):
            return match[1], match[2]
    raise AssertionError("".join(said))


def test_a_kafka_that_is_not_there_is_said_in_words(place: Path) -> None:
    """Exit code 1, no traceback, nothing left."""
    run = _demo(place, "--bootstrap", "127.0.0.1:1")
    assert run.returncode == 1
    assert "no Kafka answers at 127.0.0.1:1" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    _until_gone(place)


@pytest.mark.parametrize("arguments", [["--acts", "4"], ["--acts", ""], ["--messages", "1"], ["--rate", "0"]])
def test_what_it_cannot_do_is_refused_before_anything_starts(place: Path, arguments: list[str]) -> None:
    """Wrong usage: exit code 2."""
    run = _demo(place, *arguments)
    assert run.returncode == 2
    assert _left(place) == []


def test_identifiers_of_people_are_masked() -> None:
    """The first and the last two characters are enough to recognise one."""
    assert dashboard.masked("12005550142") == "1********42"
    assert dashboard.masked("US.0000000000000016").endswith("*16")
    assert dashboard.masked("123") == "***"
    assert dashboard.masked("") == ""


def test_a_sparkline_is_low_for_little_and_never_wider_than_told() -> None:
    """Its greatest value is the highest bar, unless that is next to nothing."""
    assert dashboard.sparkline([0, 500, 1000], 22) == "▁▅█"
    assert dashboard.sparkline([0, 1, 2], 22) == "▁▂▂"
    assert len(dashboard.sparkline(range(100), 22)) == 22


def test_a_reading_is_what_metrics_say() -> None:
    """Names and labels as the bridge publishes them; values that are no count are passed over."""
    text = """
# TYPE chatapp_bridge_callbacks_total counter
chatapp_bridge_callbacks_total{answer="200"} 7.0
chatapp_bridge_callbacks_total{answer="503"} 1.0
# TYPE chatapp_bridge_reports_waiting gauge
chatapp_bridge_reports_waiting 5.0
# TYPE chatapp_bridge_lanes gauge
chatapp_bridge_lanes{state="degraded"} 2.0
chatapp_bridge_lanes{state="healthy"} 13.0
# TYPE chatapp_bridge_something gauge
chatapp_bridge_something +Inf
"""
    reading = Reading.parse(text)
    assert reading.answers == {"200": 7, "503": 1}
    assert (reading.waiting, reading.degraded, reading.healthy, reading.spool_rows) == (5, 2, 13, 0)
    assert not reading.drained


def test_rich_markup_in_what_is_said_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """What comes from outside, an address or a reason, can't style or break the screen."""
    from bridge.lab.demo.screen import Screen  # noqa: PLC0415

    Screen(Console(highlight=False)).say("[red]as it stands[/nonsense]")
    assert "[red]as it stands[/nonsense]" in capsys.readouterr().out
