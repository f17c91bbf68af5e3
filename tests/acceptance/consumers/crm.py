"""CRM: the latest state of every message, for the people who talk to customers.

The highest rank counts, not the last to arrive: between replicas of the bridge there is no order, and a Read may overtake a
Delivered. FAILED and DELETED have no rank, so they are kept beside the ladder; what was delivered stays so, even where a
failure is reported after it.

    python crm.py --bootstrap localhost:9092 --database crm.db
    sqlite3 crm.db 'SELECT state, count(*) FROM states GROUP BY state'
"""

import sqlite3

from following import follow

from bridge.consume import Event, Status

TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    message_id TEXT,
    recipient  TEXT,
    rank       INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    deleted    INTEGER NOT NULL,
    PRIMARY KEY (message_id, recipient)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS states AS
SELECT message_id, recipient, CASE
    WHEN deleted THEN 'DELETED'
    WHEN failed AND rank < 2 THEN 'FAILED'
    WHEN rank = 3 THEN 'READ'
    WHEN rank = 2 THEN 'DELIVERED'
    WHEN rank = 1 THEN 'SENT'
    ELSE 'UNKNOWN' END AS state
FROM messages;
"""
MOVE = """
INSERT INTO messages VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    rank = max(rank, excluded.rank), failed = max(failed, excluded.failed), deleted = max(deleted, excluded.deleted)
"""


def apply(event: Event, database: sqlite3.Connection) -> None:
    """Move the message up the ladder, never down."""
    off_the_ladder = (event.status is Status.FAILED, event.status is Status.DELETED)
    database.execute(MOVE, (*event.message, event.status_rank, *off_the_ladder))


if __name__ == "__main__":
    follow("crm", TABLES, apply)
