"""Read Keras weights: ``.keras``, Keras 3's ``.weights.h5`` and the older ``.h5``.

Keras is not imported. The arrays of a layer tell its kind. Layers of one kind are matched by their order, which every
format keeps. Names are no substitute: Keras names most layers by a global counter.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, fx, nn

from models.layers import SeparableConv2d
from models.spec import KerasConventions, State

# Our layers, and the keys of their tensors, by the ranks of the arrays of Keras' layer, in Keras' order.
KINDS: dict[tuple[int, ...], tuple[type[nn.Module], tuple[str, ...]]] = {
    (4,): (nn.Conv2d, ("weight",)),
    (4, 1): (nn.Conv2d, ("weight", "bias")),
    (4, 4): (SeparableConv2d, ("conv1.weight", "pointwise.weight")),
    (1, 1, 1, 1): (nn.BatchNorm2d, ("weight", "bias", "running_mean", "running_var")),
    (2, 1): (nn.Linear, ("weight", "bias")),
}

# What any of the networks may contain: nested models, layers with a counterpart in ``models``, layers idle at
# inference. With them come the settings that change what a layer computes, but neither its arrays nor their shapes.
LAYERS: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in ("InputLayer", "Functional", "Model", "Sequential", "Dropout")},
    **{kind: {} for kind in ("Activation", "Dense", "GlobalAveragePooling2D")},
    "Conv2D": {"dilation_rate": [1, 1]},
    "BatchNormalization": {"epsilon": 1e-3},
    "ReLU": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
}
INCEPTION_LAYERS: dict[str, dict[str, Any]] = {
    "Concatenate": {},
    "MaxPooling2D": {"pool_size": [3, 3], "strides": [2, 2], "padding": "valid"},
    "AveragePooling2D": {"pool_size": [3, 3], "strides": [1, 1], "padding": "same"},
}


def read_keras(path: Path, build: Callable[..., nn.Module], conventions: KerasConventions) -> State:
    """Return the float32 state dict, under the keys of the network that ``build`` makes, of a Keras file.

    The head is dense layers with ReLU, or none, and a dense layer that ends in softmax or in nothing. If the file holds
    the architecture too, a network that computes something else (a rescaling layer, a sigmoid) is refused. A bare
    weights file allows no such check. Raises ValueError.
    """
    try:
        with _open(path) as (file, config):
            if config is not None:
                _check_architecture(config, LAYERS | conventions.layers)
            return state_dict(_layers_with_weights(file), build)
    except Exception as error:  # a damaged file makes h5py, zipfile and the code above raise anything
        raise ValueError(f"{path.name} is not a Keras {getattr(build, '__name__', 'network')}: {error}") from error


def state_dict(layers: Iterable[tuple[str, list[np.ndarray]]], build: Callable[..., nn.Module]) -> State:
    """Return the float32 state dict of the network that ``build`` makes, from Keras' layers with arrays, in its order.

    Raises ValueError for a layer that has no counterpart, and for too many or too few layers of a kind.
    """
    found: dict[type[nn.Module], list[State]] = defaultdict(list)
    for name, arrays in layers:
        tensors = [torch.from_numpy(array.astype(np.float32)) for array in arrays]
        if [tensor.ndim for tensor in tensors] == [1, 1, 1]:  # a BatchNorm without gamma
            tensors.insert(0, torch.ones_like(tensors[0]))
        kind, keys = KINDS.get(tuple(tensor.ndim for tensor in tensors), (None, ()))
        if kind is None:
            raise ValueError(f"no layer of the network holds arrays like those of {name!r}")
        found[kind].append({key: _as_in_torch(key, tensor) for key, tensor in zip(keys, tensors, strict=True)})
    with torch.device("meta"):
        ours = _in_keras_order(build(hidden_units=[len(dense["bias"]) for dense in found[nn.Linear][:-1]]))
    state: State = {}
    for kind in dict(KINDS.values()):
        names = [name for name, module in ours if type(module) is kind]
        if len(found[kind]) != len(names):
            raise ValueError(f"it has {len(found[kind])} layers like {kind.__name__} instead of {len(names)}")
        for name, own in zip(names, found[kind], strict=True):
            state |= {f"{name}.{key}": tensor for key, tensor in own.items()}
    return state


def _as_in_torch(key: str, array: Tensor) -> Tensor:
    """Map a kernel ``[h, w, in, out]`` to ``[out, in, h, w]``, or a dense layer's ``[in, out]`` to ``[out, in]``."""
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[array.ndim]
    return array.permute((2, 3, 0, 1) if key == "conv1.weight" else axes).contiguous()  # depthwise: [h, w, in, 1]


class _LayerTracer(fx.Tracer):
    """Traces a network down to what is one layer in Keras."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_layer = isinstance(m, SeparableConv2d) or next(m.parameters(), None) is None
        return is_layer or super().is_leaf_module(m, module_qualified_name)


def _in_keras_order(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers by their distance to the output, the farthest first, and branch by branch at one distance."""
    nodes = list(_LayerTracer().trace(network.eval()).nodes)
    distance: dict[fx.Node, int] = {}
    for node in reversed(nodes):
        distance[node] = max((distance[user] + 1 for user in node.users), default=0)
    nodes.sort(key=distance.__getitem__, reverse=True)  # stable, and ``forward`` runs branches in Keras' order
    return [(str(node.target), network.get_submodule(str(node.target))) for node in nodes if node.op == "call_module"]


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


def _check_architecture(config: dict[str, Any], allowed: dict[str, dict[str, Any]]) -> None:
    layers = list(_layer_configs(config))
    if strange := sorted({kind for kind, _ in layers} - allowed.keys()):
        raise ValueError(f"the model has layers that the network has not: {', '.join(strange)}")
    for kind, settings in layers:
        for key, value in allowed[kind].items():
            if (found := settings.get(key, value)) != value:
                raise ValueError(f"its layer {settings['name']!r} has {key} {found} instead of {value}")
    _check_activations(layers)


def _check_activations(layers: list[tuple[str, dict[str, Any]]]) -> None:
    """Check that ReLU is a layer or a dense layer's activation, and that at most one softmax follows the head."""
    head = max((index for index, (kind, _) in enumerate(layers) if kind == "Dense"), default=len(layers))
    end = []
    for index, (kind, settings) in enumerate(layers):
        activation = settings.get("activation") or ("relu" if kind == "ReLU" else "linear")
        if index < head and activation != ("relu" if kind in {"Activation", "Dense", "ReLU"} else "linear"):
            raise ValueError(f"its layer {settings['name']!r} has the strange activation {activation}")
        if index >= head and activation != "linear":
            end.append(activation)
    if end not in ([], ["softmax"]):
        raise ValueError(f"its head ends in the activation {' and '.join(map(str, end))}, not in softmax")


def _layer_configs(layer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    settings = layer["config"]
    yield layer["class_name"], settings
    for inner in settings.get("layers", ()):
        yield from _layer_configs(inner)
