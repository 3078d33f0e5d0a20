"""Verify that an ONNX file answers as the PyTorch network does, before the service loads the file."""

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
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernel
from PIL import Image

from export.photos import Photo, normalise, preprocess_all
from models.weights import LoadedModel

# A tolerance is the largest allowed difference of a logit, as a fraction of the logits' spread between images. Random
# weights amplify float32's rounding: folding BatchNorm alone moves Inception-v4's logits by 1e-3 of their spread.
TOLERANCE_TRAINED = 1e-3
TOLERANCE_UNTRAINED = 1e-2
# Half precision rounds by 5e-4, relative, at each layer. Random weights amplify the rounding to twice the spread in
# Inception-v4, so a network with random weights gets no fp16 variant.
TOLERANCE_HALF = 2e-2
# Single logits are too strict a measure for int8. Its answers on many images must agree instead.
LEAST_TOP1 = 0.99
LARGEST_MEAN_PROBABILITY = 0.02
BATCHES = (1, 2, 5)
_BATCH = 16  # images that torch answers at once; a hundred would take gigabytes

Logits = NDArray[np.float32]
Answers = tuple[NDArray[np.float32], Logits]  # probabilities and logits, both [n, classes]


class VerificationError(RuntimeError):
    """An ONNX file and its reference disagree, or the network names no photo of its own classes right."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much ONNX Runtime's answers differ from the answers of ``reference``, on a number of ``images``.

    ``top1`` is the share of images with the same most probable class. ``logits`` is the largest difference of a logit,
    in units of ``spread``. ``mean_abs_probability`` is the mean difference of the probability of the reference's most
    probable class. ``max_abs_probability`` is the largest difference of any probability.
    """

    reference: str
    images: int
    top1: float
    logits: float
    mean_abs_probability: float
    max_abs_probability: float


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """A small JPEG, the reference's most probable classes as (index, probability), and the true label if known."""

    jpeg: bytes
    top_k: list[tuple[int, float]]
    label: str | None


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file with ONNX Runtime's CPU provider, which every machine has.

    Raises VerificationError, with the operator's name, if the provider cannot run one of the file's operators.
    """
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except MissingKernel as error:
        raise VerificationError(
            f"ONNX Runtime {onnxruntime.__version__} can't run {path.name}: {error}. Export another precision, or "
            "build the network without this operator"
        ) from error


def reference_logits(loaded: LoadedModel, pixels: NDArray[np.uint8]) -> Logits:
    """Return the float32 logits ``[n, classes]`` of the unfused network, for pixels ``[n, size, size, 3]``."""
    batches = [pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)]
    with torch.inference_mode():
        return np.concatenate([loaded.model(normalise(batch, loaded.preprocessing)).numpy() for batch in batches])


def spread(logits: Logits) -> float:
    """Return how much logits ``[n, classes]`` vary: the mean over classes of the standard deviation over images."""
    return float(logits.std(axis=0).mean())


def check_reference(loaded: LoadedModel, logits: Logits) -> None:
    """Raise VerificationError unless ``reference_logits`` of different photos are numbers that differ."""
    if not np.isfinite(logits).all():
        raise VerificationError(f"with the weights {loaded.source} the network's answers are NaN or infinite")
    if (logits == logits[0]).all():
        raise VerificationError(f"with the weights {loaded.source} the network answers all photos alike")


def check_parity(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], reference: Logits, tolerance: float
) -> Agreement:
    """Compare the logits of ``session`` for ``pixels``, run in batches of 1, 2, 5, 1, ..., with ``reference``.

    Raises VerificationError if a logit differs by more than ``tolerance`` times ``spread(reference)``.
    """
    if len(pixels) < sum(BATCHES):
        raise ValueError(f"{len(pixels)} images do not fill batches of {BATCHES}")
    scale = spread(reference)
    found: list[Answers] = []
    start = 0
    for size in itertools.cycle(BATCHES):
        batch = slice(start, start + size)
        answers = _answers(session, pixels[batch])
        difference = float(np.abs(answers[1] - reference[batch]).max()) / scale
        if not difference <= tolerance:  # "not <=" so that NaN fails too
            raise VerificationError(
                f"ONNX Runtime's logits differ from torch's by {difference:.1e} of their spread between images in a "
                f"batch of {size}; {tolerance:.0e} is allowed"
            )
        found.append(answers)
        start += size
        if start >= len(pixels):
            break
    return _agreement("torch fp32", found, [(_softmax(reference), reference)])


def check_answers(
    session: onnxruntime.InferenceSession, reference: onnxruntime.InferenceSession, crops: NDArray[np.uint8]
) -> Agreement:
    """Compare the answers of ``session`` with the answers of the float32 graph, for pixels ``[n, size, size, 3]``.

    Raises VerificationError if ``LEAST_TOP1`` or ``LARGEST_MEAN_PROBABILITY`` is not kept.
    """
    batches = [crops[i : i + max(BATCHES)] for i in range(0, len(crops), max(BATCHES))]
    expected = [_answers(reference, batch) for batch in batches]
    agreement = _agreement("fp32.onnx", [_answers(session, batch) for batch in batches], expected)
    if not (agreement.top1 >= LEAST_TOP1 and agreement.mean_abs_probability <= LARGEST_MEAN_PROBABILITY):
        raise VerificationError(
            f"of {len(crops)} crops {agreement.top1:.1%} have the same most probable class as in float32, and its "
            f"probability differs by {agreement.mean_abs_probability:.4f} in the mean; {LEAST_TOP1:.0%} and "
            f"{LARGEST_MEAN_PROBABILITY} are demanded"
        )
    return agreement


def _answers(session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8]) -> Answers:
    probabilities, logits = session.run(["probabilities", "logits"], {"images": pixels})
    return probabilities, logits


def _agreement(name: str, found: Sequence[Answers], expected: Sequence[Answers]) -> Agreement:
    probabilities, logits = map(np.concatenate, zip(*found, strict=True))
    expected_probabilities, expected_logits = map(np.concatenate, zip(*expected, strict=True))
    top1 = expected_probabilities.argmax(1)
    differences = np.abs(probabilities - expected_probabilities)
    return Agreement(
        reference=name,
        images=len(logits),
        top1=float((probabilities.argmax(1) == top1).mean()),
        logits=float(np.abs(logits - expected_logits).max()) / spread(expected_logits),
        mean_abs_probability=float(differences[np.arange(len(top1)), top1].mean()),
        max_abs_probability=float(differences.max()),
    )


def named_right(loaded: LoadedModel, photos: Sequence[Photo], logits: Logits) -> list[bool] | None:
    """Tell for each photo whether the network names its label. None means that the network was not taught the labels.

    ``logits`` are the reference's for the photos. Raises VerificationError if no answer is right.
    """
    if not loaded.trained or not {photo.label for photo in photos} <= set(loaded.labels):
        return None
    right = [loaded.labels[best] == photo.label for best, photo in zip(logits.argmax(1), photos, strict=True)]
    if not any(right):
        raise VerificationError(
            f"the network names none of {len(photos)} photos right: the labels may be in another order than its "
            "outputs, or the preprocessing may be another than in its training"
        )
    return right


def golden_samples(
    loaded: LoadedModel, photos: Sequence[Photo], logits: Logits, *, count: int = 3, top_k: int = 5
) -> list[GoldenSample]:
    """Make ``count`` golden samples from the photos that the network is surest of, each with another label.

    Another machine's rounding does not change the class of a sure answer, so a changed class means a broken file. A
    photo that the network misnames is no sample. ``logits`` are the reference's for the photos. The expected answers
    are the reference's for the small JPEGs. Raises VerificationError as ``named_right`` does.
    """
    taught = named_right(loaded, photos, logits)
    right = taught or [True] * len(photos)
    ranked = np.sort(logits, axis=1)
    surest_first = [i for i in np.argsort(ranked[:, -2] - ranked[:, -1], kind="stable") if right[i]]
    surest_by_label = {photos[i].label: photos[i] for i in reversed(surest_first)}
    chosen = [photos[i] for i in surest_first if surest_by_label[photos[i].label] is photos[i]][:count]

    jpegs = [_small_jpeg(photo.data) for photo in chosen]
    pixels = preprocess_all(jpegs, loaded.preprocessing)
    samples = []
    for photo, jpeg, probabilities in zip(chosen, jpegs, _softmax(reference_logits(loaded, pixels)), strict=True):
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        answers = [(int(index), float(probabilities[index])) for index in best]
        samples.append(GoldenSample(jpeg, answers, photo.label if taught else None))
    return samples


def check_golden(session: onnxruntime.InferenceSession, loaded: LoadedModel, samples: Sequence[GoldenSample]) -> None:
    """Raise VerificationError if ``session`` gives a sample another class than the reference, or not its true label."""
    jpegs = [sample.jpeg for sample in samples]
    pixels = preprocess_all(jpegs, loaded.preprocessing)
    (probabilities,) = session.run(["probabilities"], {"images": pixels})
    for number, (sample, index) in enumerate(zip(samples, probabilities.argmax(1), strict=True)):
        found, expected = loaded.labels[index], loaded.labels[sample.top_k[0][0]]
        if found != expected:
            raise VerificationError(f"golden sample {number} is {found!r} to ONNX Runtime and {expected!r} to torch")
        if sample.label is not None and found != sample.label:
            raise VerificationError(f"golden sample {number} shows a {sample.label}, but the network says {found!r}")


def _small_jpeg(photo: bytes) -> bytes:
    """Shrink a photo to fit into 400x400 pixels, and keep its proportions."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    image.thumbnail((400, 400))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _softmax(logits: Logits) -> NDArray[np.float32]:
    return torch.from_numpy(logits).softmax(1).numpy()
