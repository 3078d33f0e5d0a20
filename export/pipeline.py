"""The stages of an export, in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import fx

from export import onnx_file, quantize, verify
from export.fuse import fold_scale, fuse, pad_channels, subsample_before_projection
from export.manifest import write_manifest
from export.photos import Photo, normalise, preprocess_all, random_crops
from export.trace import check_contract, trace
from models import find_spec
from models.weights import LoadedModel, load_model, untrained_model

Stage = Callable[[str], AbstractContextManager[None]]  # shows a stage's title while the stage's block runs

_CALIBRATION_CROPS, _UNSEEN_CROPS = 36, 207  # the fewest crops, of all calibration files together
_STATISTICS = 16  # the most photos whose statistics random weights get; training holds them all in memory


@dataclass(frozen=True, slots=True)
class Exported:
    """The agreement of each precision with its reference, and how many photos the network names right, if it can."""

    agreements: dict[str, verify.Agreement]
    right: int | None


def load(
    name: str,
    weights: str,
    photos: Sequence[Photo],
    labels: Sequence[str] | None,
    *,
    likely_labels: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Return the network ``name`` with ``weights``. "untrained" weights are random, with statistics of the photos.

    The other arguments are those of ``load_model``. Raises ValueError, WeightsUnavailable.
    """
    if weights != "untrained":
        loaded = load_model(
            name, weights, labels=labels, likely_labels=likely_labels, options=options, preprocessing=preprocessing
        )
        if not loaded.labels:
            raise ValueError(
                f"{loaded.source} answers with an embedding, but the service needs classes. To go on: train a "
                "classifier on the embedding and export the file of both, or call models.weights.load_model in Python"
            )
        return loaded
    how = replace(find_spec(name).preprocessing, **preprocessing or {})
    images = normalise(preprocess_all([photo.data for photo in photos[:_STATISTICS]], how), how)
    labels = labels or likely_labels
    loaded = untrained_model(
        name, images, num_classes=len(labels) or 1000, options=options, preprocessing=preprocessing
    )
    return replace(loaded, labels=tuple(labels)) if labels else loaded


def export_version(
    folder: Path,
    loaded: LoadedModel,
    photos: Sequence[Photo],
    *,
    name: str,
    version: int,
    precisions: Collection[str],
    calibration: Sequence[bytes],
    skip: bool = False,
    stage: Stage,
) -> Exported:
    """Fill the empty ``folder`` with a version of a model in fp32 and in ``precisions``, verified on the photos.

    Crops of the photos are added where the photos are too few. ``calibration`` are image files. Some random crops of
    the files calibrate int8, and other crops verify int8. With ``skip``, a precision that does not agree is left out;
    fp32 never is.

    Raises ValueError if a graph breaks its contract, VerificationError if its answers differ too much.
    """
    size = loaded.preprocessing.input_size
    with stage("answer the photos with torch"):
        files = [photo.data for photo in photos]
        pixels = preprocess_all(files, loaded.preprocessing)
        if (lacking := sum(verify.BATCHES) - len(pixels)) > 0:
            pixels = np.concatenate([pixels, random_crops(files, size, -(-lacking // len(files)), seed=2)])
        logits = verify.reference_logits(loaded, pixels)
        verify.check_reference(loaded, logits)
        right = verify.named_right(loaded, photos, logits[: len(photos)])
        golden = verify.golden_samples(loaded, photos, logits[: len(photos)])
    with stage("fuse"):
        network = fuse(loaded.model, loaded.preprocessing)
    agreements: dict[str, verify.Agreement] = {}
    for precision in dict.fromkeys(("fp32", *precisions)):
        with stage(f"trace to ONNX in {precision}"):
            model = _graph(network, precision, size, calibration)
            check_contract(model, size=size, classes=len(loaded.labels))
            onnx_file.write(model, folder, precision)
        try:
            with stage(f"verify {precision} with ONNX Runtime"):
                session = verify.open_session(onnx_file.paths(folder, precision).graph)
                if precision == "int8":
                    unseen = random_crops(calibration, size, -(-_UNSEEN_CROPS // len(calibration)), seed=1)
                    reference = verify.open_session(onnx_file.paths(folder, "fp32").graph)
                    agreement = verify.check_answers(session, reference, np.concatenate([pixels, unseen]))
                else:
                    agreement = verify.check_parity(session, pixels, logits, _tolerance(precision, loaded))
                verify.check_golden(session, loaded, golden)
        except verify.VerificationError:
            if precision == "fp32" or not skip:
                raise
            onnx_file.remove(folder, precision)
        else:
            agreements[precision] = agreement
    write_manifest(folder, loaded, name=name, version=version, agreements=agreements, golden=golden)
    return Exported(agreements, None if right is None else sum(right))


def _graph(network: fx.GraphModule, precision: str, size: int, calibration: Sequence[bytes]) -> onnx.ModelProto:
    if precision == "fp32":
        return trace(network, size)
    network = copy.deepcopy(network)
    if precision == "fp16":
        return trace(network.half(), size)
    fold_scale(network)
    pad_channels(network, quantize.CHANNELS)
    subsample_before_projection(network)
    crops = random_crops(calibration, size, -(-_CALIBRATION_CROPS // len(calibration)), seed=0)
    return quantize.quantize(trace(network, size), crops)


def _tolerance(precision: str, loaded: LoadedModel) -> float:
    if precision == "fp16":
        return verify.TOLERANCE_HALF
    return verify.TOLERANCE_TRAINED if loaded.trained else verify.TOLERANCE_UNTRAINED
