"""Xception's variants: the paper's ablations, dilation, deformable convolutions."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from pytorchcv.models.xception import DwsConv, XceptionUnit, xception
from torch import Tensor, nn

from models import create_model
from models.layers import Activation, SeparableConv2d
from models.xception import Xception

pytestmark = pytest.mark.usefixtures("one_thread")

SEPARABLES = [
    *[(64, 128), (128, 128), (128, 256), (256, 256), (256, 728), (728, 728)],
    *[(728, 728)] * 24,
    *[(728, 728), (728, 1024), (1024, 1536), (1536, 2048)],
]
PUBLISHED = 22_855_952


@pytest.fixture(scope="module")
def small() -> Tensor:
    """Two images of noise, float64 ``[2, 3, 75, 75]``."""
    return torch.rand(2, 3, 75, 75, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def live(images: Tensor, **options: Any) -> nn.Module:
    """A float64 network whose BatchNorms have random scales and shifts, and the statistics of ``images``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("xception", num_classes=10, **options).double()
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.2)
            norm.momentum = None  # the statistics of the one batch
        with torch.no_grad():
            model(images)
    return model.eval()


@pytest.fixture(scope="module")
def plain(small: Tensor) -> nn.Module:
    return live(small)


def with_weights_of(model: nn.Module, **options: Any) -> nn.Module:
    other = create_model("xception", num_classes=10, **options).double().eval()
    other.load_state_dict(model.state_dict(), strict=True)
    return other


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> Tensor:
    assert isinstance(model, Xception)
    return model.features(images)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({}, 0),
        # Section 4.5 of the paper, with two hidden layers of 4,096 units.
        (
            {"hidden_units": [4096, 4096]},
            (2048 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000) - (2048 * 1000 + 1000),
        ),
        # Projections and BatchNorms of four blocks.
        ({"residual": False}, -sum(i * o + 2 * o for i, o in [(64, 128), (128, 256), (256, 728), (728, 1024)])),
        ({"intermediate_activation": "elu", "dropout": 0.5, "output_stride": 8}, 0),
        ({"depth_multiplier": 3}, 2 * sum(9 * i + i * o for i, o in SEPARABLES)),
        ({"deformable": True}, sum(18 * i * 9 + 18 for i, _ in SEPARABLES[-4:])),
    ],
)
def test_parameter_counts(options: dict[str, Any], added: int) -> None:
    with torch.device("meta"):
        model = create_model("xception", **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED + added


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize(("dilation", "activation"), [(1, "none"), (2, "relu"), (4, "elu")])
def test_separable_convolution_equals_keras(
    keras: ModuleType, multiplier: int, dilation: int, activation: Activation
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 13, 11, dtype=torch.float64)
    ours = SeparableConv2d(5, 7, multiplier=multiplier, dilation=dilation, activation=activation).double()
    common = {"use_bias": False, "dtype": "float64"}
    depthwise = keras.layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=multiplier, dilation_rate=dilation, **common
    )
    between = keras.layers.Activation("linear" if activation == "none" else activation, dtype="float64")
    pointwise = keras.layers.Conv2D(7, 1, **common)
    reference = keras.Sequential([keras.Input((13, 11, 5), dtype="float64"), depthwise, between, pointwise])
    kernel = ours.conv1.weight.detach().view(5, multiplier, 3, 3).permute(2, 3, 0, 1)
    depthwise.set_weights([kernel.numpy()])
    pointwise.set_weights([ours.pointwise.weight.detach().permute(2, 3, 1, 0).numpy()])

    with torch.no_grad():
        theirs = reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert relative_difference(ours(x), theirs) <= 1e-12


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_ablations_equal_pytorchcv_s_xception_without_its_shortcuts(small: Tensor, activation: Activation) -> None:
    ours = live(small, residual=False, intermediate_activation=activation)
    reference = xception(num_classes=10).double().eval()
    reference.features.final_block.pool = nn.AdaptiveAvgPool2d(1)  # its own is for 299 pixels
    for module in list(reference.modules()):
        if isinstance(module, XceptionUnit):
            module.forward = module.body.forward
            if module.resize_identity:
                del module.identity_conv
        elif isinstance(module, DwsConv):
            between = nn.ReLU() if activation == "relu" else nn.ELU()
            module.pw_conv = nn.Sequential(between, module.pw_conv)
    weights = dict(zip(reference.state_dict(), ours.state_dict().values(), strict=True))
    reference.load_state_dict(weights, strict=True)

    with torch.no_grad():
        logits = ours(small)
        assert relative_difference(logits, reference(small)) <= 1e-10
    assert (logits[0] - logits[1]).abs().max() >= 1e-2


def test_dropout_acts_in_training_alone(small: Tensor, plain: nn.Module) -> None:
    dropping = with_weights_of(plain, dropout=0.5)
    with torch.no_grad():
        logits = plain(small[:1])
        assert torch.equal(dropping(small[:1]), logits)
        dropping.get_submodule("dropout").train()
        assert not torch.equal(dropping(small[:1]), logits)


@pytest.mark.parametrize(("side", "sides"), [(75, [3, 5, 9]), (88, [3, 6, 11])])
def test_a_smaller_output_stride_adds_pixels_between_those_of_a_larger(
    plain: nn.Module, small: Tensor, side: int, sides: list[int]
) -> None:
    images = nn.functional.interpolate(small[:1], side)
    coarse, middle, fine = (features(with_weights_of(plain, output_stride=s), images) for s in (32, 16, 8))
    assert [maps.shape[-1] for maps in (coarse, middle, fine)] == sides
    assert relative_difference(middle[..., ::2, ::2], coarse) <= 1e-12
    assert relative_difference(fine[..., ::2, ::2], middle) <= 1e-12
    assert torch.equal(features(plain, images), coarse)


def test_with_tensorflow_s_padding_that_holds_where_the_last_pools_read_odd_sides(
    plain: nn.Module, small: Tensor
) -> None:
    coarse, fine = (features(with_weights_of(plain, padding="tf_same", output_stride=s), small[:1]) for s in (32, 8))
    assert relative_difference(fine[..., ::4, ::4], coarse) <= 1e-12


@pytest.mark.parametrize(("output_stride", "side"), [(32, 10), (16, 19), (8, 37)])
def test_side_of_the_features_at_299_pixels(output_stride: int, side: int) -> None:
    with torch.device("meta"):
        model = create_model("xception", output_stride=output_stride, deformable=True)
        assert features(model, torch.zeros(1, 3, 299, 299)).shape == (1, 2048, side, side)


def test_deformable_starts_as_the_plain_network_with_its_weights(small: Tensor, plain: nn.Module) -> None:
    deformable = create_model("xception", num_classes=10, deformable=True).double().eval()
    missing, unexpected = deformable.load_state_dict(plain.state_dict(), strict=False)
    convs = ["block12.rep.1.conv1", "block12.rep.4.conv1", "conv3.conv1", "conv4.conv1"]
    assert missing == [f"{conv}.offset.{key}" for conv in convs for key in ("weight", "bias")]
    assert unexpected == []
    with torch.no_grad():
        expected = plain(small)
        assert relative_difference(deformable(small), expected) <= 1e-10
        deformable.get_parameter("conv3.conv1.offset.bias").fill_(0.5)
        assert relative_difference(deformable(small), expected) >= 1e-3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"output_stride": 4}, "output_stride must be 32, 16 or 8, not 4"),
        ({"intermediate_activation": "gelu"}, "must be 'none', 'relu' or 'elu', not 'gelu'"),
        ({"dropout": 2.0}, "between 0 and 1"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=told):
        create_model("xception", **options)
