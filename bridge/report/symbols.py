"""The enumerations of the event. A list may grow: to a reader that is older than a symbol it is the list's default."""

from enum import StrEnum
from typing import Final, Self


class _Open(StrEnum):
    """Whose default is UNKNOWN."""

    @classmethod
    def _missing_(cls, _value: object) -> Self:
        return cls("UNKNOWN")


class Status(_Open):
    """What became of a message. UNKNOWN stands for every status that has no symbol here."""

    UNKNOWN = "UNKNOWN"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    DELETED = "DELETED"
    SUBSCRIBED = "SUBSCRIBED"
    UNSUBSCRIBED = "UNSUBSCRIBED"


class MessageTimeSource(StrEnum):
    """Whose clock message_time is. Anything but PROVIDER is not the provider's: an unknown symbol is read as RECEIVED."""

    PROVIDER = "PROVIDER"
    RECEIVED = "RECEIVED"

    @classmethod
    def _missing_(cls, _value: object) -> "MessageTimeSource":
        return cls.RECEIVED


class ErrorCategory(_Open):
    """What kind of failure an error code is. UNKNOWN stands for every category that has no symbol here."""

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
    """Whether sending the message again can help. UNKNOWN stands for every answer that has no symbol here."""

    UNKNOWN = "UNKNOWN"
    NONE = "NONE"
    NO = "NO"
    LATER = "LATER"


ENUMERATIONS: Final[dict[str, type[StrEnum]]] = {
    of.__name__: of for of in (Status, MessageTimeSource, ErrorCategory, ErrorRetry)
}
# By what stands on the wire, case folded; the provider's pages have two of them as verbs.
STATUSES: Final = {status.value.casefold(): status for status in Status if status is not Status.UNKNOWN} | {
    "subscribe": Status.SUBSCRIBED,
    "unsubscribe": Status.UNSUBSCRIBED,
}
_RANKS: Final = {Status.SENT: 1, Status.DELIVERED: 2, Status.READ: 3}


def status_of(provider_status: str) -> Status:
    """The status that a provider's text means: trimmed, case folded; UNKNOWN for anything new."""
    return STATUSES.get(provider_status.strip().casefold(), Status.UNKNOWN)


def status_rank(status: Status) -> int:
    """How far a message got: 1 sent, 2 delivered, 3 read; 0 for what is not on that ladder."""
    return _RANKS.get(status, 0)
