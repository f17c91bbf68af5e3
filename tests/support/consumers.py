"""The teams' programs of ``tests/acceptance/consumers``, run as they would be: processes of their own that may be killed.

Each has a database and a group, which outlive its processes.
"""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bridge.lab.embedded.java import spawn
from support.topics import unique_name, until

PROGRAMS = Path(__file__).parents[1] / "acceptance" / "consumers"
CAUGHT_UP_SECONDS = 60.0
_ASK_SECONDS = 10.0

# Runs a program that is killed at a moment of its own choice, the kernel's way: nothing of it can tidy up.
_DYING = """
import os, runpy, signal, sqlite3, sys
folder, moment, batch, program = sys.argv[1:5]
sys.path.insert(0, folder)
sys.argv[:] = sys.argv[4:]
import following

batches = 0
def die_at(name):
    global batches
    batches += name == "in the transaction"
    if name == moment and batches >= int(batch):
        os.kill(os.getpid(), signal.SIGKILL)

class Connection(sqlite3.Connection):
    def __exit__(self, *error):
        die_at("in the transaction")
        ended = super().__exit__(*error)
        die_at("before the offsets")
        return ended

connect, commit = sqlite3.connect, following.commit
def committing(consumer):
    commit(consumer)
    die_at("after the offsets")

sqlite3.connect = lambda name: connect(name, factory=Connection)
following.commit = committing
runpy.run_path(program, run_name="__main__")
"""
MOMENTS = ("in the transaction", "before the offsets", "after the offsets")
"""When a program can be made to die: all rows written, none committed; committed, Kafka not told; Kafka told."""


class Team:
    """One team: its program, its database, its group.

    Args:
        name: of the program, without ``.py``.
        bootstrap: plaintext brokers.
        topic: what it follows.
        directory: for its database and what it prints.
        registry: address of a Schema Registry, if it has to ask one.
    """

    def __init__(self, name: str, bootstrap: str, topic: str, directory: Path, registry: str | None = None) -> None:
        self.group = unique_name(name)
        self.database = directory / f"{self.group}.db"
        self._bootstrap, self._topic = bootstrap, topic
        self._log = directory / f"{self.group}.log"
        self._program = PROGRAMS / f"{name}.py"
        self._arguments = ["--bootstrap", bootstrap, "--topic", topic, "--group", self.group]
        self._arguments += ["--database", str(self.database), *(["--registry", registry] if registry else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._spawn([str(self._program)])

    def start_dying(self, moment: str, batch: int = 1) -> None:
        """Start it; it is killed at one of ``MOMENTS``, in that batch of its or later."""
        self._spawn(["-c", _DYING, str(PROGRAMS), moment, str(batch), str(self._program)])

    async def ended(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, CAUGHT_UP_SECONDS)

    def kill(self) -> None:
        """SIGKILL, where it runs, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def caught_up(self) -> None:
        """Wait until the group's offsets are at the end of every partition.

        Raises:
            AssertionError: The program ended by itself; says what it printed.
            TimeoutError: They are not after a minute.
        """

        async def at_the_end() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            return await asyncio.to_thread(self._is_at_the_end)

        async with asyncio.timeout(CAUGHT_UP_SECONDS):
            await until(at_the_end, 0.1)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What its database answers."""
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()

    def _spawn(self, arguments: list[str]) -> None:
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with self._log.open("ab") as log:
            self._process = spawn([sys.executable, *arguments, *self._arguments], stdout=log, stderr=subprocess.STDOUT)

    def _is_at_the_end(self) -> bool:
        """Ask Kafka, without joining the group; False where it gives no answer yet."""
        asking = Consumer({"bootstrap.servers": self._bootstrap, "group.id": self.group, "enable.partition.eof": True})
        try:
            partitions = asking.list_topics(self._topic, timeout=_ASK_SECONDS).topics[self._topic].partitions
            committed = asking.committed(
                [TopicPartition(self._topic, each) for each in partitions], timeout=_ASK_SECONDS
            )
            ends = [asking.get_watermark_offsets(each, timeout=_ASK_SECONDS)[1] for each in committed]
            behind = [each for each, end in zip(committed, ends, strict=True) if end > max(each.offset, 0)]
            # Behind the last record there may be the marker of a transaction's end, which no consumer gets to see.
            return all(each.offset >= 0 for each in behind) and all(self._only_markers(asking, each) for each in behind)
        except KafkaException:
            return False
        finally:
            asking.close()

    def _only_markers(self, asking: Consumer, place: TopicPartition) -> bool:
        """Whether no record is to be read from there on."""
        asking.assign([place])
        found = asking.poll(_ASK_SECONDS)
        error = None if found is None else found.error()
        return error is not None and error.code() == KafkaError._PARTITION_EOF
