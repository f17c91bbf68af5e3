"""Records to Kafka, or to the disk until Kafka takes them."""
