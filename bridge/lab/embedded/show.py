"""How far a download is: a bar on a terminal, plain lines elsewhere."""

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

MEGABYTE = 1_000_000
PLAIN_STEPS = 4


class Progress:
    """Shows a download of ``total_bytes`` in ``files`` files; ``advance`` may be called from any thread."""

    def __init__(self, console: Console, what: str, files: int, total_bytes: int) -> None:
        self._console = console
        self._what = what
        self._files = files
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        title = f"fetching {self._what}"
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task(title, total=self._total_bytes)
            self._bar.start()
        else:
            size = f"{self._total_bytes / MEGABYTE:.0f} MB"
            self._console.print(f"{title}: {self._files} files, {size}, once", highlight=False)
        return self

    def advance(self, count_bytes: int) -> None:
        """``count_bytes`` more have come."""
        with self._lock:
            before = self._done_bytes * PLAIN_STEPS // max(self._total_bytes, 1)
            self._done_bytes += count_bytes
            after = self._done_bytes * PLAIN_STEPS // max(self._total_bytes, 1)
            if self._bar is not None:
                self._bar.advance(self._task, count_bytes)
            elif after > before:
                self._console.print(f"fetching {self._what}: {after * 100 // PLAIN_STEPS} %", highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.stop()
