"""Shows that the queue's index has every row of its table: a lane reads by the index, and would skip a row that it lacks.

The table is read in its own order, a piece at a time, next to whatever is written meanwhile: in every committed state
each row has its entry. An entry without its row needs no proof: SQLite raises when a lane's read comes to it.
"""

import sqlite3

from bridge.spool.failure import malformed

_PIECE: str = (
    "SELECT count(*), max(row), total(found) FROM (SELECT q.rowid AS row, EXISTS (SELECT 1 FROM queue AS i "
    "INDEXED BY sqlite_autoindex_queue_1 WHERE i.lane = q.lane AND i.seq = q.seq AND i.rowid = q.rowid) AS found "
    "FROM queue AS q NOT INDEXED WHERE q.rowid > ? ORDER BY q.rowid LIMIT ?)"
)


class Proof:
    """The proof for one file, from its first row to the last that it had when this began.

    Args:
        connection: of the file; the table must keep its rowids (no VACUUM) until the proof is done.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        first, last = connection.execute("SELECT (SELECT min(rowid) FROM queue), (SELECT max(rowid) FROM queue)").fetchone()
        self._first, self._last = (0, -1) if first is None else (first, last)
        self._through = self._first - 1

    @property
    def done(self) -> bool:
        """Whether every row was looked at."""
        return self._through >= self._last

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
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
