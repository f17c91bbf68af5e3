"""Checks that the queue's index has every row of its table: lanes read by the index, and would skip a row that it lacks.

The check reads the table in its own order, a piece at a time, while rows are added and deleted: in every committed state
each row has its entry. An entry without its row needs no check: SQLite raises when a lane's read comes to it.
"""

import sqlite3
from typing import Final

from bridge.spool.failure import malformed

_PIECE: Final = (
    "SELECT count(*), max(row), total(found) FROM (SELECT q.rowid AS row, EXISTS (SELECT 1 FROM queue AS i "
    "INDEXED BY sqlite_autoindex_queue_1 WHERE i.lane = q.lane AND i.seq = q.seq AND i.rowid = q.rowid) AS found "
    "FROM queue AS q NOT INDEXED WHERE q.rowid > ? ORDER BY q.rowid LIMIT ?)"
)


class IndexCheck:
    """The check of one file, from its first row to the last that it had when this began.

    Args:
        connection: of the file; the table must keep its rowids (no VACUUM) until the check is done.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        bounds = "SELECT (SELECT min(rowid) FROM queue), (SELECT max(rowid) FROM queue)"
        first, last = connection.execute(bounds).fetchone()
        self._first: int = 0 if first is None else first
        self._last: int = -1 if last is None else last
        self._through = self._first - 1

    @property
    def done(self) -> bool:
        """Whether every row was looked at."""
        return self._through >= self._last

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return 1.0 if self.done else (self._through + 1 - self._first) / (self._last + 1 - self._first)

    def step(self, rows: int) -> None:
        """Look at the next rows.

        Raises:
            sqlite3.DatabaseError: the file is malformed; also if the index lacks a row.
        """
        count, last, found = self._connection.execute(_PIECE, (self._through, rows)).fetchone()
        if found != count:
            raise malformed("the queue's index lacks rows of its table")
        self._through = last if count == rows else self._last
