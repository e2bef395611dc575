"""A video from a file's bytes to frames: what it holds, then those that are asked for, in a decoding process."""
