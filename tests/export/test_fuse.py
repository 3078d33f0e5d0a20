from __future__ import annotations

import itertools
import operator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from export.fuse import (
    fold_batch_norm,
    fold_normalisation,
    fuse,
    move_pool_after_projection,
    trace_layers,
)
from models.spec import Preprocessing
from models.weights import LoadedModel
from tests.export.graphs import assert_same, count, layers, normalised, run

IMAGENET_STATISTICS = Preprocessing(crop_pct=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


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
