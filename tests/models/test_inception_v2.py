"""BN-Inception is that of pytorchcv, with and without squeeze-and-excitation."""

from __future__ import annotations

import pytest
import torch
from pytorchcv.models.bninception import bninception
from pytorchcv.models.common import SEBlock
from torch import Tensor, nn

from models import create_model, find_spec
from models.weights import LoadedModel, untrained_model
from tests.models.conftest import PhotoBatch
from tests.models.measures import (
    assert_same_live_logits,
    float64_logits,
    in_float64,
    macs,
    output_shapes,
    parameter_count,
    with_weights_of,
)

BLOCKS = [f"inception_{name}" for name in ["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]]


@pytest.fixture(scope="module")
def images(photo_batch: PhotoBatch) -> Tensor:
    return photo_batch(224)[:3] * 127.5


@pytest.fixture(scope="module")
def live(images: Tensor) -> LoadedModel:
    return untrained_model("inception_v2", images)


def test_it_equals_pytorchcv(live: LoadedModel, images: Tensor) -> None:
    reference = with_weights_of(live, bninception())
    assert_same_live_logits(float64_logits(in_float64(live), images), float64_logits(reference, images))


def test_with_squeeze_and_excitation_it_equals_pytorchcv_with_its_own(images: Tensor) -> None:
    live = untrained_model("se_inception_v2", images)
    reference = bninception()
    for unit in reference.modules():
        if isinstance(unit, nn.Conv2d) and unit is not reference.output:
            unit.bias = None
    channels = iter((256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024))
    for stage in (reference.features.stage1, reference.features.stage2, reference.features.stage3):
        for name, unit in list(stage.named_children()):
            setattr(stage, name, nn.Sequential(unit, SEBlock(next(channels))))
    reference = with_weights_of(live, reference)
    assert_same_live_logits(float64_logits(in_float64(live), images), float64_logits(reference, images))


def test_counts_and_shapes(live: LoadedModel, images: Tensor) -> None:
    assert parameter_count(live.model) == 11_295_240
    with torch.device("meta"):
        assert parameter_count(create_model("inception_v2", bias=False)) == 11_285_224
        assert parameter_count(create_model("se_inception_v2")) == 11_931_622
        assert macs(create_model("inception_v2"), 224) == pytest.approx(2.033e9, rel=0.01)
        assert macs(create_model("se_inception_v2"), 224) == pytest.approx(2.033e9, rel=0.01)
    assert output_shapes(live.model, ["conv1", "pool1", "conv3", "pool2", *BLOCKS], images[:1]) == [
        *[(64, 112), (64, 56), (192, 56), (192, 28), (256, 28), (320, 28), (576, 14), (576, 14)],
        *[(576, 14), (608, 14), (608, 14), (1056, 7), (1024, 7), (1024, 7)],
    ]


def cadene_keys() -> list[str]:
    """Return the keys of Cadene's file, written from a description of it."""
    branches = ["1x1", "3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2", "pool_proj"]
    layers = ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]
    for block in BLOCKS:
        kept = [name for name in branches if block[-2:] not in ("3c", "4e") or name not in ("1x1", "pool_proj")]
        layers += [f"{block}_{name}" for name in kept]
    tensors = [".weight", ".bias", "_bn.weight", "_bn.bias", "_bn.running_mean", "_bn.running_var"]
    return [f"{layer}{tensor}" for layer in layers for tensor in tensors] + ["last_linear.weight", "last_linear.bias"]


def test_cadene_s_keys_are_translated(live: LoadedModel) -> None:
    """Two convolutions of a block may have the same shape, so each tensor must arrive at its own place."""
    ours = live.model.state_dict()
    expected = {key: value for key, value in ours.items() if not key.endswith("num_batches_tracked")}
    adapt = find_spec("inception_v2").adapt
    adapted, options = adapt(dict(zip(cadene_keys(), expected.values(), strict=True)))
    assert options == {}
    assert [(key, id(value)) for key, value in adapted.items()] == [(k, id(value)) for k, value in expected.items()]
    assert list(adapt(ours)[0]) == list(ours)
