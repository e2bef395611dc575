"""The web gateway: one HTTP contract in front of the models that Triton serves."""

VERSION = "0.2.0"
