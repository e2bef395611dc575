"""The decoder and the image encoder on TensorRT for RTX: a build's plans, run in this process."""
