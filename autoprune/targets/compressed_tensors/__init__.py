"""The compressed-tensors layout, which transformers and vLLM load by themselves."""
