from __future__ import annotations

import dataclasses

import pytest
from torch import Tensor, nn

from bench import rewrites
from export.photos import labelled_photos
from export.pipeline import load
from models.weights import LoadedModel
from service.errors import DeviceUnavailable, StartupError
from service.inference.devices import openvino
from service.settings import Settings


@pytest.fixture(scope="module")
def small() -> LoadedModel:
    """A network of a few layers that every rewrite changes."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Conv2d(8, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    loaded = load("inception_v4", "untrained", labelled_photos(), None)
    return dataclasses.replace(
        loaded, model=network, preprocessing=dataclasses.replace(loaded.preprocessing, input_size=16)
    )


class Halved(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        half: Tensor = self.layer(x) * 0.5
        return half


def devices() -> list[str]:
    """Return the devices on which the service can run models on this machine."""
    try:
        openvino.supported_cpu()
    except DeviceUnavailable:
        return ["cpu"]
    return ["cpu", "openvino"]


def test_each_rewrite_is_measured(small: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrites, "load", lambda *_: small)
    monkeypatch.setattr(rewrites, "DEVICES", devices())
    report = rewrites.measure("inception_v4", Settings(), quick=True)
    changes = ["fold_batch_norm", "fold_normalisation", "move_pool_after_projection"]
    assert {name: list(gains) for name, gains in report.figures.items()} == {
        f"{device}_batch_{size}": changes for device in devices() for size in (1, 8)
    }
    for gains in report.figures.values():
        assert [gain["layers"] for gain in gains.values()] == [(6, 5), (5, 5), (5, 5)]
        before, after = gains["fold_normalisation"]["nodes"]
        assert before - after == 3  # two divisions and a subtraction
        for gain in gains.values():
            low, ratio, high = gain["ratio"]
            assert 0 < low <= ratio <= high
            assert min(gain["images_per_s"]) > 0
    assert "move_pool_after_projection" in report.text()


def test_a_rewrite_that_changes_nothing_is_left_out(small: LoadedModel) -> None:
    layers = [layer for layer in small.model.children() if not isinstance(layer, nn.AvgPool2d)]
    pooled_once = dataclasses.replace(small, model=nn.Sequential(*layers))
    assert [name for name, _, _ in rewrites._steps(pooled_once)] == ["unfused", "fold_batch_norm", "fold_normalisation"]


def test_what_only_int8_gains_from_is_measured_in_int8(small: LoadedModel) -> None:
    layers = [
        nn.Conv2d(3, 8, 3),
        Halved(nn.Conv2d(8, 8, 3)),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    network = dataclasses.replace(small, model=nn.Sequential(*layers, nn.Linear(16, 2)))
    (_, before, _), *steps = rewrites._int8_steps(network)
    assert [(rewrite, layers - before) for rewrite, layers, _ in steps] == [
        ("fold_scale, in int8", 0),
        ("pad_channels, in int8", 0),
        ("subsample_before_projection, in int8", 1),
    ]


def test_int8_is_measured_too(small: LoadedModel) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    photos = [photo.data for photo in labelled_photos()]
    found = rewrites.gains(dataclasses.replace(small, model=network), photos, Settings(), quick=True)
    for size in (1, 8):
        before, after = found[f"cpu_batch_{size}"]["pad_channels, in int8"]["nodes"]
        assert before == after


def test_an_unknown_model() -> None:
    with pytest.raises(StartupError, match="unknown model 'vgg'"):
        rewrites.measure("vgg", Settings())
