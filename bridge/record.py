"""What is written to Kafka, before anyone knows which partition or producer it goes by."""

import msgspec


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One Kafka record, encoded.

    ``key`` is None only for a quarantined record without a readable MessageId. ``timestamp_ms`` is the create time,
    milliseconds since the epoch. Array-like, so that its msgpack form (the spool's) carries no field names.
    """

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int
