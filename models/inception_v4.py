"""Inception-v4: pure Inception blocks without residuals.

C. Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017,
arXiv:1602.07261. State-dict keys are those of timm's ``inception_v4`` and of Cadene's port.

The wiring is that of the published checkpoints (TF-slim). It differs from common sketches of the network: in
InceptionC the 1x3 and 3x1 heads are parallel, not in series; branches are concatenated 1x1 first, pool last;
the last pool averages the whole map; Mixed4a's long branch runs 1x7 then 7x1.

Strided layers have no padding and stride-1 layers have symmetric padding, so the padding of torch and the padding of
TensorFlow agree at every size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import ConvBnRelu
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile


def _average_pool() -> nn.Module:
    """Return a 3x3 stride-1 average pool that counts only real pixels at the border, as TensorFlow does."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class Mixed3a(nn.Module):
    """Stem: a max pool beside a strided convolution, 64 -> 160 channels."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.maxpool = nn.MaxPool2d(3, stride=2)
        self.conv = ConvBnRelu(64, 96, 3, stride=2, bn_eps=bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 64, 147, 147]`` to ``[n, 160, 73, 73]``."""
        return torch.cat((self.maxpool(x), self.conv(x)), 1)


class Mixed4a(nn.Module):
    """Stem: a short branch beside a branch with a factorised 7x7 convolution, 160 -> 192 channels."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(
            ConvBnRelu(160, 64, 1, bn_eps=bn_eps),
            ConvBnRelu(64, 96, 3, bn_eps=bn_eps),
        )
        self.branch1 = nn.Sequential(
            ConvBnRelu(160, 64, 1, bn_eps=bn_eps),
            ConvBnRelu(64, 64, (1, 7), padding=(0, 3), bn_eps=bn_eps),
            ConvBnRelu(64, 64, (7, 1), padding=(3, 0), bn_eps=bn_eps),
            ConvBnRelu(64, 96, 3, bn_eps=bn_eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 160, 73, 73]`` to ``[n, 192, 71, 71]``."""
        return torch.cat((self.branch0(x), self.branch1(x)), 1)


class Mixed5a(nn.Module):
    """Stem: a strided convolution beside a max pool, 192 -> 384 channels."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.conv = ConvBnRelu(192, 192, 3, stride=2, bn_eps=bn_eps)
        self.maxpool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 192, 71, 71]`` to ``[n, 384, 35, 35]``."""
        return torch.cat((self.conv(x), self.maxpool(x)), 1)


class InceptionA(nn.Module):
    """Figure 4: 1x1, 3x3, double 3x3 and pooled branches of 96 channels each."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.branch0 = ConvBnRelu(384, 96, 1, bn_eps=bn_eps)
        self.branch1 = nn.Sequential(
            ConvBnRelu(384, 64, 1, bn_eps=bn_eps),
            ConvBnRelu(64, 96, 3, padding=1, bn_eps=bn_eps),
        )
        self.branch2 = nn.Sequential(
            ConvBnRelu(384, 64, 1, bn_eps=bn_eps),
            ConvBnRelu(64, 96, 3, padding=1, bn_eps=bn_eps),
            ConvBnRelu(96, 96, 3, padding=1, bn_eps=bn_eps),
        )
        self.branch3 = nn.Sequential(_average_pool(), ConvBnRelu(384, 96, 1, bn_eps=bn_eps))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 384, 35, 35]`` to the same shape."""
        return torch.cat((self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)), 1)


class ReductionA(nn.Module):
    """Figure 7 with k, l, m, n = 192, 224, 256, 384."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.branch0 = ConvBnRelu(384, 384, 3, stride=2, bn_eps=bn_eps)
        self.branch1 = nn.Sequential(
            ConvBnRelu(384, 192, 1, bn_eps=bn_eps),
            ConvBnRelu(192, 224, 3, padding=1, bn_eps=bn_eps),
            ConvBnRelu(224, 256, 3, stride=2, bn_eps=bn_eps),
        )
        self.branch2 = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 384, 35, 35]`` to ``[n, 1024, 17, 17]``."""
        return torch.cat((self.branch0(x), self.branch1(x), self.branch2(x)), 1)


class InceptionB(nn.Module):
    """Figure 5: 7x7 convolutions factorised into 1x7 and 7x1."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.branch0 = ConvBnRelu(1024, 384, 1, bn_eps=bn_eps)
        self.branch1 = nn.Sequential(
            ConvBnRelu(1024, 192, 1, bn_eps=bn_eps),
            ConvBnRelu(192, 224, (1, 7), padding=(0, 3), bn_eps=bn_eps),
            ConvBnRelu(224, 256, (7, 1), padding=(3, 0), bn_eps=bn_eps),
        )
        self.branch2 = nn.Sequential(
            ConvBnRelu(1024, 192, 1, bn_eps=bn_eps),
            ConvBnRelu(192, 192, (7, 1), padding=(3, 0), bn_eps=bn_eps),
            ConvBnRelu(192, 224, (1, 7), padding=(0, 3), bn_eps=bn_eps),
            ConvBnRelu(224, 224, (7, 1), padding=(3, 0), bn_eps=bn_eps),
            ConvBnRelu(224, 256, (1, 7), padding=(0, 3), bn_eps=bn_eps),
        )
        self.branch3 = nn.Sequential(_average_pool(), ConvBnRelu(1024, 128, 1, bn_eps=bn_eps))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 1024, 17, 17]`` to the same shape."""
        return torch.cat((self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)), 1)


class ReductionB(nn.Module):
    """Figure 8: 17x17 to 8x8."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(
            ConvBnRelu(1024, 192, 1, bn_eps=bn_eps),
            ConvBnRelu(192, 192, 3, stride=2, bn_eps=bn_eps),
        )
        self.branch1 = nn.Sequential(
            ConvBnRelu(1024, 256, 1, bn_eps=bn_eps),
            ConvBnRelu(256, 256, (1, 7), padding=(0, 3), bn_eps=bn_eps),
            ConvBnRelu(256, 320, (7, 1), padding=(3, 0), bn_eps=bn_eps),
            ConvBnRelu(320, 320, 3, stride=2, bn_eps=bn_eps),
        )
        self.branch2 = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 1024, 17, 17]`` to ``[n, 1536, 8, 8]``."""
        return torch.cat((self.branch0(x), self.branch1(x), self.branch2(x)), 1)


class InceptionC(nn.Module):
    """Figure 6: branches that end in parallel 1x3 and 3x1 heads, for an expanded filter bank."""

    def __init__(self, bn_eps: float) -> None:
        super().__init__()
        self.branch0 = ConvBnRelu(1536, 256, 1, bn_eps=bn_eps)
        self.branch1_0 = ConvBnRelu(1536, 384, 1, bn_eps=bn_eps)
        self.branch1_1a = ConvBnRelu(384, 256, (1, 3), padding=(0, 1), bn_eps=bn_eps)
        self.branch1_1b = ConvBnRelu(384, 256, (3, 1), padding=(1, 0), bn_eps=bn_eps)
        self.branch2_0 = ConvBnRelu(1536, 384, 1, bn_eps=bn_eps)
        self.branch2_1 = ConvBnRelu(384, 448, (3, 1), padding=(1, 0), bn_eps=bn_eps)
        self.branch2_2 = ConvBnRelu(448, 512, (1, 3), padding=(0, 1), bn_eps=bn_eps)
        self.branch2_3a = ConvBnRelu(512, 256, (1, 3), padding=(0, 1), bn_eps=bn_eps)
        self.branch2_3b = ConvBnRelu(512, 256, (3, 1), padding=(1, 0), bn_eps=bn_eps)
        self.branch3 = nn.Sequential(_average_pool(), ConvBnRelu(1536, 256, 1, bn_eps=bn_eps))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 1536, 8, 8]`` to the same shape."""
        one = self.branch1_0(x)
        two = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        return torch.cat(
            (
                self.branch0(x),
                self.branch1_1a(one),
                self.branch1_1b(one),
                self.branch2_3a(two),
                self.branch2_3b(two),
                self.branch3(x),
            ),
            1,
        )


class InceptionV4(nn.Module):
    """Inception-v4. Maps floats in -1..1, ``[n, 3, 299, 299]``, to logits ``[n, num_classes]``.

    ``bn_eps`` is BatchNorm's epsilon. Inputs of at least 75 pixels a side work too.
    """

    def __init__(self, num_classes: int = 1000, *, bn_eps: float = 1e-3) -> None:
        super().__init__()
        self.features = nn.Sequential(                                   # [n,    3, 299, 299]
            ConvBnRelu(3, 32, 3, stride=2, bn_eps=bn_eps),               # [n,   32, 149, 149]
            ConvBnRelu(32, 32, 3, bn_eps=bn_eps),                        # [n,   32, 147, 147]
            ConvBnRelu(32, 64, 3, padding=1, bn_eps=bn_eps),             # [n,   64, 147, 147]
            Mixed3a(bn_eps),                                             # [n,  160,  73,  73]
            Mixed4a(bn_eps),                                             # [n,  192,  71,  71]
            Mixed5a(bn_eps),                                             # [n,  384,  35,  35]
            *(InceptionA(bn_eps) for _ in range(4)),
            ReductionA(bn_eps),                                          # [n, 1024,  17,  17]
            *(InceptionB(bn_eps) for _ in range(7)),
            ReductionB(bn_eps),                                          # [n, 1536,   8,   8]
            *(InceptionC(bn_eps) for _ in range(3)),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1536, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``."""
        x = self.pool(self.features(x)).flatten(1)  # [n, 1536]
        logits: Tensor = self.last_linear(x)
        return logits


# timm's configuration of the same file gives the crop fraction.
_IMAGENET = Preprocessing(crop_pct=0.875)

SPEC = ModelSpec(
    name="inception_v4",
    build=InceptionV4,
    head="last_linear",
    preprocessing=_IMAGENET,
    weights={
        "imagenet": PublishedWeights(
            ReleaseFile(
                "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
                "inceptionv4-8e4777a0.pth",
                sha256_prefix="8e4777a0",
            ),
            _IMAGENET,
        ),
    },
)
