"""Inception-v1, also known as GoogLeNet, with BatchNorm.

C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842. State-dict keys are torchvision's.

torchvision's checkpoint departs from the paper in three ways, which are kept because its weights need them: BatchNorm
follows each convolution (arXiv:1502.03167), there is no local response normalisation, and the branch that the paper
calls 5x5 has 3x3 kernels (https://github.com/pytorch/vision/issues/906). ``true_5x5`` restores the paper's kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.layers import ConvBnRelu
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, State


class Inception(nn.Module):
    """Figure 2b: 1x1, 3x3, 5x5 and pooled branches. The arguments are the columns of the paper's table 1."""

    def __init__(
        self,
        in_channels: int,
        c1: int,
        c3_reduce: int,
        c3: int,
        c5_reduce: int,
        c5: int,
        pool: int,
        true_5x5: bool,
        bn_eps: float,
    ) -> None:
        super().__init__()
        kernel, padding = (5, 2) if true_5x5 else (3, 1)
        self.branch1 = ConvBnRelu(in_channels, c1, 1, bn_eps=bn_eps)
        self.branch2 = nn.Sequential(
            ConvBnRelu(in_channels, c3_reduce, 1, bn_eps=bn_eps),
            ConvBnRelu(c3_reduce, c3, 3, padding=1, bn_eps=bn_eps),
        )
        self.branch3 = nn.Sequential(
            ConvBnRelu(in_channels, c5_reduce, 1, bn_eps=bn_eps),
            ConvBnRelu(c5_reduce, c5, kernel, padding=padding, bn_eps=bn_eps),
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), ConvBnRelu(in_channels, pool, 1, bn_eps=bn_eps))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, h, w]`` to ``[n, c1 + c3 + c5 + pool, h, w]``."""
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


class AuxiliaryHead(nn.Module):
    """Section 5: a classifier half way, which only training uses."""

    def __init__(self, in_channels: int, num_classes: int, bn_eps: float) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvBnRelu(in_channels, 128, 1, bn_eps=bn_eps)
        self.fc1 = nn.Linear(2048, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, 14, 14]`` to logits ``[n, num_classes]``."""
        x = self.conv(self.pool(x)).flatten(1)
        logits: Tensor = self.fc2(self.dropout(self.relu(self.fc1(x))))
        return logits


class InceptionV1(nn.Module):
    """GoogLeNet. Maps floats in -1..1, ``[n, 3, 224, 224]``, to logits ``[n, num_classes]``.

    ``true_5x5`` gives the 5x5 branches the paper's kernels. ``aux`` adds two auxiliary heads. In train mode, a network
    with auxiliary heads returns three tensors of logits: its own, those after 4a and those after 4d.
    """

    def __init__(
        self, num_classes: int = 1000, *, true_5x5: bool = False, aux: bool = False, bn_eps: float = 1e-3
    ) -> None:
        super().__init__()

        def inception(
            in_channels: int, c1: int, c3_reduce: int, c3: int, c5_reduce: int, c5: int, pool: int
        ) -> Inception:
            return Inception(in_channels, c1, c3_reduce, c3, c5_reduce, c5, pool, true_5x5, bn_eps)

        def pool(kernel_size: int = 3) -> nn.Module:
            return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)

        self.aux = aux
        self.conv1 = ConvBnRelu(3, 64, 7, stride=2, padding=3, bn_eps=bn_eps)   # [n,   64, 112, 112]
        self.maxpool1 = pool()                                                  # [n,   64,  56,  56]
        self.conv2 = ConvBnRelu(64, 64, 1, bn_eps=bn_eps)                       # [n,   64,  56,  56]
        self.conv3 = ConvBnRelu(64, 192, 3, padding=1, bn_eps=bn_eps)           # [n,  192,  56,  56]
        self.maxpool2 = pool()                                                  # [n,  192,  28,  28]
        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)              # [n,  256,  28,  28]
        self.inception3b = inception(256, 128, 128, 192, 32, 96, 64)            # [n,  480,  28,  28]
        self.maxpool3 = pool()                                                  # [n,  480,  14,  14]
        self.inception4a = inception(480, 192, 96, 208, 16, 48, 64)             # [n,  512,  14,  14]
        self.inception4b = inception(512, 160, 112, 224, 24, 64, 64)            # [n,  512,  14,  14]
        self.inception4c = inception(512, 128, 128, 256, 24, 64, 64)            # [n,  512,  14,  14]
        self.inception4d = inception(512, 112, 144, 288, 32, 64, 64)            # [n,  528,  14,  14]
        self.inception4e = inception(528, 256, 160, 320, 32, 128, 128)          # [n,  832,  14,  14]
        self.maxpool4 = pool(2)                                                 # [n,  832,   7,   7]
        self.inception5a = inception(832, 256, 160, 320, 32, 128, 128)          # [n,  832,   7,   7]
        self.inception5b = inception(832, 384, 192, 384, 48, 128, 128)          # [n, 1024,   7,   7]
        if aux:
            self.aux1 = AuxiliaryHead(512, num_classes, bn_eps)
            self.aux2 = AuxiliaryHead(528, num_classes, bn_eps)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``."""
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        after_4a = self.inception4a(x)
        after_4d = self.inception4d(self.inception4c(self.inception4b(after_4a)))
        x = self.maxpool4(self.inception4e(after_4d))
        x = self.pool(self.inception5b(self.inception5a(x))).flatten(1)  # [n, 1024]
        logits: Tensor = self.fc(self.dropout(x))
        if self.aux and self.training:
            return logits, self.aux1(after_4a), self.aux2(after_4d)
        return logits


def _adapt(state: State) -> tuple[State, dict[str, Any]]:
    # A loaded network only answers, so it needs no auxiliary heads. Those in torchvision's file were never trained.
    state = {key: value for key, value in state.items() if not key.startswith(("aux1.", "aux2."))}
    kernel = state.get("inception3a.branch3.1.conv.weight")
    return state, {} if kernel is None else {"true_5x5": kernel.shape[2:] == (5, 5)}


# torchvision's transform resizes to 256 pixels; its network then turns ImageNet's mean and std into -1..1.
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
