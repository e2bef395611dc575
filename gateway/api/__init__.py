"""The HTTP routes: each reads a body, asks for an answer, and writes it in its own shape."""
