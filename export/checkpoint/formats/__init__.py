"""Reads quantised checkpoints as they are published: compressed-tensors, GPTQ, AWQ, FP8 and GGUF."""
