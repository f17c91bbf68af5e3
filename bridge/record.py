"""What is written to Kafka, before anyone knows which partition or producer it goes by."""

from typing import Final

import msgspec

SINGLE_OBJECT: Final = b"\xc3\x01"
"""What a value in Avro's single-object encoding begins with; its schema's fingerprint follows, 8 bytes, then the datum."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One Kafka record, encoded.

    ``key`` is None only for a quarantined record without a readable MessageId. ``timestamp_ms`` is the create time,
    milliseconds since the epoch. ``schema`` is None where the value is whole; else the value is bare Avro, ``schema`` the
    fingerprint of what it was written with, and the id that the topic's registry has for it is put before the value when it is
    sent. Array-like, so that its msgpack form (the spool's) carries no field names. The compiled part gives ``WrittenRecord``
    in its place, which has the same attributes.
    """

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int
    schema: bytes | None = None

    @property
    def self_describing_value(self) -> bytes:
        """A value that can be read without knowing where it came from: a bare one in single-object encoding."""
        return self.value if self.schema is None else SINGLE_OBJECT + self.schema + self.value
