"""``chatapp-bridge audit``: what the topics alone can prove of a stretch of time."""
