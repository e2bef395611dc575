"""Who may ask, how often, and how much waits at once."""
