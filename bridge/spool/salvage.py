"""Reads what is left of a damaged SQLite file, without SQLite.

Input: the bytes of ``spool.db`` and of its ``-wal``, either of them torn, overwritten, cut short or absent. Output: every
row that can still be parsed; the caller keeps those whose CRC proves them whole. Nothing is written here.

How: rows of a table stand in its leaf pages, and a leaf page explains itself, so neither the header nor the tree above
is needed. Only two things are taken from elsewhere: where a long row goes on (its overflow chain) and which pages are
free (the freelist, when the header can be read), because a freed page still holds the rows deleted from it.

Of the WAL, the frames up to the last commit with an unbroken checksum replace pages of the file, as SQLite would do it.
SQLite silently drops what follows a broken frame; here those frames are searched for rows too.

Layouts: https://sqlite.org/fileformat2.html, sections 1.5 (freelist), 1.6 (b-tree pages), 2.1 (records), 4.1 (WAL).
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.spool.disk import bound_read_ahead
from bridge.spool.format import PAGE_BYTES

Value = int | float | str | bytes | None

_WAL_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = struct.Struct(">6I")
_FRAME_BYTES: Final = _FRAME_HEADER.size + PAGE_BYTES
_CHUNK_BYTES: Final = 256 * PAGE_BYTES
_TABLE_LEAF: Final = 0x0D
_MAX_LOCAL: Final = PAGE_BYTES - 35
_MIN_LOCAL: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_MAX_ROW_BYTES: Final = 1 << 30


class WalFrames:
    """The frames of a ``-wal`` file: which are committed and whole, and which stand behind a break.

    ``pages`` maps a page number to the offset of its newest committed image. ``lost`` are number and offset of page
    images behind a broken frame that belong to this WAL all the same. ``broken`` says that a commit stands among them: a frame
    in the middle was damaged (a transaction torn by a power cut looks the same; nothing in it was promised).
    """

    def __init__(self, path: Path) -> None:
        self.pages: dict[int, int] = {}
        self.lost: list[tuple[int, int]] = []
        self.broken = False
        self.page_one_offset: int | None = None
        self._data = _bytes_of(path) if path.exists() else b""
        if len(self._data) >= _WAL_HEADER.size:
            self._walk()

    def page(self, offset: int) -> bytes:
        """The page image at ``offset``."""
        return self._data[offset : offset + PAGE_BYTES]

    def _walk(self) -> None:
        magic, _, page_bytes, _, salt_one, salt_two, sum_one, sum_two = _WAL_HEADER.unpack_from(self._data)
        order = {0x377F0682: "<", 0x377F0683: ">"}.get(magic)
        header_sums = _sums(self._data[:24], order or "<", 0, 0)
        intact = order is not None and page_bytes == PAGE_BYTES and header_sums == (sum_one, sum_two)
        self.broken = not intact and len(self._data) >= _WAL_HEADER.size + _FRAME_BYTES
        if self.broken:  # whose frames these are is said by the first of them
            salt_one, salt_two = _FRAME_HEADER.unpack_from(self._data, _WAL_HEADER.size)[2:4]
        sums, pending = (sum_one, sum_two), {}
        for start in range(_WAL_HEADER.size, len(self._data) - _FRAME_BYTES + 1, _FRAME_BYTES):
            number, commit, *salts_and_sums = _FRAME_HEADER.unpack_from(self._data, start)
            image = start + _FRAME_HEADER.size
            if salts_and_sums[:2] != [salt_one, salt_two]:
                # Left over from before the WAL was last restarted, and so is all that follows. Or this frame is damaged: then
                # frames with the right salts follow.
                intact = False
            if intact:
                sums = _sums(self._data[start : start + 8], order or "<", *sums)
                sums = _sums(self.page(image), order or "<", *sums)
                intact = list(sums) == salts_and_sums[2:]
            if intact:
                pending[number] = image
                if commit:
                    self.pages.update(pending)
                    pending.clear()
            elif salts_and_sums[:2] == [salt_one, salt_two]:
                self.lost.append((number, image))
                self.broken = self.broken or commit > 0
        self.page_one_offset = self.pages.get(1)


def _bytes_of(path: Path) -> bytes:
    """What is in a file; zeroes where a bad sector does not let it be read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        return b"".join(_piece_of(fd, at, min(_CHUNK_BYTES, size - at)) for at in range(0, size, _CHUNK_BYTES))
    finally:
        os.close(fd)


def _piece_of(fd: int, at: int, size: int) -> bytes:
    try:
        return os.pread(fd, size, at)
    except OSError:
        if size <= PAGE_BYTES:
            return bytes(size)
    return b"".join(
        _piece_of(fd, start, min(PAGE_BYTES, at + size - start)) for start in range(at, at + size, PAGE_BYTES)
    )


def _sums(data: bytes, order: str, one: int, two: int) -> tuple[int, int]:
    """SQLite's running WAL checksum over ``data``, a multiple of 8 bytes."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


class RawPages:
    """Pages of a database file as its last commit left them: the file, overlaid by its WAL."""

    def __init__(self, database: Path, wal: WalFrames) -> None:
        self._wal = wal
        self._fd = os.open(database, os.O_RDONLY) if database.exists() else None
        if self._fd is not None:
            bound_read_ahead(database)
        size = os.fstat(self._fd).st_size if self._fd is not None else 0
        self._file_pages = -(-size // PAGE_BYTES)
        self.count = max([self._file_pages, *wal.pages])
        self._chunk, self._chunk_at = b"", -1

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)

    def page(self, number: int) -> bytes | None:
        """Page ``number``, from 1; None where it can't be read (a bad sector does not end the search)."""
        offset = self._wal.pages.get(number)
        if offset is not None:
            return self._wal.page(offset)
        if self._fd is None or not 1 <= number <= self._file_pages:
            return None
        try:
            page = self._read(self._fd, (number - 1) * PAGE_BYTES)
        except OSError:
            return None
        return page if len(page) == PAGE_BYTES else None

    def _read(self, fd: int, offset: int) -> bytes:
        """A page of the file, by way of a chunk of them unless a bad sector lies in it."""
        at = offset % _CHUNK_BYTES
        if self._chunk_at != offset - at:
            try:
                self._chunk = os.pread(fd, _CHUNK_BYTES, offset - at)
                self._chunk_at = offset - at
            except OSError:
                return os.pread(fd, PAGE_BYTES, offset)
        return self._chunk[at : at + PAGE_BYTES]

    def find_free(self, free: set[int]) -> Iterator[None]:
        """Add the numbers of the free pages to ``free``, if the freelist is whole; yields at each trunk.

        A list that contradicts the header may name pages that are in use: then none counts as free. Rows that were deleted
        may come back, but none is lost.
        """
        first = self.page(1)
        trunk, count = (
            struct.unpack_from(">2I", first, 32) if first and first.startswith(b"SQLite format 3\0") else (0, 0)
        )
        while trunk and trunk not in free:
            page = self.page(trunk)
            if page is None:
                break
            free.add(trunk)
            yield
            trunk, leaves = struct.unpack_from(">2I", page)
            if leaves <= PAGE_BYTES // 4 - 2:
                free.update(struct.unpack_from(f">{leaves}I", page, 8))
        if len(free) != count:
            free.clear()


def raw_rows(database: Path, wal: WalFrames, skip: int = 0) -> Iterator[list[list[Value]]]:
    """Every row of every table that can be parsed, ``[rowid, column, column, …]``; may repeat a row, may invent one.

    Yields the rows of one page after the other, perhaps none. The first ``skip`` of these steps are not read.
    """
    pages = RawPages(database, wal)
    free: set[int] = set()
    steps = 0
    try:
        for _ in pages.find_free(free):
            steps += 1
            yield []
        for number in range(1, pages.count + 1):
            steps += 1
            yield rows_of(number, pages) if steps > skip and number not in free else []
        wal.pages.update(wal.lost)  # where their long rows go on
        for _, offset in wal.lost:
            yield list(rows_of_leaf(wal.page(offset), 0, pages))
    finally:
        pages.close()


def rows_of(number: int, pages: RawPages) -> list[list[Value]]:
    """The rows of one page that can be parsed; none where it can't be read or is not the leaf of a table."""
    page = pages.page(number)
    return [] if page is None else list(rows_of_leaf(page, 100 if number == 1 else 0, pages))


def rows_of_leaf(page: bytes, start: int, pages: RawPages) -> Iterator[list[Value]]:
    """The rows of an image of a page that can be parsed; ``start``: where its header is."""
    if page[start] != _TABLE_LEAF:
        return
    cells = int.from_bytes(page[start + 3 : start + 5])
    for index in range(min(cells, (PAGE_BYTES - start - 8) // 2)):
        at = start + 8 + 2 * index
        try:
            yield _row_of_cell(page, int.from_bytes(page[at : at + 2]), pages)
        except (IndexError, ValueError, struct.error):
            continue  # this cell is garbage; its neighbours need not be


def _row_of_cell(page: bytes, at: int, pages: RawPages) -> list[Value]:
    size, at = _varint(page, at)
    rowid, at = _varint(page, at)
    if size > _MAX_ROW_BYTES:
        raise ValueError("no row is that long")
    if size <= _MAX_LOCAL:
        return [rowid, *_values_of_record(page[at : at + size])]
    local = _MIN_LOCAL + (size - _MIN_LOCAL) % (PAGE_BYTES - 4)
    local = local if local <= _MAX_LOCAL else _MIN_LOCAL
    parts, rest = [page[at : at + local]], size - local
    following = int.from_bytes(page[at + local : at + local + 4])
    followed: set[int] = set()
    while rest > 0:
        overflow = pages.page(following)
        if overflow is None or following in followed:
            raise ValueError("the overflow chain is broken")
        followed.add(following)
        parts.append(overflow[4 : 4 + rest])
        rest -= PAGE_BYTES - 4
        following = int.from_bytes(overflow[:4])
    return [rowid, *_values_of_record(b"".join(parts))]


def _values_of_record(record: bytes) -> list[Value]:
    """The columns of one record (header of serial types, then the values)."""
    header, at = _varint(record, 0)
    values: list[Value] = []
    value_at = header
    while at < header:
        serial, at = _varint(record, at)
        length = _INTEGER_BYTES.get(serial, 0) if serial < 12 else (serial - 12) // 2  # noqa: PLR2004 - the format's
        raw = record[value_at : value_at + length]
        if len(raw) != length:
            raise ValueError("the record is cut short")
        values.append(_value(serial, raw))
        value_at += length
    return values


def _value(serial: int, raw: bytes) -> Value:
    if serial in _INTEGER_BYTES:
        return int.from_bytes(raw, signed=True)
    if serial >= 12:  # noqa: PLR2004 - the format's
        return bytes(raw) if serial % 2 == 0 else raw.decode()
    if serial in (0, 8, 9):
        return None if serial == 0 else serial - 8
    raise ValueError("a type the spool never writes")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A SQLite varint (1 to 9 bytes, the ninth whole) and the offset behind it."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at + index + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >= 1 << 63 else value, at + 9
