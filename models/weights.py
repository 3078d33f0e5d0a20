"""Build an architecture with published weights, with weights from the user's own file, or with random weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import NETWORKS, find_spec
from models.download import WeightsUnavailable, cache_dir, describe, fetch, fetch_wheel, is_copy, sha256_of
from models.file_format import FILE_TYPES, check_format
from models.keras_weights import read_keras
from models.options import all_options, check_size
from models.spec import HubFile, ModelSpec, Preprocessing, PublishedWeights, Source, State
from models.state_dict import check_keys, check_values, read_state_dict

__all__ = [
    "LoadedModel",
    "WeightsUnavailable",
    "cache_dir",
    "fetch",
    "fetch_wheel",
    "imagenet_labels",
    "load_model",
    "untrained_model",
]

# owner/name@revision, as the hub writes it. Without a revision the text could be the path of a missing file.
_ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+)@([\w./-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network ready to export, and all that a manifest says about it.

    ``model`` is float32 in eval mode. ``models.create_model`` rebuilds the network from ``options``, which JSON can
    hold. ``source`` is the origin of the weights, and names no folder of this machine. ``sha256`` is the hash of the
    weights' file, or of the package that contains this file. ``sha256`` is None for random weights.
    ``preprocessing_origin`` says, for people, why the preprocessing is this one.
    """

    model: nn.Module
    spec: ModelSpec
    options: dict[str, Any]
    preprocessing: Preprocessing
    preprocessing_origin: str
    labels: tuple[str, ...]
    trained: bool
    source: str
    sha256: str | None


def load_model(
    name: str,
    weights: str,
    *,
    labels: Sequence[str] | None = None,
    likely_labels: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Build the architecture ``name`` with trained weights.

    ``weights`` is a name in the network's ``SPEC.weights``, the path of a file, or ``owner/name@revision`` for
    the file model.safetensors on the hub. A file holds a state dict or a checkpoint of it under timm's keys, as
    ``read_state_dict`` says, or, for a network that Keras has, Keras weights (.keras, .h5). The file determines the
    number of classes and the widths of hidden layers. ``options`` are the network's other options. Those left out come
    from the catalogue, from Keras' conventions, or from the architecture's defaults. A head of 1,001 classes is
    TF-slim's: its row 0, the background class, is dropped. A copy of a published file, known by its sha256, is loaded
    as the published weights are. ``preprocessing`` maps fields of Preprocessing to values that replace those of the
    weights.

    ``labels`` names the classes in order. Without ``labels``, the names come from the catalogue, are ImageNet's if
    there are 1,000 classes, or else are ``likely_labels`` if there are as many. Raises WeightsUnavailable if a download
    fails, ValueError for anything that does not fit.
    """
    spec = find_spec(name)
    path, sha256, source = _locate(spec, weights)
    key = next((key for key, p in spec.weights.items() if key == weights or is_copy(p.source, sha256)), None)
    published = spec.weights[key] if key is not None else None
    state, implied, entry = _read(path, spec, published)
    if published is None:
        given, origin = spec.preprocessing, f"the default of {name}"
    else:
        given, origin = published.preprocessing, f"published with the {key} weights"
        implied |= published.options
        labels = published.labels if labels is None else labels
    chosen = all_options(spec, implied, options)
    how = replace(given, **preprocessing or {})
    check_size(spec, chosen, how.input_size)
    with torch.device("meta"):  # costs no memory and no random numbers: the weights are replaced at once
        model = spec.build(**chosen)
    try:
        check_keys(state, model, path)
    except ValueError as error:
        raise ValueError(f"{error}{_better_network(state, spec)}") from None
    model.load_state_dict(state, strict=True, assign=True)
    model.float().eval()
    check_values(model, path)
    return LoadedModel(
        model=model,
        spec=spec,
        options=chosen,
        preprocessing=how,
        preprocessing_origin=_origin(origin, given, how),
        labels=_labels(labels, likely_labels, chosen["num_classes"], path),
        trained=True,
        source=f"{source}#{entry}" if entry else source,
        sha256=sha256,
    )


def untrained_model(
    name: str,
    images: Tensor,
    *,
    num_classes: int = 1000,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Build the architecture ``name`` with seeded random weights, under which the logits depend on the image.

    The BatchNorm statistics are taken from ``images``, normalised float32 ``[n, 3, size, size]``. With BatchNorm's
    initial statistics, activations would shrink to nothing with depth, all images would give the same logits, and
    timings and comparisons would mean nothing. On one machine, the same arguments give bit-identical weights. The
    global random state does not change. ``options`` and ``preprocessing`` are those of ``load_model``. Raises
    ValueError for what does not fit.
    """
    spec = find_spec(name)
    chosen = all_options(spec, {"num_classes": num_classes}, options)
    check_size(spec, chosen, images.shape[-1])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = spec.build(**chosen)
        _set_batch_norm_statistics(model, images)  # inside, because dropout draws random numbers
    how = replace(spec.preprocessing, **preprocessing or {})
    return LoadedModel(
        model=model.eval(),
        spec=spec,
        options=chosen,
        preprocessing=how,
        preprocessing_origin=_origin(f"the default of {name}", spec.preprocessing, how),
        labels=imagenet_labels() if num_classes == 1000 else tuple(f"class {i}" for i in range(num_classes)),
        trained=False,
        source=f"untrained:seed={seed}",
        sha256=None,
    )


def imagenet_labels() -> tuple[str, ...]:
    """Return the names of the 1,000 ILSVRC-2012 classes in the order of their synsets, the order of published heads.

    The synset order and the WordNet lemmas are copied from timm 1.0.31 (Apache-2.0). The lemmas come from WordNet
    (Copyright Princeton University, WordNet licence). Two classes have the name "crane": the bird and the machine.
    """
    return tuple(Path(__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8").splitlines())


def _locate(spec: ModelSpec, weights: str) -> tuple[Path, str, str]:
    """Return the path, the sha256 and the origin of the file that ``weights`` names, fetched if need be."""
    source: Source
    if weights in spec.weights:
        source = spec.weights[weights].source
    elif Path(weights).is_file():
        return Path(weights), sha256_of(Path(weights)), f"file:{Path(weights).name}"
    elif hub := _ON_THE_HUB.fullmatch(weights):
        source = HubFile(hub[1], "model.safetensors", hub[2])
    else:
        choices = ", ".join([*spec.weights, "untrained"])
        raise ValueError(
            f"no weights {weights!r} for {spec.name}: choose {choices}, a file ({' '.join(FILE_TYPES)}) "
            "or OWNER/NAME@REVISION on the hub"
        )
    path, sha256 = fetch(source)
    return path, sha256, describe(source, path)


def _read(path: Path, spec: ModelSpec, published: PublishedWeights | None) -> tuple[State, dict[str, Any], str]:
    """Return a file's state dict under the network's keys, the options that the file implies, and the file's entry."""
    implied: dict[str, Any] = {}
    entry = ""
    if published is not None and published.read is not None:
        state = published.read(path)
    else:
        check_format(path)
        if path.suffix not in {".keras", ".h5"}:
            state, entry = read_state_dict(path)
        elif spec.keras is not None:
            state, implied = read_keras(path, spec.build, spec.keras), dict(spec.keras.options)
        else:
            raise ValueError(f"{path.name}: Keras weights of {spec.name} can't be read")
    state, options = spec.adapt(state)
    implied |= options

    rows = {key: len(value) for key, value in state.items() if value.ndim}
    if (classes := rows.get(f"{spec.head}.weight")) is not None:
        if classes < 2:  # such a head is for a sigmoid, and the softmax of one class is always 1
            raise ValueError(f"{path.name} tells {classes} classes apart; a classifier needs at least 2")
        if classes == 1001:
            state |= {key: value[1:] for key, value in state.items() if key.startswith(f"{spec.head}.") and value.ndim}
        implied["num_classes"] = 1000 if classes == 1001 else classes
    return state, implied, entry


def _labels(labels: Sequence[str] | None, likely: Sequence[str], num_classes: int, path: Path) -> tuple[str, ...]:
    if num_classes == 0:  # an embedding
        return ()
    if labels is None:
        if num_classes == 1000:
            return imagenet_labels()
        if num_classes != len(likely):
            found = f", and there are {len(likely)} folders of photos" if likely else ""
            raise ValueError(f"the weights tell {num_classes} classes apart{found}; pass --labels FILE")
        labels = likely
    if len(labels) != num_classes:
        raise ValueError(f"{len(labels)} labels for weights that tell {num_classes} classes apart ({path.name})")
    return tuple(labels)


def _origin(origin: str, given: Preprocessing, used: Preprocessing) -> str:
    differ = [field.name for field in fields(given) if getattr(given, field.name) != getattr(used, field.name)]
    return f"{origin} but for {', '.join(differ)}" if differ else origin


def _better_network(state: State, spec: ModelSpec) -> str:
    """Return a hint if nearly all keys of ``state`` are keys of another network."""
    for other in map(find_spec, NETWORKS):
        with torch.device("meta"):
            keys = other.build().state_dict().keys()
        if other is not spec and len(keys & state.keys()) > 0.9 * max(len(keys), len(state)):
            return f"; it looks like {other.name}"
    return ""


def _set_batch_norm_statistics(model: nn.Module, images: Tensor) -> None:
    """Set every BatchNorm's running statistics to the statistics of the batch ``images``."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # None means a cumulative average, here of one batch
    with torch.no_grad():
        model.train()(images)
    for norm in norms:
        norm.momentum = 0.1  # torch's default, which the architectures use
