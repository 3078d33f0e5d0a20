"""What the tests of rewrites share: inputs, runs and counts of graphs in float64."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from models.spec import Preprocessing


def normalised(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The networks' input in float64. ``export.photos.normalise`` makes the same in float32."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (preprocessing.mean, preprocessing.std))
    return ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2)


def run(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network(images)
    return logits


def assert_same(found: Tensor, expected: Tensor) -> None:
    """The largest difference is less than 1e-9 of the difference between the two images."""
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < 1e-9 * (expected[0] - expected[1]).abs().max()


def count(graph: fx.GraphModule, kind: type[nn.Module]) -> int:
    return sum(isinstance(graph.get_submodule(str(node.target)), kind) for node in layers(graph))


def layers(graph: fx.GraphModule) -> list[fx.Node]:
    return graph.graph.find_nodes(op="call_module")
