"""Compares a build with the checkpoint it was made from."""
