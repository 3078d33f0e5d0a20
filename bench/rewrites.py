"""The effect of each rewrite of export/fuse.py on node counts and speed.

The first step of a model is its unfused network, as torch's exporter and ONNX Runtime optimise it. Both fold BatchNorm
themselves, so ``fold_batch_norm`` can only change the number of layers. Each later step adds one rewrite. All steps of
a model take turns, so that a busy machine slows them alike. Only ratios from one run mean anything.
"""

from __future__ import annotations

import copy
import functools
import logging
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from bench.report import Report
from bench.timing import in_turns
from export.fuse import (
    fold_batch_norm,
    fold_normalisation,
    fold_scale,
    fuse,
    move_pool_after_projection,
    pad_channels,
    subsample_before_projection,
    trace_layers,
)
from export.photos import labelled_photos, preprocess_all
from export.pipeline import load
from export.quantize import CHANNELS, quantize
from export.trace import trace
from models import NETWORKS
from models.spec import Preprocessing
from models.weights import LoadedModel
from service.errors import DeviceUnavailable, StartupError
from service.inference import devices
from service.inference.devices.device import Graph
from service.sessions import Session
from service.settings import Settings

log = logging.getLogger("bench")

MODELS = NETWORKS
WEIGHTS = {"xception": "kitchenware"}  # other models are untrained: their activations take as long as trained ones
ROUNDS = {1: 9, 8: 5}  # by batch size
DEVICES = ("cpu", "openvino", "cuda")

Steps = Sequence[tuple[str, int, nn.Module]]  # the rewrite's name, the number of layers after it, the network


class _Normalised(nn.Module):
    """A network before ``fold_normalisation``, with the uint8 input that the rewrite gives a network."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(((images / 255 - self.mean) / self.std).permute(0, 3, 1, 2))
        return logits


def measure(model: str, settings: Settings, *, quick: bool = False) -> Report:
    """Measure each rewrite that changes the architecture ``model``, on each device that can run it.

    Raises StartupError for an unknown architecture, WeightsUnavailable if weights or photos can't be downloaded.
    """
    photos = labelled_photos()
    try:
        loaded = load(model, WEIGHTS.get(model, "untrained"), photos, None)
    except ValueError as error:
        raise StartupError(str(error)) from error
    return Report(model, gains(loaded, [photo.data for photo in photos], settings, quick=quick))


def gains(loaded: LoadedModel, photos: list[bytes], settings: Settings, *, quick: bool = False) -> dict[str, Any]:
    """Return layers, ONNX nodes and images/s before and after each rewrite, by device and batch size.

    ``ratio`` holds the quartiles of the rounds' ratios of speed. A ratio above 1 means that the rewrite is a gain. The
    rewrites of the float network come first, then the int8 rewrites, if any changes the network.
    """
    size, figures = loaded.preprocessing.input_size, dict[str, Any]()
    pixels = preprocess_all(photos, loaded.preprocessing)
    floats, int8 = list(_steps(loaded)), list(_int8_steps(loaded))
    _compare(floats, [trace(network, size) for _, _, network in floats], pixels, settings, figures, quick=quick)
    if len(int8) > 1:
        graphs = [quantize(trace(network, size), pixels) for _, _, network in int8]
        _compare(int8, graphs, pixels, settings, figures, quick=quick)
    return figures


def _compare(
    steps: Steps,
    graphs: Sequence[onnx.ModelProto],
    pixels: NDArray[np.uint8],
    settings: Settings,
    figures: dict[str, Any],
    *,
    quick: bool,
) -> None:
    """Add the gain of each step over the step before to ``figures``."""
    for device in DEVICES:
        try:
            sessions = _open(graphs, device, settings, pixels.shape[1])
        except DeviceUnavailable as error:
            log.info("not measured on %s: %s", device, error)
            continue
        for batch, rounds in ROUNDS.items():
            log.info("%s, batch %d", device, batch)
            work = {i: functools.partial(session.run, pixels[:batch]) for i, session in enumerate(sessions)}
            seconds = in_turns(work, 2 if quick else rounds)
            for i, (rewrite, layers, _) in enumerate(steps[1:]):
                before, after = seconds[i], seconds[i + 1]
                ratios = [b / a for b, a in zip(before, after, strict=True)]
                figures.setdefault(f"{device}_batch_{batch}", {})[rewrite] = {
                    "layers": (steps[i][1], layers),
                    "nodes": (len(graphs[i].graph.node), len(graphs[i + 1].graph.node)),
                    "images_per_s": (batch / statistics.median(before), batch / statistics.median(after)),
                    "ratio": statistics.quantiles(ratios, n=4, method="inclusive"),
                }


def _open(graphs: Sequence[onnx.ModelProto], name: str, settings: Settings, size: int) -> list[Session]:
    """Open the graphs on the device ``name`` as the service does. Raises DeviceUnavailable if that fails."""
    device, sessions = devices.DEVICES[name], list[Session]()
    device.check(settings)
    with tempfile.TemporaryDirectory() as folder:
        settings = settings.model_copy(update={"cache": Path(folder)})  # compiled graphs are not kept
        for number, graph in enumerate(graphs):
            path = Path(folder) / f"{number}.onnx"
            path.write_bytes(graph.SerializeToString())
            sessions.append(device.sessions(Graph(path, "fp32", size, size), settings)[0])
    return sessions


def _steps(loaded: LoadedModel) -> Iterator[tuple[str, int, nn.Module]]:
    """Yield each rewrite that changes the network, the layers after the rewrite, and the network for uint8 images."""
    preprocessing = loaded.preprocessing
    graph = trace_layers(loaded.model)
    yield "unfused", _layers(graph), _Normalised(copy.deepcopy(graph).float(), preprocessing)
    fold_batch_norm(graph)
    yield "fold_batch_norm", _layers(graph), _Normalised(copy.deepcopy(graph).float(), preprocessing)
    fold_normalisation(graph, preprocessing)
    yield "fold_normalisation", _layers(graph), copy.deepcopy(graph).float()
    code = graph.code
    move_pool_after_projection(graph)
    if graph.code != code:
        yield "move_pool_after_projection", _layers(graph), graph.float()


def _int8_steps(loaded: LoadedModel) -> Iterator[tuple[str, int, nn.Module]]:
    """Yield the rewrites that speed up only int8, in the form of ``_steps``, on a network with all other rewrites."""
    graph = fuse(loaded.model, loaded.preprocessing)
    yield "int8", _layers(graph), copy.deepcopy(graph)
    before = str(graph)
    fold_scale(graph)
    if str(graph) != before:
        yield "fold_scale, in int8", _layers(graph), copy.deepcopy(graph)
    before = str(graph)
    pad_channels(graph, CHANNELS)
    if str(graph) != before:
        yield "pad_channels, in int8", _layers(graph), copy.deepcopy(graph)
    before = str(graph)
    subsample_before_projection(graph)
    if str(graph) != before:
        yield "subsample_before_projection, in int8", _layers(graph), copy.deepcopy(graph)


def _layers(graph: fx.GraphModule) -> int:
    return len(graph.graph.find_nodes(op="call_module"))
