"""Rounds weights to 4 and 8 bits."""
