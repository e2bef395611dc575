"""The videos of a request: which frames are seen and in what size, decoded within bounds and kept for a while."""
