"""The structs that follow from the table of fields: made by ``make fields``, not to be edited."""

import msgspec

from bridge.report.symbols import ErrorCategory, ErrorRetry, MessageTimeSource, Status


class EventFields(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The fields of an event, in the order of the published JSON; one that may be null is so in older events."""

    #: The id of the fact, the same however often and by whichever replica it was received: 32 lower-case hex
    #: digits. Deduplicate on it.
    event_id: str
    #: MessageId, the provider's id of the message; the record's key as well. Two recipients may share one.
    message_id: str
    #: TaskId, the id of the push that the message belonged to; MessageId where it did not arrive.
    task_id: str
    #: True where TaskId did not arrive and task_id is MessageId.
    task_id_defaulted: bool
    #: From, who sent the message: a telephone number, or a page or user id. Personal data.
    sender: str | None = None
    #: To, whom the message was for: a telephone number, or a page or user id. Personal data.
    recipient: str | None = None
    #: OriginPhoneNumber; it may differ from sender. Personal data.
    origin_phone_number: str | None = None
    #: UserId, else FromUserId: the recipient's user id at the channel, which identifies the person where recipient
    #: is null. Personal data.
    user_id: str | None = None
    #: ParentUserId, else FromParentUserId: the id of the account that the recipient's user belongs to. Personal
    #: data.
    parent_user_id: str | None = None
    #: UserName, else FromUserName: the recipient's user name at the channel. Personal data.
    user_name: str | None = None
    #: Status, of the closed list; a status nobody knows yet is UNKNOWN, with its text in provider_status.
    status: Status
    #: Status as it came, trimmed. BridgeTest is the project's own check of a live deployment: ignore it.
    provider_status: str
    #: How far the message got: 1 sent, 2 delivered, 3 read; 0 for what is not on that ladder. The highest is the
    #: latest.
    status_rank: int
    #: StatusDescription, the provider's words. Free text, which may hold personal data.
    status_description: str | None = None
    #: Timestamp. The provider documents it as the time when the message was sent, and elsewhere as when the status
    #: came about: it orders nothing.
    message_time: int
    #: PROVIDER, or RECEIVED where Timestamp could not be used and received_at stands in for it.
    message_time_source: MessageTimeSource
    #: When the bridge received the callback; the record's timestamp as well.
    received_at: int
    #: ErrorCode, else Error; on FAILED without one the catalogued code that begins the description. Null without an
    #: error, and for a failure without a code.
    error_code: str | None = None
    #: ErrorDescription, the provider's words. Free text, which may hold personal data.
    error_description: str | None = None
    #: What kind of failure error_code is: NONE unless status is FAILED or UNKNOWN; UNKNOWN for a code that is not
    #: in the catalogue and for a failure without a code.
    error_category: ErrorCategory
    #: Whether sending the message again can help: NO, LATER, or UNKNOWN; NONE where error_category is.
    error_retry: ErrorRetry
    #: ConversationId.
    conversation_id: str | None = None
    #: ConversationType, lower case, - as _: service, utility, marketing, authentication, … An open list.
    conversation_type: str | None = None
    #: ConversationExpirationTime; deprecated by the provider.
    conversation_expires_at: int | None = None
    #: MsgFrameType, lower case, - as _: message, template, … An open list; template where it did not arrive and a
    #: TemplateCode did.
    message_frame_type: str | None = None
    #: Type, lower case, - as _: image, video, document, audio, none, template, interactive, … An open list.
    content_type: str | None = None
    #: TemplateCode, the provider's id of the template.
    template_code: str | None = None
    #: TemplateName.
    template_name: str | None = None
    #: Language of the template, as the provider writes it; "id" is Indonesian.
    template_language: str | None = None
    #: Every other field, as the text of one JSON object: its name as it came, its value as it came; and
    #: bridge_replaced, the fields in which characters were replaced. Free text, which may hold personal data.
    extras: str | None = None


class WireReport(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A report with nothing but documented names, named as the event has it. Blank text is as it came."""

    message_id: str | None = msgspec.field(default=None, name="MessageId")
    task_id: str | None = msgspec.field(default=None, name="TaskId")
    sender: str | None = msgspec.field(default=None, name="From")
    recipient: str | None = msgspec.field(default=None, name="To")
    origin_phone_number: str | None = msgspec.field(default=None, name="OriginPhoneNumber")
    user_id: str | None = msgspec.field(default=None, name="UserId")
    parent_user_id: str | None = msgspec.field(default=None, name="ParentUserId")
    user_name: str | None = msgspec.field(default=None, name="UserName")
    provider_status: str | None = msgspec.field(default=None, name="Status")
    status_description: str | None = msgspec.field(default=None, name="StatusDescription")
    message_time: int | float | str | None = msgspec.field(default=None, name="Timestamp")
    error_code: str | None = msgspec.field(default=None, name="ErrorCode")
    error_description: str | None = msgspec.field(default=None, name="ErrorDescription")
    conversation_id: str | None = msgspec.field(default=None, name="ConversationId")
    conversation_type: str | None = msgspec.field(default=None, name="ConversationType")
    conversation_expires_at: int | float | str | None = msgspec.field(default=None, name="ConversationExpirationTime")
    message_frame_type: str | None = msgspec.field(default=None, name="MsgFrameType")
    content_type: str | None = msgspec.field(default=None, name="Type")
    template_code: str | None = msgspec.field(default=None, name="TemplateCode")
    template_name: str | None = msgspec.field(default=None, name="TemplateName")
    template_language: str | None = msgspec.field(default=None, name="Language")
