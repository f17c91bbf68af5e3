"""Billing: one charge for each message delivered to a recipient, at its first DELIVERED or READ.

DELIVERED may never come, so READ counts as well; both may come, twice, in any order, years later by a replay. The charge's
own key settles it: a message and recipient has one charge or none, and who came first made it. It is written in one
transaction with the event's id, so that no death of this program, at any moment, makes a second charge or loses one.

    python billing.py --bootstrap localhost:9092 --database billing.db
    sqlite3 billing.db 'SELECT count(*), sum(cents) FROM charges'
"""

import sqlite3

from following import follow

from bridge.consume import Event

CENTS = 4
TABLES = """
CREATE TABLE IF NOT EXISTS charges (
    message_id TEXT,
    recipient  TEXT,
    event_id   TEXT NOT NULL,     -- which event it was charged for
    charged_at INTEGER NOT NULL,  -- when the bridge received that event, milliseconds
    cents      INTEGER NOT NULL,
    PRIMARY KEY (message_id, recipient)
) WITHOUT ROWID;
"""
CHARGE = "INSERT INTO charges VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


def apply(event: Event, database: sqlite3.Connection) -> None:
    """Charge, unless this message and recipient was charged before."""
    if event.is_delivered:
        database.execute(CHARGE, (*event.message, event.event_id, event.received_at, CENTS))


if __name__ == "__main__":
    follow("billing", TABLES, apply)
