"""Starts Triton and the gateway together, watches both, and ends both: what `make serve` runs."""
