"""Answers in a given shape: rules become a grammar, which is tried before it is used and tells which tokens may come."""
