"""Alerting: which share of messages fails, by what kind of failure and with which template.

The kind is in the event (``error_category``), so there is no table of codes here. Messages are counted, not events: one that
failed twice for the same reason failed once.

    python alerting.py --bootstrap localhost:9092 --database alerting.db
    sqlite3 alerting.db 'SELECT * FROM rate_by_category'
    sqlite3 alerting.db 'SELECT * FROM rate_by_template WHERE rate > 0.1'
"""

import sqlite3

from following import follow

from bridge.consume import Event, Status

TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    message_id TEXT,
    recipient  TEXT,
    template   TEXT,              -- null where none was used
    PRIMARY KEY (message_id, recipient)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    message_id TEXT,
    recipient  TEXT,
    category   TEXT,
    retry      TEXT NOT NULL,     -- LATER: sending again can help
    PRIMARY KEY (message_id, recipient, category)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS rate_by_category AS
SELECT category, count(*) AS failed, count(*) * 1.0 / (SELECT count(*) FROM messages) AS rate
FROM failures GROUP BY category;
CREATE VIEW IF NOT EXISTS rate_by_template AS
SELECT template, count(failed.message_id) AS failed, count(failed.message_id) * 1.0 / count(*) AS rate
FROM messages LEFT JOIN (SELECT DISTINCT message_id, recipient FROM failures) AS failed USING (message_id, recipient)
WHERE template IS NOT NULL GROUP BY template;
"""
SEE = """
INSERT INTO messages VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET template = coalesce(template, excluded.template)
"""
FAIL = "INSERT INTO failures VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


def apply(event: Event, database: sqlite3.Connection) -> None:
    """Count the message, and its failure if it is one."""
    database.execute(SEE, (*event.message, event.template_name))
    if event.status is Status.FAILED:
        database.execute(FAIL, (*event.message, event.error_category, event.error_retry))


if __name__ == "__main__":
    follow("alerting", TABLES, apply)
