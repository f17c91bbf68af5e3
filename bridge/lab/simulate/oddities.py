"""How reports deviate from the provider's page, and items that can't be understood at all.

An oddity changes how a report is written, and, where that changes what it means, the facts beside it. Each
one was seen in the page's own examples, at older senders or in sibling callbacks.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

_MS_PER_SECOND = 1000
_DAY_MS = 86_400_000


@dataclass(slots=True)
class Draft:
    """A report in the making: ``fields`` is what will be written, ``finish`` changes its JSON, the others are what it means."""

    fields: dict[str, Any]
    message_id: str
    recipient: str
    status: str
    wire_error_code: str | None
    finish: Callable[[bytes], bytes] = bytes


_ESCAPED = (("中".encode(), rb"\u4e2d"), (b" / ", rb" \/ "))


def add_text(fields: dict[str, Any]) -> None:
    """Text as real senders have it, and a field that nobody knows; none of it changes what the report means.

    With :func:`escape_text` the report has characters beyond ASCII as they are, and escapes: of a character, a quote, a line
    break and a slash.
    """
    # By the name that the report has already: by both, one of them would be kept in extras.
    fields["FromUserName" if "FromUserName" in fields else "UserName"] = "Renée 李雷 😀"
    fields["StatusDescription"] = 'Message "中" accepted / queued\nby the channel'
    fields["Extension"] = {"campaign": "été", "tags": ["新", 1]}


def escape_text(raw: bytes) -> bytes:
    """The JSON of a report with text, some of it escaped that need not be."""
    for character, escape in _ESCAPED:
        raw = raw.replace(character, escape)
    return raw


Oddity = Callable[[Draft, random.Random], None]


def _lower_case_status(draft: Draft, _: random.Random) -> None:
    draft.status = draft.status.lower()
    draft.fields["Status"] = draft.status


def _padded_status(draft: Draft, _: random.Random) -> None:
    draft.fields["Status"] = f" {draft.status} "


def _timestamp_as_text(draft: Draft, _: random.Random) -> None:
    draft.fields["Timestamp"] = str(draft.fields["Timestamp"])


def _timestamp_in_seconds(draft: Draft, _: random.Random) -> None:
    draft.fields["Timestamp"] //= _MS_PER_SECOND


def _expiration(draft: Draft, chance: random.Random) -> None:
    name = chance.choice(("ConversationExpirationTime", "ConversionExpirationTime"))
    draft.fields[name] = draft.fields["Timestamp"] + _DAY_MS


def _status_description(draft: Draft, _: random.Random) -> None:
    draft.fields["StatusDescription"] = f"The message was {draft.status.lower()}."


def _trailing_space_in_key(draft: Draft, chance: random.Random) -> None:
    name = chance.choice(list(draft.fields))
    draft.fields = {f"{key} " if key == name else key: value for key, value in draft.fields.items()}


def _unknown_fields(draft: Draft, _: random.Random) -> None:
    draft.fields["PricingModel"] = {"billable": True, "category": "marketing", "tiers": [1, 2.50]}
    draft.fields["备注"] = "ünïcode 😀"


def _nulls_and_blanks(draft: Draft, _: random.Random) -> None:
    draft.fields |= {"ConversationId": None, "OriginPhoneNumber": "", "StatusDescription": " "}


def _no_task_id(draft: Draft, _: random.Random) -> None:
    draft.fields.pop("TaskId", None)


def _old_error_field(draft: Draft, _: random.Random) -> None:
    """Older senders: ``Error`` in place of ``ErrorCode``; what says that nothing failed is no code."""
    failed = draft.wire_error_code is not None
    _no_code_at_all(draft, _)
    draft.wire_error_code = "OUT_OF_SERVICE" if failed else "OK"
    draft.fields["Error"] = draft.wire_error_code


def _code_as_number(draft: Draft, _: random.Random) -> None:
    code = draft.wire_error_code
    if code is None:
        draft.wire_error_code, draft.fields["ErrorCode"] = "0", 0
    elif code.isdigit():
        draft.fields["ErrorCode"] = int(code)


def _code_in_description_only(draft: Draft, _: random.Random) -> None:
    draft.fields.pop("ErrorCode", None)
    draft.wire_error_code = None


def _no_code_at_all(draft: Draft, _: random.Random) -> None:
    draft.fields.pop("ErrorCode", None)
    draft.fields.pop("ErrorDescription", None)
    draft.wire_error_code = None


def _code_without_a_failure(draft: Draft, _: random.Random) -> None:
    """A code of the channel's that says how well it went."""
    if draft.wire_error_code is None:
        draft.wire_error_code = draft.fields["ErrorCode"] = "200"


def _cut_emoji(draft: Draft, _: random.Random) -> None:
    draft.fields["UserName"] = "Simulated Person 😀"
    draft.finish = lambda raw: raw.replace("😀".encode(), b"\\ud83d")


def _raw_line_break(draft: Draft, _: random.Random) -> None:
    draft.fields["StatusDescription"] = "The first line.\nThe second."
    draft.finish = lambda raw: raw.replace(b"\\n", b"\n")


def _trailing_comma(draft: Draft, _: random.Random) -> None:
    draft.finish = lambda raw: raw[:-1] + b",}"


ODDITIES: tuple[Oddity, ...] = (
    _lower_case_status,
    _padded_status,
    _timestamp_as_text,
    _timestamp_in_seconds,
    _expiration,
    _status_description,
    _trailing_space_in_key,
    _unknown_fields,
    _nulls_and_blanks,
    _no_task_id,
    _old_error_field,
    _code_as_number,
    _code_in_description_only,
    _no_code_at_all,
    _code_without_a_failure,
    _cut_emoji,
    _raw_line_break,
    _trailing_comma,
)


def _without(*names: str) -> Callable[[dict[str, Any], str], bytes]:
    """An item that lacks a field it can't be used without."""

    def item(fields: dict[str, Any], mark: str) -> bytes:
        kept = {name: value for name, value in fields.items() if name not in names}
        return msgspec.json.encode(kept | {"TaskId": mark})

    return item


def _other_callback(_: dict[str, Any], mark: str) -> bytes:
    """An inbound message, of a callback that was given the same URL."""
    return msgspec.json.encode({"MessageBody": "hello", "MessageReceiveTime": 1691132091000, "Id": mark})


def _no_object(_: dict[str, Any], mark: str) -> bytes:
    return msgspec.json.encode(mark)


def _object_for_id(fields: dict[str, Any], mark: str) -> bytes:
    return msgspec.json.encode(fields | {"MessageId": {"id": mark}})


def _invalid_utf8(fields: dict[str, Any], mark: str) -> bytes:
    return msgspec.json.encode(fields | {"TemplateName": f"{mark}~"}).replace(b"~", b"\xc3\x28")


Undecodable = Callable[[dict[str, Any], str], bytes]
"""From the fields of a good report and a text that no other item has to the item's bytes."""

UNDECODABLE: tuple[Undecodable, ...] = (
    _without("MessageId"),
    _without("Status"),
    _other_callback,
    _no_object,
    _object_for_id,
    _invalid_utf8,
)


def truncated_body(fields: dict[str, Any]) -> bytes:
    """A whole body whose bytes are all there and are no JSON: the array is never closed."""
    return b"[" + msgspec.json.encode(fields)
