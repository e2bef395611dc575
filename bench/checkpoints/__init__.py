"""Synthetic checkpoints and their builds."""
