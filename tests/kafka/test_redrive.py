"""``chatapp-bridge redrive`` on a real Kafka: what an older bridge could not read is published once, whatever happens."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from support.apart import run_apart
from support.callbacks import report
from support.replaying import Put, Read, make_topic, read_all, write

from bridge import cli, config
from bridge.consume import Decoder
from bridge.errors import RegistryError, ReplayError
from bridge.kafka.partition import partition_for
from bridge.lab.embedded import EmbeddedRegistry
from bridge.operate.reading.inspector import ClusterInspector
from bridge.operate.redrive.markers import is_note
from bridge.operate.redrive.redecode import Redecoder
from bridge.operate.redrive.redrive import Redrive
from bridge.operate.redrive.writer import Writer
from bridge.registry.client import RegistryClient
from bridge.report.event import event_id
from bridge.report.report import read_body
from bridge.schemas import written_schema

STATUS_PARTITIONS, QUARANTINE_PARTITIONS = 4, 2
RECEIVED_MS = time.time_ns() // 1_000_000 - 3_600_000
GROUP = "chatapp-bridge-redrive"
KILLED = """
    import os, signal, sys
    from bridge import cli
    from bridge.operate.transactions import Transactions
    until_answered, calls = Transactions._until_done, 0
    def dying(self, work, doing):
        global calls
        calls += 1
        if calls == {at} and not {after}:
            self._producer.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        until_answered(self, work, doing)
        if calls == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
    Transactions._until_done = dying
    from bridge.operate.redrive import redrive
    redrive._BATCH_RECORDS = 50
    sys.exit(cli.main(sys.argv[1:]))
"""


DYING = """
    import os, signal, sys
    from bridge import cli
    from bridge.operate.at_least_once import AtLeastOnce
    method, calls = AtLeastOnce.{method}, 0
    def dying(self, *arguments):
        global calls
        calls += 1
        if calls == 2:
            self._flush("dying")
            os.kill(os.getpid(), signal.SIGKILL)
        method(self, *arguments)
    AtLeastOnce.{method} = dying
    from bridge.operate.redrive import redrive
    redrive._BATCH_RECORDS = 50
    sys.exit(cli.main(sys.argv[1:]))
"""


class Topics(NamedTuple):
    """Two topics, and the settings that name them."""

    bootstrap: str
    status: str
    quarantine: str
    more: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """For the command line."""
        return [part for each in self.assignments for part in ("--set", each)]

    @property
    def assignments(self) -> list[str]:
        """For the configuration."""
        names = {"kafka.bootstrap_servers": self.bootstrap, "topics.status": self.status}
        pairs = {**names, "topics.quarantine": self.quarantine}
        return [*(f"{key}={value}" for key, value in pairs.items()), *self.more]

    def redrive(self, *words: str) -> int:
        """Run it here; the exit code."""
        return cli.main(["redrive", *words, *self.arguments])

    def events(self) -> list[Read]:
        """What is on the status topic."""
        return read_all(self.bootstrap, self.status, STATUS_PARTITIONS)

    def quarantined(self) -> list[Read]:
        """What is in the quarantine."""
        return read_all(self.bootstrap, self.quarantine, QUARANTINE_PARTITIONS)

    def committed(self) -> list[int]:
        """How far the group has looked."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": GROUP})
        places = [TopicPartition(self.quarantine, p) for p in range(QUARANTINE_PARTITIONS)]
        deadline = time.monotonic() + 30
        while True:
            try:
                return [place.offset for place in consumer.committed(places, timeout=20)]
            except KafkaException:
                # A broker that just started has no coordinator yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


@pytest.fixture
def topics(kafka_bootstrap: str) -> Topics:
    """Empty ones."""
    return Topics(
        kafka_bootstrap,
        make_topic(kafka_bootstrap, STATUS_PARTITIONS),
        make_topic(kafka_bootstrap, QUARANTINE_PARTITIONS, {"max.message.bytes": "9437184"}),
    )


def put(value: bytes, number: int, *, reason: str = "undecodable", path: str = "$[2]", **other: Any) -> Put:
    """A record as an older bridge quarantined it; the number makes callback, partition and times."""
    headers = {
        "quarantine_reason": reason,
        "quarantine_detail": "An older bridge could not read it.",
        "quarantine_path": path,
        "bridge_callback": f"0123456789abcdef-{number}",
        "bridge_position": "3/10",
        "received_at": str(RECEIVED_MS + number),
        **other,
    }
    pairs: Any = [(name, text.encode()) for name, text in headers.items() if text is not None]
    return Put(value, None, number % QUARANTINE_PARTITIONS, RECEIVED_MS + number, pairs)


def item(number: int, **fields: Any) -> bytes:
    """A report that today's decoder reads."""
    return json.dumps(report(f"m-{number}", "Delivered", Nobody={"knows": number}, **fields)).encode()


def id_of(number: int) -> str:
    """The id its event must have."""
    return event_id(f"m-{number}", "8613800000002", "Delivered", None)


def ids(events: list[Read]) -> list[str]:
    """Of the events, sorted, repeats included."""
    return sorted(dict(event.headers)["ce_id"].decode() for event in events)  # type: ignore[union-attr]


def test_what_decodes_today_is_published_as_it_would_have_been(
    topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """Id, key, partition, times and place in the callback are those of then; what fails is listed; a second run adds nothing."""
    write(topics.bootstrap, topics.quarantine, [put(item(n), n) for n in range(6)])
    write(topics.bootstrap, topics.quarantine, [put(b'{"From":"8613100000001"}', 6), put(b"no JSON", 7, path="$")])

    assert topics.redrive() == 0
    plan = capsys.readouterr().out
    assert topics.events() == []
    assert topics.committed() == [-1001, -1001]
    assert "to be published            6, which give 6 events" in plan
    assert f"{topics.quarantine}[0]@3 $.MessageId no_message_id: The item has no usable MessageId." in plan
    assert "nothing was written; --execute publishes 6 events" in plan
    assert "86131" not in plan

    assert topics.redrive("--execute") == 0
    assert "8 looked at = 0 before + 6 published + 2 that still fail" in capsys.readouterr().out
    events = topics.events()
    assert ids(events) == sorted(id_of(n) for n in range(6))
    for event in events:
        key = event.key or b""
        number = int(key.removeprefix(b"m-"))
        headers = {name: (value or b"").decode() for name, value in event.headers}
        assert event.partition == partition_for(key, STATUS_PARTITIONS)
        assert event.time_ms == RECEIVED_MS + number
        assert json.loads(event.value or b"")["received_at"] == RECEIVED_MS + number
        assert json.loads(event.value or b"")["extras"] == f'{{"Nobody":{{"knows": {number}}}}}'
        assert (headers["bridge_callback"], headers["bridge_position"]) == (f"0123456789abcdef-{number}", "3/10")
        assert headers["bridge_redrive"].startswith("redrive-")
        assert headers["ce_type"] == "chatapp.status.delivered"
        assert headers["content-type"] == "application/json"
    assert topics.committed() == [4, 4]

    assert topics.redrive("--execute") == 0
    assert "8 looked at = 6 before + 0 published + 2 that still fail" in capsys.readouterr().out
    assert topics.events() == events


def test_a_whole_body_gives_each_of_its_reports_once_also_when_more_of_it_is_understood_later(
    topics: Topics, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails in it is not lost: the decoder of another day publishes that, and only that."""
    body = b"[" + b",".join([item(1), b'{"Key":"new"}', item(2)]) + b"]"
    write(
        topics.bootstrap, topics.quarantine, [put(body, 0, reason="not_json", path="$"), put(b"[1]", 1), put(b"[]", 3)]
    )
    assert topics.redrive("--execute") == 0
    said = capsys.readouterr().out
    assert "published                  1, which gives 2 events, 1 of them in part" in said
    assert "$[1].MessageId no_message_id" in said
    assert "empty: There is no item in it." in said
    assert ids(topics.events()) == sorted([id_of(1), id_of(2)])

    from bridge.operate.redrive import redecode  # noqa: PLC0415

    today: Any = read_body

    def better(body: bytes, received_at_ms: int, catalogue: Any) -> Any:
        return today(body.replace(b'{"Key":"new"}', item(3)), received_at_ms, catalogue)

    monkeypatch.setattr(redecode, "read_body", better)
    assert topics.redrive("--execute") == 0
    assert "which gives 1 event\n" in capsys.readouterr().out
    assert ids(topics.events()) == sorted([id_of(1), id_of(2), id_of(3)])
    assert topics.redrive("--execute") == 0
    assert "3 looked at = 1 before + 0 published + 2 that still fail" in capsys.readouterr().out
    assert len(topics.events()) == 3


def test_killed_in_the_middle_and_run_again_it_publishes_each_once(topics: Topics) -> None:
    """Each run dies in its second transaction, at the worst moments: all is written; the offsets, too; it is committed."""
    write(topics.bootstrap, topics.quarantine, [put(item(n), n) for n in range(300)])
    # Calls: the first takes the transactional id; each transaction has two, its offsets and its commit.
    for call, after in ((4, False), (5, False), (5, True)):
        program = textwrap.dedent(KILLED).format(at=call, after=after)
        killed = subprocess.run(
            [sys.executable, "-c", program, "redrive", "--execute", *topics.arguments], capture_output=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < len(topics.events()) < 300
    assert topics.redrive("--execute") == 0
    assert ids(topics.events()) == sorted(id_of(n) for n in range(300))


def test_without_transactions_it_repeats_no_more_than_the_plan_says(
    topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed when a batch is published and not noted, it is published again; when it is noted, it is not."""
    bodies = [b"[" + b",".join(item(4 * n + i) for i in range(4)) + b"]" for n in range(50)]
    records = [put(body, n, reason="not_json", path="$") for n, body in enumerate(bodies)]
    write(topics.bootstrap, topics.quarantine, records)
    words = ("redrive", "--at-least-once", "--execute", *topics.arguments)
    for method in ("settle", "commit"):
        program = textwrap.dedent(DYING).format(method=method)
        killed = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert b"the next one may publish up to 53 events again, with the same ce_id" in killed.stdout
    assert topics.redrive("--at-least-once", "--execute") == 0
    assert "50 looked at = " in capsys.readouterr().out
    events = ids(topics.events())
    assert set(events) == {id_of(n) for n in range(200)}
    assert 200 < len(events) <= 253


def test_without_transactions_it_waits_for_those_of_an_earlier_run(
    topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """Notes behind an open one can't be read, so that what was published before is not known."""
    write(topics.bootstrap, topics.quarantine, [put(item(1), 1)])
    earlier = write(topics.bootstrap, topics.quarantine, [put(b"[]", 3)], **{"transactional.id": topics.quarantine})
    assert topics.redrive("--at-least-once") == 0
    assert topics.redrive("--at-least-once", "--execute") == 1
    assert "has an open transaction, perhaps of a redrive that was cut short" in capsys.readouterr().err
    assert topics.events() == []
    earlier.abort_transaction()


def test_of_two_at_once_the_later_goes_on_alone(topics: Topics) -> None:
    """The earlier one publishes no more, and says why."""
    write(topics.bootstrap, topics.quarantine, [put(item(n), n) for n in range(4)])
    settings = config.load(environment={}, assignments=topics.assignments).settings
    writer = Writer(settings, "redrive-earlier", GROUP, 1_000_000)
    with ClusterInspector(settings.kafka) as inspector:
        earlier = Redrive(settings, inspector, Redecoder(settings, "redrive-earlier", 1_000_000), 0)
    assert topics.redrive("--execute") == 0
    with pytest.raises(ReplayError, match="another redrive of this quarantine has begun"):
        earlier.publish(writer)
    assert ids(topics.events()) == sorted(id_of(n) for n in range(4))


def test_what_is_missing_of_an_old_record_is_made_up_for_by_nothing(topics: Topics) -> None:
    """Without headers the record's own time counts, and it names no callback."""
    write(topics.bootstrap, topics.quarantine, [Put(item(1), None, 0, RECEIVED_MS, None)])
    assert topics.redrive("--execute") == 0
    (event,) = topics.events()
    assert event.time_ms == RECEIVED_MS
    names = {name for name, _ in event.headers}
    assert "bridge_redrive" in names
    assert names.isdisjoint({"bridge_callback", "bridge_position"})


def test_an_event_that_was_too_large_is_published_when_the_topic_takes_it(
    topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the report that came, or as the encoded event where the broker refused that; what is still too large still fails."""
    write(topics.bootstrap, topics.quarantine, [put(item(1), 1)])
    assert topics.redrive("--execute") == 0
    (event,) = topics.events()
    again = json.loads(event.value or b"") | {"event_id": id_of(2), "message_id": "m-2"}
    large = item(3, StatusDescription="x" * 1_100_000)
    records = [json.dumps(again).encode(), large]
    write(
        topics.bootstrap,
        topics.quarantine,
        [put(value, n, reason="too_large", path="$") for n, value in enumerate(records, 2)],
        **{"message.max.bytes": 9_000_000},
    )
    capsys.readouterr()
    assert topics.redrive("--execute") == 0
    assert "$ too_large: The event is larger than a record may be." in capsys.readouterr().out
    assert ids(topics.events()) == sorted([id_of(1), id_of(2)])


def test_notes_are_no_records_and_are_kept_no_longer_than_what_they_are_about(topics: Topics) -> None:
    """They have its partition and its time; one that can't be read stops the next run before it writes."""
    write(topics.bootstrap, topics.quarantine, [put(item(n), n) for n in range(4)])
    assert topics.redrive("--execute") == 0
    notes = [record for record in topics.quarantined() if is_note(record.headers)]
    assert [note.partition for note in notes] == [0, 1]
    assert [note.time_ms for note in notes] == [RECEIVED_MS + 2, RECEIVED_MS + 3]
    write(topics.bootstrap, topics.quarantine, [Put(b"{}", None, 0, RECEIVED_MS, [("bridge_redrive", b"a later one")])])
    assert topics.redrive("--execute") == 1
    assert len(topics.events()) == 4


def test_in_avro_values_are_framed_with_the_registrys_id(
    topics: Topics, registry: EmbeddedRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it nothing is written; without a registry it is the single-object encoding."""
    write(topics.bootstrap, topics.quarantine, [put(item(1), 1)])
    framed = topics._replace(more=("events.format=avro", f"registry.url={registry.url}"))
    assert framed.redrive("--execute") == 1
    assert "chatapp-bridge schema register" in capsys.readouterr().err
    assert topics.events() == []

    async def register() -> int:
        settings = config.load(environment={}, assignments=[f"registry.url={registry.url}"]).settings
        async with RegistryClient(settings.registry) as client:
            return await client.register(f"{topics.status}-value", written_schema().text)

    number = run_apart(register())
    assert framed.redrive("--execute") == 0
    (event,) = topics.events()
    assert (event.value or b"")[:5] == b"\x00" + number.to_bytes(4, "big")
    decoded = Decoder(lambda _: written_schema().text).decode(event.value or b"")
    assert (decoded.event_id, decoded.received_at) == (id_of(1), RECEIVED_MS + 1)

    write(topics.bootstrap, topics.quarantine, [put(item(2), 2)])
    assert topics._replace(more=("events.format=avro",)).redrive("--execute") == 0
    (other,) = [each for each in topics.events() if each.key == b"m-2"]
    assert Decoder().decode(other.value or b"").event_id == id_of(2)
    assert dict(other.headers)["content-type"] == b"application/avro"


def test_a_registry_that_is_away_is_said_before_anything_is_read(topics: Topics) -> None:
    """Trying again can help."""
    settings = config.load(
        environment={}, assignments=[*topics.assignments, "events.format=avro", "registry.url=http://127.0.0.1:1"]
    ).settings
    with pytest.raises(RegistryError):
        Redecoder(settings, "redrive-x", 1_000_000)
