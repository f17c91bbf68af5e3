"""The account of a run."""

import asyncio
import math
import os
import signal
import sys
from pathlib import Path

import pytest
from support.simulate_server import OK, Exchange, push, report, serving

from bridge.errors import ConfigurationError
from bridge.lab.simulate.campaign import Campaign, CampaignOptions
from bridge.lab.simulate.ledger import Attempt, LateAnswer, Latency, Ledger

PUSHER = """
import asyncio, sys
from pathlib import Path
from bridge.lab.simulate.campaign import Campaign, CampaignOptions
from bridge.lab.simulate.connection import Target
from bridge.lab.simulate.ledger import Ledger
from bridge.lab.simulate.provider import Provider

provider = Provider(Target.parse(sys.argv[1]), Ledger(Path(sys.argv[2])))
asyncio.run(provider.run(Campaign(CampaignOptions(messages=100_000)).pushes()))
"""


def _attempt(push_number: int, number: int, error: str | None, *, status: int | None = 200, at: float = 1.0) -> Attempt:
    gave_up = error is not None and number == 3
    return Attempt(push_number, number, at, at + 0.1, at + 0.5, status, error, gave_up)


def _fill(ledger: Ledger) -> Ledger:
    """One push acknowledged at once, one after a retry, one lost with a late answer, one under way."""
    for number in range(4):
        ledger.opened(push(number, report("a"), report("b", "Read")), float(number))
    ledger.attempted(_attempt(0, 1, None))
    ledger.attempted(_attempt(1, 1, "status", status=503))
    ledger.attempted(_attempt(1, 2, None, at=61.0))
    for number in (1, 2, 3):
        ledger.attempted(_attempt(2, number, "timeout", status=None))
    ledger.answered_late(LateAnswer(2, 3, 200, 9.0))
    return ledger


def test_the_summary_adds_up() -> None:
    """Each push is in one place, each attempt under what was answered."""
    summary = _fill(Ledger()).summary()
    assert (summary.pushes, summary.reports) == (4, 8)
    assert (
        summary.acknowledged_first,
        summary.acknowledged_after_retry,
        summary.lost,
        summary.unresolved,
    ) == (1, 1, 1, 1)
    assert summary.lost_reports == 2
    assert summary.answers == {"200": 2, "503": 1, "timeout": 3}
    assert summary.late_answers == 1
    assert (summary.latency.count, summary.latency.p50_seconds) == (6, 0.5)
    assert summary.duration_seconds == 61.5
    assert not summary.ok


def test_quick_failures_do_not_flatter_the_latency() -> None:
    """Refused connections take no time and are no answers."""
    ledger = Ledger()
    ledger.opened(push(0), 0.0)
    ledger.attempted(_attempt(0, 1, "refused", status=None))
    assert ledger.summary().latency.count == 0
    assert math.isnan(ledger.summary().latency.p99_seconds)


def test_percentiles_are_of_the_nearest_rank() -> None:
    """A percentile is a latency that was observed."""
    latency = Latency.of([n / 1000 for n in range(1000, 0, -1)])
    assert (
        latency.p50_seconds,
        latency.p99_seconds,
        latency.p99_9_seconds,
        latency.max_seconds,
    ) == (0.5, 0.99, 0.999, 1.0)
    assert Latency.of([0.25]) == Latency(1, 0.25, 0.25, 0.25, 0.25)


def test_a_file_holds_the_whole_account(tmp_path: Path) -> None:
    """What is read back is what was written, reports and promises included."""
    written = _fill(Ledger(tmp_path / "ledger.ndjson"))
    read = Ledger.read(tmp_path / "ledger.ndjson")
    assert written.summary() == read.summary()
    for number, entry in written.entries.items():
        other = read.entries[number]
        for name in entry.__slots__:
            assert getattr(entry, name) == getattr(other, name), name
    written.close()


def test_every_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """Nothing waits in this process for a flush that a kill would prevent."""
    path = tmp_path / "ledger.ndjson"
    ledger = Ledger(path)
    ledger.opened(push(0), 0.0)
    assert list(Ledger.read(path).entries) == [0]
    ledger.close()


def test_a_file_cut_anywhere_can_be_read(tmp_path: Path) -> None:
    """Whole lines count; what follows the last line end does not."""
    path, cut = tmp_path / "ledger.ndjson", tmp_path / "cut.ndjson"
    _fill(Ledger(path)).close()
    data = path.read_bytes()
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        lines = data[:length].count(b"\n")
        read = Ledger.read(cut)
        counted = len(read.entries) + sum(len(e.attempts) + len(e.late) for e in read.entries.values())
        assert max(0, lines - 1) == counted


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    """Evidence of an earlier run stays."""
    path = tmp_path / "ledger.ndjson"
    _fill(Ledger(path)).close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="exists"):
        Ledger(path)
    assert before == path.read_bytes()
    with pytest.raises(ConfigurationError, match="can't be created"):
        Ledger(tmp_path / "missing" / "ledger.ndjson")


def test_a_full_disk_is_not_passed_over() -> None:
    """A ledger that can't be written stops the run."""
    ledger = Ledger()
    ledger._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        ledger.opened(push(0), 0.0)
    ledger.close()


async def test_after_a_kill_the_ledger_knows_every_push_that_was_received(tmp_path: Path) -> None:
    """A pusher killed in mid-run has written down whatever reached the other side."""
    process: asyncio.subprocess.Process | None = None

    async def kill(exchange: Exchange) -> None:
        if exchange.number == 300:
            assert process is not None
            process.send_signal(signal.SIGKILL)
        await exchange.send(OK)

    path = tmp_path / "ledger.ndjson"
    async with serving(kill) as server:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PUSHER, server.url, str(path))
        assert await process.wait() == -signal.SIGKILL
        received = [exchange.body for exchange in server.exchanges]
    ledger = Ledger.read(path)
    sent = {push.body: push for push in Campaign(CampaignOptions(messages=2000)).pushes()}
    assert len(received) > 300
    for body in received:
        assert sent[body].reports == ledger.entries[sent[body].number].reports
    assert ledger.acknowledged_first > 200
