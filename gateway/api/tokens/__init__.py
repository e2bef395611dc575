"""The routes /v1/tokenize and /v1/detokenize: text and conversations as token ids, and back."""
