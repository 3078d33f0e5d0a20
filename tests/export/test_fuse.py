from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from export.fuse import (
    fold_batch_norm,
    fold_normalisation,
    fold_scale,
    fuse,
    move_pool_after_projection,
    pad_channels,
    subsample_before_projection,
    trace_layers,
)
from models import create_model
from models.layers import ScaledResidual
from models.spec import Preprocessing
from models.weights import LoadedModel

IMAGENET_STATISTICS = Preprocessing(crop_pct=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="session", params=["trained_xception", "live_inception_v4"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    found: LoadedModel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def pixels(squashed: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(squashed[[0, 2], ::2, ::2].copy())  # a plate and a knife, at half size for speed


def normalised(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The networks' input in float64. ``export.photos.normalise`` makes the same in float32."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (preprocessing.mean, preprocessing.std))
    return ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2)


def run(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network(images)
    return logits


@pytest.fixture(scope="session")
def expected(loaded: LoadedModel, pixels: Tensor) -> Tensor:
    """The float64 logits of the network before any rewrite. They differ between the two images."""
    logits = run(copy.deepcopy(loaded.model).double(), normalised(pixels, loaded.preprocessing))
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    return logits


def assert_same(found: Tensor, expected: Tensor) -> None:
    """The largest difference is less than 1e-9 of the difference between the two images."""
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < 1e-9 * (expected[0] - expected[1]).abs().max()


def count(graph: fx.GraphModule, kind: type[nn.Module]) -> int:
    return sum(isinstance(graph.get_submodule(str(node.target)), kind) for node in layers(graph))


def layers(graph: fx.GraphModule) -> list[fx.Node]:
    return graph.graph.find_nodes(op="call_module")


def test_fold_batch_norm(loaded: LoadedModel, pixels: Tensor, expected: Tensor) -> None:
    graph = trace_layers(loaded.model)
    convolutions = count(graph, nn.Conv2d)
    assert count(graph, nn.BatchNorm2d) == {"xception": 40, "inception_v4": 149}[loaded.spec.name]
    fold_batch_norm(graph)
    assert count(graph, nn.BatchNorm2d) == 0
    assert count(graph, nn.Conv2d) == convolutions
    assert_same(run(graph, normalised(pixels, loaded.preprocessing)), expected)


def test_fold_batch_norm_leaves_a_convolution_with_another_reader() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            normed: Tensor = self.norm(y)
            return y + normed

    graph = trace_layers(Both())
    fold_batch_norm(graph)
    assert count(graph, nn.BatchNorm2d) == 1


def test_fold_batch_norm_into_a_linear_layer() -> None:
    norm = nn.BatchNorm1d(4, eps=1e-3)
    for value in list(norm.state_dict().values())[:4]:
        nn.init.uniform_(value, 0.5, 1.5)
    graph = trace_layers(nn.Sequential(nn.Linear(8, 4, bias=False), norm))
    images = torch.randn(2, 8, dtype=torch.float64)
    expected = run(graph, images)
    fold_batch_norm(graph)
    assert [type(graph.get_submodule(str(node.target))) for node in layers(graph)] == [nn.Linear]
    assert_same(run(graph, images), expected)


def products(graph: fx.GraphModule) -> int:
    return len(graph.graph.find_nodes(op="call_function", target=operator.mul))


def test_fold_scale_finds_every_scaled_residual() -> None:
    with torch.device("meta"):
        graph = trace_layers(create_model("inception_resnet_v1"))
    assert products(graph) == 21
    fold_scale(graph)
    assert products(graph) == 0


class _Scaled(nn.Module):
    def __init__(self, layer: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_fold_scale(bias: bool) -> None:
    graph = trace_layers(ScaledResidual(nn.Conv2d(3, 4, 1), projection=nn.Conv2d(4, 3, 1, bias=bias), scale=0.17))
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    expected = run(graph, images)
    fold_scale(graph)
    assert products(graph) == 0
    assert_same(run(graph, images), expected)


@pytest.mark.parametrize(
    ("layer", "scale"),
    [
        (nn.ReLU(), lambda y: y * 0.5),
        (nn.Conv2d(3, 4, 1), lambda y: y * 0.5 + y),  # the unscaled output is read, too
        (nn.Conv2d(3, 4, 1), lambda y: y * y),
        (nn.Conv2d(3, 4, 1), lambda y: y * y.mean()),
    ],
    ids=["no convolution", "another reader", "square", "not a constant"],
)
def test_fold_scale_leaves_others(layer: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
    graph = trace_layers(_Scaled(layer, scale))
    before = graph.code
    fold_scale(graph)
    assert graph.code == before


def test_fold_normalisation(loaded: LoadedModel, pixels: Tensor, expected: Tensor) -> None:
    graph = trace_layers(loaded.model)
    fold_normalisation(graph, loaded.preprocessing)
    assert pixels.dtype == torch.uint8
    assert_same(run(graph, pixels), expected)


def test_fold_normalisation_of_unequal_channels(pixels: Tensor) -> None:
    """Most networks of the catalogue have the same mean and std for all channels, and no first bias."""
    graph = trace_layers(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=True)))
    expected = run(graph, normalised(pixels, IMAGENET_STATISTICS))
    fold_normalisation(graph, IMAGENET_STATISTICS)
    assert_same(run(graph, pixels), expected)


@pytest.mark.parametrize("padding", [0, 3])
def test_fold_normalisation_of_blue_green_red_before_padding(pixels: Tensor, padding: int) -> None:
    caffe = replace(IMAGENET_STATISTICS, std=(1 / 255, 1 / 255, 1 / 255), channel_order="bgr")
    graph = trace_layers(nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=padding)))
    expected = run(graph, normalised(pixels, caffe).flip(1))
    fold_normalisation(graph, caffe)
    assert_same(run(graph, pixels), expected)
    assert len(graph.graph.find_nodes(op="call_function", target=operator.sub)) == (padding > 0)


def test_nothing_is_subtracted_before_padding_for_a_mean_of_zero(pixels: Tensor) -> None:
    bytes_over_255 = replace(IMAGENET_STATISTICS, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    graph = trace_layers(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)))
    expected = run(graph, normalised(pixels, bytes_over_255))
    fold_normalisation(graph, bytes_over_255)
    assert_same(run(graph, pixels), expected)
    assert not graph.graph.find_nodes(op="call_function", target=operator.sub)


@pytest.mark.parametrize("first", [nn.Conv2d(3, 3, 3, groups=3), nn.ReLU()], ids=["groups", "none"])
def test_fold_normalisation_refuses_what_would_not_be_exact(first: nn.Module) -> None:
    with pytest.raises(ValueError, match="without groups"):
        fold_normalisation(trace_layers(nn.Sequential(first)), IMAGENET_STATISTICS)


def test_move_pool_after_projection(live_inception_v4: LoadedModel, pixels: Tensor) -> None:
    def pools_first(graph: fx.GraphModule) -> list[bool]:
        kinds = [type(graph.get_submodule(str(node.target))) for node in layers(graph)]
        return [after is nn.Conv2d for kind, after in itertools.pairwise(kinds) if kind is nn.AvgPool2d]

    graph = trace_layers(live_inception_v4.model)
    images = normalised(pixels, live_inception_v4.preprocessing)
    expected = run(graph, images)
    assert pools_first(graph) == [True] * 14
    move_pool_after_projection(graph)
    assert pools_first(graph) == [False] * 14
    assert_same(run(graph, images), expected)


@pytest.mark.parametrize(
    ("pool", "conv"),
    [
        (nn.AvgPool2d(3, 1, 1), nn.Conv2d(8, 4, 1)),  # padding counts, so border weights don't sum to 1
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False, divisor_override=2), nn.Conv2d(8, 4, 1)),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(8, 4, 3)),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(8, 4, 1, padding=1)),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(8, 4, 1, stride=2)),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(8, 4, 1)),  # exact, but four times the products
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(8, 16, 1)),  # exact, but twice the averages
    ],
)
def test_move_pool_after_projection_leaves_others(pool: nn.Module, conv: nn.Module) -> None:
    graph = trace_layers(nn.Sequential(pool, conv))
    before = graph.code
    move_pool_after_projection(graph)
    assert graph.code == before


def test_fuse_applies_all_and_leaves_the_original_alone(trained_xception: LoadedModel, pixels: Tensor) -> None:
    state = {key: value.clone() for key, value in trained_xception.model.state_dict().items()}
    network = fuse(trained_xception.model, trained_xception.preprocessing)
    assert count(network, nn.BatchNorm2d) == 0
    logits = run(network, pixels)
    expected = run(trained_xception.model, normalised(pixels, trained_xception.preprocessing).float())
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 1e-4 * (expected[0] - expected[1]).abs().max()
    assert all(torch.equal(value, state[key]) for key, value in trained_xception.model.state_dict().items())


def test_pad_channels(trained_xception: LoadedModel, pixels: Tensor) -> None:
    graph = trace_layers(trained_xception.model)
    fold_batch_norm(graph)
    images = normalised(pixels, trained_xception.preprocessing)
    expected = run(graph, images)
    pad_channels(graph, 16)
    convs = [module for module in graph.modules() if isinstance(module, nn.Conv2d)]
    assert {conv.out_channels for conv in convs} == {32, 64, 128, 256, 736, 1024, 1536, 2048}
    assert all(conv.weight.shape[:2] == (conv.out_channels, conv.in_channels // conv.groups) for conv in convs)
    assert_same(run(graph, images), expected)


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 16, 1), nn.Conv2d(21, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat([self.left(x), self.right(x)], 1))
        return y


def test_pad_channels_leaves_others(live_inception_v4: LoadedModel) -> None:
    """Channels that fill whole blocks, concatenated channels, and the classifier's channels stay as they are."""
    for network in (live_inception_v4.model, _Branches(), nn.Sequential(nn.Conv2d(3, 5, 1))):
        graph = trace_layers(network)
        before = {name: tuple(weight.shape) for name, weight in graph.state_dict().items()}
        pad_channels(graph, 16)
        assert {name: tuple(weight.shape) for name, weight in graph.state_dict().items()} == before


def test_subsample_before_projection(trained_xception: LoadedModel, pixels: Tensor) -> None:
    graph = trace_layers(trained_xception.model)
    images = normalised(pixels, trained_xception.preprocessing)
    expected = run(graph, images)
    subsample_before_projection(graph)
    pools = [module for module in graph.modules() if isinstance(module, nn.MaxPool2d) and module.kernel_size == 1]
    assert [pool.stride for pool in pools] == [(2, 2)] * 4
    assert [module.stride for module in graph.modules() if isinstance(module, nn.Conv2d)].count((2, 2)) == 1
    assert_same(run(graph, images), expected)


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 1, 2, padding=1)])
def test_subsample_before_projection_leaves_others(conv: nn.Module) -> None:
    graph = trace_layers(nn.Sequential(conv))
    before = graph.code
    subsample_before_projection(graph)
    assert graph.code == before
