"""Reading back what the topics hold: the client, bounds and filters, and decoding."""
