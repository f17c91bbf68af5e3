"""``chatapp-bridge tail`` as a process: live events, readable, masked, and nothing left behind."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import admin as administration
from confluent_kafka.admin import AdminClient
from support.replaying import Put, event, make_topic, put_event, start, write

NUMBER = "12025550123"


class Tail:
    """One, with its output so far."""

    def __init__(self, bootstrap: str, topic: str, *words: str, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.process = start(bootstrap, topic, "tail", *words, directory=directory)

    def said(self, name: str = "out") -> list[str]:
        """Lines."""
        return (self._directory / name).read_text().splitlines()

    def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for it."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.said("error")
            assert time.monotonic() < deadline, (self.said(), self.said("error"))
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def tail(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Callable[..., Tail]]:
    """Starts one; all are ended."""
    tails: list[Tail] = []

    def make(topic: str, *words: str) -> Tail:
        tails.append(Tail(kafka_bootstrap, topic, *words, directory=tmp_path / str(len(tails))))
        return tails[-1]

    yield make
    for each in tails:
        each.process.kill()
        each.process.wait()


def test_it_follows_filters_masks_and_leaves_nothing(kafka_bootstrap: str, tail: Callable[..., Tail]) -> None:
    """Two at once: lines for people of what failed, and JSON of everything, from before it began."""
    topic, now_ms = make_topic(kafka_bootstrap, 1), time.time_ns() // 1_000_000
    first = put_event(event("m-1", "Read"), time_ms=now_ms - 120_000)
    write(kafka_bootstrap, topic, [put_event(event("m-0"), time_ms=now_ms - 7_200_000), first])
    failed = tail(topic, "--status", "failed", "--from", "earliest")
    every = tail(topic, "--from", "-10m", "--format", "json")
    every.until(lambda: len(every.said()) == 1)

    fault = {"ErrorCode": "131026", "ErrorDescription": f"131026:{NUMBER} is not there", "StatusDescription": "\x1b[2J"}
    failing = event("m-2\x1b[31m", "Failed", TemplateCode="t", TemplateName="otp [red]", **fault)
    marked = put_event(failing, time_ms=now_ms)
    headers: Any = marked.headers
    write(kafka_bootstrap, topic, [marked._replace(headers=[*headers, ("bridge_redrive", b"run")]), first])
    failed.until(lambda: len(failed.said()) == 1)
    (line,) = failed.said()
    assert "FAILED        - → 1********23  m-2\N{REPLACEMENT CHARACTER}[31m  template otp [red]" in line
    assert line.endswith("error 131026, UNDELIVERABLE  bridge_redrive  [0]@2")

    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    grown = administration.NewPartitions(topic, 2)
    admin.create_partitions([grown])[topic].result()
    write(kafka_bootstrap, topic, [put_event(event("m-3"), partition=1, time_ms=now_ms)])
    every.until(lambda: len(every.said()) == 4)
    records = [json.loads(each) for each in every.said()]
    assert [record["key"] for record in records] == ["m-1", "m-2\x1b[31m", "m-1", "m-3"]
    assert {record["value"]["recipient"] for record in records} == {"1********23"}
    assert NUMBER not in "".join(every.said() + failed.said())
    assert any("partition 1 is new" in each for each in every.said("error"))

    groups = {each.group_id for each in admin.list_consumer_groups().result().valid}
    assert failed.interrupt() == every.interrupt() == 0
    assert not [each for each in failed.said("error") + every.said("error") if "Traceback" in each]
    assert [each for each in groups if each.startswith("chatapp-bridge-reader")] == []


def test_who_asks_sees_numbers_and_whoever_reads_may_go(kafka_bootstrap: str, tmp_path: Path) -> None:
    """A pipe that is closed ends it quietly; of the quarantine it shows reason, path and size."""
    topic, quarantine = make_topic(kafka_bootstrap), make_topic(kafka_bootstrap)
    now_ms = time.time_ns() // 1_000_000
    write(kafka_bootstrap, topic, [put_event(event(f"m-{n}"), time_ms=now_ms) for n in range(3)])
    headers: Any = [("quarantine_reason", b"no_status"), ("quarantine_path", b"$[3].Status")]
    write(kafka_bootstrap, quarantine, [Put(b'{"MessageId":"m-9"}', b"m-9", 0, now_ms, headers)])
    sets = f"--set kafka.bootstrap_servers={kafka_bootstrap} --set topics.status={topic} --set topics.quarantine={quarantine}"
    here = tmp_path / "code"
    for words, wanted in (
        ("--unmask", NUMBER),
        ("--topic quarantine", "no_status       $[3].Status  m-9  19 bytes"),
    ):
        command = f"{{ {sys.executable} -m bridge tail --from earliest {words} {sets}; echo $? > {here}; }} | head -n 1"
        run = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        assert wanted in run.stdout.readline()
        # It hears of the closed pipe when it next writes.
        target = quarantine if "quarantine" in words else topic
        deadline = time.monotonic() + 60
        while not here.exists():
            assert time.monotonic() < deadline
            more = (
                put_event(event("m-more"), time_ms=now_ms) if target == topic else Put(b"x", b"k", 0, now_ms, headers)
            )
            write(kafka_bootstrap, target, [more])
            time.sleep(0.1)
        run.wait(30)
        assert here.read_text() == "0\n"
        here.unlink()
