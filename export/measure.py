"""``python -m export.measure``: what each rewrite of export/fuse.py does to node counts and speed.

The first step of a model is its unfused network as torch's exporter and ONNX Runtime make it; both fold BatchNorm
themselves, so that rewrite can only change the layers counted. Each later step adds one rewrite. All steps of a model
take turns in one run, so that a busy machine slows them alike, and only ratios from such a run mean anything.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from tqdm import tqdm

from export.fuse import (
    fold_batch_norm,
    fold_normalisation,
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
from models import CATALOG
from models.spec import Preprocessing
from models.weights import LoadedModel, WeightsUnavailable

WEIGHTS = {"xception": "kitchenware"}  # the rest untrained: live activations take the time that trained ones take
ROUNDS = {1: 9, 8: 5}  # by batch size
REPORT = Path("reports/fusions.json")

_OPENVINO = "OpenVINOExecutionProvider"
_OPENVINO_OPTIONS = {"load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}})}


@dataclass(frozen=True, slots=True)
class Gain:
    """What one rewrite changes, before to after: layers traced, ONNX nodes, and median images/s on one provider.

    ``ratio`` holds the quartiles of the rounds' own ratios of speed, which are above 1 where the rewrite is a gain.
    """

    model: str
    rewrite: str
    layers: tuple[int, int]
    nodes: tuple[int, int]
    provider: str
    batch: int
    images_per_second: tuple[float, float]
    ratio: tuple[float, float, float]


class _Normalised(nn.Module):
    """A network before ``fold_normalisation``, with the input that it has after it."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(((images / 255 - self.mean) / self.std).permute(0, 3, 1, 2))
        return logits


def measure(model: str) -> Iterator[Gain]:
    """Yield the gain of each rewrite that changes ``model``, on each provider that can run it."""
    photos = labelled_photos()
    loaded = load(model, WEIGHTS.get(model, "untrained"), photos, None)
    size = loaded.spec.input_size
    pixels = preprocess_all([photo.data for photo in photos], loaded.preprocessing, size)

    steps = list(_steps(loaded))
    graphs = [trace(network, size) for _, _, network in tqdm(steps, f"{model}: trace")]
    yield from _gains(model, [(rewrite, layers) for rewrite, layers, _ in steps], graphs, pixels)

    steps = list(_int8_steps(loaded))
    if len(steps) > 1:
        graphs = [quantize(trace(network, size), pixels) for _, _, network in tqdm(steps, f"{model}: quantize")]
        yield from _gains(model, [(rewrite, layers) for rewrite, layers, _ in steps], graphs, pixels)


def _gains(
    model: str, steps: Sequence[tuple[str, int]], graphs: Sequence[onnx.ModelProto], pixels: NDArray[np.uint8]
) -> Iterator[Gain]:
    """Yield what each step, a rewrite and the layers it leaves, gains over the one before."""
    for provider in _providers():
        try:
            sessions = [_open(graph.SerializeToString(), provider) for graph in graphs]
        except Exception as error:  # each provider raises its own
            tqdm.write(f"{provider} can't run {model}: {error}")
            continue
        for batch, rounds in ROUNDS.items():
            seconds = _take_turns(sessions, pixels[:batch], rounds, f"{model}: {provider}, batch {batch}")
            for i, (rewrite, layers) in enumerate(steps[1:]):
                before, after = seconds[i], seconds[i + 1]
                yield Gain(
                    model,
                    rewrite,
                    layers=(steps[i][1], layers),
                    nodes=(len(graphs[i].graph.node), len(graphs[i + 1].graph.node)),
                    provider=provider,
                    batch=batch,
                    images_per_second=(batch / statistics.median(before), batch / statistics.median(after)),
                    ratio=_quartiles([b / a for b, a in zip(before, after, strict=True)]),
                )


def _steps(loaded: LoadedModel) -> Iterator[tuple[str, int, nn.Module]]:
    """Yield each rewrite that changes the network, with the layers left and the network so far, for uint8 images."""
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
    """Yield the rewrites that only int8's kernels gain from, as ``_steps`` does, after all others."""
    graph = fuse(loaded.model, loaded.preprocessing)
    yield "int8", _layers(graph), copy.deepcopy(graph)
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


def _providers() -> list[str]:
    openvino = [_OPENVINO] if _openvino() is not None else []
    return [*(name for name in onnxruntime.get_available_providers() if _OPENVINO not in name), *openvino]


def _open(graph: bytes, provider: str) -> onnxruntime.InferenceSession:
    """Open a session whose every node runs on ``provider``; raise what ONNX Runtime raises when one can't."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the exception says it all
    # As long as in the service, or one session's threads would still spin while the next one is measured.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if provider == _OPENVINO:
        options.add_provider_for_devices([_openvino()], _OPENVINO_OPTIONS)
        return onnxruntime.InferenceSession(graph, options)
    return onnxruntime.InferenceSession(graph, options, providers=[provider])


def _openvino() -> onnxruntime.OrtEpDevice | None:
    """Return the CPU as OpenVINO's plugin lists it; None where there is no plugin, or it does not know the CPU."""
    try:
        import onnxruntime_ep_openvino  # not made for every kind of machine
    except ImportError:
        return None
    try:
        onnxruntime.register_execution_provider_library(_OPENVINO, onnxruntime_ep_openvino.get_library_path())
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        if "already registered" not in str(error):
            raise
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == _OPENVINO]
    return next((device for device in devices if device.ep_metadata["ov_device"] == "CPU"), None)


def _take_turns(
    sessions: Sequence[onnxruntime.InferenceSession], images: NDArray[np.uint8], rounds: int, title: str
) -> list[list[float]]:
    """Return the seconds each session took for ``images`` in each round, after a round to warm up."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for _ in tqdm(range(rounds + 1), title):
        for session, taken in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session.run(None, {"images": images})
            taken.append(time.perf_counter() - start)
    return [taken[1:] for taken in seconds]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _table(gains: Sequence[Gain]) -> str:
    row = "{:<12} {:<26} {:>10} {:>10} {:<20} {:>2} {:>14}  {}".format
    lines = [row("model", "rewrite", "layers", "nodes", "provider", "n", "images/s", "ratio (quartiles)")]
    for gain in gains:
        layers, nodes = ("{} -> {}".format(*pair) for pair in (gain.layers, gain.nodes))
        rates = "{:.2f} -> {:.2f}".format(*gain.images_per_second)
        low, middle, high = gain.ratio
        ratio = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        lines.append(row(gain.model, gain.rewrite, layers, nodes, gain.provider, gain.batch, rates, ratio))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the models named, print a table, write reports/fusions.json, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export.measure", description="Measure each rewrite's gain.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {' '.join(CATALOG)}")
    models = parser.parse_args(argv).models or list(CATALOG)
    onnxruntime.preload_dlls()  # CUDA's libraries, where they are wheels
    try:
        gains = [gain for model in models for gain in measure(model)]
    except (WeightsUnavailable, ValueError) as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    tqdm.write(_table(gains))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([asdict(gain) for gain in gains], indent=2) + "\n", encoding="utf-8")
    tqdm.write(f"written to {REPORT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
