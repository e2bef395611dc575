"""The route /v1/responses: what clients of OpenAI's Responses API send, and the items and events that they read."""
