"""What consuming teams import: small, alike for both clients, and without a server."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from support.messages import Message

from bridge.consume import Decoder, Deduplicator, Record, Undecodable, event_id, header
from bridge.encode.json import encode_event
from bridge.report.report import Report, read_body

HEADERS = [("ce_id", b"one"), ("bridge_position", "é".encode())]


def of_aiokafka(value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Record:
    """A record as aiokafka gives it."""
    record: Record = ConsumerRecord("t", 2, 7, 0, 0, b"k", value, None, 0, 0, headers or [])
    return record


def of_confluent(value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> Record:
    """A record as confluent-kafka gives it."""
    pairs: list[tuple[str, str | bytes | None]] = [*(headers or [])]
    return Message("t", 2, 7, b"k", value, pairs)


@pytest.fixture(params=[of_aiokafka, of_confluent])
def record(request: pytest.FixtureRequest) -> type:
    """Makes records of either client."""
    made: type = request.param
    return made


def test_the_import_pulls_in_no_server_and_no_kafka_client() -> None:
    """A consuming team brings its own client; importing this needs msgspec and fastavro, and costs little."""
    program = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # importing it fails
import bridge.consume
bridge.consume.Decoder()
print(*(name for name in sys.modules if name.startswith("bridge.")))
"""
    others = {name for name in packages_distributions() if name not in {"bridge", "fastavro", "msgspec"}} | {"asyncio"}
    done = subprocess.run(
        [sys.executable, "-c", program, *others],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = {name.split(".")[1] for name in done.stdout.split()}
    assert parts == {"consume", "config", "errors", "headers", "report", "schemas"}


def test_records_of_both_clients_are_read_alike(record: type) -> None:
    """Headers as text, the value as an event, the place in errors."""
    [item] = read_body(b'[{"MessageId":"m","Status":"Read"}]', 1)
    assert isinstance(item, Report)
    good = record(encode_event(item.event), HEADERS)
    assert (event_id(good), header(good, "bridge_position"), header(good, "traceparent")) == ("one", "é", None)
    assert Decoder().read(good) == item.event
    assert event_id(record(b"{}")) is None
    for value in (b"{}", None):
        with pytest.raises(Undecodable, match=r"^t\[2\]@7: "):
            Decoder().read(record(value))


def test_the_last_of_repeated_headers_counts(record: type) -> None:
    """Kafka allows them."""
    assert event_id(record(b"", [("ce_id", b"one"), ("ce_id", b"two")])) == "two"


def test_an_event_says_what_consumers_ask_of_it() -> None:
    """Whether it was delivered, whether it is a check."""
    reports = [
        {"MessageId": "m", "Status": "Read", "To": "12005550101"},
        {"MessageId": "m", "Status": "delivered", "FromUserId": "US.1"},
        {"MessageId": "m", "Status": " bridgetest "},
        {"MessageId": "m", "Status": "Sent"},
    ]
    events = [item.event for item in read_body(json.dumps(reports).encode(), 1) if isinstance(item, Report)]
    assert [event.is_delivered for event in events] == [True, True, False, False]
    assert [event.is_test for event in events] == [False, False, True, False]


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_an_id_is_known_after_it_was_added_not_before() -> None:
    """Asking alone marks nothing: what fails half-way is done again."""
    seen = Deduplicator()
    assert "a" not in seen
    assert "a" not in seen
    seen.add("a")
    assert "a" in seen
    assert None not in seen


def test_the_id_not_seen_for_longest_goes_first() -> None:
    """A repeat keeps its id alive; memory is bounded."""
    seen = Deduplicator(capacity=2)
    seen.add("a")
    seen.add("b")
    assert "a" in seen
    seen.add("c")
    assert ["a" in seen, "b" in seen, "c" in seen, len(seen)] == [True, False, True, 2]


def test_ids_are_forgotten_in_time() -> None:
    """Each so many seconds after it was last seen."""
    now = 0.0
    seen = Deduplicator(seconds=10, clock=lambda: now)
    seen.add("a")
    now = 6
    seen.add("b")
    assert "a" in seen
    now = 15
    assert ("a" in seen, len(seen)) == (True, 2)
    now = 25
    assert ("b" in seen, "a" in seen, len(seen)) == (False, False, 0)


def test_a_capacity_of_nothing_is_refused() -> None:
    """It would drop nothing and say so nowhere."""
    with pytest.raises(ValueError, match="capacity is 0"):
        Deduplicator(0)


@given(st.lists(st.sampled_from("abcdef"), max_size=60), st.integers(1, 4))
def test_what_was_among_the_last_distinct_ones_is_always_known(ids: list[str], capacity: int) -> None:
    """The promise, against the plainest model of it."""
    seen = Deduplicator(capacity)
    recent: list[str] = []
    for each in ids:
        assert (each in seen) == (each in recent[-capacity:])
        seen.add(each)
        recent = [other for other in recent if other != each] + [each]
