"""PyTorch weights to fused, verified ONNX files with a manifest, offline."""
