"""Images become features: encoded in batches, kept for the next request."""
