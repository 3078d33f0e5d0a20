"""Inception-v1, better known as GoogLeNet: nine Inception blocks of 1x1, 3x3, 5x5 and pooled branches.

C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842. State-dict keys are those of
torchvision's ``googlenet``.

The wiring is that of the published checkpoint, which torchvision ported from TF-slim. BatchNorm after each convolution
replaces the paper's local response normalisation, and the branch that the paper calls 5x5 has 3x3 kernels. The latter
began as a mistake, and stays because the weights were trained with it (https://github.com/pytorch/vision/issues/906).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.layers import ConvBnRelu
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, State


class Inception(nn.Module):
    """Figure 2b. The numbers of channels are in the order of the paper's table 1."""

    def __init__(
        self, in_channels: int, c1: int, reduce3: int, c3: int, reduce5: int, c5: int, pool: int, *, true_5x5: bool
    ) -> None:
        super().__init__()
        kernel_size = 5 if true_5x5 else 3
        self.branch1 = ConvBnRelu(in_channels, c1, 1)
        self.branch2 = nn.Sequential(ConvBnRelu(in_channels, reduce3, 1), ConvBnRelu(reduce3, c3, 3, padding=1))
        self.branch3 = nn.Sequential(
            ConvBnRelu(in_channels, reduce5, 1),
            ConvBnRelu(reduce5, c5, kernel_size, padding=kernel_size // 2),
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvBnRelu(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, c1 + c3 + c5 + pool, h, w]``."""
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


class AuxiliaryHead(nn.Module):
    """A classifier on a block in the middle, whose loss helps to train the blocks before (section 5)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvBnRelu(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to logits ``[n, num_classes]``."""
        x = self.conv(self.pool(x)).flatten(1)  # [n, 2048]
        logits: Tensor = self.fc2(self.dropout(self.relu(self.fc1(x))))
        return logits


class InceptionV1(nn.Module):
    """GoogLeNet. Maps floats in -1..1, ``[n, 3, 224, 224]``, to logits ``[n, num_classes]``.

    ``true_5x5`` gives the 5x5 branches the paper's kernels. ``aux`` adds the paper's two auxiliary heads, which compute
    in train mode only. Square inputs of at least 15 pixels a side work too.
    """

    def __init__(self, num_classes: int = 1000, *, true_5x5: bool = False, aux: bool = False) -> None:
        super().__init__()

        def inception(in_channels: int, *widths: int) -> Inception:
            return Inception(in_channels, *widths, true_5x5=true_5x5)

        #                                                                  [n,    3, 224, 224]
        self.conv1 = ConvBnRelu(3, 64, 7, stride=2, padding=3)           # [n,   64, 112, 112]
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)        # [n,   64,  56,  56]
        self.conv2 = ConvBnRelu(64, 64, 1)                               # [n,   64,  56,  56]
        self.conv3 = ConvBnRelu(64, 192, 3, padding=1)                   # [n,  192,  56,  56]
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)        # [n,  192,  28,  28]
        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)       # [n,  256,  28,  28]
        self.inception3b = inception(256, 128, 128, 192, 32, 96, 64)     # [n,  480,  28,  28]
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)        # [n,  480,  14,  14]
        self.inception4a = inception(480, 192, 96, 208, 16, 48, 64)      # [n,  512,  14,  14]
        self.inception4b = inception(512, 160, 112, 224, 24, 64, 64)     # [n,  512,  14,  14]
        self.inception4c = inception(512, 128, 128, 256, 24, 64, 64)     # [n,  512,  14,  14]
        self.inception4d = inception(512, 112, 144, 288, 32, 64, 64)     # [n,  528,  14,  14]
        self.inception4e = inception(528, 256, 160, 320, 32, 128, 128)   # [n,  832,  14,  14]
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)        # [n,  832,   7,   7]
        self.inception5a = inception(832, 256, 160, 320, 32, 128, 128)   # [n,  832,   7,   7]
        self.inception5b = inception(832, 384, 192, 384, 48, 128, 128)   # [n, 1024,   7,   7]
        self.aux1 = AuxiliaryHead(512, num_classes) if aux else None     # after inception4a
        self.aux2 = AuxiliaryHead(528, num_classes) if aux else None     # after inception4d
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``.

        In train mode with auxiliary heads, the result is three such tensors: the logits, then those of ``aux1`` and of
        ``aux2``. The paper adds the losses of the auxiliary heads with a weight of 0.3.
        """
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        at_4a = self.inception4a(x)
        at_4d = self.inception4d(self.inception4c(self.inception4b(at_4a)))
        x = self.maxpool4(self.inception4e(at_4d))
        x = self.inception5b(self.inception5a(x))
        x = self.pool(x).flatten(1)  # [n, 1024]
        logits: Tensor = self.fc(self.dropout(x))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return logits, self.aux1(at_4a), self.aux2(at_4d)
        return logits


def _adapt(state: State) -> tuple[State, dict[str, Any]]:
    # A loaded network only answers, so it needs no auxiliary heads. Those in torchvision's file are untrained anyway.
    state = {key: value for key, value in state.items() if not key.startswith(("aux1.", "aux2."))}
    kernel = state.get("inception3a.branch3.1.conv.weight")
    return state, {"true_5x5": kernel is not None and kernel.shape[2:] == (5, 5)}


# torchvision's transforms resize the shorter side to 256 pixels, and its network turns ImageNet's mean and std, in
# which its photos are normalised, into -1..1.
_IMAGENET = Preprocessing(crop_pct=0.875, interpolation="bilinear", input_size=224)

SPEC = ModelSpec(
    name="inception_v1",
    build=InceptionV1,
    head="fc",
    preprocessing=_IMAGENET,
    adapt=_adapt,
    weights={
        "imagenet": PublishedWeights(
            ReleaseFile("https://download.pytorch.org/models/googlenet-1378be20.pth", sha256_prefix="1378be20"),
            _IMAGENET,
        ),
    },
)
