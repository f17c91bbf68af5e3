"""What the bridge tells of itself: logs and metrics."""
