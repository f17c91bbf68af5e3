"""What an error of Kafka calls for: each error of a produced batch has one verdict."""

from enum import Enum, auto

from aiokafka.errors import (
    CorruptRecordException,
    InvalidRequiredAcksError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnknownError,
    UnsupportedForMessageFormatError,
)

from bridge.kafka.producer import Abandoned


class Verdict(Enum):
    """What a failed batch calls for."""

    RESEND = auto()  # the producer was given up: the same batch with another
    BACKOFF = auto()  # the cluster or the user's rights are the cause: back off, another producer
    SPLIT = auto()  # too large: less in a batch; a single record is quarantined or dead-lettered
    REFUSE = auto()  # the records or the cluster may be the cause: back off, with fewer records in a batch


_SPLIT = (MessageSizeTooLargeError, RecordListTooLargeError)
# A broker may answer each of these for one record, or for all: hosted services throttle with POLICY_VIOLATION, and a wrong clock
# causes INVALID_TIMESTAMP. aiokafka also raises UnknownError for codes that it has no class for, such as INVALID_RECORD.
_REFUSED = (
    InvalidTimestampError,
    PolicyViolationError,
    UnsupportedForMessageFormatError,
    InvalidRequiredAcksError,
    CorruptRecordException,
    UnknownError,
)


def verdict_on(error: BaseException) -> Verdict:
    """What to do about a batch that failed with ``error``."""
    if isinstance(error, Abandoned):
        return Verdict.RESEND
    if isinstance(error, _SPLIT):
        return Verdict.SPLIT
    return Verdict.REFUSE if isinstance(error, _REFUSED) else Verdict.BACKOFF


def error_text(error: BaseException) -> str:
    """An error in a line of the log: its name, and Kafka's number for it."""
    if isinstance(error, UnknownError):
        return f"{type(error).__name__} (-1, or a code that the client has no name for)"
    number = getattr(error, "errno", None) if isinstance(error, KafkaError) else None
    return type(error).__name__ if number is None else f"{type(error).__name__} ({number})"
