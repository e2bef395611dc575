"""The engine: continuous batching of many requests over one decoder whose KV lives in slots."""
