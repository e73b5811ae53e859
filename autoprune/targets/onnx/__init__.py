"""ONNX Runtime: a graph of integer products where the runtime has kernels for them."""
