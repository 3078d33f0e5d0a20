"""Proof that the ONNX file answers as the PyTorch network does, before anything serves it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from export.photos import Photo, normalise, preprocess_all
from models.weights import LoadedModel

# The largest difference of a logit, as a fraction of the logits' spread between images. Random weights amplify
# float32's rounding: folding BatchNorm alone moves Inception-v4's logits by 1e-3 of their spread.
TOLERANCE_TRAINED = 1e-3
TOLERANCE_UNTRAINED = 1e-2
# Half precision rounds by 5e-4 at each layer. Through random weights that grows to twice the spread in Inception-v4,
# so that a network without trained ones gets no such variant.
TOLERANCE_HALF = 2e-2
BATCHES = (1, 2, 5)

Logits = NDArray[np.float32]


class VerificationError(RuntimeError):
    """The ONNX file and the PyTorch network disagree, or the network does not know its own classes' photos."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far ONNX Runtime's answers are from the reference's on ``images`` photos.

    ``top1`` is the share with the same most probable class. ``logits`` is the largest difference of a logit in units
    of ``spread``; ``max_abs_probability`` the largest difference of a probability.
    """

    images: int
    top1: float
    logits: float
    max_abs_probability: float


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """A small JPEG, the reference's most probable classes as (index, probability), and its true label if known."""

    jpeg: bytes
    top_k: list[tuple[int, float]]
    label: str | None


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file on ONNX Runtime's CPU provider, which every machine has."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def reference_logits(loaded: LoadedModel, pixels: NDArray[np.uint8]) -> Logits:
    """Return the logits ``[n, classes]`` of the network as loaded, in float32, for pixels ``[n, size, size, 3]``."""
    with torch.inference_mode():
        logits: Logits = loaded.model(normalise(pixels, loaded.preprocessing)).numpy()
    return logits


def spread(logits: Logits) -> float:
    """Return how far images differ in ``[n, classes]``: each class's standard deviation over images, averaged."""
    return float(logits.std(axis=0).mean())


def check_parity(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], reference: Logits, tolerance: float
) -> Agreement:
    """Compare ``session`` with the reference's logits for ``pixels``, which go through it in batches of 1, 2, 5, 1, ...

    Raises VerificationError when a logit differs by more than ``tolerance`` times ``spread(reference)``.
    """
    if len(pixels) < sum(BATCHES):
        raise ValueError(f"{len(pixels)} images do not fill batches of {BATCHES}")
    scale = spread(reference)
    probabilities, worst, start = [], 0.0, 0
    for size in itertools.cycle(BATCHES):
        batch = slice(start, start + size)
        p, logits = session.run(["probabilities", "logits"], {"images": pixels[batch]})
        difference = float(np.abs(logits - reference[batch]).max()) / scale
        if not difference <= tolerance:  # so that a NaN fails too
            raise VerificationError(
                f"ONNX Runtime's logits differ from torch's by {difference:.1e} of their spread between images in a "
                f"batch of {len(p)}; {tolerance:.0e} is allowed"
            )
        probabilities.append(p)
        worst, start = max(worst, difference), start + size
        if start >= len(pixels):
            break
    found, expected = np.concatenate(probabilities), _softmax(reference)
    return Agreement(
        images=len(pixels),
        top1=float((found.argmax(1) == expected.argmax(1)).mean()),
        logits=worst,
        max_abs_probability=float(np.abs(found - expected).max()),
    )


def golden_samples(
    loaded: LoadedModel, photos: Sequence[Photo], logits: Logits, *, count: int = 3, top_k: int = 5
) -> list[GoldenSample]:
    """Make ``count`` golden samples from the photos, of different labels, that the network is surest of.

    A sure answer keeps its class under another machine's rounding, so that a changed one means a broken file.
    ``logits`` are the reference's for the photos. The expected answers are the reference's for the small JPEGs.
    """
    ranked = np.sort(logits, axis=1)
    surest_first = np.argsort(ranked[:, -2] - ranked[:, -1], kind="stable")
    surest_by_label = {photos[i].label: photos[i] for i in reversed(surest_first)}
    chosen = [photos[i] for i in surest_first if surest_by_label[photos[i].label] is photos[i]][:count]

    knows_photos = loaded.trained and {photo.label for photo in photos} <= set(loaded.labels)
    jpegs = [_small_jpeg(photo.data) for photo in chosen]
    pixels = preprocess_all(jpegs, loaded.preprocessing, loaded.spec.input_size)
    samples = []
    for photo, jpeg, probabilities in zip(chosen, jpegs, _softmax(reference_logits(loaded, pixels)), strict=True):
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        answers = [(int(index), float(probabilities[index])) for index in best]
        samples.append(GoldenSample(jpeg, answers, photo.label if knows_photos else None))
    return samples


def check_golden(session: onnxruntime.InferenceSession, loaded: LoadedModel, samples: Sequence[GoldenSample]) -> None:
    """Raise VerificationError when ``session`` changes a sample's most probable class, or it is not the true one."""
    jpegs = [sample.jpeg for sample in samples]
    pixels = preprocess_all(jpegs, loaded.preprocessing, loaded.spec.input_size)
    (probabilities,) = session.run(["probabilities"], {"images": pixels})
    for number, (sample, index) in enumerate(zip(samples, probabilities.argmax(1), strict=True)):
        found, expected = loaded.labels[index], loaded.labels[sample.top_k[0][0]]
        if found != expected:
            raise VerificationError(f"golden sample {number} is {found!r} to ONNX Runtime and {expected!r} to torch")
        if sample.label is not None and found != sample.label:
            raise VerificationError(f"golden sample {number} shows a {sample.label}, but the network says {found!r}")


def _small_jpeg(photo: bytes) -> bytes:
    """Shrink a photo to fit 400x400 pixels, its proportions kept."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    image.thumbnail((400, 400))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _softmax(logits: Logits) -> NDArray[np.float32]:
    return torch.from_numpy(logits).softmax(1).numpy()
