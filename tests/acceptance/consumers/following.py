"""What the three teams have in common: follow the topic as a group, each event once, whatever dies when.

One transaction of the team's own database holds the ids of the events and what follows from them; only then are offsets
committed to Kafka. A death before the transaction's end: the records come again, to an untouched table. A death after it,
before the offsets: they come again, and their ids are there. So repeats, a replay, or an offset reset change nothing.
"""

import argparse
import contextlib
import signal
import sqlite3
import types
from collections.abc import Callable, Iterable
from typing import NoReturn

import httpx
from confluent_kafka import Consumer, KafkaException, Message

from bridge.consume import Decoder, Event, event_id, registry_schemas

TAKEN = """
CREATE TABLE IF NOT EXISTS taken (event_id TEXT PRIMARY KEY, received_at INTEGER NOT NULL) WITHOUT ROWID;
"""
# Ids may go once no replay can bring their events again, when the topic's retention is over:
# DELETE FROM taken WHERE received_at < …

Apply = Callable[[Event, sqlite3.Connection], None]


def follow(team: str, tables: str, apply: Apply) -> None:
    """Follow the topic until SIGTERM.

    Args:
        team: the group's name, unless the command line says otherwise.
        tables: SQL that makes the team's tables where they are not there yet.
        apply: changes them by an event that was not taken before.
    """
    options = _options(team)
    registry = registry_schemas(httpx.Client(base_url=options.registry)) if options.registry else None
    decoder = Decoder(registry)
    database = sqlite3.connect(options.database)
    database.executescript(TAKEN + tables)
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": options.group,
            # A member that has a name gets its partitions back at once when it is started again.
            "group.instance.id": f"{options.group}-{options.member}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([options.topic])
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(_Stopped):
        while True:
            records = consumer.consume(500, timeout=0.2)
            for record in records:
                if (error := record.error()) is not None:
                    raise KafkaException(error)
            if records:
                new = take(records, decoder, database, apply)
                commit(consumer)
                print(f"{team}: {len(records)} records, {new} new events", flush=True)
    consumer.close()


def take(records: Iterable[Message], decoder: Decoder, database: sqlite3.Connection, apply: Apply) -> int:
    """Take a batch, all of it or, where anything fails, nothing; how many events were new.

    What can't be decoded raises: the program ends, and the record is there when it can. Skipping it would lose a charge.
    """
    new = 0
    with database:
        for record in records:
            if database.execute("SELECT 1 FROM taken WHERE event_id = ?", (event_id(record),)).fetchone():
                continue
            event = decoder.read(record)
            database.execute("INSERT INTO taken VALUES (?, ?)", (event.event_id, event.received_at))
            new += 1
            if not event.is_test:
                apply(event, database)
    return new


def commit(consumer: Consumer) -> None:
    """Tell Kafka how far the group is; where that fails, as while partitions change hands, records come again."""
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        print(f"offsets not committed: {error.args[0].name()}", flush=True)


class _Stopped(BaseException):
    """SIGTERM came; a transaction that was open is rolled back."""


def _stop(_number: int, _frame: types.FrameType | None) -> NoReturn:
    raise _Stopped


def _options(team: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Follow the status topic as {team}.")
    parser.add_argument("--bootstrap", default="localhost:9092", help="brokers, host:port")
    parser.add_argument("--topic", default="chatapp.status.v1")
    parser.add_argument("--group", default=team)
    parser.add_argument("--member", default="0", help="tells the processes of the group apart")
    parser.add_argument("--database", default=f"{team}.db", help="SQLite file")
    parser.add_argument("--registry", help="address of a Schema Registry, where the events are framed")
    return parser.parse_args()
