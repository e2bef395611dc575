"""Load: prompts, and the clients that send them."""
