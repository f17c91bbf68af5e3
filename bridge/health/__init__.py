"""The admin port: is it safe, since when, and why."""
