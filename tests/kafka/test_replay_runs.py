"""Runs that are cut short and go on: every record exactly once, whatever ended the process; and a topic as destination."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import admin as administration
from confluent_kafka.admin import AdminClient
from support.arena import LONG
from support.replaying import (
    Put,
    Read,
    arguments,
    delete_before,
    event,
    lines_of,
    make_topic,
    put_event,
    read_all,
    start,
    write,
)
from support.topics import unique_name

from bridge import cli, config
from bridge.errors import ReplayError
from bridge.kafka.partition import partition_for
from bridge.lab.embedded import EmbeddedKafka
from bridge.operate.transactions import Transactions

ROUNDS = 25 if LONG else 3
RECORDS = 12_000 if LONG else 4_000
RATE = 1_000  # so that a busy machine still kills it in the middle
END_SECONDS = 60.0

Run = Callable[..., int]


@pytest.fixture
def run(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``replay`` on a topic, here; gives the exit code."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_") and "__" in name]:
        monkeypatch.delenv(name)

    def replay(topic: str, *words: str) -> int:
        return cli.main(arguments(kafka_bootstrap, topic, ["replay", *words]))

    return replay


def filled(bootstrap: str, count: int = RECORDS) -> tuple[str, list[Read]]:
    """A topic of three partitions, and what it holds."""
    topic = make_topic(bootstrap, 3)
    events = [event(f"m-{n}", ("Sent", "Delivered", "Read")[n % 3]) for n in range(count)]
    write(bootstrap, topic, [put_event(each, partition=partition_for(each.message_id.encode(), 3)) for each in events])
    return topic, read_all(bootstrap, topic, 3)


def made_anew(admin: AdminClient, topic: str) -> None:
    """Make a topic whose deletion brokers may still be at."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            admin.create_topics([administration.NewTopic(topic, 1, 1)])[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def run_id(directory: Path, process: Popen[bytes]) -> str:
    """The run's id, as its plan says it."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        said = (directory / "out").read_text() + (directory / "error").read_text()
        if found := re.search(r"^run +(\S+)$", said, re.MULTILINE):
            return found[1]
        assert process.poll() is None, said
        assert time.monotonic() < deadline
        time.sleep(0.01)


def grown(file: Path, process: Popen[bytes]) -> bool:
    """Whether lines come; waits for the first, unless the process is done."""
    while process.poll() is None:
        if file.exists() and file.stat().st_size:
            return True
        time.sleep(0.005)
    return False


def at_work(bootstrap: str, topic: str, process: Popen[bytes]) -> None:
    """Wait until the process writes to the topic, committed or not; unless it is done."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "watcher"})

    def ends() -> int:
        places = [TopicPartition(topic, partition) for partition in range(5)]
        return sum(consumer.get_watermark_offsets(place, END_SECONDS)[1] for place in places)

    before = ends()
    while process.poll() is None and ends() <= before + 5:  # a marker in each is what is left of the last process
        time.sleep(0.02)
    consumer.close()


def identity(record: Read) -> tuple[bytes | None, bytes | None, int, bytes | None]:
    """What a replayed record has in common with the one it came from."""
    return record.key, record.value, record.time_ms, dict(record.headers).get("ce_id")


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def test_a_file_holds_every_record_once_however_often_the_process_is_killed(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """At random moments; the last run ends by itself, and each partition is in order."""
    topic, source = filled(kafka_bootstrap)
    chance = random.Random(7)  # noqa: S311 - moments, no secrets
    file = tmp_path / "out.ndjson"
    words = ["replay", "--to-file", str(file), "--rate", str(RATE), "--execute"]
    process = start(kafka_bootstrap, topic, *words, directory=tmp_path)
    run = run_id(tmp_path, process)
    for _ in range(ROUNDS):
        grown(file, process)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.wait(END_SECONDS)
        process = start(kafka_bootstrap, topic, *words, "--resume", run, directory=tmp_path)
    assert process.wait(END_SECONDS) == 0, (tmp_path / "error").read_text()
    lines = lines_of(file)
    assert len(lines) == len(source)
    found = [(line["partition"], line["offset"]) for line in lines]
    for partition in range(3):
        mine = [offset for place, offset in found if place == partition]
        assert mine == [record.offset for record in source if record.partition == partition]


def test_a_topic_holds_every_record_once_however_often_the_process_is_killed(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """As a reader of what is committed sees it; each key's records in order, each key where Java would put it."""
    topic, source = filled(kafka_bootstrap)
    target = make_topic(kafka_bootstrap, 5)
    chance = random.Random(8)  # noqa: S311 - moments, no secrets
    process = start(
        kafka_bootstrap, topic, "replay", "--to-topic", target, "--rate", str(RATE), "--execute", directory=tmp_path
    )
    run = run_id(tmp_path, process)
    cut_short = 0
    for _ in range(ROUNDS):
        at_work(kafka_bootstrap, target, process)
        time.sleep(chance.uniform(0, 0.9))
        cut_short += process.poll() is None
        process.kill()
        process.wait(END_SECONDS)
        process = start(
            kafka_bootstrap, topic, "replay", "--resume", run, "--rate", str(RATE), "--execute", directory=tmp_path
        )
    assert process.wait(END_SECONDS) == 0, (tmp_path / "error").read_text()
    assert cut_short
    found = read_all(kafka_bootstrap, target, 5)
    assert Counter(map(identity, found)) == Counter(map(identity, source))
    assert {dict(record.headers)["bridge_replay"] for record in found} == {run.encode()}
    assert [r for r in found if r.partition != partition_for(r.key or b"", 5)] == []
    for key in {record.key for record in source[:200]}:
        theirs = [record.value for record in found if record.key == key]
        assert theirs == [record.value for record in source if record.key == key]


NOTED = 400
DYING = """
    import os, signal, sys
    from bridge import cli
    from bridge.operate.at_least_once import AtLeastOnce
    from bridge.operate.replay import topic, transfer
    topic._NOTED_RECORDS, transfer.COMMIT_SECONDS = {noted}, 1e9
    commit, calls = AtLeastOnce.commit, 0
    def dying(self, *arguments):
        global calls
        calls += 1
        if calls == 4:
            self.settle("dying")
            os.kill(os.getpid(), signal.SIGKILL)
        commit(self, *arguments)
    AtLeastOnce.commit = dying
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("idempotence", ["false", *(["auto"] if LONG else [])])
def test_without_transactions_nothing_is_lost_and_no_more_is_repeated_than_is_said(
    kafka_bootstrap: str, run: Run, capfd: pytest.CaptureFixture[str], *, idempotence: str
) -> None:
    """Killed twice when most is written and not noted; every record arrives, each partition in order but for the repeats."""
    topic, source = filled(kafka_bootstrap, 2_500)
    target = make_topic(kafka_bootstrap, 3)
    program = textwrap.dedent(DYING).format(noted=NOTED)
    more = ("--execute", "--set", f"kafka.idempotence={idempotence}")

    def killed(*words: str) -> str:
        command = arguments(kafka_bootstrap, topic, ["replay", *words, *more])
        done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        return done.stdout.decode()

    said = killed("--to-topic", target, "--at-least-once")
    assert f"topic {target}, at least once" in said
    assert f"up to {NOTED} records may be written again, with the same ce_id" in said
    (run_name,) = re.findall(r"^run +(\S+)$", said, re.MULTILINE)
    first = len(read_all(kafka_bootstrap, target, 3))
    again = killed("--resume", run_name)
    (noted,) = re.findall(r"([\d,]+) written before", again)
    assert 0 < first - int(noted.replace(",", "")) <= NOTED
    assert run(topic, "--resume", run_name, "--at-least-once", *more) == 0

    found = read_all(kafka_bootstrap, target, 3)
    assert len(source) < len(found) <= len(source) + 2 * NOTED
    for partition in range(3):
        theirs = [identity(record) for record in found if record.partition == partition]
        assert list(dict.fromkeys(theirs)) == [identity(each) for each in source if each.partition == partition]
    assert run(topic, "--to-file", "-", "--at-least-once") == 2
    assert "--at-least-once is for --to-topic" in capfd.readouterr().err


def test_sigterm_ends_it_in_order_and_it_goes_on_from_there(
    kafka_bootstrap: str, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 143, the words for going on; and another's options are refused."""
    topic, source = filled(kafka_bootstrap, 3_000)
    file = tmp_path / "out.ndjson"
    process = start(
        kafka_bootstrap, topic, "replay", "--to-file", str(file), "--rate", "1000", "--execute", directory=tmp_path
    )
    assert grown(file, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(END_SECONDS) == 128 + signal.SIGTERM
    said = (tmp_path / "error").read_text()
    assert "stopped by SIGTERM; go on with: chatapp-bridge replay --resume" in said
    words = re.search(r"replay (--resume .*)$", said, re.MULTILINE)
    assert words is not None
    assert 0 < len(lines_of(file)) < len(source)
    assert run(topic, "--to-file", str(file), "--execute") == 1
    assert "holds a part of run" in capfd.readouterr().err
    assert run(topic, *words[1].split(), "--status", "FAILED") == 2
    resume = words[1].split()[:2]
    there = file.read_bytes()
    assert run(topic, *resume, "--to-file", str(file.with_name("other"))) == 1  # no checkpoint of it is there
    assert run(topic, "--resume", str(file), "--to-file", str(file.with_name("other"))) == 2
    assert run(topic, "--resume", str(file), "--count") == 2  # counting would write
    assert file.read_bytes() == there
    assert run(topic, *words[1].split()) == 0
    assert sorted((line["partition"], line["offset"]) for line in lines_of(file)) == [
        (record.partition, record.offset) for record in source
    ]


def left_in_the_middle(bootstrap: str, directory: Path) -> tuple[str, Path]:
    """A topic of 3,000 events, and the file of a replay that was ended in the middle of it."""
    topic, file = make_topic(bootstrap), directory / "out.ndjson"
    write(bootstrap, topic, [put_event(event(f"m-{n}")) for n in range(3_000)])
    process = start(
        bootstrap, topic, "replay", "--to-file", str(file), "--rate", "500", "--execute", directory=directory
    )
    assert grown(file, process)
    process.terminate()
    process.wait(END_SECONDS)
    return topic, file


def test_what_expires_while_it_is_away_is_told(
    kafka_bootstrap: str, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between two attempts the head of the topic went: the rest comes, the exit code says that it is not all."""
    topic, file = left_in_the_middle(kafka_bootstrap, tmp_path)
    there = len(lines_of(file))
    assert there < 2_900
    delete_before(kafka_bootstrap, topic, {0: 2_950})
    assert run(topic, "--resume", str(file), "--execute") == 3
    assert f"partition 0: {2_950 - there:,} offsets from {there:,} on expired" in capfd.readouterr().err
    assert [line["offset"] for line in lines_of(file)] == [*range(there), *range(2_950, 3_000)]


def test_a_topic_that_was_made_anew_is_not_waited_for(
    kafka_bootstrap: str, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends before the place to go on from: that is said, and no advice is given that would come to the same."""
    topic, file = left_in_the_middle(kafka_bootstrap, tmp_path)
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.delete_topics([topic], operation_timeout=END_SECONDS)[topic].result()
    made_anew(admin, topic)
    assert run(topic, "--resume", str(file), "--execute") == 1
    said = capfd.readouterr().err
    assert "partition 0 ends at 0 now" in said
    assert "go on with" not in said


# --- a topic as destination -------------------------------------------------------------------------------------------


def test_records_arrive_as_they_were(kafka_bootstrap: str, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Key, value, timestamp and headers, and one more; without a key where they were; null stays null."""
    topic, target = make_topic(kafka_bootstrap, 3), make_topic(kafka_bootstrap, 3)
    one = event("m-1")
    records = [
        put_event(one, partition=partition_for(b"m-1", 3), time_ms=1691043638123),
        Put(b"\xff", None, 2, 1691043638124, [("h", b"1"), ("h", None)]),
        Put(None, b"", partition_for(b"", 3), 1691043638125),
    ]
    write(kafka_bootstrap, topic, records)
    assert run(topic, "--to-topic", target, "--execute") == 0
    run_name = re.search(r"^run +(\S+)$", capfd.readouterr().out, re.MULTILINE)
    assert run_name is not None
    mark = ("bridge_replay", run_name[1].encode())
    expected = [(put.partition, put.time_ms, put.key, put.value, [*(put.headers or []), mark]) for put in records]
    found = read_all(kafka_bootstrap, target, 3)
    assert sorted((r.partition, r.time_ms, r.key, r.value, r.headers) for r in found) == sorted(expected)
    assert run(topic, "--resume", run_name[1], "--at-least-once", "--execute") == 2
    assert "--at-least-once: run" in capfd.readouterr().err
    # Taken up again it is complete, and writes nothing twice.
    assert run(topic, "--resume", run_name[1], "--execute") == 0
    assert "complete: 3 records" in capfd.readouterr().err
    assert len(read_all(kafka_bootstrap, target, 3)) == 3


def test_the_source_is_written_to_only_when_forced(
    kafka_bootstrap: str, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """And then ends, though it makes its own source longer; a topic that is not there is never made."""
    topic = make_topic(kafka_bootstrap)
    write(kafka_bootstrap, topic, [put_event(event(f"m-{n}")) for n in range(10)])
    assert run(topic, "--to-topic", topic, "--execute") == 2
    assert "--allow-own-topic" in capfd.readouterr().err
    assert run(topic, "--to-topic", topic, "--allow-own-topic", "--execute") == 0
    assert len(read_all(kafka_bootstrap, topic)) == 20
    assert run(topic, "--to-topic", f"{topic}-not-there", "--execute") == 1
    assert "no such topic" in capfd.readouterr().err
    assert run(topic, "--to-topic", f"{topic}-not-there", "--execute") == 1


def test_more_filters_than_a_run_can_keep_are_told_with_the_plan(
    kafka_bootstrap: str, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before anything is begun: no group, no word of how to go on."""
    topic, target = make_topic(kafka_bootstrap), make_topic(kafka_bootstrap)
    keys = [word for number in range(400) for word in ("--key", f"key-number-{number}")]
    for execute in ([], ["--execute"]):
        assert run(topic, *keys, "--to-topic", target, *execute) == 1
        said = capfd.readouterr().err
        assert "more filters than a run on Kafka can keep" in said
        assert "go on" not in said


def test_a_target_that_refuses_a_record_ends_it_with_words_and_nothing_half_done(
    kafka_bootstrap: str, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """A record larger than the target takes; what was committed before it stays, what was not is not seen."""
    topic = make_topic(kafka_bootstrap)
    target = make_topic(kafka_bootstrap, 1, {"max.message.bytes": "20000"})
    records = [put_event(event(f"m-{n}")) for n in range(50)]
    write(kafka_bootstrap, topic, [*records, Put(os.urandom(30_000), b"large"), *records])
    assert run(topic, "--to-topic", target, "--execute") == 1
    said = capfd.readouterr().err
    assert "max.message.bytes" in said
    assert "--resume" in said
    assert len(read_all(kafka_bootstrap, target)) in {0, 50}


def test_of_two_that_write_for_one_run_the_later_goes_on_alone(kafka_bootstrap: str) -> None:
    """The earlier one writes no more, and says why."""
    topic, run_id = make_topic(kafka_bootstrap), unique_name("run")
    kafka = config.load(environment={}, assignments=[f"kafka.bootstrap_servers={kafka_bootstrap}"]).settings.kafka
    earlier, later = [
        Transactions(kafka, run_id, batch_bytes=1000, beginning="beginning", fenced="another took it over")
        for _ in range(2)
    ]
    earlier.write(topic, [{"value": b"late"}], "writing")
    with pytest.raises(ReplayError, match="writing: another took it over"):
        earlier.commit([], None, "writing")
    earlier.close()
    later.close()
    assert read_all(kafka_bootstrap, topic) == []


def test_a_run_that_nobody_knows_is_refused(kafka_bootstrap: str, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """With words, not with a run of nothing."""
    topic = make_topic(kafka_bootstrap)
    assert run(topic, "--resume", "20200101T000000Z-000000", "--execute") == 1
    assert "there is no run" in capfd.readouterr().err


async def test_a_run_is_looked_for_on_brokers_that_have_just_started(tmp_path: Path) -> None:
    """No broker is the coordinator of a group yet, which librdkafka's question for offsets would not survive."""
    async with EmbeddedKafka(properties={"offsets.topic.num.partitions": "50"}) as kafka:
        words = ("replay", "--resume", "20261130T191001Z-c4476c", "--execute")
        process = start(kafka.bootstrap_servers, "status", *words, directory=tmp_path)
        code = await asyncio.to_thread(process.wait, END_SECONDS)
    said = (tmp_path / "error").read_text()
    assert (code, "there is no run 20261130T191001Z-c4476c" in said) == (1, True), said
