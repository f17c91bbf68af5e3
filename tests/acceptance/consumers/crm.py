"""CRM: the latest state of every message, for the people who talk to customers.

The highest rank counts, not the last to arrive: between replicas of the bridge there is no order, and a Read may overtake a
Delivered. FAILED and DELETED have no rank, so they are kept beside the ladder; what was delivered stays so, even where a
failure is reported after it.

A message_id may be of several people, and a person may come by number first and by user id alone later. So what is known is
kept by both names, and ``bridge.consume.people`` says to whom it belongs; it may say otherwise once more events have come.

    python crm.py --bootstrap localhost:9092 --database crm.db
    sqlite3 crm.db 'SELECT state, count(*) FROM states GROUP BY state'
"""

import sqlite3

from following import follow

from bridge.consume import Event, Status, people

TABLES = """
CREATE TABLE IF NOT EXISTS known (
    message_id TEXT,
    recipient  TEXT,              -- empty where the event names none
    user_id    TEXT,              -- likewise
    rank       INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    deleted    INTEGER NOT NULL,
    person     TEXT,              -- to whom it belongs, of those who share the message_id
    PRIMARY KEY (message_id, recipient, user_id)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS states AS
SELECT message_id, person, CASE
    WHEN max(deleted) THEN 'DELETED'
    WHEN max(failed) AND max(rank) < 2 THEN 'FAILED'
    WHEN max(rank) = 3 THEN 'READ'
    WHEN max(rank) = 2 THEN 'DELIVERED'
    WHEN max(rank) = 1 THEN 'SENT'
    ELSE 'UNKNOWN' END AS state
FROM known GROUP BY message_id, person;
"""
MOVE = """
INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, NULL)
ON CONFLICT DO UPDATE SET
    rank = max(rank, excluded.rank), failed = max(failed, excluded.failed), deleted = max(deleted, excluded.deleted)
"""
NAMED = "SELECT recipient, user_id FROM known WHERE message_id = ?"
BELONG = "UPDATE known SET person = ? WHERE message_id = ? AND recipient = ? AND user_id = ?"


def apply(event: Event, database: sqlite3.Connection) -> None:
    """Move the message up the ladder, never down."""
    named = (event.message_id, event.recipient or "", event.user_id or "")
    off_the_ladder = (event.status is Status.FAILED, event.status is Status.DELETED)
    database.execute(MOVE, (*named, event.status_rank, *off_the_ladder))
    person_of = people(database.execute(NAMED, (event.message_id,)).fetchall())
    database.executemany(BELONG, [(person, event.message_id, *pair) for pair, person in person_of.items()])


if __name__ == "__main__":
    follow("crm", TABLES, apply)
