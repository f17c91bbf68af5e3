"""The schemas of the event: the present one, and every one that was ever released.

``avro/status-event.avsc`` is what this bridge writes; ``avro/releases/<number>.avsc`` are what bridges have written. A
schema's *fingerprint* is CRC-64-AVRO of its parsing canonical form, 8 bytes, little endian, as Avro's single-object encoding
has it. Documentation and defaults are not in that form: releases may share a fingerprint, and their data are then alike.
"""

import json
from functools import cache
from typing import NamedTuple

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from bridge.config import data_directory


class EventSchema(NamedTuple):
    """A schema's text, as its file has it, and its fingerprint."""

    text: str
    fingerprint: bytes


@cache
def written_schema() -> EventSchema:
    """The schema that events are written with."""
    return _read((data_directory("avro") / "status-event.avsc").read_text())


@cache
def known_schemas() -> tuple[EventSchema, ...]:
    """The present schema and every released one, newest first."""
    texts = [written_schema().text, *reversed(released_texts().values())]
    return tuple(_read(text) for text in dict.fromkeys(texts))


@cache
def released_texts() -> dict[int, str]:
    """The text of every schema that was released, by its number, oldest first."""
    paths = sorted((data_directory("avro") / "releases").glob("*.avsc"), key=lambda path: int(path.stem))
    return {int(path.stem): path.read_text() for path in paths}


def _read(text: str) -> EventSchema:
    form = to_parsing_canonical_form(parse_schema(json.loads(text)))
    return EventSchema(text, bytes.fromhex(fingerprint(form, "CRC-64-AVRO")))
