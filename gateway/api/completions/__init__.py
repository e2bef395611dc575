"""The route /v1/completions: a text or token ids continued as they stand, without the chat template."""
