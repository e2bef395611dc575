"""Writes a build's certificate: what was compared with the checkpoint, for programs and people."""
