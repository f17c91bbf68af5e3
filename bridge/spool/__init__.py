"""The spool: reports that are durable on disk while Kafka can't take them."""
