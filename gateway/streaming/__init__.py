"""Everything that writes to a client's socket or watches it."""
