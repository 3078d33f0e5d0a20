"""The error of each way's logits against the network in float64, as ||logits - reference|| / ||reference||."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from bench.gpu.network import load_network
from bench.gpu.record import Record
from bench.gpu.setup import Setup

Logits = Callable[[], NDArray[np.generic]]

PHOTOS = 4  # the most photos compared: float64 is slow


def measure(setup: Setup, record: Record) -> None:
    """Compare onnxruntime and torch, in each precision, with torch in float64 on the CPU."""
    images = setup.images(min(PHOTOS, len(setup.model.photos)))
    reference = _by_torch(setup, images, torch.float64, "cpu")
    torch.backends.cudnn.allow_tf32 = False
    ways: dict[str, Logits] = {"onnxruntime fp32 on the CPU": partial(_by_bare_cpu, setup, images)}
    for precision in ("fp32", "tf32", "fp16") if setup.on_gpu else ():
        ways[f"onnxruntime {precision}"] = partial(_by_onnxruntime, setup, images, precision)
    for kind in (torch.float32, torch.float16):
        ways[f"{kind}"] = partial(_by_torch, setup, images, kind, setup.device)
    for name, logits in ways.items():
        record.attempt(partial(_compare, record, name, logits, reference), name)


def _compare(record: Record, name: str, logits: Logits, reference: NDArray[np.generic]) -> None:
    record.put(_difference(logits(), reference), name)


def _difference(logits: NDArray[np.generic], reference: NDArray[np.generic]) -> dict[str, float]:
    wide, right = logits.astype(np.float64), reference.astype(np.float64)
    return {
        "relative_error": float(np.linalg.norm(wide - right) / np.linalg.norm(right)),
        "same_class": float((wide.argmax(1) == right.argmax(1)).mean()),
    }


def _by_bare_cpu(setup: Setup, images: NDArray[np.uint8]) -> NDArray[np.generic]:
    return _logits(ort.InferenceSession(setup.file("fp32"), providers=["CPUExecutionProvider"]), images)


def _by_onnxruntime(setup: Setup, images: NDArray[np.uint8], precision: str) -> NDArray[np.generic]:
    return _logits(setup.bare_session(precision, len(images)), images)


def _logits(session: ort.InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.generic]:
    logits: NDArray[np.generic] = session.run(["logits"], {"images": images})[0]
    return logits


def _by_torch(setup: Setup, images: NDArray[np.uint8], kind: torch.dtype, device: str) -> NDArray[np.generic]:
    """Return the network's logits. Images run one by one, because float64 needs much memory."""
    network = load_network(setup.model).to(device, kind)
    with torch.inference_mode():
        rows = [network(torch.from_numpy(image[None]).to(device)).double().cpu() for image in images]
    logits: NDArray[np.generic] = torch.cat(rows).numpy()
    return logits
