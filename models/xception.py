"""Xception: a linear stack of depthwise separable convolutions with residuals.

F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, arXiv:1610.02357.
State-dict keys are those of timm's ``legacy_xception`` and of Cadene's port.

Two families of published weights differ in two details, which are therefore options. The port by Cadene and
timm uses BatchNorm eps 1e-5 and symmetric max-pool padding. Keras uses eps 1e-3 and TensorFlow's 'same' padding,
which for 299x299 images pads the 74 -> 37 pool on the right and bottom only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from models.kitchenware import KITCHENWARE
from models.layers import Activation, SameMaxPool2d, SeparableConv2d, dense_layers, hidden_widths
from models.spec import KerasConventions, ModelSpec, Preprocessing, PublishedWeights, ReleaseFile, State, WheelFile

Padding = Literal["torch", "tf_same"]


def _max_pool(padding: Padding, stride: int, dilation: int) -> nn.Module:
    if padding not in ("torch", "tf_same"):
        raise ValueError(f"padding must be 'torch' or 'tf_same', not {padding!r}")
    if stride == 1:
        # With dilation 1 or 2, the only ones here, a pixel mirrored into the border lies in the window already, so the
        # maximum ignores the border. The pool's own padding would too, but torch allows 1 of it for any dilation.
        return nn.Sequential(nn.ReflectionPad2d(dilation), nn.MaxPool2d(3, stride=1, dilation=dilation))
    return SameMaxPool2d() if padding == "tf_same" else nn.MaxPool2d(3, stride=2, padding=1)


class Block(nn.Module):
    """Separable convolutions with BatchNorm, and a residual connection around them (figure 5 of the paper).

    A block that adds channels ends in a max pool. ``separable`` are options of ``SeparableConv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        reps: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        start_with_relu: bool = True,
        grow_first: bool = True,
        residual: bool,
        padding: Padding,
        bn_eps: float,
        **separable: Any,
    ) -> None:
        super().__init__()
        grows = out_channels != in_channels
        self.residual = residual
        self.skip: nn.Module = nn.Identity()
        self.skipbn: nn.Module = nn.Identity()
        if residual and grows:
            self.skip = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.skipbn = nn.BatchNorm2d(out_channels, eps=bn_eps)

        layers: list[nn.Module] = []
        for i in range(reps):
            # The exit flow's block adds channels in its last convolution, every other block in its first.
            last = i == reps - 1
            inputs = in_channels if i == 0 or not grow_first else out_channels
            outputs = out_channels if grow_first or last else in_channels
            if i > 0 or start_with_relu:
                # The ReLU does not work in place, because the residual reads the first ReLU's input too.
                layers.append(nn.ReLU())
            layers.append(SeparableConv2d(inputs, outputs, dilation=dilation, **separable))
            layers.append(nn.BatchNorm2d(outputs, eps=bn_eps))
        if grows:
            layers.append(_max_pool(padding, stride, dilation))
        self.rep = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, in_channels, s, s]`` to ``[n, out_channels, ceil(s / stride), ceil(s / stride)]``."""
        out: Tensor = self.rep(x)
        return out + self.skipbn(self.skip(x)) if self.residual else out


class Xception(nn.Module):
    """Xception. Maps floats in -1..1, ``[n, 3, 299, 299]``, to logits ``[n, num_classes]``.

    ``padding`` and ``bn_eps`` select the family of weights (see the module's docstring). ``hidden_units`` are the
    widths of dense layers with ReLU between the pooled features and the classifier, and ``dropout`` is the share of
    the classifier's inputs that training sets to zero. Square inputs of at least 71 pixels a side work too.

    The paper varies ``hidden_units`` (section 4.5: none, or 4,096 twice), ``residual`` (4.6) and the activation between
    a depthwise and a pointwise convolution (4.7). It finds that residuals are needed and that no activation is best.
    ``depth_multiplier`` is the number of depthwise filters for each channel.

    For dense prediction, ``output_stride`` 16 or 8 keeps the features at a higher resolution: the last one or two
    strides become 1, and later taps move apart by as much (L.-C. Chen et al., arXiv:1706.05587, section 3.1). At the
    pixels that the strided network keeps, the features stay the same with ``padding="torch"``. ``deformable``
    lets the depthwise taps of the exit flow move (see ``models.deform_conv``).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        padding: Padding = "torch",
        bn_eps: float = 1e-5,
        hidden_units: Sequence[int] = (),
        dropout: float = 0.0,
        residual: bool = True,
        intermediate_activation: Activation = "none",
        depth_multiplier: int = 1,
        output_stride: Literal[32, 16, 8] = 32,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (32, 16, 8):
            raise ValueError(f"output_stride must be 32, 16 or 8, not {output_stride!r}")
        middle, last = 16 // min(output_stride, 16), 32 // output_stride  # dilations: of blocks 4 to 12, and after them
        separable = partial(SeparableConv2d, multiplier=depth_multiplier, activation=intermediate_activation)
        block: Callable[..., Block] = partial(
            Block, residual=residual, padding=padding, bn_eps=bn_eps, **separable.keywords
        )

        # Entry flow                                                       [n,    3, 299, 299]
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, bias=False)           # [n,   32, 149, 149]
        self.bn1 = nn.BatchNorm2d(32, eps=bn_eps)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)                    # [n,   64, 147, 147]
        self.bn2 = nn.BatchNorm2d(64, eps=bn_eps)
        self.block1 = block(64, 128, 2, stride=2, start_with_relu=False) # [n,  128,  74,  74]
        self.block2 = block(128, 256, 2, stride=2)                       # [n,  256,  37,  37]
        self.block3 = block(256, 728, 2, stride=2 // middle)             # [n,  728,  19,  19]
        # Middle flow
        self.block4 = block(728, 728, 3, dilation=middle)
        self.block5 = block(728, 728, 3, dilation=middle)
        self.block6 = block(728, 728, 3, dilation=middle)
        self.block7 = block(728, 728, 3, dilation=middle)
        self.block8 = block(728, 728, 3, dilation=middle)
        self.block9 = block(728, 728, 3, dilation=middle)
        self.block10 = block(728, 728, 3, dilation=middle)
        self.block11 = block(728, 728, 3, dilation=middle)
        # Exit flow                                                        [n, 1024,  10,  10]
        self.block12 = block(
            728, 1024, 2, stride=2 * middle // last, dilation=middle, grow_first=False, deformable=deformable
        )
        self.conv3 = separable(1024, 1536, dilation=last, deformable=deformable)
        self.bn3 = nn.BatchNorm2d(1536, eps=bn_eps)                      # [n, 1536,  10,  10]
        self.conv4 = separable(1536, 2048, dilation=last, deformable=deformable)
        self.bn4 = nn.BatchNorm2d(2048, eps=bn_eps)                      # [n, 2048,  10,  10]
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = dense_layers(2048, hidden_units)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear([2048, *hidden_units][-1], num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to ``[n, 2048, t, t]``: t is s / ``output_stride``, give or take 1."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.block3(self.block2(self.block1(x)))
        x = self.block7(self.block6(self.block5(self.block4(x))))
        x = self.block11(self.block10(self.block9(self.block8(x))))
        x = self.block12(x)
        x = self.relu(self.bn3(self.conv3(x)))
        out: Tensor = self.relu(self.bn4(self.conv4(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``[n, 3, s, s]`` to logits ``[n, num_classes]``."""
        x = self.pool(self.features(x)).flatten(1)  # [n, 2048]
        logits: Tensor = self.fc(self.dropout(self.hidden(x)))
        return logits


def _adapt(state: State) -> tuple[State, dict[str, Any]]:
    # Cadene's models call the head last_linear in memory, and fc in their files.
    state = {key.replace("last_linear.", "fc."): value for key, value in state.items()}
    return state, {"hidden_units": hidden_widths(state)}


# timm's configuration of the same file gives the crop fraction.
_IMAGENET = Preprocessing(crop_pct=0.8975)

SPEC = ModelSpec(
    name="xception",
    build=Xception,
    head="fc",
    preprocessing=_IMAGENET,
    adapt=_adapt,
    keras=KerasConventions(
        options={"padding": "tf_same", "bn_eps": 1e-3},
        layers={
            "Add": {},
            "SeparableConv2D": {"strides": [1, 1], "padding": "same", "dilation_rate": [1, 1]},
            "MaxPooling2D": {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"},
        },
    ),
    weights={
        "imagenet": PublishedWeights(
            ReleaseFile(
                "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
                sha256_prefix="43020ad28",
            ),
            _IMAGENET,
        ),
        # This network was trained on whole photos squashed to a square, with Keras' BatchNorm and padding.
        "kitchenware": PublishedWeights(
            KITCHENWARE,
            Preprocessing(crop_pct=1.0, crop_mode="squash"),
            labels=("cup", "fork", "glass", "knife", "plate", "spoon"),
            options={"padding": "tf_same", "bn_eps": 1e-3, "hidden_units": [100]},
        ),
        # A test fixture, no diagnosis: 13 of the package's 16 X-rays are named right. The package states no licence.
        "pneumonia": PublishedWeights(
            WheelFile(
                distribution="pneumonia-model-package",
                version="0.3.0",
                sha256="4bb1ee80366db5de818c7255e62878871b8ec545681193f429e2575b791d3536",
                member="pneumonia_model_package/trained_models/pneumonia_xception_model_val-acc_0.861.keras",
                member_sha256="d7997cd1923f4d13538f02d64b6d5925e2f87a2a2db8036c074f795c41439e26",
            ),
            Preprocessing(crop_pct=1.0, crop_mode="squash", interpolation="nearest", input_size=150),
            labels=("NORMAL", "PNEUMONIA"),
            options={"padding": "tf_same", "bn_eps": 1e-3, "hidden_units": [128]},
        ),
    },
)
