"""Reads a checkpoint: weights, headers, files on a hub, and whether it fits together."""
