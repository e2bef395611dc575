"""Answers in a given shape: rules become a grammar, which is tried before use and tells which tokens may come."""
