"""TensorRT for RTX: engines of a build, made ahead of time on any machine, with or without a GPU."""
