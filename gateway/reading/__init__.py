"""A body as it came: unpacked, and read in a process of its own where that is dear, one of a caller at a time."""
