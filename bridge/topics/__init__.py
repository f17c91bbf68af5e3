"""The topics: what is declared, how they are on Kafka, and how they differ."""
