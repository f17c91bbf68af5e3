"""What a consumer needs of a Kafka record, whichever client it comes from."""

from typing import Any, Protocol

from bridge.headers import CE_ID


class Record(Protocol):
    """aiokafka's ``ConsumerRecord``, which has these as attributes, or confluent-kafka's ``Message``: as methods."""

    @property
    def topic(self) -> Any:
        """Where it stands: text."""

    @property
    def partition(self) -> Any:
        """Where it stands: a number."""

    @property
    def offset(self) -> Any:
        """Where it stands: a number."""

    @property
    def value(self) -> Any:
        """Bytes, or None."""

    @property
    def headers(self) -> Any:
        """Pairs of text and bytes, or None."""


def value(record: Record) -> bytes | None:
    """The record's value; None for a tombstone."""
    found: bytes | None = _got(record.value)
    return found


def header(record: Record, name: str) -> str | None:
    """The text of a record's header, the last of that name; None where there is none."""
    found = dict(_got(record.headers) or ()).get(name)
    return None if found is None else found.decode(errors="replace")


def event_id(record: Record) -> str | None:
    """The event's id from the header ``ce_id``: repeats are dropped without decoding; None on what is no event."""
    return header(record, CE_ID)


def place(record: Record) -> str:
    """Where the record stands, for people: ``topic[partition]@offset``."""
    return f"{_got(record.topic)}[{_got(record.partition)}]@{_got(record.offset)}"


def _got(member: Any) -> Any:
    """An attribute, or what a method of no arguments gives."""
    return member() if callable(member) else member
