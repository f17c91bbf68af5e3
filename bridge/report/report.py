"""The wire format, taken tolerantly: each thing in a callback's body becomes an event or is quarantined.

    body ─ split ─► items ─┬─► typed decode of an item that is as documented ─────────┬─► _event: what it means
                           └─► tolerant: any spelling, type or extra field; lenient ──┘

Both ways end in the same :class:`WireReport`, and only :func:`_event` gives it a meaning; the typed one merely
refuses whatever needs a decision. Nothing here raises for any bytes, and no item is lost: what can't be
understood is kept, byte for byte.
"""

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from bridge.report import scan
from bridge.report.catalogue import Catalogue, shipped_catalogue
from bridge.report.event import StatusEvent, event_id
from bridge.report.fields import FIELDS
from bridge.report.generated import WireReport
from bridge.report.lenient import replace_unstorable, strict_json
from bridge.report.symbols import MessageTimeSource, status_of, status_rank
from bridge.report.values import Time, error_of, optional_time_ms, present, time_ms, word

MAX_DEPTH: Final = 256
"""An item with brackets nested deeper is quarantined: consumers' parsers have such limits too."""


class Reason(StrEnum):
    """Why an item, or a body, is quarantined: a closed list, part of the contract."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    INVALID_UTF8 = "invalid_utf8"
    TOO_DEEP = "too_deep"
    UNDECODABLE = "undecodable"
    NO_MESSAGE_ID = "no_message_id"
    NO_STATUS = "no_status"
    TOO_LARGE = "too_large"
    TOO_MANY_ITEMS = "too_many_items"


class Report(msgspec.Struct, frozen=True, gc=False):
    """An item that was understood."""

    event: StatusEvent
    #: The item's bytes exactly as they came, without the white space around it.
    raw: bytes
    #: Where it stood in the body: ``$[3]``, or ``$`` for a lone object.
    path: str


class Quarantined(msgspec.Struct, frozen=True, gc=False):
    """An item, or a whole body, that could not be understood."""

    #: The bytes exactly as they came; of a whole body its byte order mark and white space as well.
    raw: bytes
    reason: Reason
    #: A sentence for people, without any of the data.
    detail: str
    #: Where the fault stood: ``$``, ``$[3]``, ``$[3].MessageId``.
    path: str
    #: MessageId where one was readable all the same.
    message_id: str | None = None


Item: TypeAlias = Report | Quarantined


class _Name(NamedTuple):
    """A known name on the wire: the field it is of, and which of its names it is."""

    field: str
    is_time: bool
    order: int


_KNOWN: Final = {
    name: _Name(field.name, field.is_time, order) for field in FIELDS for order, name in enumerate(field.wire)
}
_BY_FOLDED_NAME: Final = {name.casefold(): known for name, known in _KNOWN.items()}
_TIMES: Final = [field.name for field in FIELDS if field.wire and field.is_time]
# Of those, what can't be used when a character of it was replaced.
_EXACT: Final = frozenset({"message_id", "provider_status"})
_SPECIAL: Final = _EXACT | {"task_id", "message_time", "error_code", "message_frame_type"}
# All others become what their type says, each by itself.
_PLAIN: Final[list[tuple[str, Callable[[Any], object]]]] = [
    (field.name, optional_time_ms if field.is_time else word if field.is_word else present)
    for field in FIELDS
    if field.wire and field.name not in _SPECIAL
]

_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_fields: Final = msgspec.json.Decoder(WireReport).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str | None).decode
_decode_time: Final = msgspec.json.Decoder(Time | None).decode
_encode: Final = msgspec.json.Encoder().encode

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_ESCAPED_NUL: Final = b"\\u0000"
_integer: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)").fullmatch
_RECEIVED: Final = MessageTimeSource.RECEIVED
_PROVIDER: Final = MessageTimeSource.PROVIDER


class _Context(NamedTuple):
    """What the items of a body have in common."""

    received_at_ms: int
    catalogue: Catalogue


def read_body(body: bytes, received_at_ms: int, catalogue: Catalogue | None = None) -> list[Item]:
    """Everything a callback's body holds, in its order. Never raises, whatever the bytes.

    Args:
        body: the whole body as it came; an empty one holds nothing.
        received_at_ms: when it was received, milliseconds since the epoch.
        catalogue: of error codes; None for the one that the bridge comes with.

    Returns:
        One element for each item of an array, one for a lone object, one for a body that is neither.
    """
    if not body:
        return []
    context = _Context(received_at_ms, catalogue or shipped_catalogue())
    text = body.removeprefix(_BYTE_ORDER_MARK)
    items = _split(text)
    if items is not None:
        return [_read_item(item, f"$[{index}]", context) for index, item in enumerate(items)]
    lone = scan.lone_object(text)
    if lone is not None:
        return [_read_item(lone, "$", context)]
    return [_whole_body_quarantined(body, text)]


def too_many_items(body: bytes, limit: int) -> Quarantined | None:
    """The whole body as one thing, if it is an array of more than ``limit`` items; none of them is decoded."""
    if not scan.more_than(body.removeprefix(_BYTE_ORDER_MARK), limit):
        return None
    return Quarantined(body, Reason.TOO_MANY_ITEMS, f"The body holds more than {limit} items.", "$")


Items: TypeAlias = list[msgspec.Raw] | list[bytes]


def split_for_fast_path(body: bytes) -> tuple[Items, Callable[[], Items] | None] | None:
    """The items of a body that is an array; None of any other.

    Returns:
        The JSON of each, without what is read leniently; and what gives each exactly as it came, None where these are that.
    """
    text = body.removeprefix(_BYTE_ORDER_MARK)
    items = _strict_items(text)
    return _split_leniently(text) if items is None else (items, None)


def _split_leniently(text: bytes) -> tuple[Items, Callable[[], Items]] | None:
    strict = strict_json(text)
    mended = None if strict == text else _strict_items(strict)
    if mended is not None:
        return mended, lambda: scan.split(text) or []
    raws = scan.split(text)
    return None if raws is None else ([strict_json(raw) for raw in raws], lambda: raws)


def unknown_name(name: str) -> bytes | None:
    """A name in extras, as JSON with its colon; None where it is a known one in another spelling."""
    return None if name.strip().casefold() in _BY_FOLDED_NAME else _encode(name) + b":"


def read_item(raw: bytes, index: int, received_at_ms: int, catalogue: Catalogue) -> Item:
    """An array's item, as :func:`read_body` reads it; ``index`` counts from 0."""
    return _read_item(raw, f"$[{index}]", _Context(received_at_ms, catalogue))


def _strict_items(text: bytes) -> list[msgspec.Raw] | None:
    try:
        return _decode_items(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _split(text: bytes) -> list[bytes] | None:
    """The items of an array, each exactly as it came; None if the text is no array."""
    items = _strict_items(text)
    # Else perhaps for the sake of one item only.
    return scan.split(text) if items is None else [bytes(item) for item in items]


def _whole_body_quarantined(body: bytes, text: bytes) -> Quarantined:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return Quarantined(body, Reason.NOT_JSON, "The body is not one complete JSON value.", "$")
    return Quarantined(body, Reason.NOT_AN_OBJECT, "The body is neither a JSON array nor an object.", "$")


def _read_item(raw: bytes, path: str, context: _Context) -> Item:
    """An item by the typed way if it is as documented, else tolerantly; the result is the same."""
    try:
        fields = _decode_fields(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_tolerantly(raw, path, context)
    times = (getattr(fields, name) for name in _TIMES)
    # The JSON text of a time that is none belongs in extras, and only the tolerant way has that.
    if _ESCAPED_NUL in raw or any(time is not None and time_ms(time) is None for time in times):
        return _read_tolerantly(raw, path, context)
    return _event(fields, None, raw, path, context)


def _read_tolerantly(raw: bytes, path: str, context: _Context) -> Item:
    """An item of any form: names by any spelling, text from integers, everything else kept in extras."""
    fault = _fault(raw)
    if fault is None:
        members = _members(raw)
        if members is not None:
            fields, extras = _choose(members)
            return _event(fields, extras, raw, path, context)
        fault = Reason.UNDECODABLE, "The item is not JSON."
    reason, detail = fault
    return Quarantined(raw, reason, detail, path, _readable_message_id(raw))


def _fault(raw: bytes) -> tuple[Reason, str] | None:
    """What stops an item from being decoded at all, as far as it can be told beforehand."""
    if raw[:1] != b"{":
        return Reason.NOT_AN_OBJECT, "The item is not a JSON object."
    try:
        raw.decode()
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8, "The item holds bytes that are not UTF-8."
    if scan.deeper_than(raw, MAX_DEPTH):
        return Reason.TOO_DEEP, f"The item is nested deeper than {MAX_DEPTH} levels."
    return None


class _Members(NamedTuple):
    """The members of an item, the last of each name; and the names of those in which a character was replaced."""

    values: dict[str, msgspec.Raw]
    replaced: list[str]


def _members(raw: bytes) -> _Members | None:
    """As the JSON has them, else leniently; None where neither is possible."""
    try:
        values = _decode_members(raw)
    except (msgspec.MsgspecError, RecursionError):
        values = None
    if values is not None and _ESCAPED_NUL not in raw:
        return _Members(values, [])
    strict = strict_json(raw)
    storable = replace_unstorable(strict)
    try:
        values = _decode_members(storable)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return _Members(values, [] if storable == strict else _replaced(strict))


def _replaced(item: bytes) -> list[str]:
    changed: dict[str, bool] = {}
    for key, value in scan.members(item):
        storable = replace_unstorable(key)
        changed[_decode_text(storable) or ""] = storable != key or replace_unstorable(value) != value
    return [name for name, is_changed in changed.items() if is_changed]


class _Candidate(NamedTuple):
    """A usable value for a known field: of several the lowest rank is taken, the last of those alike."""

    rank: int
    name: str
    value: Time
    #: The same as it is published, by which two of them are alike.
    meaning: Time | None


def _choose(members: _Members) -> tuple[WireReport, str | None]:
    """The known fields of an item's members, and what found no place in them as extras.

    For each field the first usable of: its name exactly, its name in another spelling, its alias exactly, its
    alias in another spelling. What can't be used, or comes second and says something else, is kept in extras; a null or
    blank value of a known field says nothing and is not.
    """
    candidates: dict[str, list[_Candidate]] = {}
    taken: set[str] = set()
    replaced = set(members.replaced)
    for name, raw in members.values.items():
        exact = _KNOWN.get(name)
        known = exact or _BY_FOLDED_NAME.get(name.strip().casefold())
        if known is None:
            continue
        value = _time(raw) if known.is_time else _text(raw)
        if value is None:
            taken.add(name)
        elif value is not _UNUSABLE:
            rank = 2 * known.order + (exact is None)
            meaning = time_ms(value) if known.is_time else value
            candidates.setdefault(known.field, []).append(_Candidate(rank, name, value, meaning))
    chosen: dict[str, Time] = {}
    for field, of_field in candidates.items():
        best = min(reversed(of_field), key=lambda candidate: candidate.rank)
        if field in _EXACT and best.name in replaced:
            continue
        chosen[field] = best.value
        taken.update(candidate.name for candidate in of_field if candidate.meaning == best.meaning)
    extras = {name: raw for name, raw in members.values.items() if name not in taken}
    if members.replaced:
        extras |= {"bridge_replaced": msgspec.Raw(_encode(members.replaced))}
    return WireReport(**chosen), _extras(extras.items())  # type: ignore[arg-type]


def _extras(members: Iterable[tuple[str, msgspec.Raw]]) -> str | None:
    """The text of a JSON object of these members, each value as it came; None if there are none."""
    joined = b",".join([_encode(name) + b":" + bytes(raw) for name, raw in members])
    return f"{{{joined.decode()}}}" if joined else None


class _Unusable(StrEnum):
    """The one thing that a value of the wrong type becomes."""

    UNUSABLE = "unusable"


_UNUSABLE: Final = _Unusable.UNUSABLE
_Unusables: TypeAlias = Literal[_Unusable.UNUSABLE]


def _text(raw: msgspec.Raw | bytes) -> str | _Unusables | None:
    """A text field's value: a string, or an integer's literal digits; None for null and blank."""
    try:
        text = _decode_text(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        literal = bytes(raw)
        return literal.decode() if _integer(literal) else _UNUSABLE
    return present(text)


def _time(raw: msgspec.Raw) -> Time | _Unusables | None:
    """A time field's value, if :func:`time_ms` can use it; None for null and blank."""
    try:
        value = _decode_time(raw)
    except (msgspec.MsgspecError, RecursionError):
        return _UNUSABLE
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return _UNUSABLE if time_ms(value) is None else value


def _readable_message_id(raw: bytes) -> str | None:
    """The MessageId of an item that can't be decoded as a whole, if that much of it can be."""
    if raw[:1] != b"{":
        return None
    found: dict[bool, str] = {}
    for key, value in scan.members(raw):
        try:
            name = _decode_text(key)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if name is None or name.strip().casefold() != "messageid":
            continue
        text = _text(strict_json(value))
        if text is not None and text is not _UNUSABLE and "\0" not in text:
            found[name == "MessageId"] = text
    return found.get(True, found.get(False))


def _event(fields: WireReport, extras: str | None, raw: bytes, path: str, context: _Context) -> Item:
    """What a report means: the one definition of it."""
    message_id = present(fields.message_id)
    if message_id is None:
        return Quarantined(raw, Reason.NO_MESSAGE_ID, "The item has no usable MessageId.", f"{path}.MessageId")
    provider_status = present(fields.provider_status)
    if provider_status is None:
        detail = "The item has no usable Status."
        return Quarantined(raw, Reason.NO_STATUS, detail, f"{path}.Status", message_id)
    provider_status = provider_status.strip()
    status = status_of(provider_status)
    plain: dict[str, Any] = {name: become(getattr(fields, name)) for name, become in _PLAIN}
    wire_code = present(fields.error_code)
    error_code, meaning = error_of(wire_code, plain["error_description"], status, context.catalogue)
    task_id = present(fields.task_id)
    message_time = optional_time_ms(fields.message_time)
    event = StatusEvent(
        event_id=event_id(message_id, plain["recipient"] or plain["user_id"], provider_status, wire_code),
        message_id=message_id,
        task_id=task_id or message_id,
        task_id_defaulted=task_id is None,
        status=status,
        provider_status=provider_status,
        status_rank=status_rank(status),
        message_time=context.received_at_ms if message_time is None else message_time,
        message_time_source=_RECEIVED if message_time is None else _PROVIDER,
        received_at=context.received_at_ms,
        error_code=error_code,
        error_category=meaning.category,
        error_retry=meaning.retry,
        message_frame_type=word(fields.message_frame_type) or ("template" if plain["template_code"] else None),
        extras=extras,
        **plain,
    )
    return Report(event, raw, path)
