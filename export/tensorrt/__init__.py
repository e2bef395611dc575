"""TensorRT engines, compiled for one GPU and kept."""
