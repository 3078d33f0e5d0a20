from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import NETWORKS, create_model, find_spec
from models.layers import SameMaxPool2d
from models.weights import LoadedModel
from tests.models.measures import macs, output_shapes, parameter_count

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_xception_has_the_paper_s_parameter_count() -> None:
    assert parameter_count(create_model("xception")) == 22_855_952


@pytest.mark.parametrize(("name", "expected"), [("xception", 8.357e9), ("inception_v4", 12.254e9)])
def test_multiplications(name: str, expected: float) -> None:
    with torch.device("meta"):
        assert macs(create_model(name), 299) == pytest.approx(expected, rel=0.01)


def test_inception_v4_has_the_published_parameter_count() -> None:
    assert parameter_count(create_model("inception_v4")) == 42_679_816


def xception_keys() -> Iterator[str]:
    """Yield the keys of timm's legacy_xception, written from a description of its files."""
    for stem in ("1", "2"):
        yield f"conv{stem}.weight"
        yield from (f"bn{stem}.{key}" for key in BATCH_NORM)
    separables = {1: (0, 3), 2: (1, 4), 3: (1, 4), **dict.fromkeys(range(4, 12), (1, 4, 7)), 12: (1, 4)}
    for block, positions in separables.items():
        if block in (1, 2, 3, 12):
            yield f"block{block}.skip.weight"
            yield from (f"block{block}.skipbn.{key}" for key in BATCH_NORM)
        for position in positions:
            yield f"block{block}.rep.{position}.conv1.weight"
            yield f"block{block}.rep.{position}.pointwise.weight"
            yield from (f"block{block}.rep.{position + 1}.{key}" for key in BATCH_NORM)
    for exit_ in ("3", "4"):
        yield f"conv{exit_}.conv1.weight"
        yield f"conv{exit_}.pointwise.weight"
        yield from (f"bn{exit_}.{key}" for key in BATCH_NORM)
    yield from ("fc.weight", "fc.bias")


def inception_v4_keys() -> Iterator[str]:
    """Yield the keys of timm's inception_v4, written from a description of its files."""
    mixed_4a = "branch0.0 branch0.1 branch1.0 branch1.1 branch1.2 branch1.3"
    block_a = "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 branch3.1"
    reduction_a = "branch0 branch1.0 branch1.1 branch1.2"
    block_b = "branch0 branch1.0 branch1.1 branch1.2 branch2.0 branch2.1 branch2.2 branch2.3 branch2.4 branch3.1"
    reduction_b = "branch0.0 branch0.1 branch1.0 branch1.1 branch1.2 branch1.3"
    block_c = "branch0 branch1_0 branch1_1a branch1_1b branch2_0 branch2_1 branch2_2 branch2_3a branch2_3b branch3.1"
    features = ["", "", "", "conv", mixed_4a, "conv"]
    features += [block_a] * 4 + [reduction_a] + [block_b] * 7 + [reduction_b] + [block_c] * 3
    for number, names in enumerate(features):
        for name in names.split(" "):
            unit = f"features.{number}.{name}".rstrip(".")
            yield f"{unit}.conv.weight"
            yield from (f"{unit}.bn.{key}" for key in BATCH_NORM)
    yield from ("last_linear.weight", "last_linear.bias")


def test_state_dict_keys_are_timm_s() -> None:
    assert list(create_model("xception").state_dict()) == list(xception_keys())
    assert list(create_model("inception_v4").state_dict()) == list(inception_v4_keys())


def test_xception_stage_shapes(live_xception: LoadedModel, images: Tensor) -> None:
    stages = ["conv1", "conv2", *(f"block{i}" for i in range(1, 13)), "conv3", "conv4"]
    assert output_shapes(live_xception.model, stages, images[:1]) == [
        (32, 149),
        (64, 147),
        (128, 74),
        (256, 37),
        *[(728, 19)] * 9,
        (1024, 10),
        (1536, 10),
        (2048, 10),
    ]


def test_inception_v4_stage_shapes(live_inception_v4: LoadedModel, images: Tensor) -> None:
    stages = [f"features.{i}" for i in range(22)]
    assert output_shapes(live_inception_v4.model, stages, images[:1]) == [
        (32, 149),
        (32, 147),
        (64, 147),
        (160, 73),
        (192, 71),
        (384, 35),
        *[(384, 35)] * 4,
        *[(1024, 17)] * 8,
        *[(1536, 8)] * 4,
    ]


@pytest.mark.parametrize("side", [5, 6, 37, 74])
def test_same_max_pool_pads_as_tensorflow_does(side: int) -> None:
    x = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(side)) - 10  # a zero border would win
    total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
    before, after = total // 2, total - total // 2
    expected = F.max_pool2d(F.pad(x, (before, after, before, after), value=float("-inf")), 3, stride=2)
    assert torch.equal(SameMaxPool2d()(x), expected)


def test_same_max_pool_refuses_sides_of_different_parity() -> None:
    with pytest.raises(ValueError, match="not 6x5"):
        SameMaxPool2d()(torch.zeros(1, 1, 6, 5))


def test_padding_and_epsilon_change_what_xception_computes(live_xception: LoadedModel, images: Tensor) -> None:
    def logits(**options: Any) -> Tensor:
        model = create_model("xception", **options).eval()
        model.load_state_dict(live_xception.model.state_dict())
        with torch.no_grad():
            out: Tensor = model(images[:1])
        return out

    published = logits()
    assert (logits(padding="tf_same") - published).abs().max() > 1e-3
    assert (logits(bn_eps=1e-3) - published).abs().max() > 1e-3


def test_wrong_names_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=f"unknown model 'vgg'; choose from {', '.join(NETWORKS)}"):
        create_model("vgg")
    with pytest.raises(ValueError, match="'torch' or 'tf_same', not 'valid'"):
        create_model("xception", padding="valid")
    with pytest.raises(TypeError, match="hidden_units"):
        create_model("inception_v4", hidden_units=[10])


def test_every_spec_is_listed_under_its_name() -> None:
    assert all(find_spec(name).name == name for name in NETWORKS)
