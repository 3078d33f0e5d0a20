"""The HTTP server: image bytes in, labels out, from exported model files alone."""

import os

# Unless this is set before it is loaded, ONNX Runtime reports on its use to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
