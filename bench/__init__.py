"""Measures the service against the script its users run today, and against its own bare engine."""
