"""From reports to Kafka records: JSON values, CloudEvents headers."""
