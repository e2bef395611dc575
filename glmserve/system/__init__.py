"""What this process may use of its machine, and how its settings are read."""
