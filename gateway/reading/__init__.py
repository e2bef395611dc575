"""Bodies that are dear to read: unpacked within bounds, read in a process of its own, one of a caller at a time."""
