"""Inception-v3: factorised convolutions, of 7x7 into 1x7 and 7x1, and parallel 1x3 and 3x1 convolutions at the end.

C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv:1512.00567.
State-dict keys are those of torchvision's and timm's ``inception_v3``.

Families of published weights differ at the border of the average pools, which is therefore an option. TensorFlow and
Keras divide by the number of real pixels, torchvision and timm divide by 9 everywhere.

Strided layers have no padding and stride-1 layers have symmetric padding, so the padding of torch and the padding of
TensorFlow agree at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.keras_weights import INCEPTION_LAYERS, state_dict
from models.layers import ConvBnRelu, dense_layers, hidden_widths
from models.spec import HubFile, KerasConventions, ModelSpec, NpmFile, Preprocessing, PublishedWeights, State
from models.tfjs_weights import read_layers


class InceptionA(nn.Module):
    """Figure 5: 1x1, 5x5, double 3x3 and pooled branches."""

    def __init__(self, in_channels: int, pool_channels: int, count_include_pad: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvBnRelu(in_channels, 64, 1)
        self.branch5x5_1 = ConvBnRelu(in_channels, 48, 1)
        self.branch5x5_2 = ConvBnRelu(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvBnRelu(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBnRelu(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBnRelu(96, 96, 3, padding=1)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=count_include_pad)
        self.branch_pool = ConvBnRelu(in_channels, pool_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, 35, 35]`` to ``[n, 224 + pool_channels, 35, 35]``."""
        branch1x1 = self.branch1x1(x)
        branch5x5 = self.branch5x5_2(self.branch5x5_1(x))
        branch3x3dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((branch1x1, branch5x5, branch3x3dbl, self.branch_pool(self.pool(x))), 1)


class ReductionA(nn.Module):
    """Figure 10 for 35x35 to 17x17: strided convolutions beside a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = ConvBnRelu(288, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBnRelu(288, 64, 1)
        self.branch3x3dbl_2 = ConvBnRelu(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBnRelu(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 288, 35, 35]`` to ``[n, 768, 17, 17]``."""
        branch3x3 = self.branch3x3(x)
        branch3x3dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((branch3x3, branch3x3dbl, self.pool(x)), 1)


class InceptionB(nn.Module):
    """Figure 6: 7x7 convolutions factorised into 1x7 and 7x1, ``c`` channels wide."""

    def __init__(self, c: int, count_include_pad: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvBnRelu(768, 192, 1)
        self.branch7x7_1 = ConvBnRelu(768, c, 1)
        self.branch7x7_2 = ConvBnRelu(c, c, (1, 7), padding=(0, 3))
        self.branch7x7_3 = ConvBnRelu(c, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = ConvBnRelu(768, c, 1)
        self.branch7x7dbl_2 = ConvBnRelu(c, c, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = ConvBnRelu(c, c, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = ConvBnRelu(c, c, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = ConvBnRelu(c, 192, (1, 7), padding=(0, 3))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=count_include_pad)
        self.branch_pool = ConvBnRelu(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 768, 17, 17]`` to the same shape."""
        branch1x1 = self.branch1x1(x)
        branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        branch7x7dbl = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branch7x7dbl = self.branch7x7dbl_5(self.branch7x7dbl_4(branch7x7dbl))
        return torch.cat((branch1x1, branch7x7, branch7x7dbl, self.branch_pool(self.pool(x))), 1)


class ReductionB(nn.Module):
    """Figure 10 for 17x17 to 8x8, with 7x7 convolutions factorised."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBnRelu(768, 192, 1)
        self.branch3x3_2 = ConvBnRelu(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBnRelu(768, 192, 1)
        self.branch7x7x3_2 = ConvBnRelu(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvBnRelu(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvBnRelu(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 768, 17, 17]`` to ``[n, 1280, 8, 8]``."""
        branch3x3 = self.branch3x3_2(self.branch3x3_1(x))
        branch7x7x3 = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat((branch3x3, branch7x7x3, self.pool(x)), 1)


class InceptionC(nn.Module):
    """Figure 7: branches that end in parallel 1x3 and 3x1 heads, for an expanded filter bank."""

    def __init__(self, in_channels: int, count_include_pad: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvBnRelu(in_channels, 320, 1)
        self.branch3x3_1 = ConvBnRelu(in_channels, 384, 1)
        self.branch3x3_2a = ConvBnRelu(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvBnRelu(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvBnRelu(in_channels, 448, 1)
        self.branch3x3dbl_2 = ConvBnRelu(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvBnRelu(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvBnRelu(384, 384, (3, 1), padding=(1, 0))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=count_include_pad)
        self.branch_pool = ConvBnRelu(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, 8, 8]`` to ``[n, 2048, 8, 8]``."""
        # The heads are concatenated on their own first, as in Keras, whose files list layers by depth.
        branch1x1 = self.branch1x1(x)
        one = self.branch3x3_1(x)
        branch3x3 = torch.cat((self.branch3x3_2a(one), self.branch3x3_2b(one)), 1)
        two = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branch3x3dbl = torch.cat((self.branch3x3dbl_3a(two), self.branch3x3dbl_3b(two)), 1)
        return torch.cat((branch1x1, branch3x3, branch3x3dbl, self.branch_pool(self.pool(x))), 1)


class AuxiliaryHead(nn.Module):
    """The classifier on the 17x17 maps, for training alone (section 4 and figure 8)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.conv0 = ConvBnRelu(768, 128, 1)
        self.conv1 = ConvBnRelu(128, 768, 5)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 768, 17, 17]`` to logits ``[n, num_classes]``."""
        x = self.conv1(self.conv0(self.pool(x)))  # [n, 768, 1, 1]
        logits: Tensor = self.fc(self.global_pool(x).flatten(1))
        return logits


class InceptionV3(nn.Module):
    """Inception-v3. Maps floats in -1..1, ``[n, 3, 299, 299]``, to logits ``[n, num_classes]``.

    ``count_include_pad`` selects the family of weights (see the module's docstring). With ``aux``, the network returns
    its logits and those of an auxiliary head in train mode, and its logits alone in eval mode. ``hidden_units`` are the
    widths of dense layers with ReLU between the pooled features and the classifier. Inputs of at least 75 pixels a side
    work too, except with ``aux`` in train mode.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        count_include_pad: bool = True,
        aux: bool = False,
        hidden_units: Sequence[int] = (),
    ) -> None:
        super().__init__()                                               # [n,    3, 299, 299]
        self.Conv2d_1a_3x3 = ConvBnRelu(3, 32, 3, stride=2)              # [n,   32, 149, 149]
        self.Conv2d_2a_3x3 = ConvBnRelu(32, 32, 3)                       # [n,   32, 147, 147]
        self.Conv2d_2b_3x3 = ConvBnRelu(32, 64, 3, padding=1)            # [n,   64, 147, 147]
        self.maxpool1 = nn.MaxPool2d(3, stride=2)                        # [n,   64,  73,  73]
        self.Conv2d_3b_1x1 = ConvBnRelu(64, 80, 1)                       # [n,   80,  73,  73]
        self.Conv2d_4a_3x3 = ConvBnRelu(80, 192, 3)                      # [n,  192,  71,  71]
        self.maxpool2 = nn.MaxPool2d(3, stride=2)                        # [n,  192,  35,  35]
        self.Mixed_5b = InceptionA(192, 32, count_include_pad)           # [n,  256,  35,  35]
        self.Mixed_5c = InceptionA(256, 64, count_include_pad)           # [n,  288,  35,  35]
        self.Mixed_5d = InceptionA(288, 64, count_include_pad)
        self.Mixed_6a = ReductionA()                                     # [n,  768,  17,  17]
        self.Mixed_6b = InceptionB(128, count_include_pad)
        self.Mixed_6c = InceptionB(160, count_include_pad)
        self.Mixed_6d = InceptionB(160, count_include_pad)
        self.Mixed_6e = InceptionB(192, count_include_pad)
        self.AuxLogits = AuxiliaryHead(num_classes) if aux else None
        self.Mixed_7a = ReductionB()                                     # [n, 1280,   8,   8]
        self.Mixed_7b = InceptionC(1280, count_include_pad)              # [n, 2048,   8,   8]
        self.Mixed_7c = InceptionC(2048, count_include_pad)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.hidden = dense_layers(2048, hidden_units)
        self.fc = nn.Linear([2048, *hidden_units][-1], num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``, or to two of these (see the class)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        grid = self.Mixed_6e(self.Mixed_6d(x))  # [n, 768, 17, 17]
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(grid)))
        x = self.avgpool(x).flatten(1)  # [n, 2048]
        logits: Tensor = self.fc(self.hidden(x))
        return (logits, self.AuxLogits(grid)) if self.AuxLogits is not None and self.training else logits


def _adapt(state: State) -> tuple[State, dict[str, Any]]:
    # Torchvision's files hold the auxiliary head, which takes no part in an answer.
    state = {key: value for key, value in state.items() if not key.startswith("AuxLogits.")}
    return state, {"hidden_units": hidden_widths(state)}


def _read_nsfwjs(path: Path) -> State:
    return state_dict(read_layers(path, "package/dist/models/inception_v3"), InceptionV3)


# timm's configuration of the same file.
_IMAGENET = Preprocessing(crop_pct=0.875)

SPEC = ModelSpec(
    name="inception_v3",
    build=InceptionV3,
    head="fc",
    preprocessing=_IMAGENET,
    adapt=_adapt,
    keras=KerasConventions(options={"count_include_pad": False}, layers=INCEPTION_LAYERS),
    weights={
        # TF-slim's weights. timm evaluates them with counted padding, to 77.866 % of ImageNet, and so do we. The hub's
        # sha256 of the file is checked, but the branch is not pinned to a commit.
        "imagenet": PublishedWeights(HubFile("timm/inception_v3.tf_in1k", "model.safetensors", "main"), _IMAGENET),
        # GantMan/nsfw_model, MIT licence: a fine-tuned Keras network with weights of 8 bits. It takes colours in 0..1.
        "nsfwjs": PublishedWeights(
            NpmFile(
                package="nsfwjs",
                version="4.4.0",
                sha256="585cd178f3b994337c4d10a87b080d342fc52f8b9bf0085c4d1f345a3a1c5382",
            ),
            Preprocessing(
                crop_pct=1.0, crop_mode="squash", interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
            ),
            labels=("Drawing", "Hentai", "Neutral", "Porn", "Sexy"),
            options={"count_include_pad": False},
            read=_read_nsfwjs,
        ),
    },
)
