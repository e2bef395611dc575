"""The routes /v1/tokenize, /v1/detokenize and those beside them: text and conversations as token ids, and back."""
