"""How the spool is, as its owner sees it: the figures of the last commit, and the events for an operator."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from bridge.spool.rows import LaneStats


class SpoolEvent(msgspec.Struct, frozen=True):
    """Something an operator should hear of; no event carries a key or a value.

    ``damaged_file``: moved to ``path``. ``salvaged``: ``rows`` and ``reports`` were taken over from damaged files, and
    ``lanes`` has the reports by lane; where that began at the start, with those that had been taken over before.
    ``damaged_row``: dead-lettered. ``checking``: how far the check or the salvage is. ``checked``: both are done, after
    some time. ``full``: appends are refused. ``failed``: the disk failed. ``recovered``: appends are taken again.
    """

    kind: Literal["damaged_file", "salvaged", "damaged_row", "checking", "checked", "full", "failed", "recovered"]
    message: str
    path: Path | None = None
    rows: int = 0
    reports: int = 0
    lanes: dict[int, int] = {}


class SpoolStats(msgspec.Struct, frozen=True):
    """Figures as of the last commit or look at the disk. Lanes without rows are absent; ``bytes`` counts bodies.

    ``file_bytes`` is the disk that the file and its WAL take, ``free_bytes`` what the file system has left for us.
    ``damaged_files`` counts this process's, ``kept_damaged_files`` all that are in ``damaged/``, from earlier ones too.
    ``pending_deletes`` are lanes with a delete not done yet. ``writable``: an append of ordinary size would be taken now.
    ``salvaging``: rows of a damaged file are being taken over, and reads wait for it. ``checked``: that is done, and so is
    the check that the file's index and table agree; ``checked_share`` is how far these are, 1 only when both are done.
    """

    lanes: dict[int, LaneStats] = {}
    rows: int = 0
    reports: int = 0
    bytes: int = 0
    oldest_at_ms: int | None = None
    recovered_reports_at_start: int = 0
    dead_letter_rows: int = 0
    dead_letter_reports: int = 0
    damaged_files: int = 0
    kept_damaged_files: int = 0
    damaged_rows: int = 0
    write_errors: int = 0
    commits: int = 0
    pending_deletes: int = 0
    file_bytes: int = 0
    free_bytes: int = 0
    writable: bool = False
    salvaging: bool = False
    checked: bool = False
    checked_share: float = 0.0


@dataclass(slots=True)
class Counts:
    """What the spool's thread counts since the start."""

    recovered_reports: int = 0
    damaged_files: int = 0
    damaged_rows: int = 0
    write_errors: int = 0
    commits: int = 0
