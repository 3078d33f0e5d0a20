"""The stages of an export, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from export import verify
from export.fuse import fuse
from export.manifest import write_manifest
from export.photos import Photo, normalise, preprocess_all
from export.trace import check_contract, trace
from models import CATALOG
from models.weights import LoadedModel, load_model, untrained_model

Stage = Callable[[str], AbstractContextManager[None]]  # shows a stage's title while its block runs


def load(name: str, weights: str, photos: Sequence[Photo], labels: Sequence[str] | None) -> LoadedModel:
    """Return the network with the weights named, or with random ones that the photos bring to life.

    ``labels`` are the classes' names, None for those known for the weights. Raises ValueError, WeightsUnavailable.
    """
    if weights != "untrained" or name not in CATALOG:  # load_model says which names there are
        return load_model(name, weights, labels=labels)
    spec = CATALOG[name]
    pixels = preprocess_all([photo.data for photo in photos], spec.preprocessing, spec.input_size)
    images = normalise(pixels, spec.preprocessing)
    if labels is None:
        return untrained_model(name, images)
    return replace(untrained_model(name, images, num_classes=len(labels)), labels=tuple(labels))


def export_version(
    folder: Path,
    loaded: LoadedModel,
    photos: Sequence[Photo],
    *,
    name: str,
    version: int,
    precisions: Collection[str],
    skip: bool = False,
    stage: Stage,
) -> dict[str, verify.Agreement]:
    """Fill the empty ``folder`` with a version of a model in fp32 and in ``precisions``, verified on the photos.

    Returns each precision's agreement with the network as loaded; with ``skip``, one that does not agree is left out,
    unless it is fp32.

    Raises ValueError when the graph breaks its contract, VerificationError when its answers are not the network's.
    """
    size = loaded.spec.input_size
    with stage("answer the photos with torch"):
        pixels = preprocess_all([photo.data for photo in photos], loaded.preprocessing, size)
        logits = verify.reference_logits(loaded, pixels)
        golden = verify.golden_samples(loaded, photos, logits)
    with stage("fuse"):
        network = fuse(loaded.model, loaded.preprocessing)
    tolerances = {
        "fp32": verify.TOLERANCE_TRAINED if loaded.trained else verify.TOLERANCE_UNTRAINED,
        "fp16": verify.TOLERANCE_HALF,
    }
    agreements = {}
    for precision in dict.fromkeys(("fp32", *precisions)):
        with stage(f"trace to ONNX in {precision}"):
            model = trace(network.half() if precision == "fp16" else network, size)
            check_contract(model, size=size, classes=len(loaded.labels))
            path = folder / f"{precision}.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
        try:
            with stage(f"verify {precision} with ONNX Runtime"):
                session = verify.open_session(path)
                agreement = verify.check_parity(session, pixels, logits, tolerances[precision])
                verify.check_golden(session, loaded, golden)
        except verify.VerificationError:
            if precision == "fp32" or not skip:
                raise
            path.unlink()
        else:
            agreements[precision] = agreement
    write_manifest(folder, loaded, name=name, version=version, agreements=agreements, golden=golden)
    return agreements
