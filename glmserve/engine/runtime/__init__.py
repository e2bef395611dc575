"""The decoder on its device: sessions, bound arrays, KV cache and sampling inputs."""
