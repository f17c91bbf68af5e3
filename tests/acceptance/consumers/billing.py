"""Billing: one charge for each person a message was delivered to, at its first DELIVERED or READ.

DELIVERED may never come, so READ counts as well; both may come, twice, in any order, years later by a replay. And a message_id
may be of several people, each named by number, by user id or by both. So a message_id has as many charges as its delivered
events name different recipients, or different user ids where those are more, and at least one: they are numbered, and the event
that raises the number makes the next. It is written in one transaction with the event's id, so that no death of this program,
at any moment, makes a second charge or loses one.

    python billing.py --bootstrap localhost:9092 --database billing.db
    sqlite3 billing.db 'SELECT count(*), sum(cents) FROM charges'
"""

import sqlite3

from following import follow

from bridge.consume import Event

CENTS = 4
TABLES = """
CREATE TABLE IF NOT EXISTS delivered (
    message_id TEXT,
    recipient  TEXT,              -- empty where the event names none
    user_id    TEXT,              -- likewise
    PRIMARY KEY (message_id, recipient, user_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS charges (
    message_id TEXT,
    number     INTEGER,           -- 1; then 2, … where people share the message_id
    event_id   TEXT NOT NULL,     -- which event it was charged for
    charged_at INTEGER NOT NULL,  -- when the bridge received that event, milliseconds
    cents      INTEGER NOT NULL,
    PRIMARY KEY (message_id, number)
) WITHOUT ROWID;
"""
DELIVER = "INSERT INTO delivered VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
CHARGE = """
INSERT INTO charges
SELECT :message_id, max(1, count(DISTINCT nullif(recipient, '')), count(DISTINCT nullif(user_id, ''))), :event_id, :at, :cents
FROM delivered WHERE message_id = :message_id
ON CONFLICT DO NOTHING
"""


def apply(event: Event, database: sqlite3.Connection) -> None:
    """Charge, unless everybody who is known to have got this message was charged for before."""
    if event.is_delivered:
        database.execute(DELIVER, (event.message_id, event.recipient or "", event.user_id or ""))
        charge = {"message_id": event.message_id, "event_id": event.event_id, "at": event.received_at, "cents": CENTS}
        database.execute(CHARGE, charge)


if __name__ == "__main__":
    follow("billing", TABLES, apply)
