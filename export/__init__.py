"""Convert PyTorch weights into fused, verified ONNX files with a manifest, before anything is served."""

import os

# ONNX Runtime reports its use to its maker unless this variable is set before ONNX Runtime is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
