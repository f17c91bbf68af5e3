"""How far a command is: a bar on a terminal, else plain lines; always on standard error, as the output may be data."""

import sys
import time
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bridge.operate import console

_BAR_SECONDS: Final = 0.1
_LINE_SECONDS: Final = 5.0


class Progress:
    """Shows records read and written, the rate, and the time left.

    Args:
        total: offsets to read; of a resumed run, those that are left.
        read: records that were read before.

    Attributes:
        seconds: how long it took, at the end.
    """

    def __init__(self, total: int, read: int = 0) -> None:
        self._total, self._read_before = total, read
        self._began = time.monotonic()
        self._shown_at = self._began
        self._terminal = sys.stderr.isatty()
        self._bar: Bar | None = None
        self._task: Any = 0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        if self._terminal:
            columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
            self._task = self._bar.add_task("", total=max(1, self._total), text="")
            self._bar.start()
        self._began = self._shown_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._began
        if self._bar is not None:
            self._bar.stop()

    def show(self, read: int, written: int, left: int) -> None:
        """Tell how far it is; cheap where it is not yet time to show it.

        Args:
            read: records, over all of the run.
            written: of those.
            left: offsets.
        """
        now = time.monotonic()
        if now - self._shown_at < (_BAR_SECONDS if self._bar else _LINE_SECONDS):
            return
        self._shown_at = now
        rate = (read - self._read_before) / (now - self._began)
        text = f"{read:,} read, {written:,} written, {rate:,.0f}/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._total - left, text=text)
            self._bar.refresh()
            return
        passed = self._total - left
        seconds = left * (now - self._began) / passed if passed else None
        rest = "" if seconds is None else f", about {console.duration(seconds)} left"
        percent = 100 * passed // max(1, self._total)
        console.show(f"{text}, {percent} %{rest}", out=sys.stderr)
