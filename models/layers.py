"""Layers of the Inception architectures. All tensors are float ``[batch, channels, height, width]``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.deform_conv import DeformConv2d


class ConvBnRelu(nn.Module):
    """Convolution, then BatchNorm, then ReLU: the unit of all Inception networks since BatchNorm (arXiv:1502.03167)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        bn_eps: float = 1e-3,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels, eps=bn_eps)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, out_channels, h', w']``."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class SqueezeExcitation(nn.Module):
    """Scales each channel by a weight in 0..1 that depends on the means of all channels (arXiv:1709.01507, section 3).

    The weights come from two dense layers with biases, written as 1x1 convolutions. The first one divides the number
    of channels by ``reduction`` and rounds down.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(channels // reduction, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, channels, h, w]`` to the same shape."""
        weight: Tensor = self.sigmoid(self.expand(self.relu(self.reduce(self.pool(x)))))  # [n, channels, 1, 1]
        return x * weight


class Branches(nn.Module):
    """Branches side by side on one input, concatenated by channels. Their keys are ``branch0``, ``branch1``, ..."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = [f"branch{i}" for i in range(len(branches))]
        for name, branch in zip(self.branches, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to ``[n, c', h', w']``, with the sum of the branches' channels as c'."""
        return torch.cat([self.get_submodule(name)(x) for name in self.branches], 1)


class ScaledResidual(Branches):
    """Branches, a 1x1 convolution back to the input's channels, and a scaled sum (arXiv:1602.07261, figure 20).

    The paper trains such networks with scales of 0.1 to 0.3, and saw them die without a scale. ``se`` is the reduction
    of a squeeze-and-excitation of what the scale applies to.
    """

    def __init__(
        self, *branches: nn.Module, projection: nn.Conv2d, scale: float, relu: bool = True, se: int | None = None
    ) -> None:
        super().__init__(*branches)
        self.conv2d = projection
        self.se = SqueezeExcitation(projection.out_channels, se) if se is not None else None
        self.scale = scale
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        residual = self.conv2d(super().forward(x))
        if self.se is not None:
            residual = self.se(residual)
        out: Tensor = self.relu(x + residual * self.scale)
        return out


Activation = Literal["none", "relu", "elu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "elu": nn.ELU}


class SeparableConv2d(nn.Module):
    """Depthwise 3x3 convolution, then pointwise 1x1 (arXiv:1610.02357, section 2).

    Each input channel has ``multiplier`` depthwise filters, whose taps are ``dilation`` pixels apart. ``activation``
    stands between the two convolutions. With ``deformable``, the depthwise taps move (see ``models.deform_conv``).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        multiplier: int = 1,
        dilation: int = 1,
        activation: Activation = "none",
        deformable: bool = False,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"an activation must be 'none', 'relu' or 'elu', not {activation!r}")
        conv, filters = DeformConv2d if deformable else nn.Conv2d, in_channels * multiplier
        self.conv1 = conv(in_channels, filters, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False)
        self.activation = _ACTIVATIONS[activation]()
        self.pointwise = nn.Conv2d(filters, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, out_channels, h, w]``."""
        out: Tensor = self.pointwise(self.activation(self.conv1(x)))
        return out


class SameMaxPool2d(nn.Module):
    """3x3 stride-2 max pooling with TensorFlow's 'same' padding, for square inputs.

    'same' pads an odd side by (1, 1), as torch's pool with padding 1 does. 'same' pads an even side by (0, 1), as
    torch's ``ceil_mode`` without padding does: a window that overhangs ignores what lies outside. Neither pool writes
    a border of ``-inf``, which would spoil the calibration of an int8 variant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.MaxPool2d(3, stride=2, padding=1)
        self.even = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, s, s]`` to ``[n, c, ceil(s / 2), ceil(s / 2)]``. ValueError if one side is odd, one even."""
        height, width = x.shape[-2:]
        if height % 2 != width % 2:
            raise ValueError(f"'same' pooling needs height and width both odd or both even, not {height}x{width}")
        out: Tensor = self.even(x) if height % 2 == 0 else self.odd(x)
        return out


def dense_layers(features: int, hidden_units: Sequence[int]) -> nn.Sequential:
    """Return a dense layer with ReLU for each width of ``hidden_units``, from ``[n, features]`` on.

    Transfer learning often puts such layers between the pooled features and the classifier.
    """
    widths = zip((features, *hidden_units), hidden_units, strict=False)
    return nn.Sequential(*(layer for inputs, units in widths for layer in (nn.Linear(inputs, units), nn.ReLU())))


def hidden_widths(state: Mapping[str, Tensor]) -> list[int]:
    """Return the ``hidden_units`` of a state dict whose layers of ``dense_layers`` are named ``hidden``."""
    return [len(value) for key, value in state.items() if re.fullmatch(r"hidden\.\d+\.bias", key) and value.ndim]
