"""Runs the whole service on one machine: a real tritonserver, the gateway before it, and a clean end for both."""
