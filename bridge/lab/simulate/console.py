"""A run's progress and summary for people: live on a terminal, plain lines elsewhere."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.table import Table

from bridge.lab.simulate.ledger import Summary

_MS_PER_SECOND = 1000
_LINE_EVERY_SECONDS = 5.0


class Progress(msgspec.Struct, frozen=True):
    """How far a run is. Counts are of pushes where nothing else is said."""

    elapsed_seconds: float
    pushes: int
    reports: int
    acknowledged: int
    waiting_for_retry: int
    lost: int


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Shows what it is called with."""
    if console.is_terminal:
        with console.status("connecting …") as status:
            yield lambda now: status.update(_line(now))
        return
    shown = 0.0

    def show(now: Progress) -> None:
        nonlocal shown
        if now.elapsed_seconds - shown >= _LINE_EVERY_SECONDS:
            shown = now.elapsed_seconds
            console.print(_line(now), markup=False, highlight=False, soft_wrap=True)

    yield show


def _line(now: Progress) -> str:
    rate = now.reports / now.elapsed_seconds if now.elapsed_seconds else 0
    return (
        f"{now.elapsed_seconds:.0f} s: {now.reports:,} reports in {now.pushes:,} callbacks, "
        f"{rate:,.0f} reports/s, "
        f"{now.acknowledged:,} acknowledged, {now.waiting_for_retry:,} waiting for a retry, {now.lost:,} lost"
    )


def print_summary(console: Console, summary: Summary) -> None:
    """The final table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _rows(summary):
        table.add_row(name, value)
    console.print(table)


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    rate = summary.reports / summary.duration_seconds if summary.duration_seconds else 0
    yield "pushed", f"{summary.reports:,} reports in {summary.pushes:,} callbacks"
    yield "took", f"{summary.duration_seconds:.1f} s, {rate:,.0f} reports/s"
    yield "acknowledged at once", f"{summary.acknowledged_first:,}"
    yield "after a retry", f"{summary.acknowledged_after_retry:,}"
    yield "lost", f"{summary.lost:,}" + (f" ({summary.lost_reports:,} reports)" if summary.lost else "")
    if summary.unresolved:
        yield "unresolved", f"{summary.unresolved:,}"
    yield "answers", ", ".join(f"{answer}: {count:,}" for answer, count in summary.answers.items()) or "none"
    if summary.late_answers:
        yield "too late", f"{summary.late_answers:,} answers"
    latency = summary.latency
    yield "latency, p50", _ms(latency.p50_seconds)
    yield "p99", _ms(latency.p99_seconds)
    yield "p99.9", _ms(latency.p99_9_seconds)
    yield "greatest", _ms(latency.max_seconds)


def _ms(seconds: float) -> str:
    return "none" if math.isnan(seconds) else f"{seconds * _MS_PER_SECOND:,.1f} ms"
