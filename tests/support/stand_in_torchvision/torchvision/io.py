"""Nothing: frames come as arrays."""
