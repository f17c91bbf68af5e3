"""From a record's value to an event, whatever released format and version it was written in."""

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Final

import msgspec
from fastavro import schemaless_reader

from bridge.consume.record import Record, place
from bridge.consume.record import value as value_of
from bridge.consume.schemas import Schema, SchemaOfId, parsed
from bridge.errors import Undecodable
from bridge.report.event import StatusEvent
from bridge.schemas import EventSchema, known_schemas

_FRAME: Final = b"\x00"
_SINGLE_OBJECT: Final = b"\xc3\x01"
_HEAD_BYTES: Final = {_FRAME: 5, _SINGLE_OBJECT: 10}

_DAMAGED: Final = "it is damaged, or the schema is not the writer's"

_json: Final = msgspec.json.Decoder(StatusEvent).decode

# What fastavro raises over bytes that are not of the schema; it has no exception of its own for that.
_NOT_OF_THE_SCHEMA: Final = (EOFError, LookupError, ValueError, TypeError, OverflowError, MemoryError)


class Decoder:
    """Decodes the values of the status topic; the value itself says how it is written.

    =============  ===========================================================================================
    begins with    is
    =============  ===========================================================================================
    ``{``          JSON
    ``c3 01``      Avro, single-object encoding: an 8-byte fingerprint of the schema follows
    ``00``         Avro in Confluent's frame: the schema's id in the registry follows, 4 bytes, big endian
    =============  ===========================================================================================

    Older and newer versions decode alike, in both formats: a field that the writer did not know has its default, one that
    is unknown here is passed over, an unknown symbol of ``status``, ``error_category`` or ``error_retry`` is UNKNOWN.
    Threads may share one.

    Args:
        schema_of_id: gives a schema's text by the registry's id, such as `registry_schemas`; asked once for each id, and
            only for frames.
        schemas: those that single-object values may name; all that were ever released unless given.
    """

    def __init__(self, schema_of_id: SchemaOfId | None = None, schemas: Iterable[EventSchema] | None = None) -> None:
        self._schema_of_id = schema_of_id
        self._by_fingerprint = {each.fingerprint: parsed(each.text) for each in schemas or known_schemas()}
        self._by_id: dict[int, Schema] = {}
        self._avro: Final[dict[bytes, Callable[[bytes], Schema]]] = {
            _FRAME: self._framed,
            _SINGLE_OBJECT: self._fingerprinted,
        }

    def read(self, record: Record) -> StatusEvent:
        """The event of a record, as aiokafka or confluent-kafka gives it.

        Raises:
            Undecodable: As `decode`; says where the record stands.
            RegistryError: As `decode`.
        """
        value = value_of(record)
        try:
            return self.decode(b"" if value is None else value)
        except Undecodable as error:
            raise Undecodable(f"{place(record)}: {error}") from None

    def decode(self, value: bytes) -> StatusEvent:
        """The event of a value.

        Raises:
            Undecodable: It is no event, or names a schema that is known nowhere. The message says what to do and holds none
                of the data.
            RegistryError: The registry gave no schema: don't skip the record. Trying again can help where it is
                RegistryUnavailable.
        """
        if value[:1] == b"{":
            try:
                return _json(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise Undecodable(f"not the JSON of an event: {_without_data(error)}") from None
        for magic, schema_of in self._avro.items():
            if value.startswith(magic):
                return _event(value, _HEAD_BYTES[magic], schema_of(value))
        what = "is neither a JSON object nor Avro with a frame or a fingerprint" if value else "is empty"
        raise Undecodable(f"the value {what}: is this the topic of the events?")

    def _fingerprinted(self, value: bytes) -> Schema:
        """The schema of a single-object value."""
        mark = value[2:10]
        try:
            return self._by_fingerprint[mark]
        except KeyError:
            raise Undecodable(
                f"the schema with the fingerprint {mark.hex()} is not among the released ones: a newer bridge wrote this; "
                "take the release of this package that goes with it"
            ) from None

    def _framed(self, value: bytes) -> Schema:
        """The schema of a value in Confluent's frame."""
        if len(value) < _HEAD_BYTES[_FRAME]:
            raise Undecodable("the value ends within the frame's head")
        schema_id = int.from_bytes(value[1:5], "big")
        if (known := self._by_id.get(schema_id)) is not None:
            return known
        if self._schema_of_id is None:
            raise Undecodable(
                f"the value names schema {schema_id} of a registry, and none was given: "
                "Decoder(registry_schemas(httpx.Client(base_url=…)))"
            )
        try:
            schema = parsed(self._schema_of_id(schema_id))
        except LookupError as error:
            raise Undecodable(f"{error.args[0]}: is it the registry that the bridge uses?") from error
        except ValueError as error:
            raise Undecodable(f"schema {schema_id} of the registry can't be used: {error}") from error
        self._by_id[schema_id] = schema
        return schema


def _event(value: bytes, head_bytes: int, schema: Schema) -> StatusEvent:
    """Read what follows the head with the writer's schema; what that lacks is filled in, what is unknown dropped."""
    stream = BytesIO(value)
    stream.seek(head_bytes)
    try:
        fields = schemaless_reader(stream, schema, None)
    except _NOT_OF_THE_SCHEMA as error:
        raise Undecodable(f"not the Avro of {schema['name']}: {type(error).__name__}; {_DAMAGED}") from None
    if (more := len(value) - stream.tell()) != 0:
        raise Undecodable(f"{more} bytes follow the Avro of {schema['name']}: {_DAMAGED}")
    try:
        return msgspec.convert(fields, StatusEvent)
    except msgspec.ValidationError as error:
        raise Undecodable(f"the Avro of {schema['name']} is no event: {_without_data(error)}") from None


def _without_data(error: Exception) -> str:
    """What is wrong, and where: some messages quote the value."""
    if isinstance(error, UnicodeDecodeError):
        return "its text is not UTF-8"
    said, at, path = str(error).partition(" - at ")
    return f"{'not a symbol of its enum' if said.startswith('Invalid enum value') else said}{at}{path}"
