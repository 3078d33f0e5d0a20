"""Inception-v2, better known as BN-Inception: the network with which BatchNorm was introduced.

S. Ioffe and C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", ICML 2015, arXiv:1502.03167. The option ``se`` adds squeeze-and-excitation (arXiv:1709.01507).

The wiring is that of the published checkpoint, Cadene's port of a Caffe model. The layers keep the Caffe model's names
and customs: strided max pools round the output's size up, average pools count their padding, and convolutions have a
bias although BatchNorm follows. The last block's pool is a max pool, as in the paper's figure 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import ConvBnRelu, SqueezeExcitation
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, State

Layer = Callable[..., nn.Module]


class Inception(nn.ModuleDict):
    """1x1, 3x3, double 3x3 and pooled branches: arXiv:1409.4842's block with the 5x5 convolution in two steps."""

    def __init__(
        self,
        in_channels: int,
        c1: int,
        reduce3: int,
        c3: int,
        reduce33: int,
        c33: int,
        proj: int,
        *,
        conv: Layer,
        se: Layer,
        pool: Layer,
    ) -> None:
        super().__init__()
        self["1x1"] = conv(in_channels, c1, 1)
        self["3x3_reduce"] = conv(in_channels, reduce3, 1)
        self["3x3"] = conv(reduce3, c3, 3, padding=1)
        self["double_3x3_reduce"] = conv(in_channels, reduce33, 1)
        self["double_3x3_1"] = conv(reduce33, c33, 3, padding=1)
        self["double_3x3_2"] = conv(c33, c33, 3, padding=1)
        self["pool"] = pool(3, stride=1, padding=1)
        self["pool_proj"] = conv(in_channels, proj, 1)
        self["se"] = se(c1 + c3 + c33 + proj)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, c1 + c3 + c33 + proj, h, w]``."""
        single = self["3x3"](self["3x3_reduce"](x))
        double = self["double_3x3_2"](self["double_3x3_1"](self["double_3x3_reduce"](x)))
        pooled = self["pool_proj"](self["pool"](x))
        out: Tensor = self["se"](torch.cat((self["1x1"](x), single, double, pooled), 1))
        return out


class Reduction(nn.ModuleDict):
    """The block with stride 2. It has no 1x1 branch, and its pool keeps all channels."""

    def __init__(
        self, in_channels: int, reduce3: int, c3: int, reduce33: int, c33: int, *, conv: Layer, se: Layer
    ) -> None:
        super().__init__()
        self["3x3_reduce"] = conv(in_channels, reduce3, 1)
        self["3x3"] = conv(reduce3, c3, 3, stride=2, padding=1)
        self["double_3x3_reduce"] = conv(in_channels, reduce33, 1)
        self["double_3x3_1"] = conv(reduce33, c33, 3, padding=1)
        self["double_3x3_2"] = conv(c33, c33, 3, stride=2, padding=1)
        self["pool"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self["se"] = se(c3 + c33 + in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]``, with even h and w, to ``[n, c3 + c33 + in_channels, h / 2, w / 2]``."""
        single = self["3x3"](self["3x3_reduce"](x))
        double = self["double_3x3_2"](self["double_3x3_1"](self["double_3x3_reduce"](x)))
        out: Tensor = self["se"](torch.cat((single, double, self["pool"](x)), 1))
        return out


class InceptionV2(nn.Module):
    """BN-Inception. Maps normalised images, ``[n, 3, 224, 224]``, to logits ``[n, num_classes]``.

    The published weights expect blue, green and red in 0..255, less their means. ``se`` adds squeeze-and-excitation
    after each block, and divides channels by this number. ``conv_bias`` gives the convolutions a bias.
    """

    def __init__(self, num_classes: int = 1000, *, se: int | None = None, conv_bias: bool = True) -> None:
        super().__init__()
        conv = partial(ConvBnRelu, bn_eps=1e-5, bias=conv_bias)
        excitation: Layer = nn.Identity if se is None else partial(SqueezeExcitation, reduction=se)

        def inception(in_channels: int, *widths: int, pool: Layer = nn.AvgPool2d) -> nn.Module:
            return Inception(in_channels, *widths, conv=conv, se=excitation, pool=pool)

        def reduction(in_channels: int, *widths: int) -> nn.Module:
            return Reduction(in_channels, *widths, conv=conv, se=excitation)

        #                                                                                         [n,    3, 224, 224]
        self.conv1_7x7_s2 = conv(3, 64, 7, stride=2, padding=3)                                 # [n,   64, 112, 112]
        self.pool1_3x3_s2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)                           # [n,   64,  56,  56]
        self.conv2_3x3_reduce = conv(64, 64, 1)                                                 # [n,   64,  56,  56]
        self.conv2_3x3 = conv(64, 192, 3, padding=1)                                            # [n,  192,  56,  56]
        self.pool2_3x3_s2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)                           # [n,  192,  28,  28]
        self.inception_3a = inception(192, 64, 64, 64, 64, 96, 32)                              # [n,  256,  28,  28]
        self.inception_3b = inception(256, 64, 64, 96, 64, 96, 64)                              # [n,  320,  28,  28]
        self.inception_3c = reduction(320, 128, 160, 64, 96)                                    # [n,  576,  14,  14]
        self.inception_4a = inception(576, 224, 64, 96, 96, 128, 128)                           # [n,  576,  14,  14]
        self.inception_4b = inception(576, 192, 96, 128, 96, 128, 128)                          # [n,  576,  14,  14]
        self.inception_4c = inception(576, 160, 128, 160, 128, 160, 128)                        # [n,  608,  14,  14]
        self.inception_4d = inception(608, 96, 128, 192, 160, 192, 128)                         # [n,  608,  14,  14]
        self.inception_4e = reduction(608, 128, 192, 192, 256)                                  # [n, 1056,   7,   7]
        self.inception_5a = inception(1056, 352, 192, 320, 160, 224, 128)                       # [n, 1024,   7,   7]
        self.inception_5b = inception(1024, 352, 192, 320, 192, 224, 128, pool=nn.MaxPool2d)    # [n, 1024,   7,   7]
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``."""
        x = self.pool1_3x3_s2(self.conv1_7x7_s2(x))
        x = self.pool2_3x3_s2(self.conv2_3x3(self.conv2_3x3_reduce(x)))
        x = self.inception_3c(self.inception_3b(self.inception_3a(x)))
        x = self.inception_4d(self.inception_4c(self.inception_4b(self.inception_4a(x))))
        x = self.inception_5b(self.inception_5a(self.inception_4e(x)))
        x = self.global_pool(x).flatten(1)  # [n, 1024]
        logits: Tensor = self.last_linear(x)
        return logits


# The port calls a tensor inception_3a_3x3_reduce_bn.weight; here it is inception_3a.3x3_reduce.bn.weight.
_FLAT_KEY = re.compile(r"(?P<layer>(?:conv|inception_)\d\w+?)(?P<bn>_bn)?\.(?P<tensor>\w+)")


def _nested(key: str) -> str:
    flat = _FLAT_KEY.fullmatch(key)
    if flat is None:  # the classifier's, or nested already
        return key
    layer = re.sub(r"^(inception_\d\w)_", r"\1.", flat["layer"])
    return f"{layer}.{'bn' if flat['bn'] else 'conv'}.{flat['tensor']}"


def adapt(state: State) -> tuple[State, dict[str, Any]]:
    """Return a file's tensors under the keys of ``InceptionV2``, and no options, as ``ModelSpec.adapt`` does."""
    return {_nested(key): value for key, value in state.items()}, {}


# pretrainedmodels 0.7.4 gives the means of the file in this order and scale: 104, 117 and 128 for blue, green, red.
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
    adapt=adapt,
    weights={
        "imagenet": PublishedWeights(
            ReleaseFile(
                "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth", sha256_prefix="52deb4733"
            ),
            _IMAGENET,
        ),
    },
)
