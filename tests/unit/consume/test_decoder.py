"""The consumers' decoder: both formats, every released version, and clear words for whatever else comes."""

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import httpx
import msgspec
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.consume import Decoder, Event, RegistryError, Status, Undecodable, registry_schemas
from bridge.encode.json import encode_event
from bridge.report.report import Report, read_body
from bridge.schemas import EventSchema

ROOT = Path(__file__).parents[3]
SCHEMA = (ROOT / "avro/status-event.avsc").read_text()
RELEASES = sorted((ROOT / "avro/releases").glob("*.avsc"))
NUMBER = "12005550199"


def an_event(**fields: Any) -> Event:
    """What is published for a report with nearly everything."""
    report = {
        "MessageId": "m-é",
        "Status": "Failed",
        "To": NUMBER,
        "Timestamp": 1691043638123,
        "ErrorCode": 131026,
        "TemplateName": "offer",
        "ConversationExpirationTime": 1691043638999,
        "Played": {"n": 12345678901234567890},
    }
    [item] = read_body(json.dumps([report | fields]).encode(), 1_700_000_000_007)
    assert isinstance(item, Report)
    return item.event


def binary(schema: str, fields: dict[str, Any]) -> bytes:
    """The Avro of a record, by a writer that shares nothing with the bridge."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), fields)
    return out.getvalue()


def mark_of(schema: str) -> bytes:
    """A schema's fingerprint."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(json.loads(schema)), "CRC-64-AVRO"))


def single_object(schema: str, fields: dict[str, Any]) -> bytes:
    """Avro behind the mark and the fingerprint."""
    return b"\xc3\x01" + mark_of(schema) + binary(schema, fields)


def framed(schema: str, fields: dict[str, Any], schema_id: int = 258) -> bytes:
    """Avro in Confluent's frame."""
    return b"\x00" + schema_id.to_bytes(4, "big") + binary(schema, fields)


def fields_of(event: Event) -> dict[str, Any]:
    """The event as a writer takes it."""
    built: dict[str, Any] = msgspec.to_builtins(event)
    return built


def changed(edit: Callable[[list[dict[str, Any]]], None]) -> str:
    """The text of a schema whose fields were edited: another version."""
    schema = json.loads(SCHEMA)
    edit(schema["fields"])
    return json.dumps(schema)


EVENT = an_event()
FIELDS = fields_of(EVENT)
WRITTEN = {
    "JSON": encode_event(EVENT),
    "single object": single_object(SCHEMA, FIELDS),
    "frame": framed(SCHEMA, FIELDS),
}


def decoder(text: str = SCHEMA) -> Decoder:
    """One that knows this schema in every way."""
    return Decoder(lambda _id: text, [EventSchema(each, mark_of(each)) for each in (SCHEMA, text)])


@pytest.mark.parametrize("written", WRITTEN)
def test_every_format_gives_the_same_event(written: str) -> None:
    """Times included: they are milliseconds in all of them."""
    assert decoder().decode(WRITTEN[written]) == EVENT


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_every_release_is_decoded(release: Path) -> None:
    """With the packaged schemas alone, from both ways to write Avro and from JSON, what has no default included."""
    schema = release.read_text()
    written = {field["name"]: FIELDS[field["name"]] for field in json.loads(schema)["fields"]}
    expected = msgspec.convert(written, Event)
    assert Decoder().decode(single_object(schema, written)) == expected
    assert Decoder(lambda _id: schema).decode(framed(schema, written)) == expected
    assert Decoder().decode(json.dumps(written).encode()) == expected


def test_what_a_newer_writer_adds_is_passed_over() -> None:
    """A field, and symbols of each enum: those are read as the schema's defaults say."""

    def newer(fields: list[dict[str, Any]]) -> None:
        fields.insert(3, {"name": "channel", "type": ["null", "string"], "default": None})
        for field in fields:
            if isinstance(field["type"], dict) and field["type"]["type"] == "enum":
                field["type"]["symbols"].append("NEVER_SEEN")

    never = ("status", "error_category", "error_retry", "message_time_source")
    written = FIELDS | {"channel": "whatsapp"} | dict.fromkeys(never, "NEVER_SEEN")
    defaults = {f["name"]: f["type"]["default"] for f in json.loads(SCHEMA)["fields"] if f["name"] in never}
    schema = changed(newer)
    for value in (single_object(schema, written), framed(schema, written), json.dumps(written).encode()):
        event = decoder(schema).decode(value)
        assert fields_of(event) == FIELDS | defaults
        assert event.status is Status.UNKNOWN
        assert event.provider_status == "Failed"


def test_a_schema_is_asked_for_once() -> None:
    """An id never changes its meaning."""
    asked = []

    def schema_of_id(schema_id: int) -> str:
        asked.append(schema_id)
        return SCHEMA

    decoder = Decoder(schema_of_id)
    for schema_id in (7, 7, 8, 7):
        decoder.decode(framed(SCHEMA, FIELDS, schema_id))
    assert asked == [7, 8]


DAMAGED = {
    "nothing": (b"", "is empty"),
    "text": (NUMBER.encode(), "neither"),
    "JSON of something else": (b'{"recipient":"%s"}' % NUMBER.encode(), "event_id"),
    "JSON cut short": (WRITTEN["JSON"][:-40], "truncated"),
    "JSON of a wrong type": (
        WRITTEN["JSON"].replace(b'"status_rank":0', b'"status_rank":"%s"' % NUMBER.encode()),
        "status_rank",
    ),
    "JSON that is not UTF-8": (WRITTEN["JSON"].replace(b"\xc3\xa9", b"\xe9"), "UTF-8"),
    "a fingerprint that is not known": (b"\xc3\x01" + bytes(8) + b"x", "0000000000000000"),
    "a fingerprint cut short": (b"\xc3\x01\x02", "02"),
    "a frame's head cut short": (b"\x00\x00\x00", "head"),
    "Avro cut short": (WRITTEN["single object"][:-3], "damaged"),
    "Avro with more behind it": (WRITTEN["frame"] + NUMBER.encode(), "11 bytes follow"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_event_is_named_and_never_quoted(damage: str) -> None:
    """The error says what is wrong; neither it nor its causes hold the data."""
    value, said = DAMAGED[damage]
    with pytest.raises(Undecodable, match=re.escape(said)) as caught:
        decoder().decode(value)
    error: BaseException | None = caught.value
    while error is not None:
        assert NUMBER not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert not caught.value.retriable


def test_a_frame_without_a_registry_says_how_to_give_one() -> None:
    """The first thing that goes wrong for a team that copied the example without one."""
    with pytest.raises(Undecodable, match=r"schema 258 of a registry.*registry_schemas"):
        Decoder().decode(WRITTEN["frame"])


@pytest.mark.parametrize("text", ['"string"', "[]", "{", '{"type":"no"}'])
def test_a_schema_that_can_t_be_used_is_named(text: str) -> None:
    """Whatever the registry holds under that id."""
    with pytest.raises(Undecodable, match="schema 258"):
        decoder_of_id(text).decode(WRITTEN["frame"])


def decoder_of_id(text: str) -> Decoder:
    """One whose registry answers this."""
    return Decoder(lambda _id: text)


def test_the_avro_of_another_record_is_no_event() -> None:
    """A frame says its schema, whatever that is of."""
    other = '{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"status","type":"string"}]}'
    with pytest.raises(Undecodable, match=r"shop\.Order.*event_id"):
        decoder_of_id(other).decode(framed(other, {"status": "PAID"}))


ANY = decoder()


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_no_bytes_raise_anything_else(data: st.DataObject) -> None:
    """Cut, flipped, made up: an event or Undecodable."""
    value = bytearray(data.draw(st.sampled_from([*WRITTEN.values(), b"\x00\x00\x00\x00\x01", b"{"])))
    for _ in range(data.draw(st.integers(0, 4))):
        if value:
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    value = value[: data.draw(st.integers(0, len(value)))] + data.draw(st.binary(max_size=30))
    with contextlib.suppress(Undecodable):
        assert isinstance(ANY.decode(bytes(value)), Event)


class Told:
    """A registry that answers as it is told; what is tested is what is made of the answers."""

    def __init__(self, status: int, body: Any) -> None:
        self.asked: list[str] = []
        self._answer = (status, body)
        transport = httpx.MockTransport(self._respond)
        self.schemas = registry_schemas(
            httpx.Client(base_url="http://registry.test/apis/ccompat/v7", transport=transport)
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        status, body = self._answer
        if isinstance(body, Exception):
            raise body
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body))


def test_the_registry_is_asked_as_confluent_s_is() -> None:
    """Below whatever path its address has."""
    registry = Told(200, {"schema": SCHEMA})
    assert Decoder(registry.schemas).decode(WRITTEN["frame"]) == EVENT
    assert registry.asked == ["/apis/ccompat/v7/schemas/ids/258"]


@pytest.mark.parametrize(
    ("status", "body", "again"),
    [
        (500, {}, True),
        (429, {}, True),
        (401, {}, False),
        (200, b"<html>", True),
        (0, httpx.ConnectError("nobody there"), True),
        (0, httpx.ReadTimeout("mute"), True),
    ],
)
def test_a_registry_that_can_t_be_asked_is_no_reason_to_skip(status: int, body: Any, again: bool) -> None:
    """Another kind of error: the same record can be decoded later, and is then asked for again."""
    registry = Told(status, body)
    asking = Decoder(registry.schemas)
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"registry\.test.*schema 258") as caught:
            asking.decode(WRITTEN["frame"])
        assert caught.value.retriable is again
    assert len(registry.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, {"error_code": 40403}, "schema 258 and has none"),
        (200, {"schema": "{}", "schemaType": "PROTOBUF"}, "PROTOBUF"),
    ],
)
def test_an_id_the_registry_has_no_avro_schema_for(status: int, body: Any, said: str) -> None:
    """Most likely it is another registry."""
    with pytest.raises(Undecodable, match=f"{said}.*is it the registry that the bridge uses"):
        Decoder(Told(status, body).schemas).decode(WRITTEN["frame"])
