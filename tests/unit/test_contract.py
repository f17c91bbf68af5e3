"""``avro/CONTRACT.md`` says what is so: each of its tables is held against the code, the schema or the configuration."""

import json
import re
import sqlite3
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contract_document import SECTIONS, TEXT, blocks, row_of, table

from bridge import config
from bridge.consume import Decoder, Event, Status, count_people, people
from bridge.encode.headers import CallbackHeaders
from bridge.encode.json import CONTENT_TYPE, encode_event
from bridge.report.catalogue import NO_ERROR, UNKNOWN_ERROR, ErrorMeaning, shipped_catalogue
from bridge.report.event import event_id
from bridge.report.report import Quarantined, Reason, Report, read_body
from bridge.report.symbols import ErrorCategory, ErrorRetry, MessageTimeSource, status_rank

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "avro/status-event.avsc").read_text())
TOPICS = tomllib.loads((ROOT / "config/topics.toml").read_text())
SETTINGS = config.load(environment={}).settings
RECEIVED = 1_691_043_640_123
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REPORT = {
    "MessageId": "m-1",
    "From": "15550000000",
    "To": "15550000001",
    "Timestamp": 1691043638000,
    "Status": "Delivered",
    "ConversationType": "marketing",
    "MsgFrameType": "template",
    "Type": "image",
    "TemplateCode": "820561547132813184",
    "TemplateName": "offer",
    "Language": "en",
    "TaskId": "t-1",
    "Campaign": "spring",
}
# Put there by replay and redrive, which copy an event's headers and add their own.
OF_RUNS = ["bridge_replay", "bridge_redrive"]


def event_of(report: dict[str, Any]) -> Event:
    """The event that a report becomes."""
    [item] = read_body(json.dumps([report]).encode(), RECEIVED)
    assert isinstance(item, Report)
    return item.event


def callback_headers(total: int) -> CallbackHeaders:
    """Of the examples' callback."""
    return CallbackHeaders(
        source=SETTINGS.events.source.encode(),
        content_type=CONTENT_TYPE,
        callback_id="4f0c1d2e3a4b5c6d-17",
        received_at_ms=RECEIVED,
        total=total,
        traceparent=TRACE.encode(),
    )


def words(section: str) -> str:
    """A section as one line."""
    return " ".join(SECTIONS[section].split())


def type_name(avro: Any) -> str:
    """What the table calls a type."""
    if isinstance(avro, list):
        assert avro[0] == "null"
        return f"{type_name(avro[1])}, null"
    if isinstance(avro, dict):
        return "timestamp" if avro.get("logicalType") == "timestamp-millis" else f"enum {avro['name']}"
    return str(avro)


def test_every_field_stands_there_as_the_schema_has_it() -> None:
    """Name, type and documentation, in the schema's order."""
    expected = [[f"`{field['name']}`", type_name(field["type"]), field["doc"]] for field in SCHEMA["fields"]]
    assert table("The value", "field") == expected


@pytest.mark.parametrize("row", table("Repeats, and the event id", "MessageId"), ids=lambda row: row[-1])
def test_the_test_vectors_hold(row: list[str]) -> None:
    """The id's formula gives them, and so does a whole report, of either spelling."""
    message_id, to, user_id, status, code, identity = (None if cell == "none" else cell.strip("`") for cell in row)
    assert event_id(message_id or "", to or user_id, status or "", code) == identity
    for name, error in (("UserId", "ErrorCode"), ("FromUserId", "Error")):
        report = {"MessageId": message_id, "To": to, name: user_id, "Status": status, error: code}
        assert event_of(report).event_id == identity


def test_every_header_of_an_event_stands_there_with_a_true_example() -> None:
    """In the order of a record, then those of replay and redrive."""
    event = event_of(REPORT)
    made = {name: value.decode() for name, value in callback_headers(10).of_event(event, b"m-1", 3)}
    rows = table("Headers", "header")
    examples = {name.strip("`"): example.strip("`") for name, _, example in rows}
    assert set(examples) == {*made, *OF_RUNS}
    assert {name: examples[name] for name in made} == made
    types = set(re.findall(r"`(chatapp\.status\.\w+)`", row_of("ce_type", rows)[1]))
    assert types == {f"chatapp.status.{status.lower()}" for status in Status}


def test_every_header_of_a_quarantined_item_stands_there() -> None:
    """With every reason, and a true example."""
    *_, item = read_body(b'[1,2,3,{"MessageId":"m-1"}]', RECEIVED)
    assert isinstance(item, Quarantined)
    made = {name: value.decode() for name, value in callback_headers(10).of_quarantined(item, 4)}
    rows = table("Quarantined records", "header")
    assert {name.strip("`"): example.strip("`") for name, _, example in rows} == made
    reasons = [reason.strip("`") for reason, _ in table("Quarantined records", "quarantine_reason")]
    assert reasons == [reason.value for reason in Reason]


def test_every_symbol_stands_there() -> None:
    """Of each enum: a new one has to be explained before it is released."""
    statuses = {status.strip("`"): int(rank) for status, rank, _ in table("status", "status")}
    assert statuses == {status.value: status_rank(status) for status in Status}
    assert all(f"`{source.value}`" in SECTIONS["status"] for source in MessageTimeSource)
    rows = table("error_category and error_retry", "error_category")
    assert {category.strip("`") for category, *_ in rows} == set(ErrorCategory)
    assert all(f"`{retry.value}`" in SECTIONS["error_category and error_retry"] for retry in ErrorRetry)


def test_every_code_stands_there_with_what_it_means() -> None:
    """Every code that a receipt may carry and that has a category, as the shipped catalogue has it, and no other."""
    listed: dict[str, ErrorMeaning] = {}
    for category, retry, codes, _ in table("error_category and error_retry", "error_category"):
        meaning = ErrorMeaning(ErrorCategory[category.strip("`")], ErrorRetry[retry.strip("`")])
        if meaning in {NO_ERROR, UNKNOWN_ERROR}:
            continue
        for code in codes.split(", "):
            first, _, last = code.partition(" to ")
            listed |= {str(each): meaning for each in range(int(first), int(last) + 1)} if last else {code: meaning}
    shipped = shipped_catalogue()
    expected = {code: meaning for code, meaning in shipped.meanings.items() if meaning != UNKNOWN_ERROR}
    assert listed == {code: meaning for code, meaning in expected.items() if re.fullmatch(r"[0-9]{1,6}", code)}
    assert shipped.meaning(None) == (ErrorCategory.NONE, ErrorRetry.NONE)


def test_the_topics_are_those_that_are_declared() -> None:
    """Names, partitions, retention and sizes."""
    declared = []
    for name in ("status", "quarantine"):
        settings = TOPICS[name]["config"]
        assert settings["cleanup.policy"] == "delete"
        assert settings["min.insync.replicas"] == 2
        declared.append(
            [
                f"`{getattr(SETTINGS.topics, name)}`",
                str(TOPICS[name]["partitions"]),
                f"{settings['retention.ms'] / 86_400_000:g} days",
                f"{settings['max.message.bytes']:,} bytes",
            ]
        )
    assert [[topic, *rest] for topic, _, *rest in table("Topics", "topic")] == declared
    events, quarantined = (row[2] for row in declared)
    assert f"{events} of events, {quarantined} of quarantined records" in words("Retention")
    assert f"after {events}" in words("Personal data")
    assert f"({quarantined} for the quarantine" in words("Personal data")
    assert f"for {events}" in words("Evolution")


def test_personal_data_is_named_where_the_schema_says_so() -> None:
    """Each field whose documentation calls it personal, or free text."""
    named = {name for cell, _ in table("Personal data", "where") for name in re.findall(r"`(\w+)`", cell)}
    telling = re.compile(r"personal data|free text", re.IGNORECASE)
    assert named == {field["name"] for field in SCHEMA["fields"] if telling.search(field["doc"])} | {"event_id"}


def test_the_example_event_is_one() -> None:
    """What the bridge makes of a report, every field of it."""
    [example] = blocks("json")
    assert example == json.dumps(msgspec.to_builtins(event_of(REPORT)), indent=2) + "\n"
    assert Decoder().decode(json.dumps(json.loads(example)).encode()) == event_of(REPORT)


def asked(events: Iterable[Event]) -> tuple[set[tuple[Any, ...]], ...]:
    """What the SQL examples answer on the table that a JDBC sink makes of these."""
    database = sqlite3.connect(":memory:")
    names = Event.__struct_fields__
    database.execute(f"CREATE TABLE events ({', '.join(names)}, PRIMARY KEY (event_id))")
    marks = ", ".join("?" * len(names))
    for values in map(msgspec.to_builtins, events):
        database.execute(f"INSERT OR REPLACE INTO events VALUES ({marks})", [values[name] for name in names])  # noqa: S608
    return tuple(set(database.execute(query)) for query in blocks("sql"))


def test_the_sql_examples_answer_as_they_say() -> None:
    """With all states, people of both kinds, a repeat that was upserted, and a check."""
    reports = [
        {"MessageId": "a", "To": "1", "Status": "Read"},
        {"MessageId": "a", "To": "1", "Status": "Delivered"},
        {"MessageId": "a", "To": "2", "Status": "Delivered"},
        {"MessageId": "a", "To": "2", "Status": "Failed", "ErrorCode": "131026"},
        {"MessageId": "b", "FromUserId": "u", "Status": "Sent"},
        {"MessageId": "c", "To": "1", "Status": "Failed", "ErrorCode": "131042", "TemplateName": "t"},
        {"MessageId": "d", "To": "1", "Status": "BridgeTest"},
        # Two people without a number; one by number first and by user id alone later.
        {"MessageId": "e", "FromUserId": "u", "Status": "Delivered"},
        {"MessageId": "e", "FromUserId": "v", "Status": "Read"},
        {"MessageId": "f", "To": "1", "Status": "Delivered"},
        {"MessageId": "f", "FromUserId": "u", "Status": "Read"},
        {"MessageId": "g", "To": "1", "Status": "Failed", "ErrorCode": "131042", "TemplateName": "t"},
        {"MessageId": "g", "FromUserId": "u", "Status": "Failed", "ErrorCode": "131042", "TemplateName": "t"},
        {"MessageId": "h", "Status": "Delivered"},
    ]
    states, charges, failures = asked(event_of(report) for report in (*reports, reports[0]))
    assert states == {
        ("a", "1", "READ"),
        ("a", "2", "DELIVERED"),
        ("b", "u", "SENT"),
        ("c", "1", "FAILED"),
        ("e", "u", "DELIVERED"),
        ("e", "v", "READ"),
        ("f", "1", "READ"),
        ("g", "1", "FAILED"),
        ("h", "", "DELIVERED"),
    }
    assert charges == {(2 + 2 + 1 + 1,)}
    assert failures == {("UNDELIVERABLE", None, 1), ("PAYMENT", "t", 2)}
    assert asked([]) == (set(), {(0,)}, set())


@given(
    st.lists(
        st.builds(
            lambda status, to, user_id: event_of({"MessageId": "m", "Status": status, "To": to, "FromUserId": user_id}),
            st.sampled_from(["Sent", "Delivered", "Read"]),
            st.sampled_from([None, "1", "2", "3"]),
            st.sampled_from([None, "u", "v", "w"]),
        ),
        min_size=1,
        unique_by=lambda event: event.event_id,
    )
)
@settings(deadline=None)
def test_the_sql_examples_tell_people_apart_as_the_package_does(events: list[Event]) -> None:
    """Whatever the events name."""
    states, charges, _ = asked(events)
    ranks: dict[str, int] = {}
    person_of = people([(event.recipient, event.user_id) for event in events])
    for event in events:
        person = person_of[event.recipient, event.user_id]
        ranks[person] = max(ranks.get(person, 0), event.status_rank)
    assert states == {("m", person, ("SENT", "DELIVERED", "READ")[rank - 1]) for person, rank in ranks.items()}
    assert charges == {(count_people([(event.recipient, event.user_id) for event in events if event.is_delivered]),)}


def test_the_java_example_is_of_a_program_that_is_run() -> None:
    """``tests/contract/test_avro_consumers.py`` runs it."""
    program = (ROOT / "tests/java/avro/ReadAvro.java").read_text()
    [example] = blocks("java")
    assert textwrap.indent(example, " " * 8) in program


def test_a_test_is_told_as_the_contract_says() -> None:
    """Trimmed and case folded."""
    assert event_of({"MessageId": "m", "Status": " bridgetest"}).is_test
    assert "`BridgeTest`" in SECTIONS["BridgeTest"]


def test_links_and_files_exist() -> None:
    """What it links to beside itself, and the files of this project that it names."""
    folder = ROOT / "avro"
    assert [to for to in re.findall(r"\]\(([^)#:]+)\)", TEXT) if not (folder / to).exists()] == []
    assert [to for to in re.findall(r"`((?:tests|config|docs)/[^`]+)`", TEXT) if not (ROOT / to).exists()] == []


def test_values_are_what_the_example_says_in_json() -> None:
    """Every field is there, nulls included."""
    assert list(json.loads(encode_event(event_of(REPORT)))) == [field["name"] for field in SCHEMA["fields"]]
