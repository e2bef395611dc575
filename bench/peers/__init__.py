"""The servers of others that a user would pick instead, each measured beside ours."""
