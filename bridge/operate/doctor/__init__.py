"""``chatapp-bridge doctor``: tries on a Kafka what the bridge and replay need, and says what to set."""
