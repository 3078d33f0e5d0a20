"""Inception-ResNet-v2: wide Inception blocks, each with a scaled residual connection.

C. Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017,
arXiv:1602.07261. State-dict keys are those of timm's ``inception_resnet_v2`` and of Cadene's port.

The wiring is that of the published checkpoints (TF-slim), which have Inception-v3's stem and 10, 20 and 10 residual
blocks. The paper has Inception-v4's stem and 5, 10 and 5 blocks.

Strided layers have no padding and stride-1 layers have symmetric padding, so the padding of torch and the padding of
TensorFlow agree at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from models.keras_weights import INCEPTION_LAYERS
from models.layers import Branches, ConvBnRelu, ScaledResidual, dense_layers, hidden_widths
from models.spec import HubFile, KerasConventions, ModelSpec, Preprocessing, PublishedWeights, State


class Mixed5b(Branches):
    """1x1, 5x5, double 3x3 and pooled branches. Maps ``[n, 192, 35, 35]`` to ``[n, 320, 35, 35]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(192, 96, 1),
            nn.Sequential(ConvBnRelu(192, 48, 1), ConvBnRelu(48, 64, 5, padding=2)),
            nn.Sequential(ConvBnRelu(192, 64, 1), ConvBnRelu(64, 96, 3, padding=1), ConvBnRelu(96, 96, 3, padding=1)),
            nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBnRelu(192, 64, 1)),
        )


class Block35(ScaledResidual):
    """Figure 16: 1x1, 3x3 and double 3x3 branches. Keeps ``[n, 320, 35, 35]``."""

    def __init__(self, se: int | None) -> None:
        super().__init__(
            ConvBnRelu(320, 32, 1),
            nn.Sequential(ConvBnRelu(320, 32, 1), ConvBnRelu(32, 32, 3, padding=1)),
            nn.Sequential(ConvBnRelu(320, 32, 1), ConvBnRelu(32, 48, 3, padding=1), ConvBnRelu(48, 64, 3, padding=1)),
            projection=nn.Conv2d(128, 320, 1),
            scale=0.17,
            se=se,
        )


class ReductionA(Branches):
    """Figure 7 with k, l, m, n = 256, 256, 384, 384. Maps ``[n, 320, 35, 35]`` to ``[n, 1088, 17, 17]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(320, 384, 3, stride=2),
            nn.Sequential(
                ConvBnRelu(320, 256, 1),
                ConvBnRelu(256, 256, 3, padding=1),
                ConvBnRelu(256, 384, 3, stride=2),
            ),
            nn.MaxPool2d(3, stride=2),
        )


class Block17(ScaledResidual):
    """Figure 17: a 1x1 branch and a factorised 7x7 branch. Keeps ``[n, 1088, 17, 17]``."""

    def __init__(self, se: int | None) -> None:
        super().__init__(
            ConvBnRelu(1088, 192, 1),
            nn.Sequential(
                ConvBnRelu(1088, 128, 1),
                ConvBnRelu(128, 160, (1, 7), padding=(0, 3)),
                ConvBnRelu(160, 192, (7, 1), padding=(3, 0)),
            ),
            projection=nn.Conv2d(384, 1088, 1),
            scale=0.10,
            se=se,
        )


class ReductionB(Branches):
    """Figure 18. Maps ``[n, 1088, 17, 17]`` to ``[n, 2080, 8, 8]``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(ConvBnRelu(1088, 256, 1), ConvBnRelu(256, 384, 3, stride=2)),
            nn.Sequential(ConvBnRelu(1088, 256, 1), ConvBnRelu(256, 288, 3, stride=2)),
            nn.Sequential(
                ConvBnRelu(1088, 256, 1),
                ConvBnRelu(256, 288, 3, padding=1),
                ConvBnRelu(288, 320, 3, stride=2),
            ),
            nn.MaxPool2d(3, stride=2),
        )


class Block8(ScaledResidual):
    """Figure 19: a 1x1 branch and a factorised 3x3 branch. Keeps ``[n, 2080, 8, 8]``."""

    def __init__(self, se: int | None, *, scale: float = 0.20, relu: bool = True) -> None:
        super().__init__(
            ConvBnRelu(2080, 192, 1),
            nn.Sequential(
                ConvBnRelu(2080, 192, 1),
                ConvBnRelu(192, 224, (1, 3), padding=(0, 1)),
                ConvBnRelu(224, 256, (3, 1), padding=(1, 0)),
            ),
            projection=nn.Conv2d(448, 2080, 1),
            scale=scale,
            relu=relu,
            se=se,
        )


class InceptionResnetV2(nn.Module):
    """Inception-ResNet-v2. Maps floats in -1..1, ``[n, 3, 299, 299]``, to logits ``[n, num_classes]``.

    ``se`` is the reduction, 16 in the paper, of a squeeze-and-excitation in each residual block (arXiv:1709.01507).
    ``hidden_units`` are the widths of dense layers with ReLU between the pooled features and the classifier. Inputs of
    at least 75 pixels a side work too.
    """

    def __init__(self, num_classes: int = 1000, *, se: int | None = None, hidden_units: Sequence[int] = ()) -> None:
        super().__init__()                                               # [n,    3, 299, 299]
        self.conv2d_1a = ConvBnRelu(3, 32, 3, stride=2)                  # [n,   32, 149, 149]
        self.conv2d_2a = ConvBnRelu(32, 32, 3)                           # [n,   32, 147, 147]
        self.conv2d_2b = ConvBnRelu(32, 64, 3, padding=1)                # [n,   64, 147, 147]
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)                      # [n,   64,  73,  73]
        self.conv2d_3b = ConvBnRelu(64, 80, 1)                           # [n,   80,  73,  73]
        self.conv2d_4a = ConvBnRelu(80, 192, 3)                          # [n,  192,  71,  71]
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)                      # [n,  192,  35,  35]
        self.mixed_5b = Mixed5b()                                        # [n,  320,  35,  35]
        self.repeat = nn.Sequential(*(Block35(se) for _ in range(10)))
        self.mixed_6a = ReductionA()                                     # [n, 1088,  17,  17]
        self.repeat_1 = nn.Sequential(*(Block17(se) for _ in range(20)))
        self.mixed_7a = ReductionB()                                     # [n, 2080,   8,   8]
        self.repeat_2 = nn.Sequential(*(Block8(se) for _ in range(9)))
        self.block8 = Block8(se, scale=1.0, relu=False)
        self.conv2d_7b = ConvBnRelu(2080, 1536, 1)                       # [n, 1536,   8,   8]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = dense_layers(1536, hidden_units)
        self.classif = nn.Linear([1536, *hidden_units][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x)))
        x = self.repeat(self.mixed_5b(self.maxpool_5a(x)))
        x = self.repeat_1(self.mixed_6a(x))
        x = self.block8(self.repeat_2(self.mixed_7a(x)))
        x = self.pool(self.conv2d_7b(x)).flatten(1)  # [n, 1536]
        logits: Tensor = self.classif(self.hidden(x))
        return logits


def _adapt(state: State) -> tuple[State, dict[str, Any]]:
    state = {key.replace("last_linear.", "classif."): value for key, value in state.items()}  # Cadene's name
    return state, {"hidden_units": hidden_widths(state)}


# timm's configuration of the same file.
_IMAGENET = Preprocessing(crop_pct=0.8975)

SPEC = ModelSpec(
    name="inception_resnet_v2",
    build=InceptionResnetV2,
    head="classif",
    preprocessing=_IMAGENET,
    adapt=_adapt,
    keras=KerasConventions(options={}, layers=INCEPTION_LAYERS | {"CustomScaleLayer": {}}),
    weights={
        # TF-slim's weights. The hub's sha256 of the file is checked, but the branch is not pinned to a commit.
        "imagenet": PublishedWeights(
            HubFile("timm/inception_resnet_v2.tf_in1k", "model.safetensors", "main"), _IMAGENET
        ),
    },
)
