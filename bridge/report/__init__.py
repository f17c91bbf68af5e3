"""What a status report means: the wire format, the event, the error codes."""
