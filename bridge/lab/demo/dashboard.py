"""How things are at this moment: panels for a terminal, one line for a log. Identifiers of people are masked."""

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bridge.lab.demo.consumers import Alerting, Billing, Consumer, Crm
from bridge.lab.demo.stage import Stage

_GOOD, _BAD, _BUSY, _QUIET = "green", "red", "yellow", "dim"
_BARS = "▁▂▃▄▅▆▇█"
_MS_PER_SECOND = 1000
_CENTS = 100
_HIDDEN_MIN = 3
_KAFKA_STYLES = {"up": _GOOD, "killed": _BAD, "starting": _BUSY}
_TOP = 3
# Less than this many waiting is a matter of milliseconds, and stays low.
_SPARK_MIN = 200

Cells = tuple[str, RenderableType]


def panels(stage: Stage) -> RenderableType:
    """The whole dashboard."""
    return Group(
        _side_by_side([_provider(stage), _bridge(stage), _kafka(stage)]),
        _side_by_side([_team(group.consumer) for group in stage.groups]),
    )


def line(stage: Stage) -> str:
    """The same in one line."""
    reading = stage.reading
    waiting = f"{reading.waiting:,} waiting, {reading.degraded} lanes degraded" if reading else "not running"
    pushed = sum(campaign.ledger.reports for campaign in stage.campaigns)
    teams = ", ".join(f"{group.consumer.name} {group.consumer.total:,}" for group in stage.groups)
    return f"pushed {pushed:,} reports | Kafka {stage.kafka_state} | bridge: {waiting} | {teams}"


def masked(identifier: str) -> str:
    """A telephone number or user id, its middle hidden."""
    if len(identifier) <= _HIDDEN_MIN:
        return "*" * len(identifier)
    return f"{identifier[0]}{'*' * (len(identifier) - _HIDDEN_MIN)}{identifier[-2:]}"


def milliseconds(seconds: float) -> str:
    """A latency as people read it."""
    return "-" if math.isnan(seconds) else f"{seconds * _MS_PER_SECOND:,.0f} ms"


def sparkline(values: Sequence[int], width: int) -> str:
    """The last ``width`` values as bars; the greatest is the highest bar."""
    shown = list(values)[-width:]
    top = max([*shown, _SPARK_MIN])
    return "".join(_BARS[math.ceil(value / top * (len(_BARS) - 1))] for value in shown)


def _side_by_side(parts: Sequence[RenderableType]) -> Table:
    grid = Table.grid(expand=True)
    for _ in parts:
        grid.add_column(ratio=1)
    grid.add_row(*parts)
    return grid


def _panel(
    title: str, rows: Iterable[Cells], *below: RenderableType, style: str = "cyan", subtitle: str | None = None
) -> Panel:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(style=_QUIET, no_wrap=True)
    table.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    for name, value in rows:
        table.add_row(name, value)
    lines = Group(table, *below)
    return Panel(
        lines, title=title, title_align="left", subtitle=subtitle, subtitle_align="right", border_style=style, height=8
    )


def _provider(stage: Stage) -> Panel:
    if not stage.campaigns:
        return _panel("provider", [("pushed", "nothing yet")])
    campaign = stage.campaigns[-1]
    now = campaign.ledger.summary()
    acknowledged = now.acknowledged_first + now.acknowledged_after_retry
    other = sum(count for answer, count in now.answers.items() if answer != "200")
    rows: list[Cells] = [
        ("reports pushed", f"{now.reports:,}"),
        ("answered 200", Text(f"{acknowledged:,}", _GOOD)),
        ("anything else", Text(f"{other:,}", _BUSY if other else _QUIET)),
        ("99 % within", milliseconds(now.latency.p99_seconds)),
        ("slowest", milliseconds(now.latency.max_seconds)),
    ]
    if campaign.total_reports is None:
        return _panel("provider", rows)
    return _panel(
        "provider",
        rows,
        ProgressBar(campaign.total_reports, now.reports, complete_style="cyan", finished_style=_GOOD),
    )


def _bridge(stage: Stage) -> Panel:
    reading = stage.reading
    if reading is None:
        return _panel("bridge", [("", Text("not running", _BAD))], style=_BAD)
    answers = ", ".join(f"{answer}: {count:,}" for answer, count in sorted(reading.answers.items()))
    lanes = Text(f"{reading.degraded} degraded", _BUSY) if reading.degraded else Text("all healthy", _GOOD)
    return _panel(
        "bridge",
        [
            ("answers", answers or "none yet"),
            ("lanes", lanes),
            ("waiting", Text(f"{reading.waiting:,}", _BUSY if reading.waiting else _QUIET)),
            ("spool rows", Text(f"{reading.spool_rows:,}", _BUSY if reading.spool_rows else _QUIET)),
        ],
        Text(),
        Text(sparkline(stage.history, 22), _BUSY if reading.spool_rows else _QUIET, no_wrap=True, overflow="crop"),
    )


def _kafka(stage: Stage) -> Panel:
    where = ",".join(stage.settings.kafka.bootstrap_servers)
    read = max(group.records for group in stage.groups)
    return _panel(
        "Kafka",
        [
            ("yours" if stage.kafka is None else "one node", Text(stage.kafka_state, _KAFKA_STYLES[stage.kafka_state])),
            ("records read", f"{read:,}"),
        ],
        Text(where, _QUIET, no_wrap=True, overflow="ellipsis"),
        Text(stage.settings.topics.status, _QUIET, no_wrap=True, overflow="ellipsis"),
        style=_BAD if stage.kafka_state == "killed" else "cyan",
    )


def _team(consumer: Consumer) -> Panel:
    rows: list[Cells] = []
    match consumer:
        case Crm():
            rows = _crm(consumer)
        case Billing():
            rows = [("charges", f"{consumer.total:,}"), ("amount", f"{consumer.amount_cents / _CENTS:,.2f}")]
        case Alerting():
            rows = _alerting(consumer)
    subtitle = f"{consumer.events:,} + {consumer.repeats:,} repeats"
    return _panel(consumer.name, rows, style="blue", subtitle=subtitle)


def _crm(crm: Crm) -> list[Cells]:
    states = crm.states()
    rows: list[Cells] = [("messages", f"{crm.total:,}")]
    rows += [(name.lower(), f"{states[name]:,}") for name in ("SENT", "DELIVERED", "READ", "FAILED")]
    if crm.last is not None:
        rows.append((masked(crm.last.recipient or crm.last.user_id or ""), crm.last.status.lower()))
    return rows


def _alerting(alerting: Alerting) -> list[Cells]:
    rows: list[Cells] = [("failures", f"{alerting.total:,}"), ("of messages", f"{alerting.rate():.1%}")]
    rows += [(name.lower(), f"{alerting.rate(name):.1%}") for name, _ in alerting.failures.most_common(_TOP)]
    rows += [(name, f"{count:,}") for name, count in alerting.templates.most_common(1)]
    return rows
