"""Who may push, how much, and the answer."""
