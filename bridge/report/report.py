"""The wire format, taken tolerantly: each thing in a callback's body becomes an event or is quarantined.

    body ─ split ─► items ─┬─► fast: typed decode of an item that is as documented ──┬─► _event: what it means
                           └─► tolerant: any spelling, type or extra field ──────────┘

Both ways end in the same :class:`_Fields`, and only :func:`_event` gives them a meaning; the fast one merely
refuses whatever needs a decision. Nothing here raises for any bytes, and no item is lost: what can't be
understood is kept, byte for byte.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from bridge.report import scan
from bridge.report.catalogue import NO_ERROR, UNKNOWN_ERROR, ErrorMeaning, error_meaning
from bridge.report.event import MessageTimeSource, Status, StatusEvent, event_id, status_of, status_rank

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
_Time: TypeAlias = int | float | str


class _Fields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A report's known fields, blank text not yet told from absent. The schema of the fast way as well."""

    message_id: str | None = msgspec.field(default=None, name="MessageId")
    sender: str | None = msgspec.field(default=None, name="From")
    recipient: str | None = msgspec.field(default=None, name="To")
    timestamp: _Time | None = msgspec.field(default=None, name="Timestamp")
    status: str | None = msgspec.field(default=None, name="Status")
    status_description: str | None = msgspec.field(default=None, name="StatusDescription")
    error_code: str | None = msgspec.field(default=None, name="ErrorCode")
    error_description: str | None = msgspec.field(default=None, name="ErrorDescription")
    conversation_type: str | None = msgspec.field(default=None, name="ConversationType")
    conversation_id: str | None = msgspec.field(default=None, name="ConversationId")
    conversation_expires: _Time | None = msgspec.field(default=None, name="ConversationExpirationTime")
    frame_type: str | None = msgspec.field(default=None, name="MsgFrameType")
    content_type: str | None = msgspec.field(default=None, name="Type")
    task_id: str | None = msgspec.field(default=None, name="TaskId")
    origin_phone_number: str | None = msgspec.field(default=None, name="OriginPhoneNumber")
    template_code: str | None = msgspec.field(default=None, name="TemplateCode")
    template_name: str | None = msgspec.field(default=None, name="TemplateName")
    language: str | None = msgspec.field(default=None, name="Language")
    user_id: str | None = msgspec.field(default=None, name="FromUserId")
    parent_user_id: str | None = msgspec.field(default=None, name="FromParentUserId")
    user_name: str | None = msgspec.field(default=None, name="FromUserName")


class _Field(NamedTuple):
    """A known name on the wire."""

    attribute: str
    is_time: bool
    is_alias: bool


_TIMES: Final = frozenset({"timestamp", "conversation_expires"})
_KNOWN: Final = {
    field.encode_name: _Field(field.name, field.name in _TIMES, is_alias=False)
    for field in msgspec.structs.fields(_Fields)
} | {
    "Error": _Field("error_code", is_time=False, is_alias=True),
    "ConversionExpirationTime": _Field("conversation_expires", is_time=True, is_alias=True),
}
_BY_FOLDED_NAME: Final = {name.casefold(): field for name, field in _KNOWN.items()}

_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_fields: Final = msgspec.json.Decoder(_Fields).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str | None).decode
_decode_time: Final = msgspec.json.Decoder(_Time | None).decode
_encode_text: Final = msgspec.json.Encoder().encode

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_integer: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)").fullmatch
# No more digits than a time can have, so that thousands of them are never made an int.
_digits: Final = re.compile(r"0*([0-9]{1,13})", re.ASCII).fullmatch
_code_in_description: Final = re.compile(r"(\w+):").match
_RECEIVED: Final = MessageTimeSource.RECEIVED
_PROVIDER: Final = MessageTimeSource.PROVIDER
_NO_ERROR_CODES: Final = frozenset({"0", "ok"})
# Ten digits are seconds, thirteen milliseconds: both are 2001-09-09 to 2286-11-20. All else is absurd.
_MIN_SECONDS: Final = 10**9
_END_SECONDS: Final = 10**10
_MIN_MS: Final = 10**12
_END_MS: Final = 10**13


def read_body(body: bytes, received_at_ms: int) -> list[Item]:
    """Everything a callback's body holds, in its order. Never raises, whatever the bytes.

    Args:
        body: the whole body as it came; an empty one holds nothing.
        received_at_ms: when it was received, milliseconds since the epoch.

    Returns:
        One element for each item of an array, one for a lone object, one for a body that is neither.
    """
    if not body:
        return []
    text = body.removeprefix(_BYTE_ORDER_MARK)
    items = _split(text)
    if items is not None:
        return [read_item(item, index, received_at_ms) for index, item in enumerate(items)]
    lone = scan.lone_object(text)
    if lone is not None:
        return [_read_item(lone, "$", received_at_ms)]
    return [_whole_body_quarantined(body, text)]


def split_for_fast_path(body: bytes) -> list[msgspec.Raw] | None:
    """The items of a body that is a well-formed array, each as it came; None of any other."""
    try:
        return _decode_items(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def read_item(raw: bytes, index: int, received_at_ms: int) -> Item:
    """An array's item, as :func:`read_body` reads it; ``index`` counts from 0."""
    return _read_item(raw, f"$[{index}]", received_at_ms)


def _split(text: bytes) -> list[bytes] | None:
    """The items of an array, each exactly as it came; None if the text is no array."""
    try:
        return [bytes(item) for item in _decode_items(text)]
    except (msgspec.MsgspecError, RecursionError):
        # Perhaps for the sake of one item only.
        return scan.split(text)


def _whole_body_quarantined(body: bytes, text: bytes) -> Quarantined:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return Quarantined(body, Reason.NOT_JSON, "The body is not one complete JSON value.", "$")
    return Quarantined(body, Reason.NOT_AN_OBJECT, "The body is neither a JSON array nor an object.", "$")


def _read_item(raw: bytes, path: str, received_at_ms: int) -> Item:
    """An item by the fast way if it is as documented, else tolerantly; the result is the same."""
    try:
        fields = _decode_fields(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_tolerantly(raw, path, received_at_ms)
    for time in (fields.timestamp, fields.conversation_expires):
        if time is not None and time_ms(time) is None:
            # Its JSON text belongs in extras, and only the tolerant way has that.
            return _read_tolerantly(raw, path, received_at_ms)
    return _event(fields, None, raw, path, received_at_ms)


def _read_tolerantly(raw: bytes, path: str, received_at_ms: int) -> Item:
    """An item of any form: names by any spelling, text from integers, everything else kept in extras."""
    fault = _fault(raw)
    if fault is None:
        try:
            values = _decode_members(raw)
        except (msgspec.MsgspecError, RecursionError):
            fault = Reason.UNDECODABLE, "The item holds text or a number that JSON does not allow."
        else:
            fields, extras = _choose(values)
            return _event(fields, extras, raw, path, received_at_ms)
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


class _Candidate(NamedTuple):
    """A usable value for a known field: of several the lowest rank is taken, the last of those alike."""

    rank: int
    name: str
    value: _Time


def _choose(values: dict[str, msgspec.Raw]) -> tuple[_Fields, str | None]:
    """The known fields of an item's members, and what found no place in them as extras.

    For each field the first usable of: its name exactly, its name in another spelling, its alias exactly, its
    alias in another spelling. What can't be used, or comes second, is kept in extras; a null or blank value
    of a known field says nothing and is not.
    """
    chosen: dict[str, _Candidate] = {}
    said_nothing: set[str] = set()
    for name, raw in values.items():
        exact = _KNOWN.get(name)
        field = exact or _BY_FOLDED_NAME.get(name.strip().casefold())
        if field is None:
            continue
        value = _time(raw) if field.is_time else _text(raw)
        if value is None:
            said_nothing.add(name)
        elif value is not _UNUSABLE:
            rank = 2 * field.is_alias + (exact is None)
            best = chosen.get(field.attribute)
            if best is None or rank <= best.rank:
                chosen[field.attribute] = _Candidate(rank, name, value)
    taken = said_nothing.union(candidate.name for candidate in chosen.values())
    fields = _Fields(**{attribute: candidate.value for attribute, candidate in chosen.items()})  # type: ignore[arg-type]
    return fields, _extras((name, raw) for name, raw in values.items() if name not in taken)


def _extras(members: Iterable[tuple[str, msgspec.Raw]]) -> str | None:
    """The text of a JSON object of these members, each value as it came; None if there are none."""
    joined = b",".join([_encode_text(name) + b":" + bytes(raw) for name, raw in members])
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
    return _present(text)


def _time(raw: msgspec.Raw) -> _Time | _Unusables | None:
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
        text = _text(value)
        if text is not None and text is not _UNUSABLE:
            found[name == "MessageId"] = text
    return found.get(True, found.get(False))


def time_ms(value: _Time) -> int | None:
    """A time of the provider's in milliseconds since the epoch; None if it is no time, or an absurd one.

    An integer, digits in a string, or an integral float; ten digits are seconds, thirteen milliseconds.
    """
    if isinstance(value, str):
        digits = _digits(value.strip())
        if digits is None:
            return None
        value = int(digits[1])
    elif isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    if _MIN_MS <= value < _END_MS:
        return value
    return value * 1000 if _MIN_SECONDS <= value < _END_SECONDS else None


def _present(text: str | None) -> str | None:
    """The text, or None where it is blank: that means absent."""
    return text if text and not text.isspace() else None


def normalized(text: str | None) -> str | None:
    """A word of one of the open lists."""
    return text.strip().casefold().replace("-", "_") if text and not text.isspace() else None


def error_of(error_code: str | None, description: str | None, *, failed: bool) -> tuple[str | None, ErrorMeaning]:
    """The code as it came, else the word before a colon that begins the description; None for no error. And what it means.

    Args:
        error_code: ErrorCode, None where it is blank.
        description: ErrorDescription, None where it is blank.
        failed: whether the status says so, without a code, too.
    """
    if error_code is None and description is not None:
        match = _code_in_description(description)
        error_code = match[1] if match else None
    if error_code is None or error_code.strip().casefold() in _NO_ERROR_CODES:
        return None, UNKNOWN_ERROR if failed else NO_ERROR
    return error_code, error_meaning(error_code)


def _event(fields: _Fields, extras: str | None, raw: bytes, path: str, received_at_ms: int) -> Item:
    """What a report means: the one definition of it."""
    present = _present
    message_id = present(fields.message_id)
    if message_id is None:
        return Quarantined(raw, Reason.NO_MESSAGE_ID, "The item has no usable MessageId.", f"{path}.MessageId")
    provider_status = present(fields.status)
    if provider_status is None:
        detail = "The item has no usable Status."
        return Quarantined(raw, Reason.NO_STATUS, detail, f"{path}.Status", message_id)
    provider_status = provider_status.strip()
    status = status_of(provider_status)
    recipient = present(fields.recipient)
    user_id = present(fields.user_id)
    error_description = present(fields.error_description)
    error_code, meaning = error_of(present(fields.error_code), error_description, failed=status is Status.FAILED)
    task_id = present(fields.task_id)
    message_time = None if fields.timestamp is None else time_ms(fields.timestamp)
    expires = fields.conversation_expires
    template_code = present(fields.template_code)
    event = StatusEvent(
        event_id=event_id(message_id, recipient or user_id, provider_status, error_code),
        message_id=message_id,
        task_id=task_id or message_id,
        task_id_defaulted=task_id is None,
        sender=present(fields.sender),
        recipient=recipient,
        origin_phone_number=present(fields.origin_phone_number),
        user_id=user_id,
        parent_user_id=present(fields.parent_user_id),
        user_name=present(fields.user_name),
        status=status,
        provider_status=provider_status,
        status_rank=status_rank(status),
        status_description=present(fields.status_description),
        message_time=received_at_ms if message_time is None else message_time,
        message_time_source=_RECEIVED if message_time is None else _PROVIDER,
        received_at=received_at_ms,
        error_code=error_code,
        error_description=error_description,
        error_category=meaning.category,
        error_retry=meaning.retry,
        conversation_id=present(fields.conversation_id),
        conversation_type=normalized(fields.conversation_type),
        conversation_expires_at=None if expires is None else time_ms(expires),
        message_frame_type=normalized(fields.frame_type) or ("template" if template_code else None),
        content_type=normalized(fields.content_type),
        template_code=template_code,
        template_name=present(fields.template_name),
        template_language=present(fields.language),
        extras=extras,
    )
    return Report(event, raw, path)
