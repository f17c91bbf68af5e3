"""What tests share: a real Kafka, topics on it, and reading them back, in Python and in Java."""
