"""What an export and its serving will need, worked out before anything is read."""
