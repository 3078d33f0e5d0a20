"""Who runs next: knows no HTTP and no ONNX Runtime."""
