"""Turns a Hugging Face checkpoint into a build: ONNX graphs inside a Triton model repository."""
