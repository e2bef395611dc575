"""Who runs next: wait queue, KV slots, and how much of a prompt a step takes."""
