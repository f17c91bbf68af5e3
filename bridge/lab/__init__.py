"""A real Kafka, a simulated provider and a demo, for a developer's machine; the service never imports it."""
