"""The exchange of a damaged file: a new one takes its place at once, and takes over the whole rows afterwards.

The damaged file is moved to ``damaged/``. The new one names it in its ``meta``, with how far the salvage has come, so that
a salvage goes on after a restart. New rows go into the new file meanwhile.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Self

import msgspec

from bridge import durable
from bridge.durable import sync
from bridge.spool.connection import create
from bridge.spool.disk import make_directory, size_of
from bridge.spool.format import DATABASE, PAGE_BYTES, PARTIAL, REBUILD, TAKEN_OVER
from bridge.spool.reader import load_texts
from bridge.spool.rows import EncodedRow, crc_of, crc_of_text
from bridge.spool.salvage import RawPages, Value, WalFrames, raw_rows, rows_of, rows_of_leaf

SALVAGE: Final = "salvage"
"""The key of `Sources` in ``meta``."""
_FIRST_PAGES: Final = 32
"""The texts of ``meta`` are on one of these."""


class Source(msgspec.Struct):
    """A damaged file whose rows are being taken over.

    ``page``: this many of its pages are done. ``first_seqs``: the first seq of each lane, where known, that was not
    deleted. Where it is not known and the header is lost, rows that were deleted shortly before the damage may come
    back: they are published again with the same id. ``unwanted``: rows (lane, seq) that were refused, though they may
    be in the file.
    """

    path: str
    page: int = 0
    first_seqs: dict[int, int] = {}
    unwanted: set[tuple[int, int]] = set()

    def wants(self, lane: int, seq: int) -> bool:
        """Whether the row is to be taken over."""
        return seq >= self.first_seqs.get(lane, seq) and (lane, seq) not in self.unwanted


class Sources(msgspec.Struct):
    """All damaged files whose rows are being taken over, the current one first; in ``meta`` as JSON."""

    files: list[Source]

    @classmethod
    def of(cls, meta: Mapping[str, str]) -> Self:
        """Those that ``meta`` names."""
        text = meta.get(SALVAGE)
        return cls([]) if text is None else msgspec.json.decode(text, type=cls)

    @property
    def text(self) -> str:
        """For ``meta``."""
        return msgspec.json.encode(self).decode()

    def deleted(self, lane: int, through: int) -> None:
        """Rows that were deleted do not come back."""
        for source in self.files:
            source.first_seqs[lane] = max(through + 1, source.first_seqs.get(lane, through + 1))


@dataclass(slots=True)
class Found:
    """Whole rows of some pages of a damaged file."""

    queue: list[EncodedRow] = field(default_factory=list)
    dead_letters: list[list[Value]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    size: int = 0
    pages: int = 0

    def add(self, rows: Iterable[list[Value]], source: Source) -> None:
        """Keep every row of the queue that its CRC proves, and all others as they are."""
        self.pages += 1
        for row in rows:
            match row:
                case [_, int(lane), int(seq), int(n), int(crc), bytes(body)]:
                    if source.wants(lane, seq) and crc == crc_of(lane, seq, n, body):
                        self.queue.append(EncodedRow(lane, seq, n, body, None, 0))
                        self.size += len(body)
                case [rowid, None, int(), int(), int(), str(), int(), int(), bytes(body)]:
                    self.dead_letters.append([rowid, *row[2:]])
                    self.size += len(body)
                case [_, str(key), str(value), int(crc)] if crc == crc_of_text(key, value):
                    self.texts[key] = value


class Salvage:
    """Reads one damaged file, a piece at a time.

    Args:
        directory: of the spool.
        source: which file, and where to begin.
    """

    def __init__(self, directory: Path, source: Source) -> None:
        self.source = source
        damaged = directory / source.path
        database, wal_path, absent = damaged / DATABASE, damaged / f"{DATABASE}-wal", damaged / "absent"
        self._all_pages = max(1, size_of(database) // PAGE_BYTES + size_of(wal_path) // PAGE_BYTES)
        wal = WalFrames(wal_path)
        parts = [(database, WalFrames(absent)), (absent, wal)] if _is_stale(database, wal) else [(database, wal)]
        pages = (rows for number, part in enumerate(parts) for rows in raw_rows(*part, 0 if number else source.page))
        self._pages = islice(pages, source.page, None)

    @property
    def share(self) -> float:
        """About how much is done, from 0 to 1; above 1 for some steps that belong to no page."""
        return self.source.page / self._all_pages

    def take(self, seconds: float, max_bytes: int) -> Found:
        """The rows of the next pages, none at the end. The caller moves ``source.page`` on when they are stored."""
        found, until = Found(), time.monotonic() + seconds
        for rows in self._pages:
            found.add(rows, self.source)
            if found.size >= max_bytes or time.monotonic() >= until:
                break
        return found


def make_ready(directory: Path) -> Path | None:
    """Have a file that SQLite may open; where a damaged one was exchanged for it, where that is now."""
    database, partial = directory / DATABASE, directory / PARTIAL
    partial.unlink(missing_ok=True)
    if (directory / REBUILD).exists():
        _finish(directory)
    wal = WalFrames(directory / f"{DATABASE}-wal")
    if wal.broken or _is_stale(database, wal):
        return exchange(directory, "wal")
    if size_of(database) == 0:
        create(partial).close()
        sync(partial)
        partial.rename(database)
        sync(directory)
    return None


def exchange(directory: Path, reason: str, source: Source | None = None, others: Iterable[Source] = ()) -> Path:
    """Put an empty file in the place of the damaged one, which is moved to ``damaged/`` with its -wal and -shm.

    Args:
        directory: of the spool.
        reason: becomes a part of the folder's name.
        source: what is known of the damaged file's rows; its path is set here.
        others: files that the damaged one had not taken over wholly.
    """
    if not (directory / REBUILD).exists():  # else an earlier attempt failed between its steps
        _prepare(directory, reason, source or Source(""), others)
    return _finish(directory) or exchange(directory, reason, source, others)


def _prepare(directory: Path, reason: str, source: Source, others: Iterable[Source]) -> None:
    """Have a whole ``rebuild.db``."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    source.path = f"damaged/{stamp}-{time.time_ns() % 10**9:09d}-{reason}"
    texts = _texts(directory / DATABASE, directory / f"{DATABASE}-wal")
    known: dict[str, Source] = {}
    for each in (source, *others, *Sources.of(texts).files, *_not_taken_over(directory)):
        known.setdefault(each.path, each)
        each.page = 0  # the rows that were taken over already were in the damaged file alone
    texts[SALVAGE] = Sources(list(known.values())).text
    partial = directory / PARTIAL
    try:
        with closing(create(partial)) as connection:
            for text in texts.items():
                connection.execute("INSERT INTO meta VALUES (?, ?, ?)", (*text, crc_of_text(*text)))
        sync(partial)
    except BaseException:
        partial.unlink(missing_ok=True)  # its room may be what is missing
        raise
    partial.rename(directory / REBUILD)
    sync(directory)


def mark_taken_over(damaged: Path) -> None:
    """Note that the whole rows of a damaged file are in the spool, should the file that says so be damaged as well."""
    if damaged.exists():
        os.close(durable.create(damaged / TAKEN_OVER, os.O_WRONLY))
        sync(damaged)


def _not_taken_over(directory: Path) -> list[Source]:
    paths = sorted((directory / "damaged").glob("*/"), reverse=True)
    return [Source(f"damaged/{path.name}") for path in paths if not (path / TAKEN_OVER).exists()]


def _finish(directory: Path) -> Path | None:
    """Move the damaged file away and the new one to its place; after a crash this may begin again.

    Returns:
        Where the damaged file is; None if ``rebuild.db`` was damaged and is gone.
    """
    try:
        with closing(sqlite3.connect(f"{(directory / REBUILD).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            meta = load_texts(connection)
        moved_to = directory / Sources.of(meta).files[0].path
    except (sqlite3.DatabaseError, msgspec.MsgspecError, IndexError):
        (directory / REBUILD).unlink()  # it holds no row yet, and does not say where the damaged file goes
        return None
    make_directory(moved_to)
    for suffix in ("-wal", "-shm", ""):  # the file last: while it is in place a restart finds the exchange undone
        path = directory / (DATABASE + suffix)
        if path.exists():
            path.rename(moved_to / path.name)
    sync(moved_to)
    (directory / REBUILD).rename(directory / DATABASE)
    sync(directory)
    return moved_to


def _texts(database: Path, wal_path: Path) -> dict[str, str]:
    """What ``meta`` held, as far as it is found at once: what a caller needs before the salvage is done."""
    found = Found()
    wal = WalFrames(wal_path)
    pages = RawPages(database, wal)
    try:
        numbers = [*range(1, _FIRST_PAGES + 1), *(number for number in wal.pages if number > _FIRST_PAGES)]
        for number in numbers:
            found.add(rows_of(number, pages), Source(""))
        for _, offset in wal.lost:
            found.add(rows_of_leaf(wal.page(offset), 0, pages), Source(""))
    finally:
        pages.close()
    return found.texts


def _is_stale(database: Path, wal: WalFrames) -> bool:
    """Whether the WAL belongs to another file than the one next to it."""
    if size_of(database) == 0:
        return bool(wal.pages or wal.lost)
    if wal.page_one_offset is None:
        return False
    with database.open("rb") as file:
        return file.read(72)[68:] != wal.page(wal.page_one_offset)[68:72]
