"""What is published for one status report, and the id that is the same however often the report arrives."""

from enum import StrEnum
from hashlib import sha256
from typing import Final, Self

import msgspec


class _Open(StrEnum):
    """A list that may grow: to a consumer that is older than a symbol it is UNKNOWN, as Avro's default says."""

    @classmethod
    def _missing_(cls, _value: object) -> Self:
        return cls("UNKNOWN")


class Status(_Open):
    """The provider's status, of a closed list; a status nobody knows yet is UNKNOWN, never dropped."""

    UNKNOWN = "UNKNOWN"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    DELETED = "DELETED"
    SUBSCRIBED = "SUBSCRIBED"
    UNSUBSCRIBED = "UNSUBSCRIBED"


class MessageTimeSource(StrEnum):
    """Whose clock ``message_time`` is; what a consumer doesn't know is not the provider's."""

    PROVIDER = "PROVIDER"
    RECEIVED = "RECEIVED"

    @classmethod
    def _missing_(cls, _value: object) -> "MessageTimeSource":
        return cls.RECEIVED


class ErrorCategory(_Open):
    """What kind of failure an error code is."""

    UNKNOWN = "UNKNOWN"
    NONE = "NONE"
    UNDELIVERABLE = "UNDELIVERABLE"
    RE_ENGAGEMENT = "RE_ENGAGEMENT"
    ECOSYSTEM_LIMIT = "ECOSYSTEM_LIMIT"
    OPT_OUT = "OPT_OUT"
    SPAM_LIMIT = "SPAM_LIMIT"
    RATE_LIMIT = "RATE_LIMIT"
    PAYMENT = "PAYMENT"
    POLICY = "POLICY"
    TEMPLATE = "TEMPLATE"
    MEDIA = "MEDIA"
    PERMISSION = "PERMISSION"
    ACCOUNT = "ACCOUNT"
    EXPIRED = "EXPIRED"
    TRANSIENT = "TRANSIENT"


class ErrorRetry(_Open):
    """Whether a new attempt to send the message can help."""

    UNKNOWN = "UNKNOWN"
    NONE = "NONE"
    NO = "NO"
    LATER = "LATER"


class StatusEvent(msgspec.Struct, frozen=True, gc=False):
    """One status report, flat. Times are milliseconds since the epoch; what did not arrive is None.

    The order of the fields is the order in the published JSON.
    """

    #: The same for the same fact, see :func:`event_id`: 32 lower-case hex digits.
    event_id: str
    #: MessageId; the Kafka key as well.
    message_id: str
    #: TaskId, or MessageId where that is missing.
    task_id: str
    #: True where TaskId was missing.
    task_id_defaulted: bool
    #: From: a telephone number, or a page or user id.
    sender: str | None
    #: To: a telephone number, or a page or user id.
    recipient: str | None
    #: OriginPhoneNumber; may differ from ``sender``.
    origin_phone_number: str | None
    #: FromUserId.
    user_id: str | None
    #: FromParentUserId.
    parent_user_id: str | None
    #: FromUserName.
    user_name: str | None
    #: Status, of the closed list.
    status: Status
    #: Status as it came, trimmed.
    provider_status: str
    #: 1, 2, 3 for sent, delivered, read; 0 off that ladder.
    status_rank: int
    #: StatusDescription.
    status_description: str | None
    #: Timestamp: when the message was sent, on a Read too; it orders nothing.
    message_time: int
    #: RECEIVED where Timestamp could not be used and ``received_at`` stands in for it.
    message_time_source: MessageTimeSource
    #: When the bridge received the callback.
    received_at: int
    #: ErrorCode, else Error, else what stands before the colon of the description.
    error_code: str | None
    #: ErrorDescription.
    error_description: str | None
    #: From the catalogue; NONE without an error, UNKNOWN for a failure without a code.
    error_category: ErrorCategory
    #: From the catalogue; NONE without an error, UNKNOWN for a failure without a code.
    error_retry: ErrorRetry
    #: ConversationId.
    conversation_id: str | None
    #: ConversationType folded: service, utility, marketing, authentication, …
    conversation_type: str | None
    #: ConversationExpirationTime.
    conversation_expires_at: int | None
    #: MsgFrameType folded: message, template, …; template where only a TemplateCode came.
    message_frame_type: str | None
    #: Type folded: image, video, document, audio, none, template, interactive, …
    content_type: str | None
    #: TemplateCode.
    template_code: str | None
    #: TemplateName.
    template_name: str | None
    #: Language: "id" is Indonesian, not an identifier.
    template_language: str | None
    #: Every other field, as the text of one JSON object: its name as it came, its value as it came.
    extras: str | None

    @property
    def is_delivered(self) -> bool:
        """Whether the message has reached its recipient: at DELIVERED or READ, since DELIVERED may never come."""
        return self.status is Status.DELIVERED or self.status is Status.READ

    @property
    def is_test(self) -> bool:
        """Whether it is a check of a live deployment, which no consumer counts."""
        return self.provider_status.strip().casefold() == _TEST_STATUS


_TEST_STATUS: Final = "bridgetest"
_STATUSES: Final = {status.value.casefold(): status for status in Status if status is not Status.UNKNOWN}
_RANKS: Final = {Status.SENT: 1, Status.DELIVERED: 2, Status.READ: 3}


def status_of(provider_status: str) -> Status:
    """The status that a provider's text means: trimmed, case folded; UNKNOWN for anything new."""
    return _STATUSES.get(provider_status.strip().casefold(), Status.UNKNOWN)


def status_rank(status: Status) -> int:
    """How far a message got: 1 sent, 2 delivered, 3 read; 0 for what is not on that ladder."""
    return _RANKS.get(status, 0)


def event_id(message_id: str, recipient: str | None, status: str, error_code: str | None) -> str:
    """The id of a fact: the same for every repeat, on every replica.

    The first 16 bytes, as 32 lower-case hex digits, of SHA-256 over four texts, each as its length in UTF-8
    bytes (4 bytes, big endian) and its bytes. The lengths keep ("ab", "c") and ("a", "bc") apart.

    Args:
        message_id: MessageId.
        recipient: To, else FromUserId, else None or empty.
        status: Status as the provider wrote it; it is trimmed and case folded here.
        error_code: as published, None or empty where there is none.
    """
    message = message_id.encode()
    to = recipient.encode() if recipient else b""
    state = status.strip().casefold().encode()
    code = error_code.encode() if error_code else b""
    return sha256(
        b"".join(
            (
                len(message).to_bytes(4, "big"),
                message,
                len(to).to_bytes(4, "big"),
                to,
                len(state).to_bytes(4, "big"),
                state,
                len(code).to_bytes(4, "big"),
                code,
            )
        )
    ).hexdigest()[:32]
