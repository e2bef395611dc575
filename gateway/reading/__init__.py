"""Bodies that are dear to read: each is read in a process of its own, one of a caller at a time."""
