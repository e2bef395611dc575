"""The ONNX graphs, written node by node."""
