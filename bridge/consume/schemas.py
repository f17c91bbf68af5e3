"""The schemas an Avro value may be written with: how they are read, and where a registry's are had from."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastavro.schema import SchemaParseException, parse_schema

from bridge.errors import RegistryError, RegistryUnavailable

if TYPE_CHECKING:
    import httpx

Schema = dict[str, Any]
"""As fastavro parses it, without logical types: times stay numbers."""

_TROUBLED = frozenset({408, 425, 429})

SchemaOfId = Callable[[int], str]
"""The text of the schema that a registry knows by this id; LookupError where it has none."""


def parsed(text: str) -> Schema:
    """Read a schema's text.

    Raises:
        ValueError: It is no Avro schema, or not one of a record.
    """
    try:
        schema = parse_schema(_without_logical_types(json.loads(text)))
    except SchemaParseException as error:
        raise ValueError(str(error)) from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("not the schema of a record")
    return schema


def registry_schemas(client: "httpx.Client") -> SchemaOfId:
    """Schemas from a registry with Confluent's API, by id.

    Args:
        client: its ``base_url`` is the registry's address, path included; its authentication, TLS and time limits hold.

    What it returns raises:
        RegistryUnavailable: It can't be asked now.
        RegistryError: It refuses: look at the credentials.
        LookupError: It has no Avro schema of that id.
    """

    def schema_of_id(schema_id: int) -> str:
        import httpx  # noqa: PLC0415  needed by nobody who has no registry

        asked = f"the registry at {client.base_url.host} was asked for schema {schema_id}"
        try:
            answer = client.get(f"schemas/ids/{schema_id}")
            body = answer.json() if answer.is_success else {}
        except (httpx.HTTPError, ValueError) as error:
            raise RegistryUnavailable(f"{asked}, in vain: {error}") from error
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise LookupError(f"{asked} and has none")
        if not answer.is_success:
            refused = answer.is_client_error and answer.status_code not in _TROUBLED
            raise (RegistryError if refused else RegistryUnavailable)(f"{asked} and answered {answer.status_code}")
        if (kind := body.get("schemaType", "AVRO")) != "AVRO":
            raise LookupError(f"{asked} and has one of type {kind}")
        return str(body["schema"])

    return schema_of_id


def _without_logical_types(schema: Any) -> Any:
    """The same schema with plain numbers and texts: their bytes are the same."""
    if isinstance(schema, dict):
        return {name: _without_logical_types(part) for name, part in schema.items() if name != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(part) for part in schema]
    return schema
