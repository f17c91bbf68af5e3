"""What the spool's thread does behind a start: it takes over the rows of a damaged file, then checks the index.

A piece at a time, so that appends need not wait.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge.spool.file import SpoolFile
from bridge.spool.rebuild import Found, Salvage, Source
from bridge.spool.rows import Ledger
from bridge.spool.stats import SpoolEvent

_REPORT_SECONDS: Final = 10.0
"""Between two events about the progress."""
_RETRY_SECONDS: Final = 1.0
"""After a failure of the disk."""
_TAKE_BYTES: Final = 1 << 20
"""Bodies beyond which what was found is stored."""
_ALMOST: Final = 0.99
"""The largest share before all is done."""


class Checking:
    """See the module docstring. Used by the spool's thread alone.

    Args:
        directory: of the spool.
        report: takes the events.

    Attributes:
        salvaged_at_start: reports of a salvage that began, or went on, when the spool was opened, once it is done.
    """

    def __init__(self, directory: Path, report: Callable[[SpoolEvent], None]) -> None:
        self.salvaged_at_start = 0
        self._since_start = False
        self._directory = directory
        self._report = report
        self._salvage: Salvage | None = None
        self._found: Found | None = None  # not stored yet
        self._rows = 0
        self._reports: dict[int, int] = {}  # by lane
        self._retry_at = 0.0
        self._began: float | None = None
        self._reported_at = 0.0

    def opened(self, file: SpoolFile) -> None:
        """The spool was opened: what ``file`` holds, and what is salvaged now, are of a former process."""
        if file.sources.files:
            self._since_start = True
            self._reports = {lane: stats.reports for lane, stats in file.ledger.lanes.items()}

    def exchanged(self, ledger: Ledger) -> None:
        """The file with ``ledger`` was damaged, and its rows are taken over again: none is counted twice."""
        known = {lane: stats.reports for lane, stats in ledger.lanes.items()} if self._since_start else self._reports
        self._rows = 0
        self._reports = {lane: self._reports.get(lane, 0) - known.get(lane, 0) for lane in self._reports.keys() | known}

    @property
    def is_due(self) -> bool:
        """Whether there is no pause after a failure."""
        return time.monotonic() >= self._retry_at

    def share(self, file: SpoolFile) -> float:
        """How far it is, from 0 to 1, which it is only when all is done."""
        if file.sources.files:
            return min(_ALMOST, self._salvage.share) if self._salvage is not None else 0.0
        return 1.0 if file.check is None else min(_ALMOST, file.check.share)

    def failed(self) -> None:
        """The disk failed: pause."""
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def work(self, file: SpoolFile, until: float) -> int:
        """Go on until that time (monotonic), for a piece at least; bytes written. Raises what `SpoolFile` does."""
        written = 0
        if not self.is_due or file.checked:
            return written
        if self._began is None:
            self._began = self._reported_at = time.monotonic()
        if file.sources.files:
            written = self._take_over(file, until)
        else:
            file.check_until(until)
        self._report_progress(file, time.monotonic() - self._began)
        return written

    def _take_over(self, file: SpoolFile, until: float) -> int:
        source = file.sources.files[0]
        if self._salvage is None or self._salvage.source is not source:
            self._salvage = self._found = None
        if self._found is None:
            try:
                self._salvage = self._salvage or Salvage(self._directory, source)
                self._found = self._salvage.take(until - time.monotonic(), _TAKE_BYTES)
            except OSError as error:  # of the damaged file: the new one is well
                self._salvage = None
                self.failed()
                self._report(SpoolEvent("failed", f"{self._directory / source.path}: {error}"))
                return 0
        if self._found.pages:
            rows = file.ledger.rows
            for lane, reports in file.take_over(self._found).items():
                self._reports[lane] = self._reports.get(lane, 0) + reports
            self._rows += file.ledger.rows - rows
        else:
            self._end(file, source)
        size, self._found = self._found.size, None
        return size

    def _end(self, file: SpoolFile, source: Source) -> None:
        file.end_source()
        if file.sources.files:
            return
        rows, self._rows = self._rows, 0
        # Below zero where rows of this process were lost: their lane counts these when it comes to its end.
        lanes, self._reports = {lane: reports for lane, reports in self._reports.items() if reports > 0}, {}
        reports = sum(lanes.values())
        if self._since_start:
            self._since_start, self.salvaged_at_start = False, reports
        path = self._directory / source.path
        self._report(SpoolEvent("salvaged", f"{path}: {rows} whole rows were taken over", path, rows, reports, lanes))

    def _report_progress(self, file: SpoolFile, seconds: float) -> None:
        if file.checked:
            if self._reported_at > (self._began or 0.0):
                self._report(SpoolEvent("checked", f"{self._directory}: the file was checked in {seconds:.0f} s"))
            self._began = None
        elif time.monotonic() - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = time.monotonic()
            what = "taking over the rows of a damaged file" if file.sources.files else "checking the file"
            message = f"{self._directory}: {what}: {self.share(file):.0%} after {seconds:.0f} s"
            self._report(SpoolEvent("checking", message))
