"""``chatapp-bridge audit`` on a real Kafka: made-up topics with each kind of wrong, and what the edges of a range must not do."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from support.arena import longer
from support.replaying import Put, delete_before, make_topic, write

from bridge import cli
from bridge.operate.console import time_text

ONE = "0123456789abcdef"
NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000


class Topics(NamedTuple):
    """Two topics, of two partitions each."""

    bootstrap: str
    status: str
    quarantine: str

    def audit(self, *words: str) -> int:
        """Run it here; the exit code."""
        pairs = {"kafka.bootstrap_servers": self.bootstrap, "topics.status": self.status}
        pairs |= {"topics.quarantine": self.quarantine}
        return cli.main(
            ["audit", *words, *(part for key, text in pairs.items() for part in ("--set", f"{key}={text}"))]
        )

    def put(self, status: Iterable[Put] = (), quarantine: Iterable[Put] = ()) -> None:
        """Write them."""
        write(self.bootstrap, self.status, status)
        write(self.bootstrap, self.quarantine, quarantine)


@pytest.fixture
def topics(kafka_bootstrap: str) -> Topics:
    """Empty ones."""
    return Topics(kafka_bootstrap, make_topic(kafka_bootstrap, 2), make_topic(kafka_bootstrap, 2))


def event(
    event_id: str, number: int, position: str, *, key: str = "", ago_ms: int = 2 * HOUR_MS, partition: int = 0
) -> Put:
    """A record of the callback of that number."""
    headers: Any = {
        "ce_id": event_id,
        "ce_type": "chatapp.status.failed",
        "bridge_callback": f"{ONE}-{number}",
        "bridge_position": position,
    }
    pairs: Any = [(name, text.encode()) for name, text in headers.items()]
    return Put(b"{}", (key or event_id).encode(), partition, NOW_MS - ago_ms, pairs)


def quarantined(number: int, position: str, ago_ms: int = 2 * HOUR_MS) -> Put:
    """Likewise."""
    headers = {
        "quarantine_reason": "not_json",
        "bridge_callback": f"{ONE}-{number}",
        "bridge_position": position,
    }
    pairs: Any = [(name, text.encode()) for name, text in headers.items()]
    return Put(b"nonsense", None, number % 2, NOW_MS - ago_ms, pairs)


def test_each_kind_of_wrong_is_found_and_named_and_none_is_found_beside_it(
    topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """By exit code, in JSON and in words; a range without it has nothing wrong, whatever stands beside that range."""
    whole = [event("a", 1, "1/3"), event("b", 1, "3/3", partition=1), event("b", 1, "3/3", partition=1)]
    late = 3 * HOUR_MS
    wrong = [
        event("c", 2, "1/2", ago_ms=late),
        event("later", 5, "1/1", key="k", ago_ms=late),
        event("earlier", 4, "1/1", key="k", ago_ms=late),
        Put(b"?", b"k", 0, NOW_MS - late, [("mine", b"1")]),
    ]
    topics.put([*whole, *wrong, event("young", 9, "1/2", ago_ms=1000)], [quarantined(1, "2/3")])

    assert topics.audit("--format", "json", "--settle-seconds", "3600") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["wrong"], found["callbacks"], found["unjudged"]) == (True, 5, 1)
    assert [(each["callback"], each["found"], each["total"]) for each in found["not_whole_list"]] == [
        (f"{ONE}-2", 1, 2)
    ]
    assert [(each["callback"], each["behind_callback"]) for each in found["out_of_order_list"]] == [
        (f"{ONE}-4", f"{ONE}-5")
    ]
    assert [(each["topic"], each["partition"], each["offset"]) for each in found["foreign_list"]] == [("status", 0, 4)]
    assert found["repeats"] == {"distinct": 6, "events": 1, "records": 1, "pushed_again": 0}
    counted = {(each["outcome"], each["word"]): 0 for each in found["counts"]}
    for each in found["counts"]:
        counted[each["outcome"], each["word"]] += each["records"]
    assert counted == {("event", "FAILED"): 6, ("repeat", "FAILED"): 1, ("quarantined", "not_json"): 1}

    assert topics.audit("--settle-seconds", "3600") == 1
    said = capsys.readouterr().out
    assert f"not whole: callback {ONE}-2" in said
    assert f"out of order: {topics.status}[0]@3" in said
    assert f"not the bridge's: {topics.status}[0]@4" in said
    assert "something is wrong" in said

    since, until = (time_text(NOW_MS - 2 * HOUR_MS + each) for each in (0, 1))
    assert topics.audit("--from", since, "--to", until, "--bucket", "hour") == 0
    said = capsys.readouterr().out
    assert "1: 1 whole" in said
    assert "nothing is wrong" in said


def test_what_lost_its_records_to_retention_is_not_judged(topics: Topics, capsys: pytest.CaptureFixture[str]) -> None:
    """A callback as old as the oldest record of a partition whose head is gone; a younger one is."""
    old, young = 3 * HOUR_MS, 2 * HOUR_MS
    topics.put(
        [
            event("a", 1, "1/2", ago_ms=old),
            event("b", 1, "2/2", ago_ms=old, partition=1),
            event("c", 2, "1/1", ago_ms=old),
            event("d", 3, "1/2", ago_ms=young),
        ]
    )
    delete_before(topics.bootstrap, topics.status, {0: 1})
    assert topics.audit("--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["callback"] for each in found["not_whole_list"]] == [f"{ONE}-3"]
    assert found["unjudged"] == 1
    assert found["judged_since_ms"] == NOW_MS - old + 60_000


def test_where_the_broker_stamps_records_the_time_of_receipt_counts(
    kafka_bootstrap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a range would cut callbacks in two."""
    stamped = {"message.timestamp.type": "LogAppendTime"}
    topics = Topics(kafka_bootstrap, make_topic(kafka_bootstrap, 2, stamped), make_topic(kafka_bootstrap, 2, stamped))
    put = event("a", 1, "1/1")
    headers: Any = put.headers
    topics.put([put._replace(headers=[*headers, ("ce_time", b"2025-01-02T03:04:05.678Z")])])
    words = ("--from", "2025-01-02T03:04:05Z", "--to", "2025-01-02T03:04:06Z", "--format", "json")
    assert topics.audit(*words) == 0
    assert json.loads(capsys.readouterr().out)["callbacks"] == 1


def test_memory_is_flat(topics: Topics) -> None:
    """Of a process of its own; the long form has 300,000 records, every tenth event twice."""
    callbacks = int(longer(500, 30_000))
    records = (
        event(f"{(10 * number + place) % (9 * callbacks):032x}", number, f"{place}/10", key=f"m-{number * place % 999}")
        for number in range(callbacks)
        for place in range(1, 11)
    )
    topics.put(records)
    program = (
        # VmHWM and not ru_maxrss, which begins with what the process had that started this one
        "import re, sys; from bridge import cli; code = cli.main(sys.argv[1:]); status = open('/proc/self/status').read(); "
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024, file=sys.stderr); sys.exit(code)"
    )
    words = ["--set", f"kafka.bootstrap_servers={topics.bootstrap}", "--set", f"topics.status={topics.status}"]
    words += ["--set", f"topics.quarantine={topics.quarantine}", "--format", "json"]
    run = subprocess.run([sys.executable, "-c", program, "audit", *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["records"], found["callbacks"]) == (10 * callbacks, callbacks)
    assert found["repeats"]["records"] == callbacks
    assert int(run.stderr.split()[-1]) < 200
