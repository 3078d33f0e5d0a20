"""The server that a team might write first, to compare the service with: FastAPI, Pillow, onnxruntime, a ``def``.

``python -m bench.plain_server VERSION_FOLDER PRECISION [LIMIT]``: no batching, every library's defaults. uvicorn
answers 503 to more than LIMIT requests at a time.
"""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import Body, FastAPI
from PIL import Image

folder, precision, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None
labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
session = onnxruntime.InferenceSession(folder / f"{precision}.onnx", providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/classify")
def classify(image: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
    """Return the five most probable classes of a JPEG that is squashed to the network's square."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize((299, 299), Image.Resampling.BICUBIC))
    probabilities = session.run(["probabilities"], {"images": pixels[None]})[0][0]
    best = probabilities.argsort()[::-1][:5].tolist()
    return {"predictions": [{"label": labels[i], "probability": float(probabilities[i])} for i in best]}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"ready at http://127.0.0.1:{listener.getsockname()[1]}\n")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", limit_concurrency=limit)).run([listener])
