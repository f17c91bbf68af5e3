"""The narration: above a dashboard on a terminal, line by line where there is none."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.lab.demo import dashboard
from bridge.lab.demo.reckoning import Reckoning
from bridge.lab.demo.stage import Stage

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 2.0
# Left free beside the dashboard: a terminal's ^C would begin a new line there, and not all would be wiped.
_ECHO_COLUMNS = 3


class Screen:
    """Says what happens, with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def act(self, number: int, title: str, look: str) -> None:
        """An act begins."""
        self._console.print()
        self._console.print(Text(f"Act {number}: {title}", "bold cyan"), soft_wrap=True)
        self._console.print(Text(look, "italic"), soft_wrap=not self._console.is_terminal)

    def say(self, text: str, style: str = "") -> None:
        """Something happened."""
        seconds = Text(f"{time.monotonic() - self._began:5.1f} s", "dim")
        if not self._console.is_terminal:
            self._console.print(Text.assemble(seconds, "  ", text), soft_wrap=True)
            return
        row = Table.grid(padding=(0, 2))
        row.add_row(seconds, Text(text, style))
        self._console.print(row)

    def quote(self, text: str) -> None:
        """Something to be copied: never wrapped."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    @asynccontextmanager
    async def watching(self, stage: Stage) -> AsyncIterator[None]:
        """Show how things are while the block runs."""
        task = asyncio.create_task(self._dashboard(stage) if self._console.is_terminal else self._lines(stage))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def table(self, reckoning: Reckoning) -> None:
        """The account at the end, and what differs if anything does."""
        table = Table(box=None, pad_edge=False, padding=(0, 2), title_justify="left")
        table.add_column("")
        table.add_column("has to be", justify="right")
        table.add_column("is", justify="right")
        table.add_column("")
        for row in reckoning.rows:
            verdict = Text("agrees", "green") if row.agrees else Text("DIFFERS", "bold red")
            if row.wanted is None:
                table.add_row(Text(row.name, "dim"), "", Text(f"{row.found:,}", "dim"), "")
            else:
                table.add_row(row.name, f"{row.wanted:,}", f"{row.found:,}", verdict)
        self._console.print()
        self._console.print(table)
        if not reckoning.check.ok:
            self.quote(reckoning.check.describe())

    async def _dashboard(self, stage: Stage) -> None:
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                width = max(self._console.width - _ECHO_COLUMNS, 1)
                live.update(Constrain(dashboard.panels(stage), width), refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)

    async def _lines(self, stage: Stage) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self.say(dashboard.line(stage))
