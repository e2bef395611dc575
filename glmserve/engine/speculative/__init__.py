"""Speculative decoding: draft tokens from the prompt and the answer so far."""
