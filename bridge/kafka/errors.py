"""What an error of Kafka calls for: each error of a produced batch has one verdict."""

from enum import Enum, auto

from aiokafka.errors import (
    CorruptRecordException,
    InvalidRequiredAcksError,
    InvalidTimestampError,
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
    BACKOFF = auto()  # refused, but may be taken later: back off, another producer
    SPLIT = auto()  # too large: less in a batch; a single record is quarantined or dead-lettered
    DEAD_LETTER = auto()  # invalid for good: find the record, make it a dead letter


_SPLIT = (MessageSizeTooLargeError, RecordListTooLargeError)
_REFUSED = (
    InvalidTimestampError,
    PolicyViolationError,
    UnsupportedForMessageFormatError,
    InvalidRequiredAcksError,
)
# May pass, or be for good: aiokafka gives UnknownError also for codes it has no class for, such as INVALID_RECORD.
_REFUSED_IN_THE_END = (CorruptRecordException, UnknownError)
# So often in a row, about ten seconds with the pauses between, and it is for good.
_DOUBTFUL_TRIES = 12


def verdict_on(error: BaseException, tries: int) -> Verdict:
    """What to do about a batch that failed with ``error``, as have ``tries`` in a row."""
    if isinstance(error, Abandoned):
        return Verdict.RESEND
    if isinstance(error, _SPLIT):
        return Verdict.SPLIT
    if isinstance(error, _REFUSED) or (isinstance(error, _REFUSED_IN_THE_END) and tries >= _DOUBTFUL_TRIES):
        return Verdict.DEAD_LETTER
    return Verdict.BACKOFF
