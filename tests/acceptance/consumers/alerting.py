"""Alerting: which share of messages fails, by what kind of failure and with which template.

The kind is in the event (``error_category``), so there is no table of codes here. Messages are counted, not events: one that
failed twice for the same reason failed once. People may share a message_id, each of them named by number, by user id or by both:
events are as many messages as they name different recipients, or different user ids where those are more, and at least one.

    python alerting.py --bootstrap localhost:9092 --database alerting.db
    sqlite3 alerting.db 'SELECT * FROM rate_by_category'
    sqlite3 alerting.db 'SELECT * FROM rate_by_template WHERE rate > 0.1'
"""

import sqlite3

from following import follow

from bridge.consume import Event, Status

TABLES = """
CREATE TABLE IF NOT EXISTS seen (
    message_id TEXT,
    recipient  TEXT,              -- empty where the event names none
    user_id    TEXT,              -- likewise
    category   TEXT,              -- empty where it is no failure
    template   TEXT,              -- empty where none was used
    retry      TEXT NOT NULL,     -- LATER: sending again can help
    PRIMARY KEY (message_id, recipient, user_id, category, template)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS messages AS
SELECT message_id, nullif(max(template), '') AS template,
    max(1, count(DISTINCT nullif(recipient, '')), count(DISTINCT nullif(user_id, ''))) AS messages
FROM seen GROUP BY message_id;
CREATE VIEW IF NOT EXISTS failures AS
SELECT message_id, max(1, count(DISTINCT nullif(recipient, '')), count(DISTINCT nullif(user_id, ''))) AS failed
FROM seen WHERE category <> '' GROUP BY message_id;
CREATE VIEW IF NOT EXISTS failures_by_category AS
SELECT message_id, category, max(1, count(DISTINCT nullif(recipient, '')), count(DISTINCT nullif(user_id, ''))) AS failed
FROM seen WHERE category <> '' GROUP BY message_id, category;
CREATE VIEW IF NOT EXISTS rate_by_category AS
SELECT category, sum(failed) AS failed, sum(failed) * 1.0 / (SELECT sum(messages) FROM messages) AS rate
FROM failures_by_category GROUP BY category;
CREATE VIEW IF NOT EXISTS rate_by_template AS
SELECT template, sum(coalesce(failed, 0)) AS failed, sum(coalesce(failed, 0)) * 1.0 / sum(messages) AS rate
FROM messages LEFT JOIN failures USING (message_id)
WHERE template IS NOT NULL GROUP BY template;
"""
SEE = "INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


def apply(event: Event, database: sqlite3.Connection) -> None:
    """Count the message, and its failure if it is one; that a person blocked the business is none of a message."""
    if event.status in {Status.SUBSCRIBED, Status.UNSUBSCRIBED}:
        return
    named = (event.message_id, event.recipient or "", event.user_id or "")
    category = event.error_category if event.status is Status.FAILED else ""
    database.execute(SEE, (*named, category, event.template_name or "", event.error_retry))


if __name__ == "__main__":
    follow("alerting", TABLES, apply)
