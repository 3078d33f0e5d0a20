from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from export.fuse import (
    fold_batch_norm,
    fold_scale,
    pad_channels,
    subsample_before_projection,
    trace_layers,
)
from models import create_model
from models.layers import ScaledResidual
from models.weights import LoadedModel
from tests.export.graphs import assert_same, normalised, run


def products(graph: fx.GraphModule) -> int:
    return len(graph.graph.find_nodes(op="call_function", target=operator.mul))


def test_fold_scale_finds_every_scaled_residual() -> None:
    with torch.device("meta"):
        graph = trace_layers(create_model("inception_resnet_v1"))
    assert products(graph) == 21
    fold_scale(graph)
    assert products(graph) == 0


class _Scaled(nn.Module):
    def __init__(self, layer: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_fold_scale(bias: bool) -> None:
    graph = trace_layers(ScaledResidual(nn.Conv2d(3, 4, 1), projection=nn.Conv2d(4, 3, 1, bias=bias), scale=0.17))
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    expected = run(graph, images)
    fold_scale(graph)
    assert products(graph) == 0
    assert_same(run(graph, images), expected)


@pytest.mark.parametrize(
    ("layer", "scale"),
    [
        (nn.ReLU(), lambda y: y * 0.5),
        (nn.Conv2d(3, 4, 1), lambda y: y * 0.5 + y),  # the unscaled output is read, too
        (nn.Conv2d(3, 4, 1), lambda y: y * y),
        (nn.Conv2d(3, 4, 1), lambda y: y * y.mean()),
    ],
    ids=["no convolution", "another reader", "square", "not a constant"],
)
def test_fold_scale_leaves_others(layer: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
    graph = trace_layers(_Scaled(layer, scale))
    before = graph.code
    fold_scale(graph)
    assert graph.code == before


def test_pad_channels(trained_xception: LoadedModel, pixels: Tensor) -> None:
    graph = trace_layers(trained_xception.model)
    fold_batch_norm(graph)
    images = normalised(pixels, trained_xception.preprocessing)
    expected = run(graph, images)
    pad_channels(graph, 16)
    convs = [module for module in graph.modules() if isinstance(module, nn.Conv2d)]
    assert {conv.out_channels for conv in convs} == {32, 64, 128, 256, 736, 1024, 1536, 2048}
    assert all(conv.weight.shape[:2] == (conv.out_channels, conv.in_channels // conv.groups) for conv in convs)
    assert_same(run(graph, images), expected)


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 16, 1), nn.Conv2d(21, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat([self.left(x), self.right(x)], 1))
        return y


def test_pad_channels_leaves_others(live_inception_v4: LoadedModel) -> None:
    """Channels that fill whole blocks, concatenated channels, and the classifier's channels stay as they are."""
    for network in (live_inception_v4.model, _Branches(), nn.Sequential(nn.Conv2d(3, 5, 1))):
        graph = trace_layers(network)
        before = {name: tuple(weight.shape) for name, weight in graph.state_dict().items()}
        pad_channels(graph, 16)
        assert {name: tuple(weight.shape) for name, weight in graph.state_dict().items()} == before


def test_subsample_before_projection(trained_xception: LoadedModel, pixels: Tensor) -> None:
    graph = trace_layers(trained_xception.model)
    images = normalised(pixels, trained_xception.preprocessing)
    expected = run(graph, images)
    subsample_before_projection(graph)
    pools = [module for module in graph.modules() if isinstance(module, nn.MaxPool2d) and module.kernel_size == 1]
    assert [pool.stride for pool in pools] == [(2, 2)] * 4
    assert [module.stride for module in graph.modules() if isinstance(module, nn.Conv2d)].count((2, 2)) == 1
    assert_same(run(graph, images), expected)


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 1, 2, padding=1)])
def test_subsample_before_projection_leaves_others(conv: nn.Module) -> None:
    graph = trace_layers(nn.Sequential(conv))
    before = graph.code
    subsample_before_projection(graph)
    assert graph.code == before
