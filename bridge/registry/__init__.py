"""The Schema Registry: its client, and what people do to schemas with it."""
