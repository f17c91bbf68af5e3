"""For teams that consume the events: any released format and version to a typed event, repeats dropped.

    from bridge.consume import Decoder, Deduplicator, event_id

    decoder, seen = Decoder(), Deduplicator()
    for message in messages:  # confluent-kafka's or aiokafka's
        if event_id(message) in seen:
            continue
        event = decoder.read(message)
        if not event.is_test:
            ...  # yours
        seen.add(event.event_id)

It needs msgspec and fastavro, and imports neither a server nor a Kafka client: the release's wheel, installed with ``pip install
--no-deps``, and these two will do. With a Schema Registry, and httpx:
``Decoder(registry_schemas(httpx.Client(base_url="https://registry:8081", auth=(user, password))))``.
For money a `Deduplicator` is not enough, see there. What the events promise: ``avro/CONTRACT.md``.

decoder.py      bytes to an event
schemas.py      the schemas an Avro value may name: released ones by fingerprint, others by a registry's id
duplicates.py   ids seen lately
people.py       how many messages share a message_id, and to whom an event belongs
record.py       reading aiokafka's records and confluent-kafka's messages alike
"""

from bridge.consume.decoder import Decoder
from bridge.consume.duplicates import Deduplicator
from bridge.consume.people import Named, count_people, people
from bridge.consume.record import Record, event_id, header
from bridge.consume.schemas import registry_schemas
from bridge.errors import RegistryError, RegistryUnavailable, Undecodable
from bridge.report.event import StatusEvent as Event
from bridge.report.symbols import ErrorCategory, ErrorRetry, MessageTimeSource, Status

__all__ = [
    "Decoder",
    "Deduplicator",
    "ErrorCategory",
    "ErrorRetry",
    "Event",
    "MessageTimeSource",
    "Named",
    "Record",
    "RegistryError",
    "RegistryUnavailable",
    "Status",
    "Undecodable",
    "count_people",
    "event_id",
    "header",
    "people",
    "registry_schemas",
]
