"""The fields of the event, in their order: the one table of them.

What follows from it: how a report is read (``report.py``, ``encode/fast.py``), what is masked
(``operate/masking.py``), and all that ``python generate_fields.py`` writes (the event's struct, the Avro schema, the
tables of the contract, AsyncAPI, the Go peer).
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Personal(StrEnum):
    """Whether a field tells of a person: what its documentation says of that."""

    NO = ""
    #: A number, an id or a name.
    YES = "Personal data."
    #: Text that may hold one.
    FREE_TEXT = "Free text, which may hold personal data."


class Field(NamedTuple):
    """A field of the event."""

    name: str
    #: ``string``, ``boolean``, ``int``, ``timestamp`` (milliseconds since the epoch) or ``enum`` and its name; then ``, null``.
    type: str
    #: Its names on the wire, the first preferred; none of a field that the bridge makes.
    wire: tuple[str, ...]
    doc: str
    personal: Personal = Personal.NO
    #: A word of an open list: trimmed, case folded, - as _.
    is_word: bool = False

    @property
    def is_nullable(self) -> bool:
        """Whether it may be null."""
        return self.type.endswith(", null")

    @property
    def base_type(self) -> str:
        """Its type where it is not null, of an enumeration its name."""
        return self.type.removesuffix(", null").removeprefix("enum ")

    @property
    def is_time(self) -> bool:
        """Whether it is milliseconds since the epoch."""
        return self.base_type == "timestamp"

    @property
    def documentation(self) -> str:
        """What every schema says of it."""
        return f"{self.doc} {self.personal}".rstrip()


_YES, _FREE_TEXT = Personal.YES, Personal.FREE_TEXT

FIELDS: Final = (
    Field(
        "event_id", "string", (),
        "The id of the fact, the same however often and by whichever replica it was received: 32 lower-case hex "
        "digits. Deduplicate on it.",
    ),
    Field(
        "message_id", "string", ("MessageId",),
        "MessageId, the provider's id of the message; the record's key as well. Two recipients may share one.",
    ),
    Field(
        "task_id", "string", ("TaskId",),
        "TaskId, the id of the push that the message belonged to; MessageId where it did not arrive.",
    ),
    Field("task_id_defaulted", "boolean", (), "True where TaskId did not arrive and task_id is MessageId."),
    Field(
        "sender", "string, null", ("From",),
        "From, who sent the message: a telephone number, or a page or user id.", _YES,
    ),
    Field(
        "recipient", "string, null", ("To",),
        "To, whom the message was for: a telephone number, or a page or user id.", _YES,
    ),
    Field(
        "origin_phone_number", "string, null", ("OriginPhoneNumber",),
        "OriginPhoneNumber; it may differ from sender.", _YES,
    ),
    Field(
        "user_id", "string, null", ("UserId", "FromUserId"),
        "UserId, else FromUserId: the recipient's user id at the channel, which identifies the person where recipient "
        "is null.", _YES,
    ),
    Field(
        "parent_user_id", "string, null", ("ParentUserId", "FromParentUserId"),
        "ParentUserId, else FromParentUserId: the id of the account that the recipient's user belongs to.", _YES,
    ),
    Field(
        "user_name", "string, null", ("UserName", "FromUserName"),
        "UserName, else FromUserName: the recipient's user name at the channel.", _YES,
    ),
    Field(
        "status", "enum Status", (),
        "Status, of the closed list; a status nobody knows yet is UNKNOWN, with its text in provider_status.",
    ),
    Field(
        "provider_status", "string", ("Status",),
        "Status as it came, trimmed. BridgeTest is the project's own check of a live deployment: ignore it.",
    ),
    Field(
        "status_rank", "int", (),
        "How far the message got: 1 sent, 2 delivered, 3 read; 0 for what is not on that ladder. The highest is the "
        "latest.",
    ),
    Field(
        "status_description", "string, null", ("StatusDescription",),
        "StatusDescription, the provider's words.", _FREE_TEXT,
    ),
    Field(
        "message_time", "timestamp", ("Timestamp",),
        "Timestamp. The provider documents it as the time when the message was sent, and elsewhere as when the status "
        "came about: it orders nothing.",
    ),
    Field(
        "message_time_source", "enum MessageTimeSource", (),
        "PROVIDER, or RECEIVED where Timestamp could not be used and received_at stands in for it.",
    ),
    Field("received_at", "timestamp", (), "When the bridge received the callback; the record's timestamp as well."),
    Field(
        "error_code", "string, null", ("ErrorCode", "Error"),
        "ErrorCode, else Error; on FAILED without one the catalogued code that begins the description. Null without "
        "an error, and for a failure without a code.",
    ),
    Field(
        "error_description", "string, null", ("ErrorDescription",),
        "ErrorDescription, the provider's words.", _FREE_TEXT,
    ),
    Field(
        "error_category", "enum ErrorCategory", (),
        "What kind of failure error_code is: NONE unless status is FAILED or UNKNOWN; UNKNOWN for a code that is not "
        "in the catalogue and for a failure without a code.",
    ),
    Field(
        "error_retry", "enum ErrorRetry", (),
        "Whether sending the message again can help: NO, LATER, or UNKNOWN; NONE where error_category is.",
    ),
    Field("conversation_id", "string, null", ("ConversationId",), "ConversationId."),
    Field(
        "conversation_type", "string, null", ("ConversationType",),
        "ConversationType, lower case, - as _: service, utility, marketing, authentication, … An open list.", is_word=True,
    ),
    Field(
        "conversation_expires_at", "timestamp, null", ("ConversationExpirationTime", "ConversionExpirationTime"),
        "ConversationExpirationTime; deprecated by the provider.",
    ),
    Field(
        "message_frame_type", "string, null", ("MsgFrameType",),
        "MsgFrameType, lower case, - as _: message, template, … An open list; template where it did not arrive and a "
        "TemplateCode did.", is_word=True,
    ),
    Field(
        "content_type", "string, null", ("Type",),
        "Type, lower case, - as _: image, video, document, audio, none, template, interactive, … An open list.", is_word=True,
    ),
    Field("template_code", "string, null", ("TemplateCode",), "TemplateCode, the provider's id of the template."),
    Field("template_name", "string, null", ("TemplateName",), "TemplateName."),
    Field(
        "template_language", "string, null", ("Language",),
        'Language of the template, as the provider writes it; "id" is Indonesian.',
    ),
    Field(
        "extras", "string, null", (),
        "Every other field, as the text of one JSON object: its name as it came, its value as it came; and "
        "bridge_replaced, the fields in which characters were replaced.", _FREE_TEXT,
    ),
)  # fmt: skip
