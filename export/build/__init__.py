"""Writes a build: graphs, weights, Triton models and manifest in one immutable folder."""
