"""The equivalence from which Xception starts (arXiv:1610.02357, section 1.1 and figures 2 to 4), in float64.

A simplified Inception module is some towers of a 1x1 and a 3x3 convolution side by side. The module equals one large
1x1 convolution, and 3x3 convolutions on segments of its channels. One segment makes an ordinary convolution, and a
segment for each channel makes a depthwise one.

The module at this extreme differs from ``SeparableConv2d`` in two ways. The module runs the 1x1 convolution first,
which hardly matters in a stack. The module has a non-linearity between the two convolutions, which matters (section
4.7). The equivalence holds with and without one.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.layers import SeparableConv2d

CHANNELS, REDUCED = 7, 12


class InceptionModule(nn.Module):
    """Towers of the given widths. Each doubles its channels in its 3x3 convolution."""

    def __init__(self, widths: list[int], activation: nn.Module) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(CHANNELS, width, 1) for width in widths)
        self.spatial = nn.ModuleList(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False) for width in widths)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        towers = zip(self.projections, self.spatial, strict=True)
        return torch.cat([spatial(self.activation(project(x))) for project, spatial in towers], 1)


def stacked(layers: nn.ModuleList, name: str) -> nn.Parameter:
    return nn.Parameter(torch.cat([layer.get_parameter(name) for layer in layers]))


def one_large_projection(module: InceptionModule) -> nn.Conv2d:
    large = nn.Conv2d(CHANNELS, REDUCED, 1)
    large.weight, large.bias = stacked(module.projections, "weight"), stacked(module.projections, "bias")
    return large


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, CHANNELS, 9, 8, dtype=torch.float64)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU()])
@pytest.mark.parametrize("widths", [[12], [4, 4, 4], [3, 3, 3, 3], [1] * 12, [6, 5, 1]])
def test_towers_are_segments_of_one_projection(widths: list[int], activation: nn.Module, x: Tensor) -> None:
    module = InceptionModule(widths, activation).double()
    segments = activation(one_large_projection(module)(x)).split(widths, 1)
    found = torch.cat([spatial(segment) for spatial, segment in zip(module.spatial, segments, strict=True)], 1)
    assert_same(found, module(x))


@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU()])
@pytest.mark.parametrize("towers", [1, 3, 4, 12])
def test_equal_segments_are_a_grouped_convolution(towers: int, activation: nn.Module, x: Tensor) -> None:
    module = InceptionModule([REDUCED // towers] * towers, activation).double()
    grouped = nn.Conv2d(REDUCED, 2 * REDUCED, 3, padding=1, groups=towers, bias=False)
    grouped.weight = stacked(module.spatial, "weight")
    assert_same(grouped(activation(one_large_projection(module)(x))), module(x))


def test_a_segment_for_each_channel_is_the_depthwise_half_of_a_separable_convolution(x: Tensor) -> None:
    module = InceptionModule([1] * REDUCED, nn.Identity()).double()
    separable = SeparableConv2d(REDUCED, CHANNELS, multiplier=2)
    separable.conv1.weight = stacked(module.spatial, "weight")
    assert_same(separable.conv1(one_large_projection(module)(x)), module(x))
