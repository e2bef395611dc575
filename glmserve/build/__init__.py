"""A build on disk: what is in it, who vouches for it, and who is serving it."""
