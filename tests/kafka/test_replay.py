"""What a replay reads, and what it makes of it: ranges, times, filters, and all that a topic may hold besides records."""

import json
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.replaying import (
    Put,
    arguments,
    clean_at_once,
    delete_before,
    event,
    lines_of,
    make_topic,
    offsets_of,
    put_event,
    read_all,
    single_object,
    start,
    write,
)

from bridge import cli

GONE = 3
HOUR_MS = 3_600_000
NOON_MS = 1_764_072_000_000  # 2025-11-25T12:00:00Z

Replay = Callable[..., int]


@pytest.fixture
def replay(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Replay:
    """Runs ``replay`` on a topic, here; gives the exit code."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_") and "__" in name]:
        monkeypatch.delenv(name)

    def run(topic: str, *words: str) -> int:
        return cli.main(arguments(kafka_bootstrap, topic, ["replay", *words]))

    return run


def numbered(count: int, *, partition: int = 0, time_ms: int = NOON_MS, padding: int = 0) -> list[Put]:
    """Events m-0, m-1, …, a second apart."""
    return [
        put_event(event(f"m-{n}", Note="x" * padding), partition=partition, time_ms=time_ms + n * 1000)
        for n in range(count)
    ]


def offsets(lines: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Where each line's record stood."""
    return [(line["partition"], line["offset"]) for line in lines]


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_plan_is_shown_and_nothing_is_written(
    kafka_bootstrap: str, replay: Replay, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without --execute: what, how many, whence, whither, how long; neither file nor target has anything."""
    topic, target = make_topic(kafka_bootstrap, 2), make_topic(kafka_bootstrap)
    write(kafka_bootstrap, topic, [*numbered(40), *numbered(60, partition=1)])
    file = tmp_path / "out.ndjson"
    assert replay(topic, "--from", "0:10,1:20", "--to-file", str(file), "--rate", "10") == 0
    said = capfd.readouterr().out
    assert "70, counted" in said
    assert "an estimate: 7 s" in said
    assert str(file) in said
    assert "--execute" in said
    assert [line.split() for line in said.splitlines() if len(line.split()) == 6][1:] == [
        ["0", "10", "40", "30", "0", "40"],
        ["1", "20", "60", "40", "0", "60"],
    ]
    assert not list(tmp_path.iterdir())
    assert replay(topic, "--to-topic", target) == 0
    assert f"topic {target}" in capfd.readouterr().out
    assert read_all(kafka_bootstrap, target) == []


def test_standard_output_carries_lines_and_nothing_else(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """The plan and the summary go to standard error."""
    topic = make_topic(kafka_bootstrap)
    write(kafka_bootstrap, topic, numbered(5))
    assert replay(topic, "--to-file", "-") == 0
    assert capfd.readouterr().out == ""
    assert replay(topic, "--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    assert [line["key"] for line in lines_of(said.out)] == [f"m-{n}" for n in range(5)]
    assert "5 records read, 5 written" in said.err


# --- ranges -----------------------------------------------------------------------------------------------------------


def test_offsets_that_expired_are_told_and_several_segments_are_read_from_the_oldest(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """Retention took the head: the rest comes, the exit code says that it is not all."""
    topic = make_topic(kafka_bootstrap, 2, {"segment.bytes": "1048576"})
    padded = [Put(os.urandom(40_000).hex().encode(), b"k", 0) for _ in range(60)]  # 4.8 MB
    write(kafka_bootstrap, topic, [*padded, *numbered(5, partition=1)])
    delete_before(kafka_bootstrap, topic, {0: 45})
    assert replay(topic, "--from", "0:12,1:0", "--to-file", "-", "--execute") == GONE
    said = capfd.readouterr()
    assert "partition 0: asked from 12, oldest is 45" in said.err
    assert sorted(offsets(lines_of(said.out))) == [*((0, n) for n in range(45, 60)), *((1, n) for n in range(5))]
    # By time nobody knows what stood there; that is told, and is no failure.
    assert replay(topic, "--from", "2001-01-01T00:00:00Z", "--to-file", "-", "--execute") == 0
    assert "before 45 has expired" in capfd.readouterr().err


def test_a_range_of_time_takes_what_lies_in_it_wherever_it_stands(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was drained after an outage is older than what stands before it, also across segments."""
    topic = make_topic(kafka_bootstrap, 1, {"segment.bytes": "1048576"})
    hours = [9, 10, 13, 14, 11, 12, 15, 8, 11, 16, 10]
    blob = os.urandom(150_000).hex()
    times = [NOON_MS + (hour - 12) * HOUR_MS for hour in hours]
    write(
        kafka_bootstrap,
        topic,
        [Put(json.dumps({"n": n, "x": blob}).encode(), time_ms=at) for n, at in enumerate(times)],
    )
    words = ("--from", "2025-11-25T10:00:00Z", "--to", "2025-11-25T20:00:00+08:00")
    assert replay(topic, *words, "--to-file", "-", "--execute") == 0
    found = lines_of(capfd.readouterr().out)
    assert [line["offset"] for line in found] == [n for n, hour in enumerate(hours) if 10 <= hour < 12] == [1, 4, 8, 10]
    assert [line["timestamp"] for line in found] == [times[n] for n in (1, 4, 8, 10)]


def test_times_without_a_zone_and_ranges_that_contradict_are_refused(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, and words that say what to write."""
    topic = make_topic(kafka_bootstrap, 2)
    with pytest.raises(SystemExit, match="2"):
        replay(topic, "--from", "2025-11-25T10:00:00")
    assert "2025-11-25T10:00:00+08:00" in capfd.readouterr().err
    assert replay(topic, "--from", "-1h", "--to", "-2h") == 2
    assert replay(topic, "--from", "1:9", "--to", "1:9") == 2
    assert replay(topic, "--from", "1:2", "--to", "0:9") == 1
    assert replay(topic, "--from", "7:2") == 1
    assert "partitions 0 to 1" in capfd.readouterr().err
    assert replay(topic, "--execute") == 2
    assert replay("no-such-topic", "--count") == 1
    assert "no such topic" in capfd.readouterr().err


def test_an_aborted_transaction_is_left_out_and_an_open_one_does_not_hold_it_up(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also at the very end, where offsets are that no record has; what stands behind an open one is told."""
    topic = make_topic(kafka_bootstrap)
    write(kafka_bootstrap, topic, numbered(3))
    write(kafka_bootstrap, topic, numbered(4), **{"transactional.id": f"{topic}-a"}).abort_transaction(30)
    write(kafka_bootstrap, topic, numbered(2), **{"transactional.id": f"{topic}-b"}).commit_transaction(30)
    write(kafka_bootstrap, topic, numbered(4), **{"transactional.id": f"{topic}-c"}).abort_transaction(30)
    assert replay(topic, "--to-file", "-", "--execute") == 0
    assert [line["offset"] for line in lines_of(capfd.readouterr().out)] == [0, 1, 2, 8, 9]
    hanging = write(kafka_bootstrap, topic, numbered(6), **{"transactional.id": f"{topic}-d"})
    write(kafka_bootstrap, topic, numbered(1))
    assert replay(topic, "--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    assert len(lines_of(said.out)) == 5
    assert "up to 7 records from 16 on stand behind an open transaction" in said.err
    hanging.abort_transaction(30)


def test_what_compaction_left_out_is_passed_over(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also from an offset that is in a gap; every record that is left comes."""
    clean_at_once(kafka_bootstrap)
    config = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.bytes": "1048576"}
    topic = make_topic(kafka_bootstrap, 1, config)
    padding = os.urandom(40_000).hex().encode()
    write(kafka_bootstrap, topic, [Put(padding, b"k-%d" % (n % 5)) for n in range(60)], **{"batch.size": 1})
    deadline = time.monotonic() + 60
    while len(left := read_all(kafka_bootstrap, topic)) == 60:  # compaction works in its own time
        assert time.monotonic() < deadline
    assert replay(topic, "--from", "1", "--to-file", "-", "--execute") == 0
    found = offsets(lines_of(capfd.readouterr().out))
    # More may have been compacted meanwhile.
    assert set(offsets_of(read_all(kafka_bootstrap, topic))) <= set(found) <= set(offsets_of(left))
    assert len(found) < 59


def test_a_replay_of_a_busy_topic_ends_where_it_ended_at_the_start(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """Though more is written all the time."""
    topic = make_topic(kafka_bootstrap, 2)
    write(kafka_bootstrap, topic, [*numbered(300), *numbered(300, partition=1)])
    done, busy = threading.Event(), threading.Event()

    def keep_busy() -> None:
        while not done.is_set():
            write(kafka_bootstrap, topic, [*numbered(20), *numbered(20, partition=1)])
            busy.set()

    writer = threading.Thread(target=keep_busy)
    writer.start()
    try:
        assert busy.wait(30)
        assert replay(topic, "--to-file", "-", "--execute", "--rate", "1500") == 0
    finally:
        done.set()
        writer.join()
    said = capfd.readouterr()
    table = [line.split() for line in said.err.splitlines() if len(line.split()) == 6 and line.split()[0] in {"0", "1"}]
    ends = {int(row[0]): int(row[5].replace(",", "")) for row in table}
    assert sorted(offsets(lines_of(said.out))) == [(p, n) for p in (0, 1) for n in range(ends[p])]
    assert all(end >= 300 for end in ends.values())


# --- what records hold ------------------------------------------------------------------------------------------------


def test_formats_versions_and_what_is_none_of_them_stand_in_one_range(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """JSON as it stands, Avro decoded, an older schema's fields as they were; what can't be read goes out in base64."""
    topic = make_topic(kafka_bootstrap)
    one, two = event("m-1"), event("m-2", Status="Failed", ErrorCode="131050")
    older = json.dumps({"event_id": "x", "message_id": "m-3", "status": "SENT"}).encode()
    spread = b'{\n\t"message_id": "m-4",\r\n "text": "a\\nb \xe4\xb8\xad"\n}'
    records = [
        put_event(one),
        put_event(two, value=single_object(two)),
        Put(older, b"m-3"),
        Put(spread, b"m-4"),
        Put(b"\xc3\x01 no schema has this", b"m-5"),
        Put(b"\xff\xfe", b"\xff"),
        Put(None, b"m-7"),
        Put(b"12", None, headers=[("a", b"1"), ("a", b"2"), ("b", None), ("c", b"\xff")]),
    ]
    write(kafka_bootstrap, topic, records)
    assert replay(topic, "--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    first, avro, old, wide, unknown, binary, null, odd = lines_of(said.out)
    assert first["value"]["event_id"] == one.event_id == first["headers"]["ce_id"]
    assert avro["value"] | {"received_at": 0} == json.loads(json.dumps(first["value"])) | {
        "event_id": two.event_id,
        "message_id": "m-2",
        "task_id": "m-2",
        "status": "FAILED",
        "provider_status": "Failed",
        "status_rank": 0,
        "error_code": "131050",
        "error_category": "OPT_OUT",
        "error_retry": "NO",
        "received_at": 0,
    }
    assert old["value"] == json.loads(older)
    assert wide["value"] == {"message_id": "m-4", "text": "a\nb 中"}
    assert (unknown["value"], unknown["value_base64"]) == (None, "wwEgbm8gc2NoZW1hIGhhcyB0aGlz")
    assert "fingerprint" in unknown["value_error"]
    assert (binary["key"], binary["key_base64"], binary["value_base64"]) == (None, "/w==", "//4=")
    assert null["value"] is None
    assert "value_base64" not in null
    assert odd["headers"] == {"a": "2", "c": "\ufffd"}
    assert odd["headers_exact"] == [["a", "MQ=="], ["a", "Mg=="], ["b", None], ["c", "/w=="]]
    assert "2 values could not be decoded" in said.err


def test_filters_choose_by_key_status_category_template_and_sender_in_both_formats(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """One value of each kind has to fit, and all kinds; headers decide where they can, else the value."""
    topic = make_topic(kafka_bootstrap)
    events = [
        event("m-0", "Sent", From="12005550100", TemplateCode="t-1"),
        event("m-1", "Failed", From="12005550100", ErrorCode="131050", TemplateName="offer"),
        event("m-2", "Failed", From="12005550199", ErrorCode="131026"),
        event("m-3", "Read", From="12005550199", TemplateCode="t-1"),
    ]
    write(
        kafka_bootstrap,
        topic,
        [
            *(put_event(each) for each in events),
            *(put_event(each, value=single_object(each)) for each in events),
            Put(put_event(events[1]).value, b"m-1"),
        ],
    )

    def chosen(*words: str) -> list[int]:
        assert replay(topic, *words, "--to-file", "-", "--execute") == 0
        return [line["offset"] for line in lines_of(capfd.readouterr().out)]

    assert chosen("--status", "failed") == [1, 2, 5, 6, 8]
    assert chosen("--status", "FAILED,READ", "--key", "m-3", "--key", "m-2") == [2, 3, 6, 7]
    assert chosen("--error-category", "opt_out") == [1, 5, 8]
    assert chosen("--template", "t-1", "--template", "offer") == [0, 1, 3, 4, 5, 7, 8]
    assert chosen("--sender", "12005550199", "--template", "t-1") == [3, 7]
    assert chosen("--key", "none") == []


def test_the_quarantine_is_read_by_reason_its_bytes_as_they_came(
    kafka_bootstrap: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """JSON as JSON, text as text, the rest in base64; filters of events make no sense there."""
    topic = make_topic(kafka_bootstrap)
    reasons = ["not_json", "not_json", "no_message_id"]
    values = [b"{truncated", b"\x80{", b'{"Status":"Sent"}']
    write(
        kafka_bootstrap,
        topic,
        [Put(value, headers=[("quarantine_reason", why.encode())]) for value, why in zip(values, reasons, strict=True)],
    )

    def run(*words: str) -> int:
        settings = ["--set", f"kafka.bootstrap_servers={kafka_bootstrap}", "--set", f"topics.quarantine={topic}"]
        return cli.main(["replay", "--topic", "quarantine", *words, *settings])

    assert run("--to-file", "-", "--execute") == 0
    said = capfd.readouterr()
    text, binary, whole = lines_of(said.out)
    assert (text["value"], text["value_text"]) == (None, "{truncated")
    assert (binary["value"], binary["value_base64"]) == (None, "gHs=")
    assert whole["value"] == {"Status": "Sent"}
    assert "could not be decoded" not in said.err
    assert run("--reason", "no_message_id", "--to-file", "-", "--execute") == 0
    assert [line["offset"] for line in lines_of(capfd.readouterr().out)] == [2]
    assert run("--status", "SENT") == 2


def test_count_counts_and_writes_nothing(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """By partition and type."""
    topic = make_topic(kafka_bootstrap, 2)
    write(
        kafka_bootstrap, topic, [put_event(event(f"m-{n}", ("Sent", "Read")[n % 2]), partition=n % 2) for n in range(9)]
    )
    assert replay(topic, "--count", "--status", "SENT") == 0
    said = capfd.readouterr()
    assert "partition 0: 5\n" in said.out
    assert "type chatapp.status.sent: 5\n" in said.out
    assert "9 records read, 5 fit" in said.err


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_never_written_over(
    kafka_bootstrap: str, replay: Replay, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It has to be another name; a complete run is taken up as complete."""
    topic = make_topic(kafka_bootstrap)
    write(kafka_bootstrap, topic, numbered(5))
    file = tmp_path / "out.ndjson"
    assert replay(topic, "--to-file", str(file), "--execute") == 0
    written = file.read_bytes()
    assert len(lines_of(written)) == 5
    assert file.stat().st_mode & 0o077 == 0
    assert replay(topic, "--to-file", str(file), "--execute") == 1
    assert "is there already" in capfd.readouterr().err
    assert replay(topic, "--resume", str(file), "--execute") == 0
    assert "complete: 5 records" in capfd.readouterr().err
    assert file.read_bytes() == written


def test_a_reader_that_goes_away_ends_it_with_words(kafka_bootstrap: str, tmp_path: Path) -> None:
    """As ``| head`` does."""
    topic = make_topic(kafka_bootstrap)
    write(kafka_bootstrap, topic, numbered(2000, padding=200))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start(kafka_bootstrap, topic, "replay", "--to-file", str(pipe), "--execute", directory=tmp_path)
    with pipe.open("rb") as reader:
        assert json.loads(reader.readline())["offset"] == 0
    assert process.wait(30) == 1
    assert "went away" in (tmp_path / "error").read_text()


def test_lines_are_in_the_order_of_each_partition(
    kafka_bootstrap: str, replay: Replay, capfd: pytest.CaptureFixture[str]
) -> None:
    """However partitions take turns."""
    topic = make_topic(kafka_bootstrap, 3)
    write(kafka_bootstrap, topic, [each for p in range(3) for each in numbered(700, partition=p)])
    assert replay(topic, "--to-file", "-", "--execute") == 0
    found = offsets(lines_of(capfd.readouterr().out))
    for partition in range(3):
        mine = [offset for place, offset in found if place == partition]
        assert len(mine) == 700
        assert all(a + 1 == b for a, b in pairwise(mine))
