"""The newer functions."""
