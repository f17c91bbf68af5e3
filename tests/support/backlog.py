"""The spool that a long outage leaves: gigabytes of reports whose ids are known."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import islice, product
from pathlib import Path
from typing import Final

from bridge.delivery.layout import LAYOUT_KEY, Layout, by_lane
from bridge.encode.records import RecordEncoder
from bridge.lab.simulate.identity import event_id
from bridge.lab.simulate.ledger import Entry, Opened
from bridge.lab.simulate.push import Report
from bridge.spool.file import SpoolFile, SpoolHooks
from bridge.spool.format import PAGE_BYTES, lock_directory
from bridge.spool.rows import EncodedRow, SpoolRow, encode_row

TO: Final = "8613800000000"
_STATES: Final = ("Sent", "Delivered")
_IN_A_CALLBACK: Final = 10
_PADDING: Final = "x" * 2600
"""What makes an event nearly as large as a page of the file, so that a large file holds few of them."""
_COMMIT_ROWS: Final = 2000
_WAL_BYTES: Final = 64 << 20


def fill(directory: Path, size_bytes: int, layout: Layout) -> list[Entry]:
    """Write a spool file of about that size, and drop it from the page cache.

    Args:
        directory: of the spool; it is made.
        size_bytes: of the file.
        layout: the topics, of events first and then of the quarantine, and their numbers of lanes.

    Returns:
        Its callbacks, as a ledger has them: each promised before the next one was sent, and before anything else. A
        message is in two: it was sent, and later delivered.
    """
    entries = list(_callbacks(size_bytes // PAGE_BYTES // len(_STATES)))
    lock = lock_directory(directory)
    file, _ = SpoolFile.open(directory, SpoolHooks(), max_pages=1 << 30)
    file._connection.execute("PRAGMA synchronous = OFF")
    file.set_meta(LAYOUT_KEY, layout.text)
    rows = _rows(entries, layout)
    while some := list(islice(rows, _COMMIT_ROWS)):
        file.commit(some, {})
        if file.wal_bytes() > _WAL_BYTES:
            file.checkpoint(truncate=True)
    file.close()
    os.close(lock)
    drop_pages(directory)
    return entries


def drop_pages(directory: Path) -> None:
    """Have every file on disk, and none of it in the page cache."""
    for path in directory.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _callbacks(messages: int) -> Iterator[Entry]:
    for number, (status, first) in enumerate(product(_STATES, range(0, messages, _IN_A_CALLBACK))):
        at = number * 1e-6  # as the clock begins with the machine, before anything else
        ids = [f"old-{each:07}" for each in range(first, first + _IN_A_CALLBACK)]
        entry = callback(-1 - number, at, status, ids)
        entry.promise(HTTPStatus.OK, at)
        yield entry


def callback(number: int, at: float, status: str, message_ids: Sequence[str]) -> Entry:
    """A callback that is sent then, with a report of that status for each message."""
    reports = tuple(Report(each, TO, status, None, event_id(each, TO, status, None)) for each in message_ids)
    return Entry(Opened(number, at, reports))


def body_of(entry: Entry, padding: str = "") -> bytes:
    """What is pushed for it."""
    items = [{"MessageId": each.message_id, "Status": each.status, "To": each.to} for each in entry.reports]
    return json.dumps([{**item, "Padding": padding} for item in items]).encode()


def _rows(entries: list[Entry], layout: Layout) -> Iterator[EncodedRow]:
    """The rows that a bridge would have written."""
    (status, lanes), (quarantine, _) = layout.topics
    encoder = RecordEncoder(status, quarantine, "chatapp", 1 << 20)
    received_at_ms = int(time.time() * 1000) - len(entries)  # within the topic's retention
    numbers = {status: [layout.number_of(status, index) for index in range(lanes)]}
    for seq, entry in enumerate(entries):
        encoded = encoder.encode_body(
            body_of(entry, _PADDING), callback_id=f"{seq:032x}", received_at_ms=received_at_ms + seq, traceparent=None
        )
        for lane, records in by_lane(encoded.records, numbers).items():
            yield encode_row(SpoolRow(lane, seq, len(records), records))
