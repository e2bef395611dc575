"""The routes /v1/messages and /v1/messages/count_tokens: what Anthropic's clients send, and what they read."""
