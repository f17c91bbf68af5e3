"""Takes ChatAppStatus callbacks by webhook and publishes each status report as an event on Kafka."""
