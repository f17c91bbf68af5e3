"""The client of Kafka: how the bridge connects, produces, and places records in partitions."""
