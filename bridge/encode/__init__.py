"""From reports to Kafka records: JSON or Avro values, CloudEvents headers."""
