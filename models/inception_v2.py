"""Inception-v2 in the form of its published checkpoint: BN-Inception, with squeeze-and-excitation as an option.

S. Ioffe and C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", ICML 2015, arXiv:1502.03167. J. Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507.

The wiring is that of the Caffe model and of Cadene's port of it: convolutions have a bias although BatchNorm follows,
strided max pools round up, average pools count their padding, and the last block has a max pool. "Inception-v2" also
names two other networks, which are not here: TF-slim's, and the network of table 1 of arXiv:1512.00567.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import ConvBnRelu, SqueezeExcitation
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, State


def _excitation(channels: int, se: int | None) -> nn.Module:
    return nn.Identity() if se is None else SqueezeExcitation(channels, se)


class Inception(nn.Module):
    """1x1, 3x3, double 3x3 and pooled branches, as in figure 5 of the paper."""

    def __init__(
        self,
        in_channels: int,
        c1: int,
        c3_reduce: int,
        c3: int,
        d3_reduce: int,
        d3: int,
        pool: nn.Module,
        proj: int,
        *,
        se: int | None,
        bias: bool,
    ) -> None:
        super().__init__()
        self.branch1x1 = ConvBnRelu(in_channels, c1, 1, bn_eps=1e-5, bias=bias)
        self.branch3x3 = nn.Sequential(
            ConvBnRelu(in_channels, c3_reduce, 1, bn_eps=1e-5, bias=bias),
            ConvBnRelu(c3_reduce, c3, 3, padding=1, bn_eps=1e-5, bias=bias),
        )
        self.double3x3 = nn.Sequential(
            ConvBnRelu(in_channels, d3_reduce, 1, bn_eps=1e-5, bias=bias),
            ConvBnRelu(d3_reduce, d3, 3, padding=1, bn_eps=1e-5, bias=bias),
            ConvBnRelu(d3, d3, 3, padding=1, bn_eps=1e-5, bias=bias),
        )
        self.pool = nn.Sequential(pool, ConvBnRelu(in_channels, proj, 1, bn_eps=1e-5, bias=bias))
        self.se = _excitation(c1 + c3 + d3 + proj, se)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, c1 + c3 + d3 + proj, h, w]``."""
        out: Tensor = self.se(torch.cat((self.branch1x1(x), self.branch3x3(x), self.double3x3(x), self.pool(x)), 1))
        return out


class Reduction(nn.Module):
    """A block that halves height and width: strided 3x3 and double 3x3 branches beside a max pool."""

    def __init__(
        self, in_channels: int, c3_reduce: int, c3: int, d3_reduce: int, d3: int, *, se: int | None, bias: bool
    ) -> None:
        super().__init__()
        self.branch3x3 = nn.Sequential(
            ConvBnRelu(in_channels, c3_reduce, 1, bn_eps=1e-5, bias=bias),
            ConvBnRelu(c3_reduce, c3, 3, stride=2, padding=1, bn_eps=1e-5, bias=bias),
        )
        self.double3x3 = nn.Sequential(
            ConvBnRelu(in_channels, d3_reduce, 1, bn_eps=1e-5, bias=bias),
            ConvBnRelu(d3_reduce, d3, 3, padding=1, bn_eps=1e-5, bias=bias),
            ConvBnRelu(d3, d3, 3, stride=2, padding=1, bn_eps=1e-5, bias=bias),
        )
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.se = _excitation(c3 + d3 + in_channels, se)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, c3 + d3 + in_channels, ceil(h / 2), ceil(w / 2)]``."""
        out: Tensor = self.se(torch.cat((self.branch3x3(x), self.double3x3(x), self.pool(x)), 1))
        return out


class InceptionV2(nn.Module):
    """BN-Inception. Maps bytes less the mean colour, ``[n, 3, 224, 224]`` in BGR, to logits ``[n, num_classes]``.

    ``se`` adds squeeze-and-excitation to each block, reductions included, and says by how much it reduces channels.
    ``bias`` gives the convolutions a bias, as Cadene's checkpoint has it.
    """

    def __init__(self, num_classes: int = 1000, *, se: int | None = None, bias: bool = True) -> None:
        super().__init__()

        def inception(
            in_channels: int, c1: int, c3_reduce: int, c3: int, d3_reduce: int, d3: int, proj: int, pool: str = "mean"
        ) -> Inception:
            pools = {"mean": nn.AvgPool2d(3, 1, padding=1), "max": nn.MaxPool2d(3, 1, padding=1)}
            columns = (c1, c3_reduce, c3, d3_reduce, d3)
            return Inception(in_channels, *columns, pool=pools[pool], proj=proj, se=se, bias=bias)

        def reduction(in_channels: int, c3_reduce: int, c3: int, d3_reduce: int, d3: int) -> Reduction:
            return Reduction(in_channels, c3_reduce, c3, d3_reduce, d3, se=se, bias=bias)

        self.conv1 = ConvBnRelu(3, 64, 7, stride=2, padding=3, bn_eps=1e-5, bias=bias)  # [n,   64, 112, 112]
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)                          # [n,   64,  56,  56]
        self.conv2 = ConvBnRelu(64, 64, 1, bn_eps=1e-5, bias=bias)                      # [n,   64,  56,  56]
        self.conv3 = ConvBnRelu(64, 192, 3, padding=1, bn_eps=1e-5, bias=bias)          # [n,  192,  56,  56]
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)                          # [n,  192,  28,  28]
        self.inception_3a = inception(192, 64, 64, 64, 64, 96, 32)                      # [n,  256,  28,  28]
        self.inception_3b = inception(256, 64, 64, 96, 64, 96, 64)                      # [n,  320,  28,  28]
        self.inception_3c = reduction(320, 128, 160, 64, 96)                            # [n,  576,  14,  14]
        self.inception_4a = inception(576, 224, 64, 96, 96, 128, 128)                   # [n,  576,  14,  14]
        self.inception_4b = inception(576, 192, 96, 128, 96, 128, 128)                  # [n,  576,  14,  14]
        self.inception_4c = inception(576, 160, 128, 160, 128, 160, 128)                # [n,  608,  14,  14]
        self.inception_4d = inception(608, 96, 128, 192, 160, 192, 128)                 # [n,  608,  14,  14]
        self.inception_4e = reduction(608, 128, 192, 192, 256)                          # [n, 1056,   7,   7]
        self.inception_5a = inception(1056, 352, 192, 320, 160, 224, 128)               # [n, 1024,   7,   7]
        self.inception_5b = inception(1024, 352, 192, 320, 192, 224, 128, pool="max")   # [n, 1024,   7,   7]
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``."""
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv3(self.conv2(x)))
        x = self.inception_3c(self.inception_3b(self.inception_3a(x)))
        x = self.inception_4d(self.inception_4c(self.inception_4b(self.inception_4a(x))))
        x = self.inception_5b(self.inception_5a(self.inception_4e(x)))
        x = self.global_pool(x).flatten(1)  # [n, 1024]
        logits: Tensor = self.last_linear(x)
        return logits


# The layers in Cadene's files, which name all of them in one flat list, and here.
_STEM = {"conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2", "conv2_3x3": "conv3"}
_BRANCHES = {
    "1x1": "branch1x1",
    "3x3_reduce": "branch3x3.0",
    "3x3": "branch3x3.1",
    "double_3x3_reduce": "double3x3.0",
    "double_3x3_1": "double3x3.1",
    "double_3x3_2": "double3x3.2",
    "pool_proj": "pool.1",
}
_FLAT = re.compile(r"(?:(inception_\d\w)_)?(\w+?)(_bn)?\.(\w+)")


def _nested(key: str) -> str:
    """Translate Cadene's name of a tensor. Another name stays as it is."""
    if (match := _FLAT.fullmatch(key)) is None:
        return key
    block, layer, norm, tensor = match.groups()
    path = f"{block}.{_BRANCHES[layer]}" if block and layer in _BRANCHES else _STEM.get(layer)
    return key if path is None else f"{path}.{'bn' if norm else 'conv'}.{tensor}"


def from_cadene(state: State) -> tuple[State, dict[str, Any]]:
    """Return the tensors of a file under the keys of ``InceptionV2``, and no options."""
    return {_nested(key): value for key, value in state.items()}, {}


# Caffe's models take bytes of blue, green and red, less 104, 117 and 128. The crop is that of Cadene's evaluation.
_IMAGENET = Preprocessing(
    crop_pct=0.875,
    interpolation="bilinear",
    mean=(128 / 255, 117 / 255, 104 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    input_size=224,
    channel_order="bgr",
)

SPEC = ModelSpec(
    name="inception_v2",
    build=InceptionV2,
    head="last_linear",
    preprocessing=_IMAGENET,
    adapt=from_cadene,
    weights={
        "imagenet": PublishedWeights(
            ReleaseFile(
                "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth", sha256_prefix="52deb4733"
            ),
            _IMAGENET,
        ),
    },
)
