"""The routes /completion, /props and /slots: what clients of llama.cpp's own API send, and what they read."""
