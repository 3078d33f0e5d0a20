"""PyTorch weights to fused, verified ONNX files with a manifest, offline."""

import os

# Unless this is set before it is loaded, ONNX Runtime reports on its use to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
