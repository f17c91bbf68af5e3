"""How an event becomes a record's value: ``events.format``, and whether a registry numbers the schemas."""

import json
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from bridge.encode.avro import CONTENT_TYPE as AVRO_TYPE
from bridge.encode.avro import compile_writer
from bridge.encode.json import CONTENT_TYPE as JSON_TYPE
from bridge.encode.json import encode_event
from bridge.record import SINGLE_OBJECT
from bridge.report.event import StatusEvent
from bridge.schemas import written_schema


class ValueFormat(NamedTuple):
    """A way to encode.

    ``schema`` is the fingerprint of what a bare value was written with, None where values are whole; ``head`` is what each value
    begins with.
    """

    content_type: bytes
    encode: Callable[[StatusEvent], bytes]
    schema: bytes | None = None
    head: bytes = b""

    @property
    def avro(self) -> bool:
        """Whether values are Avro; else JSON."""
        return self.content_type == AVRO_TYPE


JSON: Final = ValueFormat(JSON_TYPE, encode_event)


def value_format(name: Literal["json", "avro"], *, registry: bool) -> ValueFormat:
    """JSON; Avro that lacks its schema's id until it is sent; or, without a registry, Avro's single-object encoding."""
    if name == "json":
        return JSON
    text, fingerprint = written_schema()
    schema = json.loads(text)
    if registry:
        return ValueFormat(AVRO_TYPE, compile_writer(schema), fingerprint)
    head = SINGLE_OBJECT + fingerprint
    return ValueFormat(AVRO_TYPE, compile_writer(schema, head), None, head)
