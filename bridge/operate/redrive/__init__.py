"""``chatapp-bridge redrive``: publish what was quarantined and is understood today."""
