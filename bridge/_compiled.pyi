from collections.abc import Callable, Sequence
from typing import Any

from bridge.record import Record

FIELD_NAMES: tuple[str, ...]
WIRE_NAMES: dict[str, int]

class Shared:
    def __init__(
        self,
        specversion: tuple[str, bytes],
        source: tuple[str, bytes],
        time: tuple[str, bytes],
        content_type: tuple[str, bytes],
        after: list[tuple[str, bytes]],
        total: int,
        received_at_ms: int,
    ) -> None: ...

class PlainEncoder:
    def __init__(
        self,
        layout: list[tuple[str, str, bool, list[str]]],
        *,
        avro: bool,
        head: bytes,
        statuses: dict[str, tuple[int, str, tuple[str, bytes], bytes]],
        failed: str,
        no_error: tuple[str, str],
        unknown_error: tuple[str, str],
        error_of: Callable[[str | None, str | None, bool], tuple[str | None, str, str]],
        fold: Callable[[str | None], str | None],
        sources: tuple[str, str],
        record: type[Record],
        topic: str,
        schema: bytes | None,
        overhead_bytes: int,
        header_bytes: int,
        max_record_bytes: int,
    ) -> None: ...
    def records(self, items: list[Any], shared: Shared) -> tuple[list[Record | None], list[str | None]]: ...

def murmur2(data: bytes) -> int: ...

class BatchWriter:
    count: int
    first_ms: int
    last_ms: int
    def __init__(self, most_bytes: int) -> None: ...
    @property
    def size(self) -> int: ...
    def extend(self, records: Sequence[Record], prefix: bytes) -> int: ...
    def written(self) -> bytes: ...
