from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bridge.record import Record

_Lane = TypeVar("_Lane")

class FastEncoder:
    def __init__(
        self,
        layout: list[tuple[str, str, bool, list[str]]],
        wire: list[tuple[str, str, str]],
        *,
        avro: bool,
        head: bytes,
        statuses: dict[str, tuple[int, str, tuple[str, bytes], bytes]],
        failed: str,
        no_error: tuple[str, str],
        unknown_error: tuple[str, str],
        error_of: Callable[[str | None, str | None, bool], tuple[str | None, str, str]],
        word: Callable[[str | None], str | None],
        unknown_name: Callable[[str], bytes | None],
        sources: tuple[str, str],
        topic: str,
        schema: bytes | None,
        overhead_bytes: int,
        header_bytes: int,
        max_record_bytes: int,
    ) -> None: ...
    def records(self, items: list[Any], common: tuple[Any, ...]) -> tuple[list[Record | None], list[str | None]]: ...

def string_end(body: bytes, start: int) -> int: ...
def value_end(body: bytes, start: int) -> int: ...
def strict_json(text: bytes) -> bytes: ...
def murmur2(data: bytes) -> int: ...
def by_lane(records: Sequence[Record], lanes: dict[str, list[_Lane]]) -> dict[_Lane, list[Record]]: ...
def packed(records: list[Record]) -> bytes: ...
def bytes_of(records: list[Record]) -> int: ...

class BatchWriter:
    count: int
    first_ms: int
    last_ms: int
    def __init__(self, most_bytes: int) -> None: ...
    @property
    def size(self) -> int: ...
    def extend(self, records: Sequence[Record], prefix: bytes) -> int: ...
    def written(self) -> bytes: ...
