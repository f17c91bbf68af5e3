"""The spool's room on disk: how much it may take, how much is left, and why an append is refused.

The disk in use, except for ``damaged/``, stays within ``max_bytes``: pages in use, the ballast, and twice the WAL's bound.
Appends are taken only while the ballast stands; it is freed when the disk is full, so that deletes and checkpoints go on.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge.errors import SpoolError, SpoolFull
from bridge.spool.connection import WAL_BYTES
from bridge.spool.disk import Ballast
from bridge.spool.file import SpoolFile, SpoolHooks
from bridge.spool.format import PAGE_BYTES
from bridge.spool.stats import SpoolEvent

BALLAST_BYTES: Final = 2 * WAL_BYTES
"""More than a WAL holds: when the disk is full, the WAL must find room in the file before it can be used again."""
LOOK_SECONDS: Final = 0.1
"""How often free space is measured while something is written, or while appends are refused."""
RETRY_SECONDS: Final = 1.0
"""Between attempts to open a file that could not be opened, and to make a ballast that had to be freed."""
_COUNT_SECONDS: Final = 5.0
"""Between counts of the files in ``damaged/``."""


class Room:
    """What the spool of one directory may take of the disk. Used by the spool's thread alone."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        min_free_bytes: int,
        hooks: SpoolHooks,
        report: Callable[[SpoolEvent], None],
    ) -> None:
        self.max_pages = max_bytes // PAGE_BYTES
        self.wal_bytes = min(WAL_BYTES, max_bytes // 16)
        self.wal_excess_bytes = 0  # what the WAL takes beyond its bound, because a reader does not let it be restarted
        self.file_bytes = 0
        self.free_bytes = 0
        self.kept_damaged_files = 0
        self._directory = directory
        self._hooks = hooks
        self._report = report
        self._min_free_bytes = min_free_bytes
        self._ballast = Ballast(directory, min(BALLAST_BYTES, max_bytes // 8))
        self._capacity_bytes = max_bytes - self._ballast.size_bytes - 2 * self.wal_bytes
        self._used_bytes = 0
        self._looked_at = 0.0
        self._counted_at = -_COUNT_SECONDS
        self._freed_at = 0.0

    def find_ballast(self) -> None:
        """See whether the ballast stands, once the directory is owned."""
        self._ballast.find()

    def left(self) -> int:
        """Bytes that may still be appended."""
        return min(self._capacity_bytes - self._used_bytes, self.free_bytes - self._min_free_bytes)

    @property
    def is_tight(self) -> bool:
        """Whether so little is left that it is measured in every round."""
        return self.left() < self._capacity_bytes // 8

    def refusal(self, cost_bytes: int = 0) -> SpoolError | None:
        """Why an append of that size finds no room now; None if it does."""
        if not self._ballast.stands:
            return SpoolFull(f"{self._directory}: the disk is full")
        if self._capacity_bytes - self._used_bytes <= cost_bytes:
            return SpoolFull(f"{self._directory}: the spool's bound is reached")
        if self.free_bytes - self._min_free_bytes <= cost_bytes:
            return SpoolFull(f"{self._directory}: {self.free_bytes} bytes free, {self._min_free_bytes} to be left")
        return None

    def take(self, cost_bytes: int) -> None:
        """Count an append, until the next look measures it."""
        self._used_bytes += cost_bytes

    def look_if_due(self, file: SpoolFile | None) -> None:
        """Measure at intervals, or at once when little is left."""
        tight = self.is_tight
        if tight or time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self.look(file)

    def look(self, file: SpoolFile | None) -> None:
        """Measure what is used and what is free; make the ballast again when there is room for it."""
        self._looked_at = time.monotonic()
        self.free_bytes = self._free()
        self._count_damaged()
        if file is not None:
            self.file_bytes = file.file_bytes()
            self.wal_excess_bytes = max(0, file.wal_bytes() - 2 * self.wal_bytes)
            self._used_bytes = file.used_bytes() + self.wal_excess_bytes
        ballast = self._ballast
        if ballast.stands or time.monotonic() - self._freed_at < RETRY_SECONDS:
            return
        if self.free_bytes >= self._min_free_bytes + 2 * ballast.size_bytes and ballast.make():
            self.free_bytes = self._free()
            self._report(SpoolEvent("recovered", f"{self._directory}: there is room on the disk again"))

    def make_room_to_open(self) -> None:
        """SQLite needs some blocks to open a file: on a full disk the ballast gives them."""
        self.free_bytes = self._free()
        if self._ballast.stands and self.free_bytes < self._ballast.size_bytes:
            self.free_ballast()
        elif not self._ballast.stands and self.free_bytes >= 2 * self._ballast.size_bytes:
            self._ballast.make()

    def free_ballast(self) -> None:
        """The disk is full: give the ballast's blocks to deletes and checkpoints. Appends are refused from now on."""
        if self._ballast.stands:
            self._ballast.free()
            self._report(SpoolEvent("full", f"{self._directory}: the disk is full"))
        self._freed_at = time.monotonic()

    def recount_damaged(self) -> None:
        """Count the files in ``damaged/`` at the next look."""
        self._counted_at = -_COUNT_SECONDS

    def _count_damaged(self) -> None:
        """Files in ``damaged/`` stay there until somebody removes them, over restarts too."""
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            self._counted_at = now
            self.kept_damaged_files = len(list((self._directory / "damaged").glob("*")))

    def _free(self) -> int:
        stat = os.statvfs(self._directory)
        return self._hooks.free_bytes(stat.f_bavail * stat.f_frsize)
