"""Between Triton and the engine: tensors in, responses out, cancellations."""
