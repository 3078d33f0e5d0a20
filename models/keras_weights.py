"""Read Keras weights of Xception: ``.keras``, Keras 3's ``.weights.h5`` and the older ``.h5``.

Keras is not imported. The arrays of a layer tell its kind. Layers of one kind are matched by their order, which every
format keeps. Names are no substitute: Keras names the layers of residual branches by a global counter.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

# The kinds of layers by the ranks of their arrays, in Keras' order.
KINDS = {
    (4,): "convolution",  # kernel
    (4, 4): "separable convolution",  # depthwise kernel, pointwise kernel
    (1, 1, 1, 1): "batch normalisation",  # gamma, beta, moving mean, moving variance
    (2, 1): "dense",  # kernel, bias
}

BN_EPS = 1e-3

# The accepted types: nested models, layers with a counterpart in ``models.xception``, layers idle at inference.
LAYERS = {
    *("InputLayer", "Functional", "Model", "Sequential", "Dropout"),
    *("Conv2D", "SeparableConv2D", "BatchNormalization", "Activation", "ReLU", "Add", "Dense"),
    *("MaxPooling2D", "GlobalAveragePooling2D"),
}
# What Xception sets that changes what a layer computes, but neither which arrays it holds nor their shapes.
SETTINGS: dict[str, dict[str, Any]] = {
    "Conv2D": {"dilation_rate": [1, 1]},
    "SeparableConv2D": {"strides": [1, 1], "padding": "same", "dilation_rate": [1, 1]},
    "BatchNormalization": {"epsilon": BN_EPS},
    "ReLU": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
    "MaxPooling2D": {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"},
}


def read_xception(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the float32 state dict under the keys of ``models.xception``, and the options that the file implies.

    The head is one dense layer, or a dense layer with ReLU and a dense layer, and ends in softmax or in nothing. If the
    file holds the architecture too, a network that computes something else (a rescaling layer, a sigmoid) is refused. A
    bare weights file allows no such check. Raises ValueError.
    """
    layers: dict[str, list[list[Tensor]]] = {kind: [] for kind in KINDS.values()}
    try:
        with _open(path) as (file, config):
            if config is not None:
                _check_architecture(config)
            for name, arrays in _layers_with_weights(file):
                kind = KINDS.get(tuple(array.ndim for array in arrays))
                if kind is None:
                    raise ValueError(f"no layer of Xception holds arrays like those of {name!r}")
                layers[kind].append([torch.from_numpy(array.astype(np.float32)) for array in arrays])
        state = _state_dict(layers)
    except Exception as error:  # a damaged file makes h5py, zipfile and the code above raise anything
        raise ValueError(f"{path.name} is not a Keras Xception: {error}") from error
    return state, {"padding": "tf_same", "bn_eps": BN_EPS}


@contextmanager
def _open(path: Path) -> Iterator[tuple[h5py.File, dict[str, Any] | None]]:
    """Yield the HDF5 file with the weights, and the model's configuration or None if the file has none."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json")
            weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights) as file:
            yield file, json.loads(config) or {}  # null is no architecture to check
    else:
        with h5py.File(path) as file:
            yield file, json.loads(file.attrs.get("model_config", "null"))


def _layers_with_weights(file: h5py.File) -> Iterator[tuple[str, list[np.ndarray]]]:
    root = file.get("model_weights", file)  # the older format keeps a whole model's weights here
    if "layer_names" in root.attrs:
        for layer in root.attrs["layer_names"]:
            if len(names := root[layer].attrs["weight_names"]):
                yield str(layer), [root[layer][name][()] for name in names]
        return
    groups: dict[str, h5py.Group] = {}
    root["layers"].visititems(lambda name, item: groups.update({name: item}) if name.endswith("/vars") else None)
    for name in sorted(groups, key=_creation_order):
        if arrays := [groups[name][index][()] for index in sorted(groups[name], key=int)]:
            yield name, arrays


def _creation_order(name: str) -> list[tuple[str, int]]:
    """Return a sorting key that puts ``conv2d``, ``conv2d_2`` and ``conv2d_10`` in this order."""
    parts = (part.rpartition("_") for part in name.split("/"))
    return [(base, int(number)) if number.isdigit() else (base + dash + number, 0) for base, dash, number in parts]


def _check_architecture(config: dict[str, Any]) -> None:
    layers = list(_layer_configs(config))
    if strange := sorted({kind for kind, _ in layers} - LAYERS):
        raise ValueError(f"the model has layers that Xception has not: {', '.join(strange)}")
    for kind, settings in layers:
        for key, value in SETTINGS.get(kind, {}).items():
            if (found := settings.get(key, value)) != value:
                raise ValueError(f"its layer {settings['name']!r} has {key} {found} instead of {value}")
    _check_activations(layers)


def _check_activations(layers: list[tuple[str, dict[str, Any]]]) -> None:
    """Check that ReLU follows where Xception has it, and that at most one softmax follows the last dense layer."""
    head = max((index for index, (kind, _) in enumerate(layers) if kind == "Dense"), default=len(layers))
    end = []
    for index, (kind, settings) in enumerate(layers):
        activation = settings.get("activation") or ("relu" if kind == "ReLU" else "linear")
        if index < head and activation != ("relu" if kind in {"Activation", "Dense", "ReLU"} else "linear"):
            raise ValueError(f"its layer {settings['name']!r} has the activation {activation}, which Xception has not")
        if index >= head and activation != "linear":
            end.append(activation)
    if end not in ([], ["softmax"]):
        raise ValueError(f"its head ends in the activation {' and '.join(map(str, end))}, not in softmax")


def _layer_configs(layer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    settings = layer["config"]
    yield layer["class_name"], settings
    for inner in settings.get("layers", ()):
        yield from _layer_configs(inner)


def _state_dict(layers: dict[str, list[list[Tensor]]]) -> dict[str, Tensor]:
    modules = _modules(hidden=len(layers["dense"]) > 1)
    for kind, names in modules.items():
        if len(layers[kind]) != len(names):
            raise ValueError(f"it has {len(layers[kind])} {kind} layers instead of {len(names)}")

    def pairs(kind: str) -> Iterator[tuple[str, list[Tensor]]]:
        return zip(modules[kind], layers[kind], strict=True)

    state = {}
    for name, (kernel,) in pairs("convolution"):
        state[f"{name}.weight"] = kernel.permute(3, 2, 0, 1)  # [h, w, in, out] to [out, in, h, w]
    for name, (depthwise, pointwise) in pairs("separable convolution"):
        state[f"{name}.conv1.weight"] = depthwise.permute(2, 3, 0, 1)  # [h, w, in, 1] to [in, 1, h, w]
        state[f"{name}.pointwise.weight"] = pointwise.permute(3, 2, 0, 1)
    for name, statistics in pairs("batch normalisation"):
        for key, values in zip(("weight", "bias", "running_mean", "running_var"), statistics, strict=True):
            state[f"{name}.{key}"] = values
    for name, (kernel, bias) in pairs("dense"):
        state[f"{name}.weight"] = kernel.T
        state[f"{name}.bias"] = bias
    return {key: value.contiguous() for key, value in state.items()}


def _modules(hidden: bool) -> dict[str, list[str]]:
    """Return the names of our modules by kind, in Keras' order: a residual branch follows its block."""
    convolutions, separables, norms = ["conv1", "conv2"], [], ["bn1", "bn2"]
    for block in range(1, 13):
        has_residual_branch = block in {1, 2, 3, 12}
        for rep in range(2 if has_residual_branch else 3):
            position = 3 * rep + (block != 1)  # ReLU, convolution, BatchNorm; block 1 has no first ReLU
            separables.append(f"block{block}.rep.{position}")
            norms.append(f"block{block}.rep.{position + 1}")
        if has_residual_branch:
            convolutions.append(f"block{block}.skip")
            norms.append(f"block{block}.skipbn")
    return {
        "convolution": convolutions,
        "separable convolution": [*separables, "conv3", "conv4"],
        "batch normalisation": [*norms, "bn3", "bn4"],
        "dense": ["hidden.0", "fc"] if hidden else ["fc"],
    }
