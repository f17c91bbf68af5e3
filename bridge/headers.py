"""The names of the headers of the records on Kafka, as avro/CONTRACT.md promises them. No other module spells one out."""

from typing import Final

CE_SPECVERSION: Final = "ce_specversion"
CE_ID: Final = "ce_id"
CE_SOURCE: Final = "ce_source"
CE_TYPE: Final = "ce_type"
CE_TIME: Final = "ce_time"
CE_SUBJECT: Final = "ce_subject"
CONTENT_TYPE: Final = "content-type"
TRACEPARENT: Final = "traceparent"

CALLBACK: Final = "bridge_callback"
"""The id of the callback that the record came with, unique over replicas and restarts."""
POSITION: Final = "bridge_position"
"""``3/10``: the third of ten records of that callback."""
REPLAY: Final = "bridge_replay"
REDRIVE: Final = "bridge_redrive"
"""The id of the run that wrote the record."""

QUARANTINE_REASON: Final = "quarantine_reason"
QUARANTINE_DETAIL: Final = "quarantine_detail"
QUARANTINE_PATH: Final = "quarantine_path"
RECEIVED_AT: Final = "received_at"
