"""One image from a file's bytes to pixels: structure first, then decoding in a process that can be ended."""
