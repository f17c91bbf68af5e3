"""What a body becomes, and what a field becomes."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.page import PAGE_MESSAGE, PAGE_TEMPLATE

from bridge.report import report as module
from bridge.report.catalogue import shipped_catalogue
from bridge.report.event import StatusEvent, event_id
from bridge.report.fields import FIELDS
from bridge.report.report import MAX_DEPTH, Item, Quarantined, Reason, Report, read_body
from bridge.report.symbols import MessageTimeSource, Status

FIXTURES = Path(__file__).parents[2] / "fixtures"
# A busy machine is no failure.
UNHURRIED = settings(deadline=None)
RECEIVED = 1_764_000_000_123
CONTEXT = module._Context(RECEIVED, shipped_catalogue())
GOOD = b'{"MessageId":"m-1","To":"15550000001","Status":"Read","Timestamp":1691132091000}'
MINIMAL = {"MessageId": "m-1", "Status": "Read"}


def read(body: bytes) -> list[Item]:
    """The items of a body received at RECEIVED."""
    return read_body(body, RECEIVED)


def reports_of(items: list[Item]) -> list[Report]:
    """The items that were understood."""
    return [item for item in items if isinstance(item, Report)]


def event_of(raw: bytes) -> StatusEvent:
    """The event of the only item of a body."""
    (item,) = read(b"[" + raw + b"]")
    assert isinstance(item, Report), item
    return item.event


def event_with(**fields: Any) -> StatusEvent:
    """The event of a minimal report with these fields."""
    return event_of(json.dumps({**MINIMAL, **fields}).encode())


def event_with_text(members: str) -> StatusEvent:
    """The event of a minimal report with these members, written as JSON text."""
    return event_of(b'{"MessageId":"m-1","Status":"Read",' + members.encode() + b"}")


def extras_of(event: StatusEvent) -> dict[str, Any]:
    """The extras, decoded; empty for none."""
    return {} if event.extras is None else json.loads(event.extras)


def only_quarantined(body: bytes) -> Quarantined:
    """The one thing a body became, which must be quarantined."""
    (item,) = read(body)
    assert isinstance(item, Quarantined), item
    return item


@pytest.mark.parametrize(
    ("name", "recipients", "expected"),
    [
        ("page-template.json", ["86138*******8", "86137*******8"], PAGE_TEMPLATE),
        ("page-message.json", ["86138*******8", "86138*******1"], PAGE_MESSAGE),
    ],
)
def test_the_page_s_examples_become_their_full_events(
    name: str, recipients: list[str], expected: dict[str, Any]
) -> None:
    """Both examples of the provider's page, every field; two reports differ in To alone, and so in the id."""
    events = [msgspec.to_builtins(item.event) for item in reports_of(read((FIXTURES / name).read_bytes()))]
    ids = [
        event_id(expected["message_id"], recipient, expected["provider_status"], expected["error_code"])
        for recipient in recipients
    ]
    assert [
        expected | {"received_at": RECEIVED, "recipient": recipient, "event_id": identity}
        for recipient, identity in zip(recipients, ids, strict=True)
    ] == events
    assert len(set(ids)) == 2


# What a body becomes.


@pytest.mark.parametrize("body", [b"", b"[]", b" [ \n] ", b"\xef\xbb\xbf[]"])
def test_an_empty_array_holds_nothing(body: bytes) -> None:
    """Neither does an empty body, which the caller refuses."""
    assert read(body) == []


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_lone_object_is_a_report(mark: bytes) -> None:
    """With or without a byte order mark, white space around it; its path is the root."""
    (item,) = reports_of(read(mark + b" \r\n" + GOOD + b"\t"))
    assert (item.event.message_id, item.raw, item.path) == ("m-1", GOOD, "$")


def test_a_leading_byte_order_mark_changes_nothing() -> None:
    """An array behind a byte order mark is read like one without."""
    assert read(b"[" + GOOD + b"]") == read(b"\xef\xbb\xbf[" + GOOD + b"]")


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b" ",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"[" + GOOD,
        b"[" + GOOD + b",",
        b"[" + GOOD + b",,]",
        b"[,]",
        b"[," + GOOD + b"]",
        b"[" + GOOD + b"}",
        b"[" + GOOD + GOOD + b"]",
        b"[" + GOOD + b"] x",
        b"[" + GOOD + b"][]",
        b"[" + GOOD + b",nonsense]",
        GOOD + b"\n" + GOOD,
        GOOD[:-1],
        b"[" + GOOD[:-20] + b"]",
        b"[" + GOOD + b",}",
        b'[{"a":"}]',
        b"[" + GOOD + b',{"MessageId":"m-2","Status":"Read"]',
        b'[{"a":[1}]]',
        b"MessageId=m-1&Status=Read",
        "[]".encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'["',
        b'[{"\\',
    ],
)
def test_a_body_that_is_not_json_is_kept_whole(body: bytes) -> None:
    """Truncated, trailing or malformed: where an item ends is not known, so all is kept as one."""
    item = only_quarantined(body)
    assert (body, Reason.NOT_JSON, "$", None) == (item.raw, item.reason, item.path, item.message_id)


@pytest.mark.parametrize("body", [b"null", b'"text"', b" 42 ", b"true", b"\xef\xbb\xbf1"])
def test_a_root_that_is_no_array_or_object_is_kept_whole(body: bytes) -> None:
    """Valid JSON, but nothing that could be a report."""
    item = only_quarantined(body)
    assert (body, Reason.NOT_AN_OBJECT, "$") == (item.raw, item.reason, item.path)


DEEP = b'{"MessageId":"m-2","Status":"Read","x":' + b"[" * 5000 + b"]" * 5000 + b"}"
BROKEN_ITEMS = [
    (b"1", Reason.NOT_AN_OBJECT, None),
    (b"null", Reason.NOT_AN_OBJECT, None),
    (b'"{}"', Reason.NOT_AN_OBJECT, None),
    (b'["a", {}]', Reason.NOT_AN_OBJECT, None),
    (b"[" * 5000 + b"]" * 5000, Reason.NOT_AN_OBJECT, None),
    (b'{"MessageId":"m-2","Status":"Read","x":"\xff"}', Reason.INVALID_UTF8, "m-2"),
    (b'{"MessageId":"m-2","Status":"Read","\xff":1}', Reason.INVALID_UTF8, "m-2"),
    (b'{"MessageId":"m-2\xc3","Status":"Read"}', Reason.INVALID_UTF8, None),
    (b'{"MessageId":"m-2","Status":"Read","x":"\xed\xa0\x80"}', Reason.INVALID_UTF8, "m-2"),
    (DEEP, Reason.TOO_DEEP, "m-2"),
    (b'{"x":' * 5000 + b"1" + b"}" * 5000, Reason.TOO_DEEP, None),
    (b'{"MessageId":"m-2","Status":"Read","x":"\ta"}', Reason.UNDECODABLE, "m-2"),
    (b'{"messageid ":"m-2","Status":"Read","\\u12":1}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":"m\\ud83d","Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":"m\\u0000","Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":"m-2","Status":"Read\\u0000"}', Reason.NO_STATUS, "m-2"),
    (b'{"MessageId":"m-2","Status":"\\ud83dRead"}', Reason.NO_STATUS, "m-2"),
    (b'{"MessageId":"m\\u0000","messageid":"m-2","Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":"m\n2","Status":nothing}', Reason.UNDECODABLE, "m\n2"),
    (b'{"MessageId":"m-2","Status":"\\x"}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":"m-2","Status":"a\\\nb"}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":"m-2","Status":NaN}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":0123,"Status":"Read", "x" : {"y" : [] } }', Reason.UNDECODABLE, None),
    (b'{"MessageId":"m-2","Status":}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":"m-2" "Status":"Read"}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":"m-2","Status":"Read",,}', Reason.UNDECODABLE, "m-2"),
    (b'{"MessageId":"m-2",/* later */"Status":"Read"}', Reason.UNDECODABLE, "m-2"),
    (b'{"Status":"he said "no" to it","MessageId":"m-2"}', Reason.UNDECODABLE, None),
    (b"{1:2}", Reason.UNDECODABLE, None),
    (b"{,}", Reason.UNDECODABLE, None),
    (b"{}", Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":null,"Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":" \\t","Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":{"a":1},"Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":true,"Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":1e3,"Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":1.0,"Status":"Read"}', Reason.NO_MESSAGE_ID, None),
    (b'{"From":"15550000001","Message":"hello","Type":"text"}', Reason.NO_MESSAGE_ID, None),
    (b'{"MessageId":"m-2"}', Reason.NO_STATUS, "m-2"),
    (b'{"MessageId":12,"Status":""}', Reason.NO_STATUS, "12"),
    (b'{"MessageId":"m-2","Status":["Read"]}', Reason.NO_STATUS, "m-2"),
]


@pytest.mark.parametrize(("raw", "reason", "message_id"), BROKEN_ITEMS)
def test_a_broken_item_is_quarantined_alone(raw: bytes, reason: Reason, message_id: str | None) -> None:
    """Its neighbours go on; its bytes are kept exactly, and its MessageId where that much was readable."""
    before, broken, after = read(b"[" + GOOD + b" ,\n " + raw + b" , " + GOOD + b"]")
    assert isinstance(broken, Quarantined)
    assert (raw, reason, message_id) == (broken.raw, broken.reason, broken.message_id)
    assert [item.path for item in reports_of([before, after])] == ["$[0]", "$[2]"]
    suffix = {Reason.NO_MESSAGE_ID: ".MessageId", Reason.NO_STATUS: ".Status"}.get(reason, "")
    assert f"$[1]{suffix}" == broken.path


@pytest.mark.parametrize(("raw", "reason"), [(raw, reason) for raw, reason, _ in BROKEN_ITEMS if raw[:1] == b"{"])
def test_a_broken_lone_object_is_quarantined_at_the_root(raw: bytes, reason: Reason) -> None:
    """The same faults, without an array around."""
    item = only_quarantined(raw + b"\n")
    assert (raw, reason, "$") == (item.raw, item.reason, item.path.partition(".")[0])


def test_a_detail_tells_nothing_of_the_data() -> None:
    """Details are shown to people and in headers: the same sentence for any data."""
    for raw, reason, _ in BROKEN_ITEMS:
        detail = only_quarantined(b"[" + raw + b"]").detail
        assert "m-2" not in detail
        assert detail.endswith(".")
        assert reason in set(Reason)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_nesting_is_kept_up_to_its_limit(depth: int) -> None:
    """Brackets in strings do not count; the item's own brace does."""
    nested = b"[" * (depth - 1) + b"]" * (depth - 1)
    (item,) = read(b'[{"MessageId":"m","Status":"Read","s":"' + b"[" * 999 + b'","x":' + nested + b"}]")
    assert (depth <= MAX_DEPTH) == isinstance(item, Report)


# What a field becomes.


@pytest.mark.parametrize(
    ("members", "recipient", "extras"),
    [
        ('"To":"1"', "1", None),
        ('"to":"1"', "1", None),
        ('" TO\\t":"1"', "1", None),
        ('"\\u0054o":"1"', "1", None),
        ('"To":"1","To":"2"', "2", None),
        ('"To":"1","To":null', None, None),
        ('"To":"1","to":"2"', "1", '{"to":"2"}'),
        ('"to":"2","To":"1"', "1", '{"to":"2"}'),
        ('"to":"1","TO":"2"', "2", '{"to":"1"}'),
        ('"To":null,"to":"2"', "2", None),
        ('"To":"  ","to":"2"', "2", None),
        ('"To":"1","to":null', "1", None),
        ('"To":{"x": 1},"to":"2"', "2", '{"To":{"x": 1}}'),
        ('"To":null', None, None),
        ('"To":""', None, None),
        ('"To":"\\u00a0 "', None, None),
        ('"To":" 1 "', " 1 ", None),
        ('"To":[ 1 ]', None, '{"To":[ 1 ]}'),
        ('"To":false', None, '{"To":false}'),
    ],
)
def test_a_key_is_found_by_its_exact_name_first(members: str, recipient: str | None, extras: str | None) -> None:
    """Else trimmed and case-insensitive, the last wins; blank is absent; nothing that was said is lost."""
    event = event_with_text(members)
    assert (recipient, extras) == (event.recipient, event.extras)


TEXTS = {
    "From": "sender",
    "To": "recipient",
    "StatusDescription": "status_description",
    "ErrorDescription": "error_description",
    "ConversationId": "conversation_id",
    "TaskId": "task_id",
    "OriginPhoneNumber": "origin_phone_number",
    "TemplateCode": "template_code",
    "TemplateName": "template_name",
    "Language": "template_language",
    "FromUserId": "user_id",
    "FromParentUserId": "parent_user_id",
    "FromUserName": "user_name",
    "ErrorCode": "error_code",
}


@pytest.mark.parametrize(("name", "field"), TEXTS.items())
def test_a_text_field_is_published_as_it_came(name: str, field: str) -> None:
    """Each field of the wire has its place in the event; an integer is taken by its literal digits."""
    assert getattr(event_with(**{name: " ID+1 é"}), field) == " ID+1 é"
    assert getattr(event_with(**{name: 12345678901234567890123}), field) == "12345678901234567890123"


@pytest.mark.parametrize(("name", "field"), TEXTS.items())
@pytest.mark.parametrize("value", ["1.5", "1.0", "1e3", "-1E+400", "true", "{}", "[1, 2]", '{"a":"\\ud83d\\ude00"}'])
def test_a_value_of_the_wrong_type_is_kept_in_extras(name: str, field: str, value: str) -> None:
    """Its field says nothing, as if it were missing; its JSON text is as it came."""
    event = event_with_text(f'"{name}": {value} ')
    assert ("m-1" if name == "TaskId" else None) == getattr(event, field)
    assert f'{{"{name}":{value}}}' == event.extras


@UNHURRIED
@given(st.integers().map(str) | st.from_regex(r"-?[1-9][0-9]{0,300}", fullmatch=True))
def test_identifiers_keep_any_digits(digits: str) -> None:
    """An integer is text, digit for digit, whatever its size."""
    event = event_of(f'{{"MessageId":{digits},"Status":"Read","To":{digits}}}'.encode())
    assert (digits, digits, digits) == (event.message_id, event.recipient, event.task_id)


@pytest.mark.parametrize("digits", ["-0", "9" * 5000, "-" + "1" * 50_000])
def test_identifiers_of_thousands_of_digits_are_text(digits: str) -> None:
    """No limit of a number type applies to them, nor in extras."""
    event = event_of(f'{{"MessageId":{digits},"Status":"Read","x":{digits}}}'.encode())
    assert (digits, f'{{"x":{digits}}}') == (event.message_id, event.extras)


TIMES = [
    ("1691043638000", 1691043638000),
    ('"1691043638000"', 1691043638000),
    ('" 1691043638000 "', 1691043638000),
    ("1691043638000.0", 1691043638000),
    ("1.691043638e12", 1691043638000),
    ("1691043638", 1691043638000),
    ('"1691043638"', 1691043638000),
    ("1691043638.0", 1691043638000),
    ("1000000000", 1000000000000),
    ("9999999999", 9999999999000),
    ("1000000000000", 1000000000000),
    ("9999999999999", 9999999999999),
]
NO_TIMES = [
    "0",
    "-0",
    "-1691043638000",
    "999999999",
    "99999999999",
    "10000000000000",
    "1691043638000000",
    "1691043638.5",
    "1e999",
    "-1e999",
    "1e-999",
    "9" * 5000,
    '"' + "9" * 5000 + '"',
    '"-1691043638000"',
    '"1691043638000.0"',
    '"2023-08-03"',
    '"\u0661\u0666\u0669\u0661\u0660\u0664\u0663\u0666\u0663\u0668"',
    "true",
    "{}",
    "[1691043638000]",
]


@pytest.mark.parametrize(("value", "expected"), TIMES)
def test_a_timestamp_is_taken_in_any_usual_form(value: str, expected: int) -> None:
    """Integer, digits in a string or an integral float; ten digits are seconds."""
    event = event_with_text(f'"Timestamp":{value},"ConversationExpirationTime":{value}')
    assert (expected, MessageTimeSource.PROVIDER) == (event.message_time, event.message_time_source)
    assert (expected, None) == (event.conversation_expires_at, event.extras)


@pytest.mark.parametrize("value", NO_TIMES)
def test_an_absurd_timestamp_gives_way_to_the_receive_time(value: str) -> None:
    """It is marked, and what came is kept; an absurd expiry is null."""
    event = event_with_text(f'"Timestamp":{value},"ConversationExpirationTime":{value}')
    assert (event.message_time, event.message_time_source) == (RECEIVED, MessageTimeSource.RECEIVED)
    assert event.conversation_expires_at is None
    assert f'{{"Timestamp":{value},"ConversationExpirationTime":{value}}}' == event.extras


@pytest.mark.parametrize("members", ['"To":"1"', '"Timestamp":null', '"Timestamp":""', '"Timestamp":" "'])
def test_a_missing_timestamp_gives_way_to_the_receive_time(members: str) -> None:
    """Nothing came, so nothing is kept."""
    event = event_with_text(members)
    assert (
        event.message_time,
        event.message_time_source,
        event.extras,
    ) == (RECEIVED, MessageTimeSource.RECEIVED, None)


@pytest.mark.parametrize(
    ("members", "expires", "extras"),
    [
        ('"ConversionExpirationTime":1691043638', 1691043638000, {}),
        ('"conversionexpirationtime ":"1691043638"', 1691043638000, {}),
        (
            '"ConversionExpirationTime":1691043638,"ConversationExpirationTime":1691132091',
            1691132091000,
            {"ConversionExpirationTime": 1691043638},
        ),
        ('"ConversionExpirationTime":-1', None, {"ConversionExpirationTime": -1}),
        (
            '"ConversationExpirationTime":-1,"ConversionExpirationTime":1691043638',
            1691043638000,
            {"ConversationExpirationTime": -1},
        ),
    ],
)
def test_the_misspelt_expiry_stands_in(members: str, expires: int | None, extras: dict[str, Any]) -> None:
    """The alias is used where the name is missing or can't be used; the one not used is kept."""
    event = event_with_text(members)
    assert (expires, extras) == (event.conversation_expires_at, extras_of(event))


@pytest.mark.parametrize(
    ("text", "status", "provider_status"),
    [
        ("Sent", Status.SENT, "Sent"),
        ("delivered", Status.DELIVERED, "delivered"),
        (" READ ", Status.READ, "READ"),
        ("Deleted", Status.DELETED, "Deleted"),
        ("Played Twice ", Status.UNKNOWN, "Played Twice"),
        ("BridgeTest", Status.UNKNOWN, "BridgeTest"),
        (3, Status.UNKNOWN, "3"),
    ],
)
def test_a_status_is_normalized_and_kept_as_it_came(text: Any, status: Status, provider_status: str) -> None:
    """Nothing is dropped for being new."""
    event = event_with(Status=text)
    assert (status, provider_status) == (event.status, event.provider_status)
    assert event_id("m-1", None, provider_status, None) == event.event_id


FAILED = '"Status":"Failed"'


@pytest.mark.parametrize(
    ("members", "code", "meaning", "on_the_wire", "extras"),
    [
        (f'{FAILED},"ErrorCode":"131026"', "131026", "UNDELIVERABLE NO", "131026", {}),
        (f'{FAILED},"ErrorCode":131047', "131047", "RE_ENGAGEMENT NO", "131047", {}),
        (f'{FAILED},"ErrorCode":" 131026 "', " 131026 ", "UNDELIVERABLE NO", "131026", {}),
        (f'{FAILED},"ErrorCode":"SRVC_X"', "SRVC_X", "UNKNOWN UNKNOWN", "SRVC_X", {}),
        (f'{FAILED},"Error":"OUT_OF_SERVICE"', "OUT_OF_SERVICE", "UNKNOWN UNKNOWN", "OUT_OF_SERVICE", {}),
        (f'{FAILED},"error ":131049', "131049", "ECOSYSTEM_LIMIT LATER", "131049", {}),
        (f'{FAILED},"Error":"1","ErrorCode":"131026"', "131026", "UNDELIVERABLE NO", "131026", {"Error": "1"}),
        (f'{FAILED},"Error":"1","errorcode":"131026"', "131026", "UNDELIVERABLE NO", "131026", {"Error": "1"}),
        (f'{FAILED},"Error":"1","ErrorCode":"1"', "1", "TRANSIENT LATER", "1", {}),
        (f'{FAILED},"Error":"1","ErrorCode":null', "1", "TRANSIENT LATER", "1", {}),
        (f'{FAILED},"Error":"1","ErrorCode":"0"', None, "UNKNOWN UNKNOWN", "0", {"Error": "1"}),
        (
            f'{FAILED},"ErrorCode":{{}},"ErrorDescription":"131026:x"',
            "131026",
            "UNDELIVERABLE NO",
            "",
            {"ErrorCode": {}},
        ),
        (FAILED, None, "UNKNOWN UNKNOWN", "", {}),
        (f'{FAILED},"ErrorCode":"0"', None, "UNKNOWN UNKNOWN", "0", {}),
        (f'{FAILED},"ErrorCode":"0","ErrorDescription":"131026:x"', "131026", "UNDELIVERABLE NO", "0", {}),
        ('"Status":"played","ErrorCode":"131026"', "131026", "UNDELIVERABLE NO", "131026", {}),
        ('"Status":"played","ErrorCode":"OK"', None, "NONE NONE", "OK", {}),
        ('"Status":"played","ErrorDescription":"131026:x"', None, "NONE NONE", "", {}),
        ('"Status":"Delivered","ErrorCode":"200"', "200", "NONE NONE", "200", {}),
        ('"Status":"Delivered","ErrorDescription":"131026:x"', None, "NONE NONE", "", {}),
        ('"ErrorCode":""', None, "NONE NONE", "", {}),
        *(
            (f'"ErrorCode":{none}', None, "NONE NONE", none.strip('" '), {})
            for none in ('"0"', "0", '"OK"', '" ok "', '"SUCCESS"', '"00000"', '"Delivered"', '"DELIVRD"', '"null"')
        ),
    ],
)
def test_an_error_code_is_found_and_explained(
    members: str, code: str | None, meaning: str, on_the_wire: str, extras: dict[str, Any]
) -> None:
    """ErrorCode, else Error; several words mean none. A category has what failed, and what nobody knows."""
    event = event_with_text(members)
    assert (code, meaning) == (event.error_code, f"{event.error_category} {event.error_retry}")
    assert extras == extras_of(event)
    assert event_id("m-1", None, event.provider_status, on_the_wire) == event.event_id


@pytest.mark.parametrize(
    ("description", "code"),
    [
        ("131026:Receiver", "131026"),
        ("131026\uff1aReceiver", "131026"),
        ("(#131026) Receiver", "131026"),
        ("131026 Receiver", "131026"),
        ("131026", "131026"),
        (" 131026: Receiver", "131026"),
        ("131999: not in the catalogue", None),
        ("SRVC_A: x", None),
        ("Error: 131026", None),
        ("https://example.com", None),
        ("131026x: y", None),
        ("#131026: x", None),
        ("\u0661\u0663\u0661: other digits", None),
        (":x", None),
    ],
)
def test_a_failure_without_a_code_may_have_it_in_its_description(description: str, code: str | None) -> None:
    """One of the catalogue, at the beginning; and it is no part of the id."""
    event = event_with(Status="Failed", ErrorDescription=description)
    assert event.error_code == code
    assert event.error_category == ("UNDELIVERABLE" if code else "UNKNOWN")
    assert event_id("m-1", None, "Failed", None) == event.event_id


@pytest.mark.parametrize(
    ("members", "found", "extras"),
    [
        ('"UserId":"u","ParentUserId":"p","UserName":"n"', ("u", "p", "n"), {}),
        ('"FromUserId":"u","FromParentUserId":"p","FromUserName":"n"', ("u", "p", "n"), {}),
        ('"UserId":"u","FromUserId":"v"', ("u", None, None), {"FromUserId": "v"}),
        ('"FromUserId":"v","UserId":"u"', ("u", None, None), {"FromUserId": "v"}),
        ('"UserId":"u","FromUserId":"u"', ("u", None, None), {}),
        ('"UserId":" ","FromUserId":"v"', ("v", None, None), {}),
        ('"userid ":"u","FromUserId":"v"', ("u", None, None), {"FromUserId": "v"}),
    ],
)
def test_both_spellings_of_user_ids_mean_the_same(
    members: str, found: tuple[str | None, ...], extras: dict[str, Any]
) -> None:
    """The newer one first; the other is kept where it says something else."""
    event = event_with_text(members)
    assert found == (event.user_id, event.parent_user_id, event.user_name)
    assert extras == extras_of(event)
    assert event_id("m-1", event.user_id, "Read", None) == event.event_id


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Subscribed", Status.SUBSCRIBED),
        ("subscribe", Status.SUBSCRIBED),
        ("UNSUBSCRIBED", Status.UNSUBSCRIBED),
        (" Unsubscribe ", Status.UNSUBSCRIBED),
    ],
)
def test_people_block_and_unblock_the_business(text: str, status: Status) -> None:
    """Off the ladder; the id is of the text as it came."""
    event = event_with(Status=text)
    assert (event.status, event.status_rank) == (status, 0)
    assert event_id("m-1", None, text, None) == event.event_id


@pytest.mark.parametrize(
    ("members", "field", "text", "extras"),
    [
        ('"UserName":"a\\u0000b"', "user_name", "a\ufffdb", {"bridge_replaced": ["UserName"]}),
        ('"UserName":"cut \\ud83d"', "user_name", "cut \ufffd", {"bridge_replaced": ["UserName"]}),
        ('"UserName":"\\ude00\\ud83dx"', "user_name", "\ufffd\ufffdx", {"bridge_replaced": ["UserName"]}),
        ('"UserName":"\\ud83d\\ude00"', "user_name", "\U0001f600", {}),
        ('"UserName":"\\\\u0000"', "user_name", "\\u0000", {}),
        ('"UserName":"\\u0000","UserName":"b"', "user_name", "b", {}),
        (
            '"To":"\\u0000","New":{"a":["\\ud83d"]}',
            "recipient",
            "\ufffd",
            {"New": {"a": ["\ufffd"]}, "bridge_replaced": ["To", "New"]},
        ),
        ('"N\\ud83d":1', "recipient", None, {"N\ufffd": 1, "bridge_replaced": ["N\ufffd"]}),
        ('"bridge_replaced":1,"To":"\\u0000"', "recipient", "\ufffd", {"bridge_replaced": ["To"]}),
        ('"bridge_replaced":1', "recipient", None, {"bridge_replaced": 1}),
        ('"To":"\\u0000\n",', "recipient", "\ufffd\n", {"bridge_replaced": ["To"]}),
    ],
)
def test_what_most_consumers_cannot_store_is_replaced(
    members: str, field: str, text: str | None, extras: dict[str, Any]
) -> None:
    """NUL, and halves of surrogate pairs; extras say where. A pair, or text that only looks like one, stays."""
    event = event_of(f'{{"MessageId":"m-1","Status":"Read",{members}}}'.encode())
    assert (text, extras) == (getattr(event, field), extras_of(event))


@pytest.mark.parametrize(
    ("body", "names", "extras"),
    [
        ("[{},]", ["m-1"], {}),
        ("[{} ,\n]", ["m-1"], {}),
        ("[{},{},]", ["m-1", "m-1"], {}),
        ("{}", ["m-1"], {}),
    ],
)
def test_a_trailing_comma_costs_nothing(body: str, names: list[str], extras: dict[str, Any]) -> None:
    """After the last item, the last member, the last value of a nested array."""
    for item in (
        '{"MessageId":"m-1","Status":"Read"}',
        '{"MessageId":"m-1","Status":"Read",}',
        '{"MessageId":"m-1","Status":"Read" , }',
    ):
        items = reports_of(read(body.replace("{}", item).encode()))
        assert [report.event.message_id for report in items] == names
        assert [report.raw.decode() for report in items] == [item] * len(names)
        assert extras_of(items[0].event) == extras


def test_what_is_kept_of_a_lenient_item_is_json() -> None:
    """Line breaks in strings and commas that trail, in known fields and in extras."""
    raw = '{"MessageId":"m-1","Status":"Read","ErrorDescription":"a\nb\r\nc","New":{"x":[1,"y\nz",],},}'
    [report] = reports_of(read(f"[{raw}]".encode()))
    assert report.event.error_description == "a\nb\r\nc"
    assert report.event.extras == '{"New":{"x":[1,"y\\nz"]}}'
    assert report.raw.decode() == raw


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ConversationType", "conversation_type"),
        ("MsgFrameType", "message_frame_type"),
        ("Type", "content_type"),
    ],
)
@pytest.mark.parametrize(
    ("text", "normalized"),
    [("Service", "service"), (" AUTH-International ", "auth_international"), ("new", "new"), (" ", None)],
)
def test_open_lists_are_normalized(name: str, field: str, text: str, normalized: str | None) -> None:
    """Case normalized, '-' as '_', anything new let through."""
    assert normalized == getattr(event_with(**{name: text}), field)


@pytest.mark.parametrize(
    ("fields", "frame_type"),
    [
        ({"TemplateCode": "820561547132813184"}, "template"),
        ({"TemplateCode": "1", "MsgFrameType": ""}, "template"),
        ({"TemplateCode": "1", "MsgFrameType": "message"}, "message"),
        ({"TemplateCode": " "}, None),
        ({"TemplateName": "otp"}, None),
    ],
)
def test_a_template_code_implies_the_frame_type(fields: dict[str, str], frame_type: str | None) -> None:
    """Only where MsgFrameType is missing."""
    assert frame_type == event_with(**fields).message_frame_type


@pytest.mark.parametrize(
    ("fields", "task_id", "defaulted"),
    [
        ({}, "m-1", True),
        ({"TaskId": None}, "m-1", True),
        ({"TaskId": "m-1"}, "m-1", False),
        ({"TaskId": 7}, "7", False),
    ],
)
def test_a_missing_task_id_is_defaulted_and_marked(fields: dict[str, Any], task_id: str, defaulted: bool) -> None:
    """To MessageId, as the page says; the mark tells it from an equal one that came."""
    event = event_with(**fields)
    assert (task_id, defaulted) == (event.task_id, event.task_id_defaulted)


def test_the_user_id_identifies_where_the_recipient_is_missing() -> None:
    """The event id's second text is To, else the user id."""
    assert event_id("m-1", "u", "Read", None) == event_with(FromUserId="u").event_id
    assert event_id("m-1", "t", "Read", None) == event_with(FromUserId="u", To="t").event_id


def test_a_time_does_not_change_the_id() -> None:
    """Nor does any field but the four."""
    assert event_with().event_id == event_with(Timestamp=1691043638, Type="image", x=1).event_id


@pytest.mark.parametrize(
    ("members", "extras"),
    [
        ('"New":"x"', '{"New":"x"}'),
        ('"New": null , "b" : ""', '{"New":null,"b":""}'),
        ('"New":12345678901234567890123.50', '{"New":12345678901234567890123.50}'),
        ('"New":1e999', '{"New":1e999}'),
        ('"a":{"b" : [1,\n"\\u00e9"]}', '{"a":{"b" : [1,\n"\\u00e9"]}}'),
        ('"a":1,"a":2', '{"a":2}'),
        ('"a":1,"A":2,"a ":3', '{"a":1,"A":2,"a ":3}'),
        ('"q\\"\\u0001\\ud83d\\ude00":1', '{"q\\"\\u0001\U0001f600":1}'),
        ('"":1', '{"":1}'),
    ],
)
def test_extras_keep_unknown_fields_as_they_came(members: str, extras: str) -> None:
    """Name and JSON value, the value's text unchanged; always one valid JSON object."""
    event = event_with_text(members)
    assert extras == event.extras
    json.loads(extras)


# Properties.


@UNHURRIED
@given(st.binary(max_size=300) | st.text('[]{},:"\\ \n0aeE-.', max_size=60).map(str.encode))
def test_any_bytes_are_taken_and_nothing_is_lost(body: bytes) -> None:
    """Nothing raises; what is kept is the body, or pieces of it in their order."""
    position = 0
    for item in read(body):
        found = body.find(item.raw, position)
        assert found >= position
        position = found + len(item.raw)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = [name for field in FIELDS for name in field.wire]
SPELLINGS = st.sampled_from([*NAMES, "to", "ERRORCODE", "Timestamp ", "new"])
ALMOST_REPORTS = st.dictionaries(
    SPELLINGS,
    JSON | st.sampled_from(["", " ", "0", "OK", "131026:x", "Read", " failed", "A-B", "1691043638", 1691043638, 1e12]),
).map(lambda fields: MINIMAL | fields)
ITEMS = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    ALMOST_REPORTS.map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    st.sampled_from([GOOD, *(raw for raw, _, _ in BROKEN_ITEMS)]),
)
SPACE = st.text(" \t\r\n", max_size=2).map(str.encode)


@UNHURRIED
@given(st.lists(st.tuples(SPACE, ITEMS, SPACE), max_size=6))
def test_an_array_never_loses_an_item(spaced: list[tuple[bytes, bytes, bytes]]) -> None:
    """As many results as items, good and broken mixed, each with its item's exact bytes and its index."""
    items = read(b"[" + b",".join(b"".join(parts) for parts in spaced) + b"]")
    assert [raw for _, raw, _ in spaced] == [item.raw for item in items]
    assert [f"$[{index}]" for index in range(len(items))] == [item.path.partition(".")[0] for item in items]


@UNHURRIED
@given(st.lists(ITEMS, max_size=4))
def test_neighbours_change_nothing(raws: list[bytes]) -> None:
    """An item becomes the same alone as in company, however broken the company is."""
    together = read(b"[" + b",".join(raws) + b"]")
    alone = [read(b"[" + raw + b"]")[0] for raw in raws]
    assert [without_index(item) for item in alone] == [without_index(item) for item in together]


def without_index(item: Item) -> Item:
    """The item as if it had stood first."""
    return msgspec.structs.replace(item, path="$" + item.path[item.path.index("]") + 1 :])


@UNHURRIED
@given(ALMOST_REPORTS)
def test_both_ways_give_the_same(fields: dict[str, Any]) -> None:
    """The fast way is only ever a short cut of the tolerant one."""
    raw = json.dumps(fields, ensure_ascii=False).encode()
    assert module._read_tolerantly(raw, "$[0]", CONTEXT) == module._read_item(raw, "$[0]", CONTEXT)


@UNHURRIED
@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.none() | st.text(max_size=4) | st.sampled_from(["", " ", "0", "OK", "1:x", "Read"]),
    ).map(lambda fields: MINIMAL | fields),
    st.sampled_from([None, "", " ", 0, 1691043638, "1691043638000", 1.5]),
)
def test_both_ways_give_the_same_for_documented_reports(fields: dict[str, Any], time: Any) -> None:
    """With the documented names alone, so that the fast way is really taken."""
    raw = json.dumps(fields | {"Timestamp": time, "ConversationExpirationTime": None}).encode()
    assert module._read_tolerantly(raw, "$[0]", CONTEXT) == module._read_item(raw, "$[0]", CONTEXT)


def test_the_page_s_examples_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerant way is three times slower, and not for what is documented."""
    monkeypatch.setattr(module, "_read_tolerantly", None)
    for name in ("page-template.json", "page-message.json"):
        assert len(reports_of(read((FIXTURES / name).read_bytes()))) == 2


def storable(value: Any) -> Any:
    """A value without the characters that most consumers can't store."""
    return json.loads(json.dumps(value).replace("\\u0000", "\\ufffd"))


@UNHURRIED
@given(ALMOST_REPORTS)
def test_every_value_is_in_the_event_or_in_extras(fields: dict[str, Any]) -> None:
    """No unknown field is dropped, and extras are always one valid JSON object."""
    (item,) = read(json.dumps([fields]).encode())
    if isinstance(item, Report):
        extras = extras_of(item.event)
        assert extras.keys() <= fields.keys() | {"bridge_replaced"}
        assert all(storable(fields[name]) == value for name, value in extras.items() if name in fields)
        assert ("new" in fields) == ("new" in extras)
