"""The check of the full-size model on a GPU."""
